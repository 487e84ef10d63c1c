"""Boxes as x0 y0 x1 y1, in any unit."""

from __future__ import annotations

import numpy as np

from jotr_deploy.support.aliases import Array


def iou(first: Array, second: Array) -> Array:
    """Intersection over union of every pair of boxes: (N, 4) and (M, 4) to (N, M) float64; 0 without area."""
    a, b = np.asarray(first, np.float64)[:, None], np.asarray(second, np.float64)[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    union = _area(a) + _area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(boxes: Array) -> Array:
    return np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(-1)


def mirrored(boxes_px: Array, width: int) -> Array:
    """(N, 4) boxes in a picture of `width` pixels, seen in a mirror."""
    x0, y0, x1, y1 = np.moveaxis(boxes_px, -1, 0)
    return np.stack([width - 1 - x1, y0, width - 1 - x0, y1], -1)


def widened(boxes_px: Array, factor: float) -> Array:
    """Boxes (N, 4) with sides `factor` times as long about the same centres."""
    corners = boxes_px.reshape(-1, 2, 2)
    middle = corners.mean(1, keepdims=True)
    return np.asarray((middle + factor * (corners - middle)).reshape(-1, 4))
