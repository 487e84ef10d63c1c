"""EXIF orientation: from the pixels as a camera stored them to the upright picture."""

from __future__ import annotations

import numpy as np

from jotr_deploy.support.aliases import Array

TURNED = (5, 6, 7, 8)
"""Orientations that exchange width and height."""


def upright_from_stored(points_px: Array, orientation: int, size_px: tuple[int, int]) -> Array:
    """Stored pixels (..., 2) in the upright picture of `size_px` (width, height); integers are pixel centres."""
    width, height = size_px
    x, y = points_px[..., 0], points_px[..., 1]
    if orientation in TURNED:
        x, y = y, x
    if orientation in (2, 3, 6, 7):
        x = width - 1 - x
    if orientation in (3, 4, 7, 8):
        y = height - 1 - y
    return np.stack([x, y], -1)
