"""A picture into a canvas of fixed size: aspect kept, at the top left, the rest padded.

Detectors count from the edge of the first pixel: their canvas begins at 0, pixel i covers i..i+1, as in boxes of COCO.
In this project the first pixel's centre is 0. Resizing keeps the picture's edges, so what is 0 on the canvas is -0.5
here: `image_px = canvas / scale - 0.5`.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PAD = 114


def letterbox(image_bgr: Array, size_px: tuple[int, int]) -> tuple[Array, Array]:
    """Resize bilinearly to the largest size that fits, rounded down to whole pixels but at least one.

    Args:
        image_bgr: (H, W, 3) uint8.
        size_px: width, height of the canvas.

    Returns:
        The canvas (height, width, 3) uint8, and the scale (2,) in x and y, canvas pixels for one of the picture.
    """
    height, width = image_bgr.shape[:2]
    fitted = fitted_size_px((width, height), size_px)
    canvas = np.full((size_px[1], size_px[0], 3), PAD, np.uint8)
    canvas[: fitted[1], : fitted[0]] = cv2.resize(image_bgr, fitted, interpolation=cv2.INTER_LINEAR)
    return canvas, np.array(fitted) / (width, height)


def fitted_size_px(image_size_px: tuple[int, int], size_px: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the picture on the canvas."""
    ratio = min(size_px[0] / image_size_px[0], size_px[1] / image_size_px[1])
    return max(int(image_size_px[0] * ratio), 1), max(int(image_size_px[1] * ratio), 1)


def boxes_in_image(boxes: Array, scale: Array, image_size_px: tuple[int, int]) -> Array:
    """Boxes (N, 4) x0 y0 x1 y1 on the canvas, from its edge -> (N, 4) float32 in the picture, clipped to it."""
    edges = np.clip(boxes.reshape(-1, 2, 2) / scale, 0, image_size_px)
    return (edges.reshape(-1, 4) - 0.5).astype(np.float32)


def boxes_on_canvas(boxes_px: Array, scale: Array) -> Array:
    """The inverse of `boxes_in_image`, without clipping; (N, 4) float64."""
    return ((np.asarray(boxes_px, np.float64).reshape(-1, 2, 2) + 0.5) * scale).reshape(-1, 4)
