"""The result type every part of the toolchain speaks."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest

from jotr_deploy.geometry.camera import camera_from_box, crop_camera, project_px
from jotr_deploy.people import LAYOUT, People, PeopleFit, Person
from jotr_deploy.runtime.detections import Detections


def some(count, seed=0):
    rng = np.random.default_rng(seed)
    return People(**{k: (100 * rng.random((count, *shape))).astype(dtype) for k, (shape, dtype) in LAYOUT.items()})


def arrays(people):
    return {name: getattr(people, name) for name in LAYOUT}


def same(a, b):
    for name, array in arrays(a).items():
        np.testing.assert_array_equal(array, getattr(b, name), err_msg=name)
        assert array.dtype == getattr(b, name).dtype


def test_nobody_keeps_every_rank():
    nobody = People.none()
    assert len(nobody) == 0
    for name, (shape, dtype) in LAYOUT.items():
        assert getattr(nobody, name).shape == (0, *shape)
        assert getattr(nobody, name).dtype == dtype
    assert nobody.vertices_camera_m.shape == (0, 6890, 3)
    assert nobody.joints_camera_m.shape == (0, 30, 3)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None), [0, 1, 2, 3]),
        (slice(2, 2), []),
        ([], []),  # an empty list
        (np.empty(0, np.int64), []),
        ([3, 0, 0], [3, 0, 0]),  # order and repeats are kept
        (np.array([True, False, False, True]), [0, 3]),  # a mask
        ([False, False, True, False], [2]),
        (np.zeros(4, bool), []),
        ([-1], [3]),
    ],
)
def test_indexing_chooses_people(index, rows):
    people = some(4)
    chosen = people[index]
    assert len(chosen) == len(rows)
    for name, array in arrays(people).items():
        np.testing.assert_array_equal(getattr(chosen, name), array[np.array(rows, int)])


@pytest.mark.parametrize("index", [slice(None), [], np.zeros(0, bool)])
def test_indexing_nobody(index):
    same(People.none()[index], People.none())


@pytest.mark.parametrize("counts", [[], [0], [2], [0, 0], [2, 0, 1]])
def test_concatenation_keeps_the_order(counts):
    parts = [some(count, seed) for seed, count in enumerate(counts)]
    whole = People.concatenate(parts)
    assert len(whole) == sum(counts)
    ends = np.cumsum([0, *counts])
    for part, first, last in zip(parts, ends[:-1], ends[1:], strict=True):
        same(whole[int(first) : int(last)], part)


def test_concatenation_undoes_cutting():
    people = some(5)
    same(People.concatenate([people[:2], people[2:2], people[2:]]), people)


@pytest.mark.parametrize(
    ("field", "shape", "message"),
    [
        ("scores", (3,), "People.scores is (3,), expected (2,)"),
        ("betas", (2, 11), "People.betas is (2, 11), expected (2, 10)"),
        ("vertices_m", (2, 3, 6890), "People.vertices_m is (2, 3, 6890), expected (2, 6890, 3)"),
        ("pose_rad", (2, 72), "People.pose_rad is (2, 72), expected (2, 24, 3)"),
        ("boxes_px", (2, 5), "People.boxes_px is (2, 5), expected (2, 4)"),
    ],
)
def test_a_wrong_shape_is_named(field, shape, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        People(**{**arrays(some(2)), field: np.zeros(shape)})


def test_arrays_take_the_layouts_dtype():
    people = People(**{name: array.astype(np.float64).tolist() for name, array in arrays(some(1)).items()})
    for name, (_, dtype) in LAYOUT.items():
        assert getattr(people, name).dtype == dtype


def test_meshes_stand_at_their_translation():
    people = some(3)
    np.testing.assert_array_equal(people.vertices_camera_m[2], people.vertices_m[2] + people.translation_m[2])
    np.testing.assert_array_equal(people.joints_camera_m[1], people.joints_m[1] + people.translation_m[1])


def test_a_camera_of_ones_own_is_the_crop_camera_in_the_picture():
    """The crop's camera, scaled by side / crop side and moved to the box, is the person's camera."""
    box = np.array([[100, 50, 420, 370]], np.float32)
    points_m = np.random.default_rng(0).uniform(-1, 1, (1, 20, 3)) + np.array([0, 0, 40])
    crop_focal, crop_principal = crop_camera(256)
    in_crop = project_px(points_m, np.array([crop_focal]), np.array([[crop_principal, crop_principal]]))
    in_image = project_px(points_m, *camera_from_box(box))
    np.testing.assert_allclose(in_image, in_crop * 320 / 256 + box[:, None, :2], atol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_person_is_projected_through_their_own_camera(count):
    rng = np.random.default_rng(count)
    points_m = rng.uniform(-1, 1, (count, 5, 3)) + np.array([0, 0, 5])
    focal, principal = rng.uniform(100, 900, count), rng.uniform(0, 500, (count, 2))
    pixels = project_px(points_m, focal, principal)
    assert pixels.shape == (count, 5, 2)
    for k in range(count):
        x, y, z = points_m[k].T
        expected = np.column_stack([focal[k] * x / z + principal[k, 0], focal[k] * y / z + principal[k, 1]])
        np.testing.assert_allclose(pixels[k], expected)


def test_a_point_on_the_axis_falls_on_the_principal_point():
    pixels = project_px(np.array([[[0.0, 0.0, 7.0]]]), np.array([500.0]), np.array([[320.5, 240.25]]))
    assert pixels.tolist() == [[[320.5, 240.25]]]


SINGULAR = {"boxes_px": "box_px", "scores": "score", "track_ids": "track_id"}


@pytest.mark.parametrize("number", [0, 3, -1, np.int64(2)])
def test_a_number_chooses_a_person(number):
    people = some(4)
    person = people[number]
    assert isinstance(person, Person)
    for name, array in arrays(people).items():
        np.testing.assert_array_equal(getattr(person, SINGULAR.get(name, name)), array[number])
    np.testing.assert_array_equal(person.vertices_camera_m, people.vertices_camera_m[number])
    np.testing.assert_array_equal(person.joints_camera_m, people.joints_camera_m[number])
    assert (type(person.track_id), type(person.score), type(person.joints_used)) == (int, float, int)


@pytest.mark.parametrize(("count", "wrong"), [(0, 0), (2, 2), (2, -3), (2, [False, True, True])])
def test_nobody_has_that_number(count, wrong):
    with pytest.raises(IndexError):
        some(count)[wrong]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_iterating_gives_every_person_in_order(count):
    people = some(count)
    assert [person.track_id for person in people] == people.track_ids.tolist()


def test_detections_choose_and_iterate_alike():
    people = Detections.from_boxes(np.arange(12.0).reshape(3, 4), np.array([0.1, 0.5, 0.9]))
    np.testing.assert_array_equal(people[-1].box_px, [8, 9, 10, 11])
    assert [f"{person.score:.1f}" for person in people] == ["0.1", "0.5", "0.9"]
    assert len(people[people.scores > 0.3]) == 2
    assert (len(people[1:]), list(Detections.none())) == (2, [])
    with pytest.raises(IndexError):
        people[3]


@pytest.mark.parametrize("wrong", [True, 1.0, None, "0", [0.5], [[0, 1]]])
def test_nothing_else_chooses_people(wrong):
    for people in (some(2), Detections.from_boxes(np.ones((2, 4)))):
        with pytest.raises(TypeError, match="people are selected by an index, a slice, a mask or indices, not by"):
            people[wrong]


def test_people_are_compared_by_who_they_are():
    people = some(2)
    assert people == people
    assert people != some(2)
    assert people[0] not in people  # every time another value


# ── the fit of people ────────────────────────────────────────────────────────────────────────────────────────────


def some_fit(count, seed=0):
    rng = np.random.default_rng(seed)
    flags = [rng.random(count) < 0.5 for _ in range(5)]
    energies = [rng.random(count), np.where(flags[0], rng.random(count), np.nan)]
    terms = [{name: rng.random(count) for name in ("features", "anchor")} for _ in range(2)]
    return PeopleFit(*flags, *energies, *terms, rng.random((count, 5, 5)) < 0.3)


def same_fit(a, b):
    for field in fields(PeopleFit):
        np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@pytest.mark.parametrize("index", [slice(1, 3), [], [3, 0, 0], [True, False, False, True], slice(0)])
def test_a_fit_is_chosen_with_its_people(index):
    people = replace(some(4), fit=some_fit(4))
    chosen = people[index]
    rows = np.arange(4)[index] if len(np.atleast_1d(index)) else []
    assert len(chosen.fit) == len(chosen) == len(rows)
    np.testing.assert_array_equal(chosen.fit.occlusion, people.fit.occlusion[rows])
    np.testing.assert_array_equal(chosen.fit.terms_after["anchor"], people.fit.terms_after["anchor"][rows])


def test_one_person_has_a_fit_of_plain_values():
    people = replace(some(3), fit=some_fit(3))
    person = people[-1]
    assert person.fit.accepted is bool(people.fit.accepted[2])
    assert person.fit.terms_before == {name: values[2] for name, values in people.fit.terms_before.items()}
    np.testing.assert_array_equal(person.fit.occlusion, people.fit.occlusion[2])
    assert some(1)[0].fit is None


def test_a_fit_in_json():
    fit = replace(some_fit(2), tried=np.array([True, False]), energy_after=np.array([0.5, np.nan]))
    told = [json.loads(json.dumps(fit[k].as_dict(), allow_nan=False)) for k in range(2)]
    assert [each["energy_after"] for each in told] == [0.5, None]
    for k, each in enumerate(told):
        assert each["occlusion"]["size"] == [5, 5]
        bits = np.frombuffer(base64.b64decode(each["occlusion"]["bits"]), np.uint8)
        np.testing.assert_array_equal(np.unpackbits(bits)[:25].reshape(5, 5), fit.occlusion[k])


def test_fits_are_joined_where_everybody_has_one():
    parts = [replace(some(count, count), fit=some_fit(count, count)) for count in (2, 0, 1)]
    joined = People.concatenate(parts)
    same_fit(joined.fit[:2], parts[0].fit)
    same_fit(joined.fit[2:], parts[2].fit)
    assert People.concatenate([*parts, some(1)]).fit is None


def test_a_fit_of_other_people_is_refused():
    with pytest.raises(ValueError, match=re.escape("People.fit is of 2 people, expected 3")):
        replace(some(3), fit=some_fit(2))
