"""Which of the boxes found are people."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.runtime.detection.nms import nms

Array = NDArray[Any]


def chosen(boxes_px: Array, scores: Array, threshold: float, iou: float = 1.0) -> Array:
    """Those with a score above the threshold and an area, each once, best first.

    Args:
        boxes_px: (N, 4) x0 y0 x1 y1; NaN is no area.
        scores: (N,); NaN is above nothing.
        threshold: in the unit of the scores.
        iou: two people share at most this; 1 where the network itself has told them apart.

    Returns:
        (K,) indices.
    """
    found = np.flatnonzero((scores > threshold) & (boxes_px[:, 2:] > boxes_px[:, :2]).all(1))
    return found[nms(boxes_px[found], scores[found], iou)]
