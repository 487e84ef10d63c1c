"""Square crop boxes of people whose joints or boxes are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jotr_deploy.geometry.crop import VALID_CONFIDENCE, box_from_joints, clip_box, square_box
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.pose.base import PoseNetwork
from jotr_deploy.skeletons import to_smpl30
from jotr_deploy.support.aliases import Array

LEAST_JOINTS = 16
"""Of the 30-joint set, for the joints of a network to give the crop box; with fewer the person's box gives it."""


def with_joint_boxes(people: Detections, size_px: tuple[int, int], crop_factor: float) -> Detections:
    """Give people the crop box of their valid joints, as the published evaluation does.

    People without a box, because the valid joints are none, one, or beyond the right or bottom edge, are left out.
    """
    valid: Array = people.keypoints_px[..., 2] > VALID_CONFIDENCE
    some = np.flatnonzero(valid.any(1))
    people, valid = people[some], valid[some]
    boxes_px = square_box(clip_box(box_from_joints(people.keypoints_px, valid), size_px), crop_factor)
    has_area = np.flatnonzero(boxes_px[:, 2] > boxes_px[:, 0])
    return replace(people, boxes_px=boxes_px)[has_area]


def with_crop_boxes(image_bgr: Array, people: Detections, pose: PoseNetwork | None, crop_factor: float) -> Detections:
    """Give people, of whom boxes are known, the joints of a pose network and their square crop boxes.

    Without one the crop box is the square about the person's box.
    """
    if pose is None:
        return replace(people, boxes_px=square_box(people.boxes_px, crop_factor))
    height, width = image_bgr.shape[:2]
    return with_joints(people, pose(image_bgr, people.boxes_px), pose.skeleton, (width, height), crop_factor)


def with_joints(
    people: Detections, joints: Array, skeleton: str, size_px: tuple[int, int], crop_factor: float
) -> Detections:
    """Give people, of whom boxes are known, joints (N, J, 3) that a network found, and their square crop boxes.

    The crop box is that of the joints, as for joints from a file; with fewer than `LEAST_JOINTS` it is the square
    about the person's box.
    """
    boxes_px = square_box(people.boxes_px, crop_factor)
    keypoints_px = to_smpl30(joints, skeleton)
    valid: Array = keypoints_px[..., 2] > VALID_CONFIDENCE
    enough = np.flatnonzero(valid.sum(1) >= LEAST_JOINTS)
    by_joints_px = square_box(clip_box(box_from_joints(keypoints_px[enough], valid[enough]), size_px), crop_factor)
    has_area = by_joints_px[:, 2] > by_joints_px[:, 0]
    boxes_px[enough[has_area]] = by_joints_px[has_area]
    return replace(people, boxes_px=boxes_px, keypoints_px=keypoints_px)
