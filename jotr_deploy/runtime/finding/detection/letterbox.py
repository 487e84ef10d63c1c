"""Letterboxing: an image resized into a canvas of fixed size, aspect ratio kept, at the top left or in the middle.

Detectors measure from the edge of the first pixel: their canvas begins at 0 and pixel i covers i..i+1, as in COCO's
boxes. In this project the first pixel's centre is 0. Resizing preserves the image's edges, so 0 on the canvas is -0.5
here: `image_px = (canvas - left_top) / scale - 0.5`, where the image begins at `left_top`, 0 at the top left.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from jotr_deploy.support.aliases import Array

PAD = 114


def letterbox(image_bgr: Array, size_px: tuple[int, int]) -> tuple[Array, Array]:
    """Resize bilinearly to the largest size that fits, rounded down to whole pixels but at least one.

    Args:
        image_bgr: (H, W, 3) uint8.
        size_px: width, height of the canvas.

    Returns:
        The canvas (height, width, 3) uint8, and the scale (2,) in x and y, canvas pixels per image pixel.
    """
    height, width = image_bgr.shape[:2]
    fitted = fitted_size_px((width, height), size_px)
    return _pasted(image_bgr, size_px, fitted, (0, 0)), np.array(fitted) / (width, height)


def letterbox_centred(image_bgr: Array, size_px: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Resize like `letterbox`, but centred and rounded to the nearest size, halves to even.

    Returns:
        The canvas and the scale as from `letterbox`, and `left_top` (2,), where the image begins on the canvas.
    """
    height, width = image_bgr.shape[:2]
    fitted = fitted_size_px((width, height), size_px, round)
    # Half of the rest minus 0.1, rounded, as these detectors do it: an odd pixel goes to the right or bottom.
    left, top = ((whole - part) // 2 for whole, part in zip(size_px, fitted, strict=True))
    canvas = _pasted(image_bgr, size_px, fitted, (left, top))
    return canvas, np.array(fitted) / (width, height), np.array([left, top])


def fitted_size_px(
    image_size_px: tuple[int, int], size_px: tuple[int, int], whole: Callable[[float], int] = int
) -> tuple[int, int]:
    """Width and height of the image on the canvas, rounded by `whole`."""
    ratio = min(size_px[0] / image_size_px[0], size_px[1] / image_size_px[1])
    return max(whole(image_size_px[0] * ratio), 1), max(whole(image_size_px[1] * ratio), 1)


def _pasted(image_bgr: Array, size_px: tuple[int, int], fitted_px: tuple[int, int], left_top: tuple[int, int]) -> Array:
    (width, height), (left, top) = fitted_px, left_top
    canvas = np.full((size_px[1], size_px[0], 3), PAD, np.uint8)
    resized = cv2.resize(image_bgr, fitted_px, interpolation=cv2.INTER_LINEAR)
    canvas[top : top + height, left : left + width] = resized
    return canvas


def boxes_in_image(boxes: Array, scale: Array, image_size_px: tuple[int, int], left_top: Array | int = 0) -> Array:
    """Boxes (N, 4) x0 y0 x1 y1 on the canvas, from its edge -> (N, 4) float32 in the image, clipped to it.

    Non-finite values become NaN.
    """
    edges = (boxes.reshape(-1, 2, 2) - left_top) / scale
    edges = np.clip(np.where(np.isfinite(edges), edges, np.nan), 0, image_size_px)
    return (edges.reshape(-1, 4) - 0.5).astype(np.float32)


def boxes_on_canvas(boxes_px: Array, scale: Array, left_top: Array | int = 0) -> Array:
    """Inverse of `boxes_in_image`, without clipping; (N, 4) float64."""
    edges = np.asarray(boxes_px, np.float64).reshape(-1, 2, 2) + 0.5
    return (edges * scale + left_top).reshape(-1, 4)
