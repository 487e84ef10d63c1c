"""Crop of the published training: scaled, rotated, mirrored and recoloured, with the same changes of the targets.

A crop is one affine of the picture, mirroring included, so that picture and 2-D joints move by the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from jotr_deploy.config import ModelConfig
from jotr_deploy.geometry.crop import clip_box
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.skeletons import SMPL30, mirrored_order
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.mesh_samples import turned_root

MARGIN = (1.0, 1.2)
"""Factor from the person's box to the square one, at the published crop factor; another one scales both ends."""
SCALE, TURN_RAD, TURNED, MIRRORED, COLOUR = 0.25, np.deg2rad(30), 0.6, 0.5, 0.2
"""Standard deviations of scale and rotation; shares rotated and mirrored; largest change of a channel."""
MIRRORED_SMPL30 = list(mirrored_order(SMPL30))


@dataclass(frozen=True)
class Variation:
    """Random variation of a crop, drawn anew for every sample."""

    margin: float  # of the square box over the person's
    scale: float  # of the crop over the square box
    turn_rad: float  # rotation of the crop in the picture; the person turns the other way
    mirrored: bool  # the picture is mirrored before anything else
    colour: Array  # (3,) factor of each channel

    @property
    def turn(self) -> Array:
        """(3, 3) rotation of the person about the optical axis."""
        return matrix_from_axis_angle(np.array([0.0, 0.0, -self.turn_rad]))


def draw_variation(rng: np.random.Generator, crop_factor: float) -> Variation:
    """Draw a variation as published; always consumes the same number of random numbers."""
    margin = rng.uniform(*MARGIN) * (crop_factor / ModelConfig().crop_factor)
    scale = 1 + SCALE * float(np.clip(rng.normal(), -1, 1))
    turn_rad = float(TURN_RAD * np.clip(rng.normal(), -2, 2)) * (rng.random() < TURNED)
    return Variation(margin, scale, turn_rad, bool(rng.random() < MIRRORED), rng.uniform(1 - COLOUR, 1 + COLOUR, 3))


def usable_box(box_px: Array, size_px: tuple[int, int]) -> bool:
    """True if a tight box x0 y0 x1 y1 has an area, in the picture and clipped as published; others are left out."""
    clipped = clip_box(box_px, size_px)
    inside = np.minimum(box_px[2:], np.asarray(size_px) - 1) > np.maximum(box_px[:2], 0)
    return bool(inside.all() and (clipped[2:] > clipped[:2]).all())


def crop_from_picture(box_px: Array, size_px: tuple[int, int], variation: Variation, crop_side: int) -> Array:
    """The affine (2, 3) of a varied crop: `crop_px = A @ [picture_px, 1]`; its determinant is negative in a mirror.

    Args:
        box_px: (4,) tight, x0 y0 x1 y1 in the picture; see `usable_box`.
        size_px: width and height of the picture.
        variation: random variation.
        crop_side: pixels.
    """
    clipped = clip_box(np.asarray(box_px, np.float64), size_px)
    centre = (clipped[:2] + clipped[2:]) / 2
    side = (clipped[2:] - clipped[:2]).max() * variation.margin * variation.scale
    linear = crop_side / side * variation.turn[:2, :2]
    if variation.mirrored:  # about the centre: the position of the mirror in the picture does not affect the crop
        linear = linear * (-1, 1)
    return np.concatenate([linear, (crop_side / 2 - linear @ centre)[:, None]], 1)


def cut(image_bgr: Array, affine: Array, variation: Variation, crop_side: int) -> Array:
    """Crop (3, S, S) uint8 RGB of a picture (H, W, 3) uint8 BGR: bilinear, black outside, recoloured."""
    crop = cv2.warpAffine(image_bgr, affine, (crop_side, crop_side), flags=cv2.INTER_LINEAR)
    coloured = np.clip(crop[..., ::-1] * variation.colour.astype(np.float32), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(coloured.transpose(2, 0, 1))


def varied_joints(joints: Array, variation: Variation) -> Array:
    """Values of the 30 joints (30, ...), such as crop positions or flags, with left and right swapped if mirrored."""
    return joints[MIRRORED_SMPL30] if variation.mirrored else joints


def varied_joints_m(joints_m: Array, variation: Variation) -> Array:
    """(30, 3) metres about any point of the optical axis, camera frame -> those of the varied crop."""
    mirrored = varied_joints(joints_m, variation) * ((-1, 1, 1) if variation.mirrored else (1, 1, 1))
    return mirrored @ variation.turn.T


def varied_pose(pose_rad: Array, variation: Variation) -> Array:
    """(24, 3) axis-angle, root in the camera frame -> that of the varied crop."""
    if variation.mirrored:
        pose_rad = pose_rad[MIRRORED_SMPL30[: len(pose_rad)]] * (1, -1, -1)
    return turned_root(variation.turn, pose_rad)
