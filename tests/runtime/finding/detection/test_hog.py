"""OpenCV's detector: a drawn figure is found where it stands, pictures of every size, nobody, OpenCV without it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import figure

from jotr_deploy.errors import MissingDependency
from jotr_deploy.geometry.boxes import iou
from jotr_deploy.runtime.finding.detection.hog import HogDetector
from jotr_deploy.runtime.finding.detection.letterbox import fitted_size_px


@pytest.mark.parametrize(
    ("size_px", "height_px", "top_px"),
    [((160, 200), 120, (80, 40)), ((480, 360), 200, (150, 80)), ((1280, 960), 600, (600, 200))],
)
def test_who_stands_there_is_found(size_px, height_px, top_px):
    boxes_px, scores = HogDetector()(figure(size_px, height_px, top_px))
    assert (boxes_px.shape, boxes_px.dtype, scores.dtype) == ((1, 4), np.float32, np.float32)
    middle = (boxes_px[0, :2] + boxes_px[0, 2:]) / 2
    np.testing.assert_allclose(middle, [top_px[0], top_px[1] + height_px / 2], atol=0.1 * height_px)
    assert boxes_px[0, 3] - boxes_px[0, 1] == pytest.approx(height_px, rel=0.2)
    assert 0.5 < scores[0] < 1
    (score,) = scores
    assert len(HogDetector(threshold=float(score))(figure(size_px, height_px, top_px))[0]) == 0  # above it, not at it


SMALL = [(1, 1), (64, 64), (60, 200), (200, 60), (63, 127), (64, 128), (20, 600), (600, 20), (3, 2000), (2000, 3)]


@pytest.mark.parametrize("size_px", SMALL)
def test_no_picture_is_too_small(size_px, rng):
    image = rng.integers(0, 256, (size_px[1], size_px[0], 3), np.uint8)
    before = image.copy()
    boxes_px, scores = HogDetector()(image)
    assert (boxes_px.shape, boxes_px.dtype) == ((len(scores), 4), np.float32)
    assert (scores.shape, scores.dtype) == ((len(boxes_px),), np.float32)
    np.testing.assert_array_equal(image, before)


def test_nobody():
    boxes_px, scores = HogDetector()(np.zeros((480, 640, 3), np.uint8))
    assert (boxes_px.shape, boxes_px.dtype) == ((0, 4), np.float32)
    assert (scores.shape, scores.dtype) == ((0,), np.float32)


class Answering:
    """In the place of OpenCV's classifier: answers what it was told, and keeps what it saw."""

    def __init__(self, windows: np.ndarray, margins: np.ndarray) -> None:
        self.answer, self.seen = (windows, margins), []

    def detectMultiScale(self, image: np.ndarray, **options: object) -> tuple:  # noqa: N802
        self.seen.append(image)
        return self.answer


def answering(windows, margins, **options) -> tuple[HogDetector, Answering]:
    detector = HogDetector(**options)
    detector._hog = Answering(np.array(windows, np.int32), np.array(margins))
    return detector, detector._hog


@pytest.mark.parametrize(
    ("size_px", "seen_px"),
    [
        ((640, 480), (640, 480)),
        ((1280, 960), (640, 480)),
        ((1000, 3000), (213, 640)),
        ((300, 200), (300, 200)),
        ((50, 60), (64, 128)),
        ((2000, 3), (640, 128)),
        ((1, 1), (64, 128)),
    ],
)
def test_it_sees_a_copy_of_bounded_size(size_px, seen_px):
    detector, classifier = answering(np.zeros((0, 4)), [])
    image = np.full((size_px[1], size_px[0], 3), 90, np.uint8)
    detector(image)
    (seen,) = classifier.seen
    assert (seen.shape[1], seen.shape[0]) == seen_px
    assert (seen == 90).all()  # no edge where the picture ends
    assert not np.shares_memory(seen, image)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(0, 2**31))
def test_windows_become_boxes_of_the_picture(width, height, seed):
    low, size = np.random.default_rng(seed).integers(1, 400, (2, 2))
    detector, _ = answering([[*low, *size]], [[0.7]])
    boxes_px, scores = detector(np.zeros((height, width, 3), np.uint8))
    longest = min(max(width, height), 640)
    copy = fitted_size_px((width, height), (longest, longest))
    corners = np.array([low + 0.1 * size, low + 0.9 * size]) * (width, height) / copy
    if (corners[0] >= (width, height)).any():  # in what was added to a small picture
        assert len(boxes_px) == 0
    else:
        expected = np.clip(corners, 0, (width, height)).reshape(1, 4) - 0.5
        np.testing.assert_allclose(boxes_px, expected, atol=1e-3)
        np.testing.assert_allclose(scores, [1 / (1 + np.exp(-0.7))], rtol=1e-6)


def test_the_same_person_is_found_once_and_the_surest_first():
    windows = [[100, 100, 64, 128], [104, 100, 64, 128], [300, 100, 64, 128], [400, 100, 64, 128]]
    boxes_px, scores = answering(windows, [0.5, 1.0, 2.0, np.nan])[0](np.zeros((480, 640, 3), np.uint8))
    np.testing.assert_allclose(boxes_px, [[305.9, 112.3, 357.1, 214.7], [109.9, 112.3, 161.1, 214.7]], atol=1e-3)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp([-2, -1])), rtol=1e-6)
    both = answering(windows, [0.5, 1.0, 2.0, 3.0], iou=1.0)[0](np.zeros((480, 640, 3), np.uint8))
    assert len(both[0]) == 4
    assert iou(both[0], both[0]).max() == 1


def test_of_equals_the_same_stays_whatever_their_order():
    windows = [[100, 100, 64, 128], [104, 100, 64, 128], [98, 102, 64, 128]]
    found = [
        answering([windows[k] for k in order], [1.0, 1.0, 1.0])[0](np.zeros((480, 640, 3), np.uint8))
        for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])
    ]
    for boxes_px, scores in found:
        assert len(boxes_px) == 1
        np.testing.assert_array_equal(boxes_px, found[0][0])
        np.testing.assert_array_equal(scores, found[0][1])


def test_an_opencv_without_it_is_named(monkeypatch):
    monkeypatch.delattr(cv2, "HOGDescriptor")
    with pytest.raises(MissingDependency) as missing:
        HogDetector()
    assert missing.value.cause == f"OpenCV {cv2.__version__} has no HOG person detector"
    assert missing.value.remedy == "pip install 'opencv-python-headless>=4.10,<5'"
