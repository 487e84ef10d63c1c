"""Ultralytics' pose networks, raw and end to end: known people come back with box and joints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canned import Canned, always, joints_on_canvas, on_centred_canvas, rows_of, ultralytics_pose, write_always
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.detection.one_stage import OneStage
from jotr_deploy.runtime.sessions import open_session

SIZE = (96, 64)
SHAPES = [(480, 360), (360, 480), (96, 64), (97, 63), (31, 17), (640, 640), (1, 1), (20, 600), (600, 20), (3, 2000)]
APART = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])
KINDS = ["raw", "end to end"]


def picture(size_px: tuple[int, int] = SIZE) -> np.ndarray:
    return np.zeros((size_px[1], size_px[0], 3), np.uint8)


def people(rng: np.random.Generator, size_px: tuple[int, int], count: int) -> tuple:
    """Boxes (N, 4) in a picture, joints (N, 17, 3) also beyond it, scores (N,)."""
    low = rng.uniform(0, 0.5, (count, 2))
    boxes_px = np.concatenate([low, rng.uniform(0.55, 1, (count, 2))], 1) * (size_px * 2) - 0.5
    places = rng.uniform(-0.2, 1.2, (count, 17, 2)) * size_px
    joints_px = np.concatenate([places, rng.uniform(0.4, 1, (count, 17, 1))], -1)
    return boxes_px, joints_px, rng.permutation(np.linspace(0.4, 1, count))


def answers(kind: str, boxes_px, joints_px, scores, size_px=SIZE) -> dict[str, np.ndarray]:
    boxes = on_centred_canvas(boxes_px, size_px, SIZE)
    joints = joints_on_canvas(joints_px, lambda each: on_centred_canvas(each, size_px, SIZE))
    return ultralytics_pose(boxes, np.asarray(scores, np.float32), joints, SIZE, kind == "end to end")


def network(kind: str, boxes_px, joints_px, scores, size_px=SIZE, batch: int | str = "batch") -> Canned:
    return always("images", SIZE, answers(kind, boxes_px, joints_px, scores, size_px), batch)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**31), st.integers(0, 5), st.sampled_from(KINDS))
def test_known_people_come_back(size_px, seed, count, kind):
    boxes_px, joints_px, scores = people(np.random.default_rng(seed), size_px, count)
    detector = open_detector(network(kind, boxes_px, joints_px, scores, size_px), {"iou": 1.0})
    found = detector.people(picture(size_px))
    order = np.argsort(-scores)
    for each, expected in zip(found, (boxes_px, scores, joints_px), strict=True):
        np.testing.assert_allclose(each, expected[order], atol=1e-4 * max(*size_px, 10))
        assert (each.dtype, each.shape) == (np.float32, expected.shape)
    for each, same in zip(detector(picture(size_px)), found[:2], strict=True):  # so it is a detector as well
        np.testing.assert_array_equal(each, same)


def brightest(images: np.ndarray) -> dict:
    """A network that sees: every joint is the brightest pixel, counted from the centre of the first one."""
    seen = np.where(np.isclose(images[0], 114 / 255).all(0), 0, images[0].sum(0))
    y, x = np.unravel_index(seen.argmax(), seen.shape)
    joints = np.array([[[x, y, 1]] * 17])
    return {"output0": ultralytics_pose(np.array([[0, 0, 96, 64]]), np.ones(1), joints, SIZE, False)["output0"][None]}


@pytest.mark.parametrize("size", [(96, 64), (192, 128), (288, 192), (480, 128), (48, 32), (100, 300)])
def test_what_is_seen_is_where_it_was(size, rng):
    session = Canned({"images": (1, 3, 64, 96)}, {"output0": (1, 56, rows_of(SIZE))}, brightest)
    half_a_canvas_px = 0.5 * max(1.0, size[0] / 96, size[1] / 64)
    for x, y in rng.integers([2, 2], np.array(size) - 2, (5, 2)):
        image = np.zeros((size[1], size[0], 3))
        rows, columns = np.mgrid[: size[1], : size[0]]
        image += 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / (3 * half_a_canvas_px) ** 2)[..., None]
        _, _, joints_px = open_detector(session).people(np.round(image).astype(np.uint8))
        np.testing.assert_allclose(joints_px[0, :, :2], [[x, y]] * 17, atol=half_a_canvas_px + 0.05)


def test_red_is_the_first_channel_between_grey_bands():
    session = network("raw", APART[:0], np.zeros((0, 17, 3)), [])
    open_detector(session)(np.full((32, 96, 3), (0, 0, 255), np.uint8))
    (seen,) = session.seen
    assert (seen.dtype, seen.shape) == (np.float32, (1, 3, 64, 96))
    assert (seen[0, :, 16:48] == np.array([1, 0, 0])[:, None, None]).all()
    np.testing.assert_allclose(np.delete(seen[0], slice(16, 48), 1), 114 / 255)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("scores", "recipe", "found"),
    [
        ([], {}, []),
        ([0.2, 0.1, 0.0], {}, []),
        ([0.25, 0.5, 0.75], {}, [0.75, 0.5]),  # above it, not at it
        ([0.25, 0.5, 0.75], {"threshold": 0.5}, [0.75]),
        ([0.25, 0.5, 0.75], {"threshold": 0.0}, [0.75, 0.5, 0.25]),
        ([np.nan, 0.5, 5], {}, [1.0, 0.5]),  # beyond a probability
    ],
)
def test_who_is_a_person(kind, scores, recipe, found):
    joints_px = np.broadcast_to(np.arange(1, 4)[: len(scores), None, None] / 4, (len(scores), 17, 3))
    session = network(kind, APART[: len(scores)], joints_px, scores)
    boxes_px, confidence, joints = open_detector(session, {"joint_threshold": 0, **recipe}).people(picture())
    np.testing.assert_allclose(confidence, found)
    assert (boxes_px.shape, joints.shape) == ((len(found), 4), (len(found), 17, 3))
    assert {each.dtype for each in (boxes_px, confidence, joints)} == {np.dtype(np.float32)}
    if found:
        best = int(np.nanargmax(scores))
        np.testing.assert_allclose(boxes_px[0], APART[best], atol=1e-5)  # each with its own joints
        np.testing.assert_allclose(joints[0, 0, 2], (best + 1) / 4)


def test_other_classes_are_nobody():
    rows = answers("end to end", APART, np.full((3, 17, 3), 0.5), [0.9, 0.8, 0.7])
    rows["output0"][0, 5] = 2
    found = open_detector(always("images", SIZE, rows)).people(picture())
    np.testing.assert_allclose(found[1], [0.8, 0.7])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("recipe", "kept"),
    [({}, [0.5, 0.75, 1]), ({"joint_threshold": 0.5}, [0.75, 1]), ({"joint_threshold": 1.0}, [])],
)
def test_joints_not_above_the_threshold_are_all_zero(kind, recipe, kept):
    joints_px = np.full((1, 17, 3), 5.0)
    joints_px[..., 2] = np.resize([0.25, 0.5, 0.75, 1, 1.5, -1], 17)
    _, _, (found,) = open_detector(network(kind, APART[:1], joints_px, [0.9]), recipe).people(picture())
    there = found[:, 2] > 0
    assert sorted(set(found[there, 2].tolist())) == kept
    assert not found[~there].any()
    np.testing.assert_allclose(found[there, :2], 5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(kind, wrong):
    rows = answers(kind, APART, np.full((3, 17, 3), 0.5), [0.9, 0.8, 0.7])
    people_first = rows["output0"].T if kind == "raw" else rows["output0"]
    first, second, _ = np.flatnonzero(people_first[:, 4])
    people_first[first, 2] = wrong  # nobody
    people_first[second, (5 if kind == "raw" else 6) + np.array([3 * 3, 3 * 4 + 1, 3 * 5 + 2])] = wrong  # no joint
    boxes_px, scores, joints = open_detector(always("images", SIZE, rows)).people(picture())
    np.testing.assert_allclose(boxes_px, APART[1:], atol=1e-5)
    np.testing.assert_allclose(scores, [0.8, 0.7])
    assert (joints[0, :, 2] > 0).tolist() == [True] * 3 + [False] * 3 + [True] * 11
    assert not joints[0, 3:6].any()


def test_the_same_person_is_found_once_in_raw_output_only():
    boxes_px = np.array([[10, 10, 30, 50], [11, 10, 31, 50], [24, 10, 44, 50]])
    joints_px, scores = np.full((3, 17, 3), 0.5), [0.8, 0.9, 0.7]
    found, _, _ = open_detector(network("raw", boxes_px, joints_px, scores)).people(picture())
    np.testing.assert_allclose(found, boxes_px[1:], atol=1e-4)
    assert len(open_detector(network("raw", boxes_px, joints_px, scores), {"iou": 0.1}).people(picture())[2]) == 1
    ready = open_detector(network("end to end", boxes_px, joints_px, scores), {"iou": 0.1})
    assert len(ready.people(picture())[2]) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_the_batch_is_that_of_the_file(kind, batch):
    session = network(kind, APART, np.full((3, 17, 3), 0.5), [0.9, 0.8, 0.7], batch=batch)
    np.testing.assert_allclose(open_detector(session).people(picture())[0], APART, atol=1e-5)
    assert [len(seen) for seen in session.seen] == [4 if batch == 4 else 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_this_format(tmp_path: Path, rng, kind):
    boxes_px, joints_px, scores = people(rng, (480, 360), 3)
    path = write_always(tmp_path / "o.onnx", "images", SIZE, answers(kind, boxes_px, joints_px, scores, (480, 360)), 1)
    with open_session(path, device="cpu") as session:
        detector = open_detector(session, {"format": "ultralytics-pose", "iou": 1, "joint_threshold": 0.2})
        assert isinstance(detector, OneStage)
        found = detector.people(picture((480, 360)))
    order = np.argsort(-scores)
    for each, expected in zip(found, (boxes_px, scores, joints_px), strict=True):
        np.testing.assert_allclose(each, expected[order], atol=1e-2)


OTHERS = {
    "another size": {"output0": (1, 56, 8400)},
    "another set of joints": {"output0": (1, 4 + 1 + 21 * 3, "n")},
    "two outputs": {"output0": (1, 56, rows_of(SIZE)), "output1": (1, 32, 16, 24)},
    "columns unknown": {"output0": (1, 56, "columns")},
    "flat": {"output0": (1, 56 * rows_of(SIZE))},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name):
    with pytest.raises(SessionError, match=r"not a detector in a known format|cannot be used as a detector"):
        open_detector(Canned({"images": (1, 3, 64, 96)}, OTHERS[name]))


def test_recipes_that_are_refused():
    with pytest.raises(BundleError) as refusal:
        open_detector(network("raw", APART, np.full((3, 17, 3), 0.5), [0.9] * 3), {"nms": 1})
    assert refusal.value.cause == "canned.onnx: recipe: nms: Extra inputs are not permitted"
    assert (
        refusal.value.remedy
        == "ultralytics-pose accepts format, size_px, threshold, joint_threshold, iou, skeleton, person"
    )
