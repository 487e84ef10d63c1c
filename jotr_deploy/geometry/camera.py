"""Pinhole cameras of crops and people, exact (see `docs/cameras.md`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# The published camera: focal 5000 px on a crop of 256 px, whatever its resolution (JOTR code, `input_shape` 256).
FOCAL_PER_SIDE = 5000.0 / 256.0

Array = NDArray[Any]


def crop_camera(crop_side: int) -> tuple[float, float]:
    """Focal length and (twice the same) principal point of the crop camera, in crop pixels."""
    return FOCAL_PER_SIDE * crop_side, crop_side / 2


def camera_from_box(boxes_px: Array) -> tuple[Array, Array]:
    """The exact full-image camera of each square crop box.

    Args:
        boxes_px: (N, 4) square crop boxes in the image, x0 y0 x1 y1.

    Returns:
        focal_px (N,) = 5000 * side / 256, principal_px (N, 2) = centre of the box; float32.
    """
    boxes = np.asarray(boxes_px, np.float64)
    side = boxes[:, 2] - boxes[:, 0]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return (FOCAL_PER_SIDE * side).astype(np.float32), centre.astype(np.float32)


def project_px(points_m: Array, focal_px: Array, principal_px: Array) -> Array:
    """Project camera-frame points, each row of people with its own camera.

    Args:
        points_m: (N, P, 3) camera frame, metres, z > 0.
        focal_px: (N,).
        principal_px: (N, 2).

    Returns:
        (N, P, 2) image pixels.
    """
    focal = np.asarray(focal_px)[:, None, None]
    pixels: Array = points_m[..., :2] / points_m[..., 2:] * focal + np.asarray(principal_px)[:, None]
    return pixels
