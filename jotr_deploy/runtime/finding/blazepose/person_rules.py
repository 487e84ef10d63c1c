"""Rules that tell people from what a close look invents: the same person again, or a small one in somebody's legs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.runtime.finding.blazepose.landmarks import BODY, Poses
from jotr_deploy.runtime.finding.blazepose.rotated_crops import radii_px

Array = NDArray[Any]

LEAST_FLAG, LEAST_FIRST_FLAG = 0.5, 0.2
"""That a pose is of a person, at the last look; and at the first, which a better crop follows."""
LEAST_STRENGTH = 0.55
"""Detection score times flag of somebody new; on drawn scenes fewer false people at the cost of few true ones."""
SAME_DISTANCE = 0.15
"""Median distance of the joints of two poses, as a share of the radius of the stronger, below which they are one."""
MOST_APART = 0.2
"""Median distance of the joints of two looks at a person, as a share of the radius."""
MOST_COVERED = 0.65
"""Share of the smaller pose's box that may lie in a stronger one's."""
SEEN = 0.3
"""Confidence of a joint that counts for a person's box."""
LEAST_SEEN = 6
SAME_ROI = 0.35
"""Distance of the ends of two ROIs, as a share of the larger radius, below which they are one person's."""


def boxes_px(poses: Poses) -> Array:
    """(N, 4) extent of the joints that are seen; of all joints where those are few."""
    points, seen = poses.points_px[:, :BODY], poses.confidence[:, :BODY] > SEEN
    seen = seen | (seen.sum(1) < LEAST_SEEN)[:, None]
    low = np.where(seen[..., None], points, np.inf).min(1)
    high = np.where(seen[..., None], points, -np.inf).max(1)
    return np.concatenate([low, high], -1)


def alike_rois(first_px: Array, second_px: Array) -> Array:
    """(N, M) whether two ROIs, of (N, 2, 2) and (M, 2, 2), are about the same person."""
    apart = np.linalg.norm(first_px[:, None] - second_px[None], axis=-1).max(-1)
    larger = np.maximum(radii_px(first_px)[:, None], radii_px(second_px)[None])
    return np.asarray(apart < SAME_ROI * larger)


def distinct_rois(rois_px: Array) -> Array:
    """(K,) indices of those of (N, 2, 2), the best first, that are not alike one before."""
    return _greedy(alike_rois(rois_px, rois_px))


def people(poses: Poses, strength: Array) -> Array:
    """(K,) indices of the poses that are people of their own, the strongest first.

    Args:
        poses: N candidates.
        strength: (N,) detection score times flag.
    """
    order = np.argsort(-strength, kind="stable")
    order = order[poses.flags[order] >= LEAST_FLAG]
    ranked = poses[order]
    return order[_greedy(_same(ranked) | (covered(boxes_px(ranked)) >= MOST_COVERED))]


def agree(first: Poses, second: Poses) -> Array:
    """(N,) whether a second look at each of N people shows the same pose as the first."""
    points = first.points_px[:, :BODY] - second.points_px[:, :BODY]
    apart = np.median(np.linalg.norm(points, axis=-1), axis=-1)
    return np.asarray(apart < MOST_APART * radii_px(second.rois_px))


def covered(boxes: Array) -> Array:
    """(N, N) share of the smaller of two boxes that lies in the other."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return np.maximum(high - low, 0).prod(-1) / np.maximum(np.minimum(area[:, None], area[None]), 1e-6)


def _same(poses: Poses) -> Array:
    points = poses.points_px[:, :BODY]
    apart = np.median(np.linalg.norm(points[:, None] - points[None], axis=-1), axis=-1)
    return np.asarray(apart < SAME_DISTANCE * radii_px(poses.rois_px)[:, None])


def _greedy(excludes: Array) -> Array:
    """(K,) indices, in order, of those that none kept before excludes; (N, N)."""
    kept = np.zeros(len(excludes), np.bool_)
    for one in range(len(excludes)):
        kept[one] = not excludes[kept, one].any()
    return np.flatnonzero(kept)
