"""YOLOX: known boxes through a known network come back; colours, emptiness, decoding once, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canned import Canned, on_canvas, rows_of, write_yolox, yolox_rows, yolox_session
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding.detection import FORMATS, open_detector
from jotr_deploy.runtime.sessions import open_session

SIZE = (96, 64)
NAMES = ", ".join(each.name for each in FORMATS)
SHAPES = [(480, 360), (360, 480), (96, 64), (640, 640), (1, 1), (20, 600), (600, 20), (3, 2000)]


def picture(size_px: tuple[int, int]) -> np.ndarray:
    return np.zeros((size_px[1], size_px[0], 3), np.uint8)


def boxes_within(rng: np.random.Generator, size_px: tuple[int, int], count: int) -> np.ndarray:
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), 1)
    corners[:, 1] += 0.05 * (1 - corners[:, 1])
    return (corners * size_px - 0.5).reshape(-1, 4)


def detector(boxes_px, scores, size_px, recipe=None, **kind):
    rows = yolox_rows(on_canvas(boxes_px, size_px, SIZE), np.asarray(scores, np.float32), SIZE, **kind)
    return open_detector(yolox_session(rows, SIZE), recipe)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**31), st.booleans(), st.sampled_from([1, 80]))
def test_known_boxes_come_back(size_px, seed, decoded, classes):
    rng = np.random.default_rng(seed)
    boxes_px, scores = boxes_within(rng, size_px, 5), rng.uniform(0.4, 1, 5)
    recipe = {"iou": 1.0, "decoded": decoded}
    found, confidence = detector(boxes_px, scores, size_px, recipe, decoded=decoded, classes=classes)(picture(size_px))
    order = np.argsort(-scores)
    np.testing.assert_allclose(found, boxes_px[order], atol=0.5)
    np.testing.assert_allclose(found, boxes_px[order], atol=1e-3 * max(size_px))  # in fact much nearer
    np.testing.assert_allclose(confidence, scores[order], rtol=1e-5)
    assert (found.dtype, confidence.dtype) == (np.float32, np.float32)


def bright_box(images: np.ndarray) -> dict:
    """A network that sees: the box of the bright pixels, from their edges."""
    y, x = np.nonzero(images[0].min(0) > 127)
    return {"output": yolox_rows(np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]]), np.ones(1), SIZE)[None]}


@pytest.mark.parametrize("size", [(192, 128), (960, 640), (96, 64), (480, 128), (48, 32)])
def test_what_is_seen_is_where_it_was(size):
    image = picture(size)
    x0, y0, x1, y1 = (int(share * side) for share, side in zip((0.25, 0.25, 0.75, 0.5), size * 2, strict=True))
    image[y0:y1, x0:x1] = 255
    session = Canned({"images": (1, 3, 64, 96)}, {"output": (1, rows_of(SIZE), 6)}, bright_box)
    found, _ = open_detector(session)(image)
    half_a_canvas_px = 0.52 * max(1.0, size[0] / 96, size[1] / 64)
    np.testing.assert_allclose(found, [[x0 - 0.5, y0 - 0.5, x1 - 0.5, y1 - 0.5]], atol=half_a_canvas_px)


def test_red_is_the_last_channel_as_it_is():
    session = yolox_session(yolox_rows(np.zeros((0, 4)), np.zeros(0), SIZE), SIZE)
    open_detector(session)(np.full((32, 96, 3), (0, 0, 255), np.uint8))
    (seen,) = session.seen
    assert (seen.dtype, seen.shape) == (np.float32, (1, 3, 64, 96))
    assert (seen[0, :, :32] == np.array([0, 0, 255])[:, None, None]).all()
    assert (seen[0, :, 32:] == 114).all()


def two_looks(first: list, second: list) -> Canned:
    """A network that finds these (box on the canvas, score) in its first call, and those in its second."""
    answers = iter([first, second])

    def answer(images: np.ndarray) -> dict:
        boxes, scores = zip(*next(answers), strict=True)
        return {"output": yolox_rows(np.array(boxes, float), np.array(scores), SIZE)[None]}

    return Canned({"images": (1, 3, 64, 96)}, {"output": (1, rows_of(SIZE), 6)}, answer)


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        pytest.param([((10, 10, 30, 50), 0.9)], [((66, 10, 86, 50), 0.9)], [(10, 10, 30, 50)], id="the same"),
        pytest.param([((10, 10, 30, 50), 0.8)], [((62, 10, 86, 50), 0.8)], [(10, 10, 31.82, 50)], id="alike: the mean"),
        pytest.param(
            [((10, 10, 30, 50), 0.9)], [((46, 10, 66, 50), 0.5)], [(10, 10, 30, 50), (30, 10, 50, 50)], id="others"
        ),
        pytest.param(
            [((10, 10, 30, 50), 0.9)], [((66, 10, 86, 50), 0.1)], [(10, 10, 30, 50)], id="below the threshold"
        ),
        pytest.param([((10, 10, 30, 50), 0.1)], [((66, 10, 86, 50), 0.1)], [], id="nobody"),
    ],
)
def test_the_flip_test_looks_in_a_mirror_too(first, second, found):
    session = two_looks(first, second)
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    boxes_px, scores = open_detector(session, {"flip_test": True})(image)
    np.testing.assert_array_equal(session.seen[0][..., ::-1], session.seen[1])
    np.testing.assert_allclose(boxes_px + 0.5, np.array(found, float).reshape(-1, 4), atol=0.02)
    assert (boxes_px.dtype, scores.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("scores", [[], [0.2, 0.1]])
def test_nobody(scores):
    boxes_px = boxes_within(np.random.default_rng(0), (96, 64), len(scores))
    boxes, confidence = detector(boxes_px, scores, (96, 64))(picture((96, 64)))
    assert (boxes.shape, boxes.dtype) == ((0, 4), np.float32)
    assert (confidence.shape, confidence.dtype) == ((0,), np.float32)


@pytest.mark.parametrize(
    ("recipe", "found"),
    [
        ({}, [0.9, 0.5]),
        ({"threshold": 0.5}, [0.9]),  # above it, not at it
        ({"threshold": 0.0}, [0.9, 0.5, 0.25]),
        ({"threshold": 1.0}, []),
    ],
)
def test_the_threshold_is_the_recipes(recipe, found):
    boxes_px = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
    squares = np.array([0.5, 0.25, 0.9, 0], np.float32)
    rows = yolox_rows(on_canvas(boxes_px, (96, 64), SIZE), squares, SIZE)
    at = rows[:, 4] > 0
    rows[at, 5] = rows[at, 4] ** 2  # so that the products are exact
    rows[at, 4] = 1
    rows[at, 5] = [0.5, 0.25, 0.9]
    _, confidence = open_detector(yolox_session(rows, SIZE), recipe)(picture((96, 64)))
    np.testing.assert_allclose(confidence, found)


def test_the_same_person_is_found_once_and_overlapping_ones_both():
    boxes_px = np.array([[10, 10, 30, 50], [11, 10, 31, 50], [24, 10, 44, 50]])
    found, _ = detector(boxes_px, [0.8, 0.9, 0.7], (96, 64))(picture((96, 64)))
    np.testing.assert_allclose(found, boxes_px[1:], atol=1e-3)
    found, _ = detector(boxes_px, [0.8, 0.9, 0.7], (96, 64), {"iou": 0.1})(picture((96, 64)))
    assert len(found) == 1


def test_raw_and_decoded_outputs_of_one_scene_give_the_same_boxes(rng):
    boxes_px = boxes_within(rng, (480, 360), 6)
    scores = rng.uniform(0.5, 1, 6)
    found = [
        detector(boxes_px, scores, (480, 360), recipe, decoded=decoded)(picture((480, 360)))
        for decoded in (False, True)
        for recipe in ({"decoded": decoded}, {})  # told, and told by the numbers
    ]
    for boxes, confidence in found[1:]:
        np.testing.assert_allclose(boxes, found[0][0], atol=1e-2)
        np.testing.assert_allclose(confidence, found[0][1], atol=1e-6)


def test_numbers_that_are_none_find_nobody():
    boxes_px = np.array([[10, 10, 30, 50], [50, 10, 70, 50.0]])
    rows = yolox_rows(on_canvas(boxes_px, (96, 64), SIZE), np.array([0.9, 0.8]), SIZE)
    first, second = np.flatnonzero(rows[:, 4])
    for spoiled in ((first, 4), (first, 0), (first, 3)):
        broken = rows.copy()
        broken[spoiled] = np.nan
        found, _ = open_detector(yolox_session(broken, SIZE))(picture((96, 64)))
        np.testing.assert_allclose(found, boxes_px[1:], atol=1e-3)
    rows[second, 5] = 5  # beyond a probability
    assert open_detector(yolox_session(rows, SIZE))(picture((96, 64)))[1].tolist() == [1, pytest.approx(0.9)]


def test_who_is_outside_of_the_picture_is_nobody():
    boxes = np.array([[10, 40, 30, 60], [10, 10, 30, 40.0]])  # the picture ends in row 32 of the canvas
    found, _ = open_detector(yolox_session(yolox_rows(boxes, np.array([0.9, 0.8]), SIZE), SIZE))(picture((96, 32)))
    np.testing.assert_allclose(found, [[9.5, 9.5, 29.5, 31.5]], atol=1e-3)


@pytest.mark.parametrize(("classes", "batch"), [(1, "batch"), (80, 1), (1, 4)])
def test_strides_classes_and_batch_are_read_from_the_file(classes, batch):
    boxes_px = np.array([[10, 10, 30, 50.0]])
    rows = yolox_rows(on_canvas(boxes_px, (96, 64), SIZE), np.ones(1), SIZE, classes=classes)
    session = yolox_session(rows, SIZE, batch)
    found, _ = open_detector(session)(picture((96, 64)))
    np.testing.assert_allclose(found, boxes_px, atol=1e-3)
    assert len(session.seen[0]) == (1 if batch == "batch" else batch)


def test_four_levels():
    size = (128, 64)
    session = Canned({"images": (1, 3, 64, 128)}, {"output": (1, rows_of(size, (8, 16, 32, 64)), 6)})
    session.answer = lambda images: {"output": np.zeros(session.outputs["output"].shape, np.float32)}
    assert len(open_detector(session)(picture(size))[0]) == 0


def test_a_file_of_this_format(tmp_path: Path):
    boxes_px = np.array([[5, 6, 25, 56], [50, 6, 70, 40.0]])
    rows = yolox_rows(on_canvas(boxes_px, (480, 320), SIZE), np.array([0.9, 0.8]), SIZE)
    with open_session(write_yolox(tmp_path / "d.onnx", rows, SIZE), device="cpu") as session:
        found, confidence = open_detector(session, {"format": "yolox", "threshold": 0.5})(picture((480, 320)))
    np.testing.assert_allclose(found, boxes_px, atol=1e-3)
    np.testing.assert_allclose(confidence, [0.9, 0.8], rtol=1e-5)


OTHERS = {
    "ultralytics": ({"images": (1, 3, 640, 640)}, {"output0": (1, 84, 8400)}),
    "another size": ({"images": (1, 3, 416, 416)}, {"output": (1, 8400, 85)}),
    "no class": ({"images": (1, 3, 640, 640)}, {"output": (1, 8400, 5)}),
    "with nms": ({"input": (1, 3, 640, 640)}, {"dets": (1, 100, 5), "labels": (1, 100)}),
    "two inputs": ({"images": (1, 3, 640, 640), "sizes": (1, 2)}, {"output": (1, 8400, 85)}),
    "pose": ({"input": (1, 3, 256, 192)}, {"simcc_x": (1, 17, 384), "simcc_y": (1, 17, 512)}),
    "grey": ({"images": (1, 1, 640, 640)}, {"output": (1, 8400, 85)}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name):
    with pytest.raises(SessionError, match=r"not a detector in a known format|cannot be used as a detector"):
        open_detector(Canned(*OTHERS[name]), {"format": "yolox"})


def test_a_refusal_lists_what_was_found_and_what_was_tried():
    with pytest.raises(SessionError) as refusal:
        open_detector(Canned(*OTHERS["ultralytics"]), {"format": "yolox"})
    assert refusal.value.cause == (
        "canned.onnx: not a detector in a known format (inputs images float32 [1, 3, 640, 640]; "
        "outputs output0 float32 [1, 84, 8400]; tried yolox)"
    )
    assert refusal.value.remedy == f"give a file in one of the formats {NAMES}, exactly as its exporter writes it"


KNOWN = "yolox accepts format, size_px, person, threshold, iou, flip_test, decoded"


@pytest.mark.parametrize(
    ("recipe", "cause", "remedy"),
    [
        ({"format": "detr"}, "unknown detector format 'detr'", f"known: {NAMES}"),
        ({"treshold": 1}, "recipe: treshold: Extra inputs are not permitted", KNOWN),
        ({"threshold": 2}, "recipe: threshold: Input should be less than or equal to 1", KNOWN),
        ({"decoded": "maybe"}, "recipe: decoded: Input should be a valid boolean, unable to interpret input", KNOWN),
    ],
)
def test_recipes_that_are_refused(recipe, cause, remedy):
    with pytest.raises(BundleError) as refusal:
        open_detector(yolox_session(yolox_rows(np.zeros((0, 4)), np.zeros(0), SIZE), SIZE), recipe)
    assert (refusal.value.cause, refusal.value.remedy) == (f"canned.onnx: {cause}", remedy)
