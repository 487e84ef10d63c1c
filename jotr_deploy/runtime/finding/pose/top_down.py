"""Warp from boxes to the input of a top-down pose network, and back for its joints.

Pixel centres are at integer coordinates both in images and in the inputs of these networks, so there is no half-pixel
offset. The centre of a box maps to (W / 2, H / 2) of the input, half a pixel beyond its middle, (W - 1) / 2: this is
the published warp that networks are trained with, except for those trained with UDP (`corners_aligned`).
"""

from __future__ import annotations

import cv2
import numpy as np

from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.support.aliases import Array

MARGIN = 1.25  # growth of the person's box to what the network sees
_LEAST_SIDE_PX = 1.0
# OpenCV warps with 16-bit source positions; larger regions are subsampled first.
_MAX_SPAN_PX = 30000


def input_from_image(boxes_px: Array, size_px: tuple[int, int]) -> Array:
    """Affines (N, 2, 3) float64, `input_px = A @ [image_px, 1]`.

    The box grows by `MARGIN`, then along one axis to the aspect ratio of the input; both axes share one scale.

    Args:
        boxes_px: (N, 4) x0 y0 x1 y1.
        size_px: width, height of the input.
    """
    boxes = np.asarray(boxes_px, np.float64)
    size = np.asarray(size_px, np.float64)
    seen = np.maximum(boxes[:, 2:] - boxes[:, :2], _LEAST_SIDE_PX) * MARGIN
    scale = (size / seen).min(1)
    affine = np.zeros((len(boxes), 2, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = size / 2 - scale[:, None] * (boxes[:, :2] + boxes[:, 2:]) / 2
    return affine


def corners_aligned(affines: Array, size_px: tuple[int, int]) -> Array:
    """Affines for UDP, in which the crop ends at the centre of the input's last pixel, not one pixel beyond.

    Args:
        affines: (N, 2, 3) from `input_from_image`.
        size_px: width, height of the input.
    """
    size = np.asarray(size_px, np.float64)
    aligned: Array = affines * ((size - 1) / size)[:, None]
    return aligned


def image_from_input(affines: Array, points: Array) -> Array:
    """Map points (N, J, 2) of the inputs back into the image; `affines` come from the functions above."""
    scale = affines[:, None, [0, 1], [0, 1]]
    back: Array = (points - affines[:, None, :, 2]) / scale
    return back


def cut(image_bgr: Array, affine: Array, size_px: tuple[int, int]) -> Array:
    """Crop for one input: (H, W, 3) uint8, bilinear, black outside the image."""
    width, height = size_px
    corners = image_from_input(affine[None], np.array([[[0.0, 0.0], [width - 1.0, height - 1.0]]]))[0]
    first = np.maximum(np.floor(corners[0]) - 2, 0)
    last = np.minimum(np.ceil(corners[1]) + 3, image_bgr.shape[1::-1])
    if (first >= last).any():
        return np.zeros((height, width, 3), np.uint8)
    (x0, y0), (x1, y1) = first.astype(int), last.astype(int)
    step = int(np.ceil((last - first).max() / _MAX_SPAN_PX))
    input_from_region = affine.copy()
    input_from_region[:, 2] = transform_px(affine, first[None])[0]
    input_from_region[:, :2] *= step
    return cv2.warpAffine(image_bgr[y0:y1:step, x0:x1:step], input_from_region, size_px, flags=cv2.INTER_LINEAR)
