"""One person in one picture of a data set; every set is read into this.

Pixels are those of the picture as stored, EXIF rotation ignored; x right, y down. The frame is the camera's: x right,
y down, z forward, metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jotr_deploy.support.aliases import Array

Gender = Literal["neutral", "male", "female"]


@dataclass(frozen=True)
class Camera:
    """Pinhole camera without distortion."""

    focal_px: tuple[float, float]
    principal_px: tuple[float, float]


@dataclass(frozen=True)
class Fit:
    """SMPL parameters of a person, measured or fitted to the picture.

    The posed body plus `trans_m` is in the frame of the fit; `camera_from_fit` maps it to the camera.
    """

    pose_rad: Array  # (24, 3) axis-angle, root first
    betas: Array  # (10,)
    trans_m: Array  # (3,)
    gender: Gender = "neutral"
    camera_from_fit: Array | None = None  # (3, 4) rotation and metres; None where the fit is in the camera's frame

    def in_camera(self, points_m: Array) -> Array:
        """(..., 3) of the posed body, translation included, in the camera's frame."""
        if self.camera_from_fit is None:
            return points_m
        moved: Array = points_m @ self.camera_from_fit[:, :3].T + self.camera_from_fit[:, 3]
        return moved


@dataclass(frozen=True)
class Annotation:
    """One person in one picture."""

    key: str  # the person's, unique in the set
    image: Path
    size_px: tuple[int, int]  # width, height of the picture
    box_px: Array  # (4,) x0 y0 x1 y1, tight
    joints_px: Array  # (30, 3) x, y, 1 where it is labelled; joints of SMPL30
    joints_m: Array | None = None  # (30, 3) measured, camera frame; None without depth
    joints_m_known: Array | None = None  # (30,) bool, those measured
    fit: Fit | None = None
    camera: Camera | None = None
    found_px: Array | None = None  # (J, 3) x, y, confidence: detected by a 2-D pose network, shipped with the set
    found_skeleton: str = "coco17"  # their order, a key of SKELETONS
    sequence: str = ""
    frame: int = 0  # in the sequence

    @property
    def is_3d(self) -> bool:
        """True if depths are measured."""
        return self.joints_m is not None

    @property
    def valid_box(self) -> bool:
        """True if the box has an area inside the picture."""
        low = np.maximum(self.box_px[:2], 0)
        return bool((np.minimum(self.box_px[2:], np.asarray(self.size_px) - 1) > low).all())
