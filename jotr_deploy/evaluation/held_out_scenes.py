"""Held-out scenes: pictures of people with ground truth, true boxes and noisy joints.

Seed and index determine a scene. Training uses seeds below 1000, evaluation those from 1000 on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jotr_deploy.datasets.joint_errors import joints_with_normal_errors
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.datasets.synthetic.scene_crops import picture
from jotr_deploy.evaluation.measured_people import Truth
from jotr_deploy.geometry.camera import looking_at
from jotr_deploy.geometry.crop import square_box
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.support.aliases import Array

SEED = 1000
SCENES = 256
LEAST_HEIGHT_PX = 64.0
LEAST_VISIBLE = 0.25


@dataclass(frozen=True)
class HeldOut:
    """One picture and its P people, as parallel arrays."""

    image_bgr: Array  # (H, W, 3) uint8
    boxes_px: Array  # (P, 4) tight, of the whole body, also beyond the picture
    truth: Truth
    given: Detections  # true boxes made square, noisy joints
    tall: Array  # (P,) bool, the box is at least 64 px tall
    counted: Array  # (P,) bool, tall and at least a quarter visible
    joints_px: Array  # (P, 30, 2) true joints in the picture, and beyond it


def held_out(seed: int, index: int, crop_factor: float) -> HeldOut:
    """Draw one scene and its picture; people have the crop boxes of a network with this crop factor."""
    scene = draw_scene(seed, index)
    rendered, known = picture(scene)
    boxes_px = np.asarray(known.boxes_px, np.float32)
    pelvis_m, middle_px = known.joints_m[:, :1], (boxes_px[:, :2] + boxes_px[:, 2:]) / 2
    turn = looking_at(middle_px, known.focal_px, known.principal_px).swapaxes(1, 2).astype(np.float32)
    joints_m, vertices_m = ((points - pelvis_m) @ turn for points in (known.joints_m, known.vertices_m))
    truth = Truth(joints_m, vertices_m, known.joints_visible, known.visible_fraction)
    tall = boxes_px[:, 3] - boxes_px[:, 1] >= LEAST_HEIGHT_PX
    crops_px, count = square_box(boxes_px, crop_factor), len(boxes_px)
    height, width = rendered.image_bgr.shape[:2]
    inside = np.asarray(((known.joints_px >= 0) & (known.joints_px < (width, height))).all(-1))
    keypoints_px = noisy_joints(seed, index, crops_px, known.joints_px, known.joints_visible, inside)
    given = Detections(crops_px, keypoints_px, np.ones(count), np.full(count, -1))
    counted = tall & (truth.visible_fraction >= LEAST_VISIBLE)
    return HeldOut(rendered.image_bgr, boxes_px, truth, given, tall, counted, known.joints_px)


def noisy_joints(seed: int, index: int, crops_px: Array, joints_px: Array, visible: Array, inside: Array) -> Array:
    """Joints that a 2-D pose network might find for the people of one picture: COCO-17 with normal errors.

    Args:
        seed: of the scenes; the errors depend only on it, on `index` and on the number of the person.
        index: of the scene.
        crops_px: (P, 4) square crop boxes.
        joints_px: (P, 30, 2) true joints in the picture.
        visible: (P, 30) bool; hidden joints are guessed, with larger errors.
        inside: (P, 30) bool; joints beyond the picture are not given.

    Returns:
        (P, 30, 3) x, y, confidence 1 for what is given and 0 for what is not.
    """
    joints = np.zeros((len(crops_px), 30, 3), np.float32)
    for person, (left, _, right, _) in enumerate(crops_px):
        rng = np.random.default_rng([seed, index, person])
        joints[person] = joints_with_normal_errors(
            rng, joints_px[person], visible[person], inside[person], right - left
        )
    return joints
