"""Selection of boxes and people: score threshold, non-maximum suppression, and the same person found twice."""

from __future__ import annotations

import numpy as np

from jotr_deploy.geometry.boxes import iou
from jotr_deploy.geometry.crop import VALID_CONFIDENCE
from jotr_deploy.support.aliases import Array

ALIKE = 0.6
"""IoU above which two boxes show the same person."""

SAME_POSE = 0.6
"""Similarity above which two poses are of one person."""
POSE_TOLERANCE = 0.1
"""Distance of two joints, as a share of the root of the smaller box's area, at which their similarity is exp(-1/2)."""
LEAST_SHARED_JOINTS = 5
"""Joints that both poses must have; with fewer they are never taken for one person."""


def select_boxes(boxes_px: Array, scores: Array, threshold: float, max_iou: float = 1.0) -> Array:
    """Boxes with a score above the threshold and an area, after non-maximum suppression, highest score first.

    Args:
        boxes_px: (N, 4) x0 y0 x1 y1; NaN is no area.
        scores: (N,); NaN is above nothing.
        threshold: in the unit of the scores.
        max_iou: two people overlap by at most this; 1 where the network itself has told them apart.

    Returns:
        (K,) indices.
    """
    found = _scored(boxes_px, scores, threshold)
    return found[nms(boxes_px[found], scores[found], max_iou)]


def nms(boxes: Array, scores: Array, max_iou: float) -> Array:
    """Greedy non-maximum suppression: no box that stays overlaps a better one that stays by more than `max_iou`.

    Args:
        boxes: (N, 4) x0 y0 x1 y1.
        scores: (N,); equal ones keep their order.
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
    """The kept boxes, each as the mean of all boxes of the same person, weighted by IoU times score.

    Args:
        boxes_px: (N, 4) x0 y0 x1 y1, as for `select_boxes`.
        scores: (N,).
        kept: (K,) what `select_boxes` returned with the same threshold.
        threshold: boxes with a lower score do not count.

    Returns:
        (K, 4).
    """
    found = _scored(boxes_px, scores, threshold)
    near = iou(boxes_px[kept], boxes_px[found])
    weight = np.where(near > ALIKE, near * scores[found], 0)
    mean: Array = weight @ boxes_px[found] / weight.sum(1, keepdims=True)
    return mean


def distinct_poses(keypoints_px: Array, boxes_px: Array) -> Array:
    """People whose pose is not that of somebody before them.

    A detector that keeps people who stand close together also keeps some of them twice. Their boxes may differ, their
    joints do not.

    Args:
        keypoints_px: (N, J, 3) x, y, confidence; highest score first.
        boxes_px: (N, 4) x0 y0 x1 y1 about each person.

    Returns:
        (K,) indices, in order.
    """
    same = pose_similarity(keypoints_px, boxes_px) > SAME_POSE
    kept = np.zeros(len(same), np.bool_)
    for person in range(len(same)):
        kept[person] = not same[person, kept].any()
    return np.flatnonzero(kept)


def pose_similarity(keypoints_px: Array, boxes_px: Array) -> Array:
    """Similarity of every pair of poses, as COCO scores them but with one tolerance for all joints.

    Returns:
        (N, N) in 0..1; 0 where two people share fewer than `LEAST_SHARED_JOINTS` joints.
    """
    points, valid = keypoints_px[..., :2].astype(np.float64), keypoints_px[..., 2] > VALID_CONFIDENCE
    sides = np.maximum(boxes_px[:, 2:] - boxes_px[:, :2], 1e-6).astype(np.float64)
    area = np.minimum(*np.broadcast_arrays(sides.prod(-1)[:, None], sides.prod(-1)))
    squared = np.square(points[:, None] - points).sum(-1) / (area[..., None] * POSE_TOLERANCE**2)
    shared = valid[:, None] & valid
    count = shared.sum(-1)
    alike = (np.exp(-squared / 2) * shared).sum(-1) / np.maximum(count, 1)
    return np.where(count >= LEAST_SHARED_JOINTS, alike, 0.0)


def _scored(boxes_px: Array, scores: Array, threshold: float) -> Array:
    return np.flatnonzero((scores > threshold) & (boxes_px[:, 2:] > boxes_px[:, :2]).all(1))
