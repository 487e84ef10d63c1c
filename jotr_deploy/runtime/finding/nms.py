"""Of boxes that show the same, the best."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.geometry.boxes import iou

Array = NDArray[Any]


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
