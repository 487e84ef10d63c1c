"""RTMO: known people come back with box and joints; colours, padding, what is found and what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canned import Canned, always, joints_on_canvas, on_canvas, rtmo_answers, write_always
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.detection.one_stage import OneStage
from jotr_deploy.runtime.sessions import TensorSpec, open_session

SIZE = (96, 64)
SHAPES = [(480, 360), (360, 480), (96, 64), (97, 63), (31, 17), (640, 640), (1, 1), (20, 600), (600, 20), (3, 2000)]
APART = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])


def picture(size_px: tuple[int, int] = SIZE) -> np.ndarray:
    return np.zeros((size_px[1], size_px[0], 3), np.uint8)


def people(rng: np.random.Generator, size_px: tuple[int, int], count: int, joints: int = 17) -> tuple:
    """Boxes (N, 4) in a picture, joints (N, J, 3) also beyond it, scores (N,)."""
    low = rng.uniform(0, 0.5, (count, 2))
    boxes_px = np.concatenate([low, rng.uniform(0.55, 1, (count, 2))], 1) * (size_px * 2) - 0.5
    places = rng.uniform(-0.2, 1.2, (count, joints, 2)) * size_px
    joints_px = np.concatenate([places, rng.uniform(0.4, 1, (count, joints, 1))], -1)
    return boxes_px, joints_px, rng.permutation(np.linspace(0.4, 1, count))


def answers(boxes_px, joints_px, scores, size_px=SIZE) -> dict[str, np.ndarray]:
    boxes = on_canvas(boxes_px, size_px, SIZE)
    return rtmo_answers(boxes, scores, joints_on_canvas(joints_px, lambda each: on_canvas(each, size_px, SIZE)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**31), st.integers(0, 5))
def test_known_people_come_back(size_px, seed, count):
    boxes_px, joints_px, scores = people(np.random.default_rng(seed), size_px, count)
    detector = open_detector(always("input", SIZE, answers(boxes_px, joints_px, scores, size_px)))
    found = detector.people(picture(size_px))
    order = np.argsort(-scores)
    for each, expected in zip(found, (boxes_px, scores, joints_px), strict=True):
        np.testing.assert_allclose(each, expected[order], atol=1e-4 * max(*size_px, 10))
        assert (each.dtype, each.shape) == (np.float32, expected.shape)
    for each, same in zip(detector(picture(size_px)), found[:2], strict=True):  # so it is a detector as well
        np.testing.assert_array_equal(each, same)


def brightest(images: np.ndarray) -> dict:
    """A network that sees: every joint is the brightest pixel, counted from the centre of the first one."""
    y, x = np.unravel_index(images[0].sum(0).argmax(), images.shape[2:])
    return {name: rows[None] for name, rows in
            rtmo_answers(np.array([[0, 0, 96, 64]]), np.ones(1), np.array([[[x, y, 1]] * 17])).items()}  # fmt: skip


@pytest.mark.parametrize("size", [(96, 64), (192, 128), (288, 192), (480, 128), (48, 32), (100, 300)])
def test_what_is_seen_is_where_it_was(size, rng):
    session = Canned({"input": (1, 3, 64, 96)}, {"dets": (1, "n", 5), "keypoints": (1, "n", 17, 3)}, brightest)
    half_a_canvas_px = 0.5 * max(1.0, size[0] / 96, size[1] / 64)
    for x, y in rng.integers([2, 2], np.array(size) - 2, (5, 2)):
        image = np.zeros((size[1], size[0], 3))
        rows, columns = np.mgrid[: size[1], : size[0]]
        image += 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / (3 * half_a_canvas_px) ** 2)[..., None]
        _, _, joints_px = open_detector(session).people(np.round(image).astype(np.uint8))
        np.testing.assert_allclose(joints_px[0, :, :2], [[x, y]] * 17, atol=half_a_canvas_px + 0.05)


def test_red_is_the_last_channel_as_it_is():
    session = always("input", SIZE, answers(APART[:0], np.zeros((0, 17, 3)), []))
    open_detector(session)(np.full((32, 96, 3), (0, 0, 255), np.uint8))
    (seen,) = session.seen
    assert (seen.dtype, seen.shape) == (np.float32, (1, 3, 64, 96))
    assert (seen[0, :, :32] == np.array([0, 0, 255])[:, None, None]).all()
    assert (seen[0, :, 32:] == 114).all()


@pytest.mark.parametrize("padding", [0, 2])
def test_nobody(padding):
    rows = {name: each[:padding] for name, each in answers(APART[:0], np.zeros((0, 17, 3)), []).items()}
    found = open_detector(always("input", SIZE, rows)).people(picture())
    assert [each.shape for each in found] == [(0, 4), (0,), (0, 17, 3)]
    assert {each.dtype for each in found} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("scores", "recipe", "found"),
    [
        ([0.3, 0.5, 0.75], {}, [0.75, 0.5]),
        ([0.3, 0.5, 0.75], {"threshold": 0.5}, [0.75]),  # above it, not at it
        ([0.3, 0.5, 0.75], {"threshold": 0.0}, [0.75, 0.5, 0.3]),
        ([0.3, 0.5, 1.0], {"threshold": 1.0}, []),
        ([np.nan, 0.5, 5], {}, [1.0, 0.5]),  # beyond a probability
    ],
)
def test_who_is_a_person(scores, recipe, found):
    joints_px = np.broadcast_to(np.arange(1, 4)[:, None, None] / 4, (3, 17, 3))
    rows = answers(APART, joints_px, scores)
    boxes_px, confidence, joints = open_detector(always("input", SIZE, rows), recipe).people(picture())
    np.testing.assert_allclose(confidence, found)
    assert (len(boxes_px), len(joints)) == (len(found), len(found))
    if found:
        best = int(np.nanargmax(scores))
        np.testing.assert_allclose(boxes_px[0], APART[best], atol=1e-5)  # each with its own joints
        np.testing.assert_allclose(joints[0, 0, 2], (best + 1) / 4)


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [
        ({}, [0.5, 0.75, 1]),
        ({"joint_threshold": 0.5}, [0.75, 1]),
        ({"joint_threshold": 0.0}, [0.25, 0.5, 0.75, 1]),
        ({"joint_threshold": 1.0}, []),
    ],
)
def test_joints_not_above_the_threshold_are_all_zero(recipe, kept):
    joints_px = np.full((1, 17, 3), 5.0)
    joints_px[..., 2] = np.resize([0.25, 0.5, 0.75, 1, 1.5, -1], 17)
    session = always("input", SIZE, answers(APART[:1], joints_px, [0.9]))
    _, _, (found,) = open_detector(session, recipe).people(picture())
    there = found[:, 2] > 0
    assert sorted(set(found[there, 2].tolist())) == kept
    assert not found[~there].any()
    np.testing.assert_allclose(found[there, :2], 5, atol=1e-5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(wrong):
    rows = answers(APART, np.full((3, 17, 3), 0.5), [0.9, 0.8, 0.7])
    rows["dets"][0, 2] = wrong  # nobody
    rows["keypoints"][1, [3, 4, 5], [0, 1, 2]] = wrong  # no joint
    boxes_px, scores, joints = open_detector(always("input", SIZE, rows)).people(picture())
    np.testing.assert_allclose(boxes_px, APART[1:], atol=1e-5)
    np.testing.assert_allclose(scores, [0.8, 0.7])
    assert (joints[0, :, 2] > 0).tolist() == [True] * 3 + [False] * 3 + [True] * 11
    assert not joints[0, 3:6].any()


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_the_batch_is_that_of_the_file(batch):
    session = always("input", SIZE, answers(APART, np.full((3, 17, 3), 0.5), [0.9, 0.8, 0.7]), batch)
    np.testing.assert_allclose(open_detector(session).people(picture())[0], APART, atol=1e-5)
    assert [len(seen) for seen in session.seen] == [4 if batch == 4 else 1]


def test_the_order_is_known_by_the_number_of_joints(rng):
    boxes_px, joints_px, scores = people(rng, SIZE, 2, 14)
    detector = open_detector(always("input", SIZE, answers(boxes_px, joints_px, scores)))
    assert (detector.skeleton, detector.people(picture())[2].shape) == ("crowdpose14", (2, 14, 3))


def open_sizes(joints: int) -> Canned:
    session = always("input", SIZE, answers(APART, np.full((3, joints, 3), 0.5), [0.9, 0.8, 0.7]))
    for name, shape in (("dets", (1, "n", "d")), ("keypoints", (1, "n", "k", "?"))):
        session.outputs[name] = TensorSpec(np.dtype(np.float32), shape)
    return session


def test_sizes_that_the_file_leaves_open():
    detector = open_detector(open_sizes(17))
    assert (detector.skeleton, detector.people(picture())[2].shape) == ("coco17", (3, 17, 3))
    with pytest.raises(SessionError) as refusal:
        open_detector(open_sizes(14)).people(picture())
    assert refusal.value.cause == ("canned.onnx: a person has (5,) and (14, 3) values instead of (5,) and (17, 3)")
    assert refusal.value.remedy == "name the skeleton of the file in its recipe: --set detector.skeleton=NAME"


def test_a_file_of_this_format(tmp_path: Path, rng):
    boxes_px, joints_px, scores = people(rng, (480, 360), 3)
    path = write_always(tmp_path / "o.onnx", "input", SIZE, answers(boxes_px, joints_px, scores, (480, 360)))
    with open_session(path, device="cpu") as session:
        detector = open_detector(session, {"format": "rtmo", "threshold": 0.2, "joint_threshold": 0.2})
        assert isinstance(detector, OneStage)
        found = detector.people(picture((480, 360)))
    order = np.argsort(-scores)
    for each, expected in zip(found, (boxes_px, scores, joints_px), strict=True):
        np.testing.assert_allclose(each, expected[order], atol=1e-2)


OTHERS = {
    "grey": ({"input": (1, 1, 64, 96)}, {"dets": (1, "n", 5), "keypoints": (1, "n", 17, 3)}),
    "without scores": ({"input": (1, 3, 64, 96)}, {"dets": (1, "n", 4), "keypoints": (1, "n", 17, 3)}),
    "without confidence": ({"input": (1, 3, 64, 96)}, {"dets": (1, "n", 5), "keypoints": (1, "n", 17, 2)}),
    "flat": ({"input": (1, 3, 64, 96)}, {"dets": (1, "n", 5), "keypoints": (1, "n", 51)}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name):
    with pytest.raises(SessionError, match=r"not a detector in a known format|cannot be used as a detector"):
        open_detector(Canned(*OTHERS[name]))


@pytest.mark.parametrize(
    ("joints", "recipe", "cause"),
    [
        (21, {}, "21 joints (as for a hand), which match no known joint order"),
        (17, {"skeleton": "body25"}, "recipe: body25 has 25 joints, but the file has 17"),
        (17, {"joint_threshold": 2}, "recipe: joint_threshold: Input should be less than or equal to 1"),
        (17, {"iou": 0.5}, "recipe: iou: Extra inputs are not permitted"),  # the file itself has told people apart
    ],
)
def test_recipes_that_are_refused(joints, recipe, cause):
    with pytest.raises(BundleError) as refusal:
        open_detector(always("input", SIZE, answers(APART, np.full((3, joints, 3), 0.5), [0.9] * 3)), recipe)
    assert refusal.value.cause == f"canned.onnx: {cause}"
