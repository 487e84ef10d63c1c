"""Networks that find people and their joints at once."""

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
    """See `formats.Recipe`."""

    threshold: Share = 0.3
    """A person's score is above it; one inside the file has left out some already."""
    joint_threshold: Share = 0.3
    """A joint's confidence is above it."""


class OneStage(Detector):
    """A detector that knows the joints as well; where there is a pose network, only its boxes are used."""

    skeleton: str
    """A key of `SKELETONS`: the order of its joints."""

    def facts(self) -> tuple[str, ...]:
        """See `Format`."""
        return (f"joints of {self.skeleton}",)

    @abstractmethod
    def people(self, image_bgr: Array) -> tuple[Array, Array, Array]:
        """The people of one picture, best first.

        Args:
            image_bgr: (H, W, 3) uint8.

        Returns:
            boxes_px (N, 4) and scores (N,) as of a `Detector`; and joints (N, J, 3) float32 as of a `PoseNetwork`:
            x, y in the picture, pixel centres at integer coordinates, and confidence in 0..1, all zero where it is
            not above the threshold.
        """

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """See `Detector`."""
        boxes_px, scores, _ = self.people(image_bgr)
        return boxes_px, scores


def joints_in_image(joints: Array, scale: Array, threshold: float, left_top: Array | int = 0) -> Array:
    """Joints (N, J, 3) x, y on the canvas and confidence -> (N, J, 3) float32 in the picture.

    Unlike boxes they count from the centre of the canvas's first pixel, as annotations of joints do.

    Args:
        joints: of N people; N may be 0.
        scale: of `letterbox`, canvas pixels for one of the picture.
        threshold: joints whose confidence is not above it are all zero.
        left_top: where on the canvas the picture begins, from its edge.
    """
    points_px = (joints[..., :2] + 0.5 - left_top) / scale - 0.5
    return joints_above(points_px, as_confidence(joints[..., 2]), threshold)
