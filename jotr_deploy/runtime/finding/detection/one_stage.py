"""One-stage networks, which find people and their joints at once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from pydantic import Field

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.detection.base import Detector
from jotr_deploy.runtime.finding.joint_outputs import as_confidence, joints_above
from jotr_deploy.support.aliases import Array

Share = Annotated[float, Field(ge=0, le=1)]


class Recipe(recognition.Recipe):
    """Settings of a one-stage network."""

    threshold: Share = 0.3
    """People must exceed this score; the file's built-in threshold may have removed some already."""
    joint_threshold: Share = 0.3
    """Joints must exceed this confidence."""


class OneStage(Detector):
    """Detector that also finds joints; if there is a pose network, only its boxes are used."""

    skeleton: str
    """Order of its joints, a key of `SKELETONS`."""

    def facts(self) -> tuple[str, ...]:
        """Skeleton of the joints."""
        return (f"joints of {self.skeleton}",)

    @abstractmethod
    def people(self, image_bgr: Array) -> tuple[Array, Array, Array]:
        """People in one image with their joints, highest score first.

        Args:
            image_bgr: (H, W, 3) uint8.

        Returns:
            boxes_px (N, 4) and scores (N,) as from a `Detector`; and joints (N, J, 3) float32 as from a `PoseNetwork`:
            x, y in the image, pixel centres at integer coordinates, and confidence in 0..1, all zero if it is not
            above the threshold.
        """

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image, without their joints."""
        boxes_px, scores, _ = self.people(image_bgr)
        return boxes_px, scores


def joints_in_image(joints: Array, scale: Array, threshold: float, left_top: Array | int = 0) -> Array:
    """Joints (N, J, 3) x, y on the canvas and confidence -> (N, J, 3) float32 in the image.

    Unlike boxes they are measured from the centre of the canvas's first pixel, as annotations of joints do.

    Args:
        joints: joints of N people; N may be 0.
        scale: canvas pixels per image pixel, from `letterbox`.
        threshold: joints whose confidence is not above it become all zero.
        left_top: where the image begins on the canvas, from the canvas's edge.
    """
    points_px = (joints[..., :2] + 0.5 - left_top) / scale - 0.5
    return joints_above(points_px, as_confidence(joints[..., 2]), threshold)
