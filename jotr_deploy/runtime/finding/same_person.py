"""One person found twice: a detector that keeps people who stand close together also keeps some of them twice.

Their boxes may differ, their joints do not, so joints decide: by the similarity that COCO scores 2-D poses with, with
one tolerance for all joints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.geometry.crop import VALID_CONFIDENCE

Array = NDArray[Any]

TOLERANCE = 0.1
"""Distance of two joints, as a share of the root of the smaller box's area, at which they are alike by exp(-1/2)."""
SAME = 0.6
"""Similarity above which two poses are of one person."""
LEAST_JOINTS = 5
"""That both must have; with fewer nothing is said."""


def distinct(keypoints_px: Array, boxes_px: Array) -> Array:
    """Who is not somebody else who comes before.

    Args:
        keypoints_px: (N, J, 3) x, y, confidence; the surest person first.
        boxes_px: (N, 4) x0 y0 x1 y1 about each person.

    Returns:
        (K,) indices, in order.
    """
    same = similarity(keypoints_px, boxes_px) > SAME
    kept = np.zeros(len(same), np.bool_)
    for person in range(len(same)):
        kept[person] = not same[person, kept].any()
    return np.flatnonzero(kept)


def similarity(keypoints_px: Array, boxes_px: Array) -> Array:
    """Of every pair of people, (N, N) in 0..1; 0 where they share fewer than `LEAST_JOINTS` joints."""
    points, valid = keypoints_px[..., :2].astype(np.float64), keypoints_px[..., 2] > VALID_CONFIDENCE
    sides = np.maximum(boxes_px[:, 2:] - boxes_px[:, :2], 1e-6).astype(np.float64)
    area = np.minimum(*np.broadcast_arrays(sides.prod(-1)[:, None], sides.prod(-1)))
    squared = np.square(points[:, None] - points).sum(-1) / (area[..., None] * TOLERANCE**2)
    shared = valid[:, None] & valid
    count = shared.sum(-1)
    alike = (np.exp(-squared / 2) * shared).sum(-1) / np.maximum(count, 1)
    return np.where(count >= LEAST_JOINTS, alike, 0.0)
