"""Ultralytics' detectors, raw and end to end: known boxes come back; colours, padding around, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canned import (
    Canned,
    always,
    on_centred_canvas,
    rows_of,
    ultralytics_end_to_end,
    ultralytics_raw,
    write_always,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.sessions import open_session

SIZE = (96, 64)
SHAPES = [(480, 360), (360, 480), (96, 64), (97, 63), (31, 17), (640, 640), (1, 1), (20, 600), (600, 20), (3, 2000)]
ONE = np.array([[10, 10, 30, 50.0]])
KINDS = ["raw", "end to end"]


def picture(size_px: tuple[int, int] = SIZE) -> np.ndarray:
    return np.zeros((size_px[1], size_px[0], 3), np.uint8)


def network(kind: str, boxes_px, scores, size_px=SIZE, classes: int = 1, batch: int | str = "batch") -> Canned:
    boxes, scores = on_centred_canvas(boxes_px, size_px, SIZE), np.asarray(scores, np.float32)
    raw = kind == "raw"
    answers = ultralytics_raw(boxes, scores, SIZE, classes) if raw else ultralytics_end_to_end(boxes, scores)
    return always("images", SIZE, answers, batch)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**31), st.integers(0, 5), st.sampled_from(KINDS), st.integers(1, 80))
def test_known_boxes_come_back(size_px, seed, count, kind, classes):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.5, (count, 2))
    boxes_px = np.concatenate([low, rng.uniform(0.55, 1, (count, 2))], 1) * (size_px * 2) - 0.5
    scores = rng.permutation(np.linspace(0.4, 1, count))
    session = network(kind, boxes_px, scores, size_px, classes if classes != 52 else 51)  # 52: as many rows as a pose
    found, confidence = open_detector(session, {"iou": 1.0, "person": 0})(picture(size_px))
    order = np.argsort(-scores)
    np.testing.assert_allclose(found, boxes_px[order], atol=1e-5 * max(size_px))
    np.testing.assert_allclose(confidence, scores[order], rtol=1e-6)
    assert (found.dtype, confidence.dtype) == (np.float32, np.float32)
    assert found.shape == (count, 4)


def bright_box(images: np.ndarray) -> dict:
    """A network that sees: the box of the bright pixels, from their edges."""
    y, x = np.nonzero(images[0].min(0) > 0.5)
    box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]])
    return {"output0": ultralytics_raw(box, np.ones(1), SIZE)["output0"][None]}


@pytest.mark.parametrize("size", [(192, 128), (960, 640), (96, 64), (480, 128), (48, 32), (64, 128), (101, 99)])
def test_what_is_seen_is_where_it_was(size):
    image = picture(size)
    x0, y0, x1, y1 = (int(share * side) for share, side in zip((0.25, 0.25, 0.75, 0.5), size * 2, strict=True))
    image[y0:y1, x0:x1] = 255
    session = Canned({"images": (1, 3, 64, 96)}, {"output0": (1, 5, rows_of(SIZE))}, bright_box)
    found, _ = open_detector(session)(image)
    half_a_canvas_px = 0.52 * max(1.0, size[0] / 96, size[1] / 64)
    np.testing.assert_allclose(found, [[x0 - 0.5, y0 - 0.5, x1 - 0.5, y1 - 0.5]], atol=half_a_canvas_px)


def test_red_is_the_first_channel_between_grey_bands():
    session = network("raw", np.zeros((0, 4)), [])
    open_detector(session)(np.full((31, 96, 3), (0, 0, 255), np.uint8))
    (seen,) = session.seen
    assert (seen.dtype, seen.shape) == (np.float32, (1, 3, 64, 96))
    assert (seen[0, :, 16:47] == np.array([1, 0, 0])[:, None, None]).all()
    np.testing.assert_allclose(np.delete(seen[0], slice(16, 47), 1), 114 / 255)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("scores", "threshold", "found"),
    [
        ([], None, []),
        ([0.2, 0.1], None, []),
        ([0.5, 0.75], None, [0.75, 0.5]),
        ([0.5, 0.75], 0.5, [0.75]),  # above it, not at it
        ([0.5, 0.75], 0.49, [0.75, 0.5]),
        ([0.5, 0.75], 0.0, [0.75, 0.5]),
        ([0.5, 1.0], 1.0, []),
        ([np.nan, 0.75], None, [0.75]),
        ([5.0, 0.75], None, [1.0, 0.75]),  # beyond a probability
    ],
)
def test_who_is_a_person(kind, scores, threshold, found):
    apart = np.array([[0, 0, 10, 10], [20, 0, 30, 10.0]])[: len(scores)]
    recipe = {} if threshold is None else {"threshold": threshold}
    boxes, confidence = open_detector(network(kind, apart, scores), recipe)(picture())
    np.testing.assert_allclose(confidence, found)
    assert (boxes.shape, boxes.dtype, confidence.dtype) == ((len(found), 4), np.float32, np.float32)


def test_other_classes_are_nobody():
    raw = ultralytics_raw(ONE, np.ones(1), SIZE, classes=3)
    raw["output0"][4:] = raw["output0"][[5, 4, 6]]
    ready = ultralytics_end_to_end(ONE, np.ones(1))
    ready["output0"][0, 5] = 2
    for answers in (raw, ready):
        assert len(open_detector(always("images", SIZE, answers), {"person": 0})(picture())[0]) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("number", range(4))
def test_a_box_without_a_place_is_nobody(kind, number, wrong):
    boxes_px = np.array([[10, 10, 30, 50], [50, 10, 70, 50.0]])
    session = network(kind, boxes_px, [0.9, 0.8])
    output = session.answer(np.zeros(1))["output0"][0]
    output[(number, 0) if kind == "raw" else (0, number)] = wrong
    found, confidence = open_detector(always("images", SIZE, {"output0": output}))(picture())
    np.testing.assert_allclose(found, boxes_px[1:], atol=1e-4)
    np.testing.assert_allclose(confidence, [0.8])


def test_the_same_person_is_found_once_in_raw_output_only():
    boxes_px = np.array([[10, 10, 30, 50], [11, 10, 31, 50], [24, 10, 44, 50]])
    scores = [0.8, 0.9, 0.7]
    found, _ = open_detector(network("raw", boxes_px, scores))(picture())
    np.testing.assert_allclose(found, boxes_px[1:], atol=1e-4)
    assert len(open_detector(network("raw", boxes_px, scores), {"iou": 0.1})(picture())[0]) == 1
    assert len(open_detector(network("end to end", boxes_px, scores), {"iou": 0.1})(picture())[0]) == 3


def test_boxes_end_with_the_picture():
    boxes = np.array([[10, 10, 30, 40.0], [10, 50, 30, 60]])  # the picture is rows 16 to 48 of the canvas
    session = always("images", SIZE, ultralytics_end_to_end(boxes, np.array([0.9, 0.8])))
    found, _ = open_detector(session)(picture((96, 32)))
    np.testing.assert_allclose(found, [[9.5, -0.5, 29.5, 23.5]], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_the_batch_is_that_of_the_file(kind, batch):
    session = network(kind, ONE, [1.0], batch=batch)
    np.testing.assert_allclose(open_detector(session)(picture())[0], ONE, atol=1e-4)
    assert len(session.seen[0]) == (1 if batch == "batch" else batch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_a_file_of_this_format(tmp_path: Path, kind, batch):
    boxes_px = np.array([[5, 6, 25, 56], [50, 6, 70, 40.0]])
    answers = {out: rows[0] for out, rows in network(kind, boxes_px, [0.8, 0.9], (480, 360)).answer([0]).items()}
    path = write_always(tmp_path / "d.onnx", "images", SIZE, answers, batch)
    with open_session(path, device="cpu") as session:
        found, confidence = open_detector(session, {"format": "ultralytics", "threshold": 0.5})(picture((480, 360)))
    np.testing.assert_allclose(found, boxes_px[::-1], atol=1e-3)
    np.testing.assert_allclose(confidence, [0.9, 0.8])


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (640, 640, (1, 84, 8400)),
        (640, 640, (1, 5, 8400)),
        (640, 640, (1, 55, 8400)),
        (640, 384, ("batch", 84, 5040)),
        (1280, 1280, (1, 84, 34000)),  # four levels, the coarse one
        (640, 640, (1, 84, 34000)),  # four levels, the fine one
        (640, 640, (1, 300, 6)),
        (640, 640, ("batch", 1, 6)),
    ],
)
def test_shapes_that_are_taken(width, height, shape):
    session = Canned({"images": (1, 3, height, width)}, {"output0": shape})
    assert open_detector(session, {"person": 0}).name == "ultralytics"


OTHERS = {
    "pose": ({"images": (1, 3, 640, 640)}, {"output0": (1, 56, 8400)}),
    "pose, end to end": ({"images": (1, 3, 640, 640)}, {"output0": (1, 300, 57)}),
    "masks": ({"images": (1, 3, 640, 640)}, {"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}),
    "turned boxes": ({"images": (1, 3, 640, 640)}, {"output0": (1, 300, 7)}),
    "the transformer": ({"images": (1, 3, 640, 640)}, {"output0": (1, 300, 84)}),
    "its forerunner": ({"images": (1, 3, 640, 640)}, {"output0": (1, 25200, 85)}),
    "its forerunner, one class": ({"images": (1, 3, 640, 640)}, {"output0": (1, 25200, 6)}),
    "another name": ({"images": (1, 3, 640, 640)}, {"out": (1, 84, 8400)}),
    "another size": ({"images": (1, 3, 416, 416)}, {"output0": (1, 84, 8400)}),
    "no class": ({"images": (1, 3, 640, 640)}, {"output0": (1, 4, 8400)}),
    "cells unknown": ({"images": (1, 3, 640, 640)}, {"output0": (1, 84, "anchors")}),
    "classifier": ({"images": (1, 3, 224, 224)}, {"output0": (1, 1000)}),
    "grey": ({"images": (1, 1, 640, 640)}, {"output0": (1, 84, 8400)}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name):
    with pytest.raises(SessionError, match=r"not a detector in a known format|cannot be used as a detector"):
        open_detector(Canned(*OTHERS[name]), {"format": "ultralytics"})


KNOWN = "ultralytics accepts format, size_px, person, threshold, iou"


@pytest.mark.parametrize(
    ("recipe", "cause"),
    [
        ({"classes": 80}, "recipe: classes: Extra inputs are not permitted"),
        ({"iou": 2}, "recipe: iou: Input should be less than or equal to 1"),
    ],
)
def test_recipes_that_are_refused(recipe, cause):
    with pytest.raises(BundleError) as refusal:
        open_detector(network("raw", ONE, [1.0]), recipe)
    assert (refusal.value.cause, refusal.value.remedy) == (f"canned.onnx: {cause}", KNOWN)
