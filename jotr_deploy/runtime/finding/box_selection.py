"""Which of the boxes found are people."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.geometry.boxes import iou as overlap
from jotr_deploy.runtime.finding.nms import nms

Array = NDArray[Any]

ALIKE = 0.6
"""Boxes that share more (an IoU) show the same."""


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
    found = _found(boxes_px, scores, threshold)
    return found[nms(boxes_px[found], scores[found], iou)]


def mean_of_alike(boxes_px: Array, scores: Array, kept: Array, threshold: float) -> Array:
    """The kept boxes, each as the mean of all that show the same, the surer and the nearer counting more.

    Args:
        boxes_px: (N, 4) x0 y0 x1 y1, as for `chosen`.
        scores: (N,).
        kept: (K,) what `chosen` says with the same threshold.
        threshold: who has less does not count.

    Returns:
        (K, 4).
    """
    found = _found(boxes_px, scores, threshold)
    near = overlap(boxes_px[kept], boxes_px[found])
    weight = np.where(near > ALIKE, near * scores[found], 0)
    mean: Array = weight @ boxes_px[found] / weight.sum(1, keepdims=True)
    return mean


def _found(boxes_px: Array, scores: Array, threshold: float) -> Array:
    return np.flatnonzero((scores > threshold) & (boxes_px[:, 2:] > boxes_px[:, :2]).all(1))
