"""Pinhole cameras of crops and people, exact (see `docs/cameras.md`)."""

from __future__ import annotations

import numpy as np

from jotr_deploy.support.aliases import Array

# The published camera: focal 5000 px on a crop of 256 px, whatever its resolution (JOTR code, `input_shape` 256).
FOCAL_PER_SIDE = 5000.0 / 256.0


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


def looking_at(pixels_px: Array, focal_px: Array | float, principal_px: Array) -> Array:
    """The rotation from a camera's frame to that of a camera in the same place that looks at a pixel, without roll.

    What a crop shows is seen along the ray through its centre: two people in one pose look alike in their crops when
    they look alike to such a camera, wherever in the picture they are.

    Args:
        pixels_px: (..., 2).
        focal_px: of the camera, broadcast against the leading axes.
        principal_px: (..., 2) of the camera.

    Returns:
        (..., 3, 3) float64: `R @ point` for a point of the camera's frame.
    """
    offset = (np.asarray(pixels_px, np.float64) - principal_px) / np.asarray(focal_px, np.float64)[..., None]
    x, y, z = np.moveaxis(np.concatenate([offset, np.ones((*offset.shape[:-1], 1))], -1), -1, 0)
    length = np.sqrt(x * x + y * y + z * z)
    x, y, z = x / length, y / length, z / length
    # The shortest turn that takes the ray (x, y, z) to the axis (0, 0, 1).
    rows = [[1 - x * x / (1 + z), -x * y / (1 + z), -x], [-x * y / (1 + z), 1 - y * y / (1 + z), -y], [x, y, z]]
    return np.stack([np.stack(np.broadcast_arrays(*row), -1) for row in rows], -2)
