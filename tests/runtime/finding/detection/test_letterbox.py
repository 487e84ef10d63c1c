"""Pictures on a detector's canvas, and boxes back to the half pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.runtime.finding.detection.letterbox import (
    PAD,
    boxes_in_image,
    boxes_on_canvas,
    letterbox,
    letterbox_centred,
)

CANVAS = (64, 96)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((64, 96), (64, 96)),
        ((128, 192), (64, 96)),
        ((100, 50), (64, 32)),
        ((50, 100), (48, 96)),
        ((1, 1), (64, 64)),
        ((20, 600), (3, 96)),
        ((600, 20), (64, 2)),
        ((1, 2000), (1, 96)),
        ((40000, 3), (64, 1)),
    ],
)
def test_the_picture_lies_at_the_top_left_and_the_rest_is_grey(size, fitted):
    canvas, scale = letterbox(np.full((size[1], size[0], 3), 255, np.uint8), CANVAS)
    assert canvas.shape == (96, 64, 3)
    assert canvas.dtype == np.uint8
    assert (canvas[: fitted[1], : fitted[0]] == 255).all()
    assert (canvas[fitted[1] :] == PAD).all()
    assert (canvas[:, fitted[0] :] == PAD).all()
    np.testing.assert_allclose(scale, np.array(fitted) / size)


def test_of_the_right_size_nothing_changes(rng):
    image = rng.integers(0, 256, (96, 64, 3), np.uint8)
    canvas, scale = letterbox(image, CANVAS)
    np.testing.assert_array_equal(canvas, image)
    np.testing.assert_array_equal(scale, [1, 1])


@pytest.mark.parametrize("factor", [2, 4])
def test_edges_are_half_a_pixel_before_the_first_centre(factor):
    image = np.zeros((96 * factor, 64 * factor, 3), np.uint8)
    image[8 * factor : 24 * factor, 4 * factor : 20 * factor] = 255
    canvas, scale = letterbox(image, CANVAS)
    y, x = np.nonzero(canvas[..., 0] > 127)
    bright = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]])
    expected = np.array([[4, 8, 20, 24]]) * factor - 0.5  # from the left edge of the first white pixel
    np.testing.assert_array_equal(boxes_in_image(bright, scale, (64 * factor, 96 * factor)), expected)


def test_boxes_go_there_and_back(rng):
    low = rng.uniform(-0.5, 50, (20, 2))
    boxes_px = np.concatenate([low, low + rng.uniform(0, 40, (20, 2))], 1)
    scale = np.array([0.37, 0.41])
    back = boxes_in_image(boxes_on_canvas(boxes_px, scale), scale, (100, 100))
    np.testing.assert_allclose(back, boxes_px, atol=1e-4)
    assert back.dtype == np.float32


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([[-5, -5, 200, 200]], [[-0.5, -0.5, 99.5, 49.5]]),
        ([[10, 10, 20, 20]], [[9.5, 9.5, 19.5, 19.5]]),
        ([[300, 10, 400, 20]], [[99.5, 9.5, 99.5, 19.5]]),
        (np.zeros((0, 4)), np.zeros((0, 4))),
    ],
)
def test_boxes_are_clipped_to_the_picture(box, expected):
    np.testing.assert_array_equal(boxes_in_image(np.array(box, float), np.ones(2), (100, 50)), expected)


@pytest.mark.parametrize(
    ("size", "fitted", "left_top"),
    [
        ((64, 96), (64, 96), (0, 0)),
        ((100, 50), (64, 32), (0, 32)),
        ((100, 51), (64, 33), (0, 31)),  # 32.64 rounds up; of 63 rows of padding the odd one is below
        ((50, 100), (48, 96), (8, 0)),
        ((51, 100), (49, 96), (7, 0)),
        ((1, 1), (64, 64), (0, 16)),
        ((20, 600), (3, 96), (30, 0)),
        ((600, 20), (64, 2), (0, 47)),
        ((1, 2000), (1, 96), (31, 0)),
        ((40000, 3), (64, 1), (0, 47)),
        ((64, 3), (64, 3), (0, 46)),
    ],
)
def test_the_picture_lies_in_the_middle(size, fitted, left_top):
    canvas, scale, begins = letterbox_centred(np.full((size[1], size[0], 3), 255, np.uint8), CANVAS)
    left, top = left_top
    expected = np.full((96, 64, 3), PAD, np.uint8)
    expected[top : top + fitted[1], left : left + fitted[0]] = 255
    np.testing.assert_array_equal(canvas, expected)
    assert canvas.dtype == np.uint8
    np.testing.assert_allclose(scale, np.array(fitted) / size)
    assert tuple(begins) == left_top == tuple(round((c - f) / 2 - 0.1) for c, f in zip(CANVAS, fitted, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**31))
def test_boxes_go_to_the_middle_and_back(width, height, seed):
    image = np.zeros((height, width, 3), np.uint8)
    _, scale, left_top = letterbox_centred(image, CANVAS)
    inside = np.sort(np.random.default_rng(seed).uniform(0, 1, (5, 2, 2)), 1) * (width, height) - 0.5
    boxes_px = inside.reshape(-1, 4)
    boxes = boxes_on_canvas(boxes_px, scale, left_top)
    assert (boxes >= np.tile(left_top, 2) - 1e-9).all()
    assert (boxes <= np.tile(np.array(CANVAS) - left_top, 2) + 1e-9).all()
    np.testing.assert_allclose(boxes_in_image(boxes, scale, (width, height), left_top), boxes_px, atol=1e-3)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_edges_in_the_middle_are_half_a_pixel_before_the_first_centre(factor):
    image = np.zeros((32 * factor, 64 * factor, 3), np.uint8)
    image[8 * factor : 24 * factor, 4 * factor : 20 * factor] = 255
    canvas, scale, left_top = letterbox_centred(image, CANVAS)
    y, x = np.nonzero(canvas[..., 0] > 127)
    bright = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]])
    expected = np.array([[4, 8, 20, 24]]) * factor - 0.5
    np.testing.assert_array_equal(boxes_in_image(bright, scale, (64 * factor, 32 * factor), left_top), expected)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_place_on_the_canvas_is_none_in_the_picture(wrong):
    boxes = boxes_in_image(np.array([[wrong, 1, 8, 9]]), np.ones(2), (100, 50))
    np.testing.assert_array_equal(boxes, [[np.nan, 0.5, 7.5, 8.5]])
