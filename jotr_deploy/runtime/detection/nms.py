"""Of boxes that show the same, the best."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def iou(a: Array, b: Array) -> Array:
    """(A, 4), (B, 4) boxes x0 y0 x1 y1 -> (A, B) intersection over union; 0 where neither has an area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = _area(a)[:, None] + _area(b)[None] - shared
    ratio: Array = shared / np.where(union > 0, union, 1)
    return ratio


def _area(boxes: Array) -> Array:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1)


def nms(boxes: Array, scores: Array, limit: float) -> Array:
    """Which boxes stay, best first: none shares more than `limit` (an IoU) with a better one that stays.

    Args:
        boxes: (N, 4) x0 y0 x1 y1.
        scores: (N,); equal ones keep their order.
        limit: 0..1.

    Returns:
        (K,) indices.
    """
    waiting, kept = np.argsort(-scores, kind="stable"), []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[iou(boxes[best][None], boxes[waiting])[0] <= limit]
    return np.array(kept, np.int64)
