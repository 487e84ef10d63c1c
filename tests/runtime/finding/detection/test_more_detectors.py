"""YOLOv5, YOLOv6, EfficientNMS, RT-DETR, RF-DETR: known boxes come back; colours, nobody, thresholds, odd numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from canned import (
    Canned,
    always,
    efficient_nms_answers,
    on_centred_canvas,
    rf_detr_answers,
    rtdetr_answers,
    with_objectness,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.finding.detection import open_detector

SIZE = (96, 64)
SHAPES = [(480, 360), (360, 480), (96, 64), (97, 63), (31, 17), (1, 1), (20, 600), (600, 20), (3, 2000)]
ONE = np.array([[10, 10, 30, 50.0]])
NOBODY = np.zeros((0, 4))

Answers = dict[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A format and a network in it that finds given boxes (N, 4) of a picture of a given size."""

    input: str
    answers: Callable[[np.ndarray, np.ndarray, tuple[int, int]], Answers]
    red: tuple[float, float, float]
    """The input's channels for pure red."""
    padded: bool = True
    """Whether the picture keeps its aspect."""


def of_rows(name: str, each: int) -> Callable[[np.ndarray, np.ndarray, tuple[int, int]], Answers]:
    return lambda b, s, size: {name: with_objectness(on_centred_canvas(b, size, SIZE), s, SIZE, each, 80)}


IMAGENET_RED = ((1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225)
KINDS = {
    "yolov5": Kind("images", of_rows("output0", 3), (1, 0, 0)),
    "yolov6": Kind("images", of_rows("outputs", 1), (1, 0, 0)),
    "efficient-nms": Kind(
        "images", lambda b, s, size: efficient_nms_answers(on_centred_canvas(b, size, SIZE), s), (1, 0, 0)
    ),
    "rtdetr-ultralytics": Kind("images", rtdetr_answers, (1, 0, 0), padded=False),
    "rf-detr": Kind("input", rf_detr_answers, IMAGENET_RED, padded=False),
}


def picture(size_px: tuple[int, int] = SIZE) -> np.ndarray:
    return np.zeros((size_px[1], size_px[0], 3), np.uint8)


def network(kind: str, boxes_px=NOBODY, scores=(), size_px=SIZE, batch: int | str = "batch") -> Canned:
    answers = KINDS[kind].answers(np.asarray(boxes_px, float), np.asarray(scores, np.float32), size_px)
    return always(KINDS[kind].input, SIZE, answers, batch)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(KINDS)), st.sampled_from(SHAPES), st.integers(0, 2**31), st.integers(0, 5))
def test_known_boxes_come_back(kind, size_px, seed, count):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.5, (count, 2))
    boxes_px = np.concatenate([low, rng.uniform(0.55, 1, (count, 2))], 1) * (size_px * 2) - 0.5
    scores = rng.permutation(np.linspace(0.6, 0.95, count))
    recipe = {"iou": 1.0} if kind in ("yolov5", "yolov6") else {}
    detector = open_detector(network(kind, boxes_px, scores, size_px), recipe)
    found, confidence = detector(picture(size_px))
    assert detector.name == kind
    order = np.argsort(-scores)
    np.testing.assert_allclose(found, boxes_px[order], atol=2e-5 * max(*size_px, 10))
    np.testing.assert_allclose(confidence, scores[order], rtol=1e-5)
    assert (found.dtype, confidence.dtype, found.shape) == (np.float32, np.float32, (count, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_red_is_the_first_channel(kind):
    session = network(kind)
    open_detector(session)(np.full((32, 96, 3), (0, 0, 255), np.uint8))
    (seen,) = session.seen
    np.testing.assert_allclose(seen[0, :, 32, 48], KINDS[kind].red, rtol=1e-5)
    at_the_top = [114 / 255] * 3 if KINDS[kind].padded else KINDS[kind].red
    np.testing.assert_allclose(seen[0, :, 0, 48], at_the_top, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("scores", "threshold", "count"), [([], 0.5, 0), ([0.75], 0.75, 0), ([0.75], 0.74, 1), ([0.75, 0.5], 0.6, 1)]
)
def test_scores_at_the_threshold_are_nobody(kind, scores, threshold, count):
    boxes_px = np.array([[10, 10, 30, 50], [50, 10, 70, 50.0]])[: len(scores)]
    found, confidence = open_detector(network(kind, boxes_px, scores), {"threshold": threshold})(picture())
    np.testing.assert_allclose(confidence, scores[:count], rtol=1e-6)
    assert found.shape == (count, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_another_class_is_a_person_if_the_recipe_says_so(kind):
    detector = open_detector(network(kind, ONE, [0.9]), {"person": 5})
    assert detector.about.endswith("person is class 5")
    assert len(detector(picture())[0]) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_the_batch_is_that_of_the_file(kind, batch):
    session = network(kind, ONE, [0.9], batch=batch)
    np.testing.assert_allclose(open_detector(session)(picture())[0], ONE, atol=1e-4)
    assert len(session.seen[0]) == (1 if batch == "batch" else batch)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_none_find_nobody(kind):
    session = network(kind, ONE, [0.9])
    answers = {name: rows[0].copy() for name, rows in session.answer([0]).items()}
    for rows in answers.values():
        if rows.dtype.kind == "f":
            rows[0] = np.nan
    assert open_detector(always(KINDS[kind].input, SIZE, answers))(picture())[0].shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_right_numbers_are_not_odd(kind):
    session = network(kind, ONE, [0.9])
    assert open_detector(session).oddity(session.answer([0])) is None


SIZES = "its boxes end before they begin, as if the last two numbers were width and height"
PIXELS, SHARES = (
    "its boxes are in pixels, not fractions of the picture",
    "its boxes are fractions of the picture, not pixels",
)


@pytest.mark.parametrize(
    ("kind", "output", "change", "said"),
    [
        ("yolov5", "output0", lambda rows: rows[:, :4].__imul__(0.01), SHARES),
        ("yolov6", "outputs", lambda rows: rows[:, 5:].__isub__(3), "its scores go from -3 to 1, not from 0 to 1"),
        ("efficient-nms", "det_boxes", lambda rows: rows.__imul__(0.01), SHARES),
        ("efficient-nms", "det_boxes", lambda rows: rows[:, 2:].__imul__(0.1), SIZES),
        ("efficient-nms", "det_scores", lambda rows: rows.__imul__(9), "its scores go from 0 to 8.1, not from 0 to 1"),
        ("rtdetr-ultralytics", "output0", lambda rows: rows[:, :4].__imul__(64), PIXELS),
        ("rf-detr", "dets", lambda rows: rows.__imul__(64), PIXELS),
        (
            "rf-detr",
            "labels",
            lambda rows: rows.clip(0, 1, out=rows),
            "its labels are never negative, so they are not logits",
        ),
    ],
)
def test_odd_numbers_are_told(kind, output, change, said):
    session = network(kind, ONE, [0.9])
    answers = session.answer([0])
    change(answers[output][0])
    assert open_detector(session).oddity(answers) == said


OTHERS = {
    "yolov5, another size": ("yolov5", {"output0": (1, 25200, 85)}),
    "yolov5, no class": ("yolov5", {"output0": (1, 378, 5)}),
    "yolov6, named as yolox": ("yolov6", {"output": (1, 126, 85)}),
    "yolox, named as yolov6": ("yolox", {"outputs": (1, 126, 85)}),
    "efficient nms without its count": ("efficient-nms", {"det_boxes": (1, 9, 4), "det_scores": (1, 9)}),
    "rt-detr, an angle": ("rtdetr-ultralytics", {"output0": (1, 20, 7)}),
    "rt-detr, joints": ("rtdetr-ultralytics", {"output0": (1, 20, 57)}),
    "rf-detr with masks": ("rf-detr", {"dets": (1, 20, 4), "labels": (1, 20, 91), "masks": (1, 20, 16, 24)}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name):
    kind, outputs = OTHERS[name]
    with pytest.raises(SessionError):
        open_detector(Canned({"images": (1, 3, 64, 96)}, outputs), {"format": kind})
