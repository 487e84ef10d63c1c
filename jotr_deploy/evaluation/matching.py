"""Matching of found boxes to true ones."""

from __future__ import annotations

import numpy as np

from jotr_deploy.geometry.boxes import iou
from jotr_deploy.support.aliases import Array

LEAST_IOU = 0.5


def clipped(boxes_px: Array, image_bgr: Array) -> Array:
    """Boxes (N, 4) clipped to the picture, as a detector sees no more."""
    height, width = image_bgr.shape[:2]
    return np.clip(boxes_px, -0.5, np.array([width, height, width, height]) - 0.5)


def match(found_px: Array, scores: Array, true_px: Array) -> Array:
    """Pairs of found and true boxes, each used once.

    In order of score, each found box is matched to the unmatched true box with the highest IoU, if that is
    at least 0.5.

    Args:
        found_px: (N, 4).
        scores: (N,).
        true_px: (M, 4).

    Returns:
        (K, 2) int64, index of the found and of the true box, in the order of the scores.
    """
    overlaps = iou(found_px, true_px)
    pairs = []
    for found in np.argsort(-np.asarray(scores), kind="stable"):
        true = int(overlaps[found].argmax()) if overlaps.shape[1] else 0
        if overlaps.shape[1] and overlaps[found, true] >= LEAST_IOU:
            pairs.append((found, true))
            overlaps[:, true] = -1
    return np.array(pairs, np.int64).reshape(-1, 2)
