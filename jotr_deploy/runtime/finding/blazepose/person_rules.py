"""Rules that weed out false people: duplicates, and small figures hallucinated in somebody's legs."""

from __future__ import annotations

import numpy as np

from jotr_deploy.runtime.finding.blazepose.landmarks import BODY, Poses
from jotr_deploy.runtime.finding.blazepose.rotated_crops import radii_px
from jotr_deploy.support.aliases import Array

LEAST_FLAG, LEAST_FIRST_FLAG = 0.5, 0.2
"""Lowest person probability in the last pass, and in the first, which a better crop follows."""
LEAST_STRENGTH = 0.6
"""Lowest detection score times flag of a new person."""
SURE, LEAST_SURE = 0.5, 12
"""Confidence of a visible landmark, and the fewest visible ones of a person: a face and shoulders have 13."""
SAME_DISTANCE = 0.15
"""Median distance of the joints of two poses, as a fraction of the stronger one's radius, below which they match."""
SAME_HEAD = 0.25
"""Distance of two heads, as a fraction of the smaller radius, below which they are the same."""
MOST_APART = 0.2
"""Largest median distance of the joints in two passes over a person, as a fraction of the radius."""
NEAR_LIMB = 0.12
"""Largest distance of a joint from a limb that explains it, as a fraction of the limb owner's radius."""
MOST_EXPLAINED = 0.7
"""Fraction of joints that a stronger pose's limbs may explain; above it the pose is a hallucination in its limbs."""
MOST_COVERED, STRONG = 0.75, 0.8
"""Fraction of the smaller pose's box allowed inside a stronger one's, and the strength that lifts this limit."""
SEEN = 0.3
"""Confidence above which a joint counts towards a person's box."""
LEAST_SEEN = 6
SAME_ROI = 0.35
"""Distance of the ends of two ROIs, as a fraction of the larger radius, below which they show the same person."""

FACE = slice(0, 11)
JOINTS = (0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""Nose, shoulders, elbows, wrists, hips, knees and ankles."""
LIMBS = (
    (0, 11, 11, 13, 15, 12, 14, 16, 11, 12, 23, 23, 25, 27, 24, 26, 28),
    (0, 12, 13, 15, 19, 14, 16, 20, 23, 24, 24, 25, 27, 31, 26, 28, 32),
)
"""Both ends of each limb: nose (a point), shoulders, arms to the fingers, sides, hips, and legs to the toes."""


def boxes_px(poses: Poses) -> Array:
    """(N, 4) extent of the visible joints, or of all joints if only few are visible."""
    points, seen = poses.points_px[:, :BODY], poses.confidence[:, :BODY] > SEEN
    seen = seen | (seen.sum(1) < LEAST_SEEN)[:, None]
    low = np.where(seen[..., None], points, np.inf).min(1)
    high = np.where(seen[..., None], points, -np.inf).max(1)
    return np.concatenate([low, high], -1)


def alike_rois(first_px: Array, second_px: Array) -> Array:
    """(N, M) mask of ROI pairs, from (N, 2, 2) and (M, 2, 2), that show the same person."""
    apart = np.linalg.norm(first_px[:, None] - second_px[None], axis=-1).max(-1)
    larger = np.maximum(radii_px(first_px)[:, None], radii_px(second_px)[None])
    return np.asarray(apart < SAME_ROI * larger)


def distinct_rois(rois_px: Array) -> Array:
    """(K,) indices of ROIs (N, 2, 2), best first, that do not show the same person as an earlier one."""
    return _greedy(alike_rois(rois_px, rois_px))


def best_alike(rois_px: Array, scores: Array) -> Array:
    """(N,) highest score among the ROIs (N, 2, 2) of the same person, since windows show people differently well."""
    return np.where(alike_rois(rois_px, rois_px), scores, 0).max(1, initial=0)


def people(poses: Poses, strength: Array) -> Array:
    """(K,) indices of the poses that are distinct people, strongest first.

    Args:
        poses: N candidates.
        strength: (N,) detection score times flag; above 1 for people already tracked.
    """
    order = np.argsort(-strength, kind="stable")
    order = order[poses.flags[order] >= LEAST_FLAG]
    ranked = poses[order]
    behind = (covered(boxes_px(ranked)) >= MOST_COVERED) & (strength[order] < STRONG)
    return order[_greedy(_same(ranked) | behind | (explained(ranked) >= MOST_EXPLAINED))]


def sure(first: Poses, second: Poses, scores: Array) -> Array:
    """(N,) mask of candidates, with these detection scores, for which two passes agree on a person."""
    strong = scores * second.flags >= LEAST_STRENGTH
    there = (second.confidence[:, :BODY] > SURE).sum(1) >= LEAST_SURE
    return np.asarray((second.flags >= LEAST_FLAG) & strong & there & agree(first, second))


def agree(first: Poses, second: Poses) -> Array:
    """(N,) mask of people whose pose in the second pass matches that of the first."""
    points = first.points_px[:, :BODY] - second.points_px[:, :BODY]
    apart = np.median(np.linalg.norm(points, axis=-1), axis=-1)
    return np.asarray(apart < MOST_APART * radii_px(second.rois_px))


def covered(boxes: Array) -> Array:
    """(N, N) fraction of the smaller of two boxes that lies inside the other."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return np.maximum(high - low, 0).prod(-1) / np.maximum(np.minimum(area[:, None], area[None]), 1e-6)


def explained(poses: Poses) -> Array:
    """(N, N) fraction of the joints of the second pose that lie on limbs of the first."""
    joints = poses.points_px[None, :, JOINTS, None]  # (1, N, J, 1, 2)
    start, end = (poses.points_px[:, None, None, ends] for ends in LIMBS)  # (N, 1, 1, L, 2)
    along = end - start
    share = ((joints - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
    apart = np.linalg.norm(joints - start - np.clip(share, 0, 1)[..., None] * along, axis=-1).min(-1)
    return np.asarray((apart < NEAR_LIMB * radii_px(poses.rois_px)[:, None, None]).mean(-1))


def _same(poses: Poses) -> Array:
    """(N, N) mask of pose pairs that coincide or share a head."""
    points, radii = poses.points_px[:, :BODY], radii_px(poses.rois_px)
    apart = np.median(np.linalg.norm(points[:, None] - points[None], axis=-1), axis=-1)
    heads = points[:, FACE].mean(1)
    heads_apart = np.linalg.norm(heads[:, None] - heads[None], axis=-1)
    one_head = heads_apart < SAME_HEAD * np.minimum(radii[:, None], radii[None])
    return np.asarray((apart < SAME_DISTANCE * radii[:, None]) | one_head)


def _greedy(excludes: Array) -> Array:
    """(K,) indices, in order, of items not excluded by an earlier kept one; `excludes` is (N, N)."""
    kept = np.zeros(len(excludes), np.bool_)
    for one in range(len(excludes)):
        kept[one] = not excludes[kept, one].any()
    return np.flatnonzero(kept)
