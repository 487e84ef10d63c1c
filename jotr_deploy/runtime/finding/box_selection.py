"""Selection of boxes and people: score threshold, non-maximum suppression, and removal of duplicate poses."""

from __future__ import annotations

import numpy as np

from jotr_deploy.geometry.boxes import iou
from jotr_deploy.geometry.crop import VALID_CONFIDENCE
from jotr_deploy.skeletons import SMPL30_INDEX
from jotr_deploy.support.aliases import Array

ALIKE = 0.6
"""IoU above which two boxes show the same person."""

SAME_POSE = 0.6
"""Similarity above which two poses belong to the same person."""
POSE_TOLERANCE = 0.1
"""Distance of two joints, relative to the square root of the smaller box's area, for a similarity of exp(-1/2)."""
LEAST_SHARED_JOINTS = 5
"""Joints that both poses must have; with fewer in common they are never treated as duplicates."""

NEAR_LIMB = 0.12
"""Largest distance of a joint from a limb that explains it, relative to the square root of the limb owner's box."""
LEAST_INSIDE = 0.7
"""Share of a box inside a stronger person's, from which it may show a part of them."""
_LIMB_ENDS = (
    *(("Nose", f"{side}_Shoulder") for side in "LR"),
    *((f"{side}_{one}", f"{side}_{other}") for side in "LR" for one, other in (
        ("Shoulder", "Elbow"), ("Elbow", "Wrist"), ("Shoulder", "Hip"), ("Hip", "Knee"), ("Knee", "Ankle"))),
    *((f"L_{joint}", f"R_{joint}") for joint in ("Shoulder", "Hip")),
)  # fmt: skip
LIMBS = tuple(np.array([SMPL30_INDEX[ends[which]] for ends in _LIMB_ENDS]) for which in (0, 1))
"""Both ends of each limb among `SMPL30`."""


def select_boxes(boxes_px: Array, scores: Array, threshold: float, max_iou: float = 1.0) -> Array:
    """Boxes of non-zero area that score above the threshold, after non-maximum suppression, highest score first.

    Args:
        boxes_px: (N, 4) x0 y0 x1 y1; a box with NaN has no area.
        scores: (N,); NaN is never above the threshold.
        threshold: on the scale of the scores.
        max_iou: largest IoU of two people; 1 if the network itself has removed duplicates.

    Returns:
        (K,) indices.
    """
    found = _scored(boxes_px, scores, threshold)
    return found[nms(boxes_px[found], scores[found], max_iou)]


def nms(boxes: Array, scores: Array, max_iou: float) -> Array:
    """Greedy non-maximum suppression: no two kept boxes overlap by more than `max_iou`.

    Args:
        boxes: (N, 4) x0 y0 x1 y1.
        scores: (N,); ties keep their order.
        max_iou: 0..1.

    Returns:
        (K,) indices, best first.
    """
    waiting, kept = np.argsort(-scores, kind="stable"), []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[iou(boxes[best][None], boxes[waiting])[0] <= max_iou]
    return np.array(kept, np.int64)


def average_alike(boxes_px: Array, scores: Array, kept: Array, threshold: float) -> Array:
    """Kept boxes, each replaced by the mean of all boxes of the same person, weighted by IoU times score.

    Args:
        boxes_px: (N, 4) x0 y0 x1 y1, as for `select_boxes`.
        scores: (N,).
        kept: (K,) indices that `select_boxes` returned for the same threshold.
        threshold: boxes with a lower score are ignored.

    Returns:
        (K, 4).
    """
    found = _scored(boxes_px, scores, threshold)
    near = iou(boxes_px[kept], boxes_px[found])
    weight = np.where(near > ALIKE, near * scores[found], 0)
    mean: Array = weight @ boxes_px[found] / weight.sum(1, keepdims=True)
    return mean


def distinct_poses(keypoints_px: Array, boxes_px: Array) -> Array:
    """People whose pose does not duplicate that of an earlier person.

    A detector tuned to keep people who stand close together also keeps some of them twice. The boxes of such a
    duplicate may differ, but its joints do not.

    Args:
        keypoints_px: (N, J, 3) x, y, confidence; highest score first.
        boxes_px: (N, 4) x0 y0 x1 y1 around each person.

    Returns:
        (K,) indices, in order.
    """
    same = pose_similarity(keypoints_px, boxes_px, keypoints_px, boxes_px) > SAME_POSE
    kept = np.zeros(len(same), np.bool_)
    for person in range(len(same)):
        kept[person] = not same[person, kept].any()
    return np.flatnonzero(kept)


def whole_people(keypoints_px: Array, boxes_px: Array, strength: Array, most_explained: float) -> Array:
    """People who are not just a part of a stronger person, such as their legs or an arm with what it holds.

    Args:
        keypoints_px: (N, 30, 3) joints in the order of `SMPL30`: x, y, confidence.
        boxes_px: (N, 4) x0 y0 x1 y1 around each person.
        strength: (N,).
        most_explained: share of somebody's joints that may lie on the limbs of a stronger person in whose box they
            mostly are; from 1 on everybody is kept.

    Returns:
        (K,) indices, in order.
    """
    part = (explained(keypoints_px, boxes_px) > most_explained) & (_inside(boxes_px) >= LEAST_INSIDE)
    kept = np.zeros(len(boxes_px), np.bool_)
    for person in np.argsort(-strength, kind="stable"):
        kept[person] = not part[kept, person].any()
    return np.flatnonzero(kept)


def explained(keypoints_px: Array, boxes_px: Array) -> Array:
    """(N, N) share of the known joints of the second person that lie on limbs of the first."""
    known, points = keypoints_px[..., 2] > VALID_CONFIDENCE, keypoints_px[..., :2].astype(np.float64)
    start, end = (points[:, None, None, ends] for ends in LIMBS)  # (N, 1, 1, L, 2)
    joints, along = points[None, :, :, None], end - start  # (1, N, 30, 1, 2)
    share = ((joints - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
    apart = np.linalg.norm(joints - start - np.clip(share, 0, 1)[..., None] * along, axis=-1)
    there = known[:, LIMBS[0]] & known[:, LIMBS[1]]
    nearest = np.where(there[:, None, None], apart, np.inf).min(-1)
    size = np.sqrt(np.maximum(boxes_px[:, 2:] - boxes_px[:, :2], 0).astype(np.float64).prod(-1))
    on_limb = (nearest < NEAR_LIMB * size[:, None, None]) & known[None]
    shares: Array = on_limb.sum(-1) / np.maximum(known.sum(-1), 1)
    return shares


def _inside(boxes_px: Array) -> Array:
    """(N, N) share of the second box that lies inside the first."""
    low = np.maximum(boxes_px[:, None, :2], boxes_px[None, :, :2])
    high = np.minimum(boxes_px[:, None, 2:], boxes_px[None, :, 2:])
    area = (boxes_px[:, 2:] - boxes_px[:, :2]).prod(-1)
    shares: Array = np.maximum(high - low, 0).prod(-1) / np.maximum(area, 1e-6)
    return shares


def pose_similarity(first_px: Array, first_boxes_px: Array, second_px: Array, second_boxes_px: Array) -> Array:
    """Similarity of every pair of poses: COCO's object keypoint similarity with one tolerance for all joints.

    Args:
        first_px: (M, J, 3) joints: x, y, confidence.
        first_boxes_px: (M, 4) their boxes.
        second_px: (N, J, 3) others.
        second_boxes_px: (N, 4) their boxes.

    Returns:
        (M, N) in 0..1; 0 where two people share fewer than `LEAST_SHARED_JOINTS` joints.
    """
    poses_px, boxes_px = (first_px, second_px), (first_boxes_px.astype(np.float64), second_boxes_px.astype(np.float64))
    points, others = (pose_px[..., :2].astype(np.float64) for pose_px in poses_px)
    valid, others_valid = (pose_px[..., 2] > VALID_CONFIDENCE for pose_px in poses_px)
    sides = (np.maximum(box_px[:, 2:] - box_px[:, :2], 1e-6) for box_px in boxes_px)
    area = np.minimum.outer(*(side.prod(-1) for side in sides))
    squared = np.square(points[:, None] - others).sum(-1) / (area[..., None] * POSE_TOLERANCE**2)
    shared = valid[:, None] & others_valid
    count = shared.sum(-1)
    alike = (np.exp(-squared / 2) * shared).sum(-1) / np.maximum(count, 1)
    return np.where(count >= LEAST_SHARED_JOINTS, alike, 0.0)


def _scored(boxes_px: Array, scores: Array, threshold: float) -> Array:
    return np.flatnonzero((scores > threshold) & (boxes_px[:, 2:] > boxes_px[:, :2]).all(1))
