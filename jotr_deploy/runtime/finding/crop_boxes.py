"""Square crop boxes of people whose joints or boxes are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jotr_deploy.geometry.crop import VALID_CONFIDENCE, box_from_joints, clip_box, square_box
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.skeletons import to_smpl30
from jotr_deploy.support.aliases import Array

if TYPE_CHECKING:
    from jotr_deploy.runtime.finding.pose.base import PoseNetwork

LEAST_JOINTS = 16
"""Joints of the 30-joint set needed to derive the crop box from joints; with fewer, the person's box is used."""


def with_joint_boxes(people: Detections, size_px: tuple[int, int], crop_factor: float) -> Detections:
    """Give people the crop box of their valid joints, as the published evaluation does.

    People with fewer than two valid joints, or none left of the right and bottom edges, have no box and are dropped.
    """
    valid: Array = people.keypoints_px[..., 2] > VALID_CONFIDENCE
    some = np.flatnonzero(valid.any(1))
    people, valid = people[some], valid[some]
    boxes_px = square_box(clip_box(box_from_joints(people.keypoints_px, valid), size_px), crop_factor)
    has_area = np.flatnonzero(boxes_px[:, 2] > boxes_px[:, 0])
    return replace(people, boxes_px=boxes_px)[has_area]


def with_crop_boxes(image_bgr: Array, people: Detections, pose: PoseNetwork | None, crop_factor: float) -> Detections:
    """Give people with known boxes the joints from a pose network and their square crop boxes.

    Without a pose network the crop box is the square around the person's box.
    """
    if pose is None:
        return replace(people, boxes_px=square_box(people.boxes_px, crop_factor))
    height, width = image_bgr.shape[:2]
    return with_joints(people, pose(image_bgr, people.boxes_px), pose.skeleton, (width, height), crop_factor)


def with_joints(
    people: Detections, joints: Array, skeleton: str, size_px: tuple[int, int], crop_factor: float
) -> Detections:
    """Give people with known boxes the joints (N, J, 3) that a network found, and their square crop boxes.

    The crop box is that of the joints, as for joints from a file; with fewer than `LEAST_JOINTS` it is the square
    around the person's box.
    """
    boxes_px = square_box(people.boxes_px, crop_factor)
    keypoints_px = to_smpl30(joints, skeleton)
    valid: Array = keypoints_px[..., 2] > VALID_CONFIDENCE
    enough = np.flatnonzero(valid.sum(1) >= LEAST_JOINTS)
    by_joints_px = square_box(clip_box(box_from_joints(keypoints_px[enough], valid[enough]), size_px), crop_factor)
    has_area = by_joints_px[:, 2] > by_joints_px[:, 0]
    boxes_px[enough[has_area]] = by_joints_px[has_area]
    return replace(people, boxes_px=boxes_px, keypoints_px=keypoints_px)
