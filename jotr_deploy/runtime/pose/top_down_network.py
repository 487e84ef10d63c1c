"""What top-down pose networks share: every person's box is cut out, normalised, and looked at alone.

Input [B, 3, H, W] RGB, normalised by ImageNet's mean and deviation; the joints are the second axis of every output.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from jotr_deploy.runtime import formats
from jotr_deploy.runtime.joints import joints_above, skeleton_of
from jotr_deploy.runtime.pose.contract import PoseNetwork
from jotr_deploy.runtime.pose.top_down import cut, image_from_input, input_from_image
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.skeletons import SKELETONS

Array = NDArray[Any]

MEAN_RGB = np.array([123.675, 116.28, 103.53], np.float32)
DEVIATION_RGB = np.array([58.395, 57.12, 57.375], np.float32)


class Recipe(formats.Recipe):
    """See `formats.Recipe`."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
    """A joint's confidence is above it; it belongs to the network, whose confidences have a scale of their own."""
    skeleton: str | None = None
    """The order of the joints; by default their number tells it."""


class TopDown(PoseNetwork):
    """See the module and `PoseNetwork`; a format says which files fit and where their outputs put the joints."""

    recipe = Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        joints = next(iter(session.outputs.values())).shape[1]
        self.skeleton = skeleton_of(session, int(joints), recipe.skeleton)

    @abstractmethod
    def points(self, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Outputs of N people and J joints -> points (N, J, 2) in input pixels, confidence (N, J) in 0..1."""

    def input_from_image(self, boxes_px: Array) -> Array:
        """What the network sees of each box, see `top_down.input_from_image`."""
        return input_from_image(boxes_px, self.size_px)

    def __call__(self, image_bgr: Array, boxes_px: Array) -> Array:
        """See `PoseNetwork`."""
        joints = len(SKELETONS[self.skeleton])
        if not len(boxes_px):
            return np.zeros((0, joints, 3), np.float32)
        affines = self.input_from_image(boxes_px)
        inputs_bgr = np.stack([cut(image_bgr, affine, self.size_px) for affine in affines])
        out = formats.in_batches(self.session, normalised(inputs_bgr))
        points, confidence = self.points({name: rows[:, :joints] for name, rows in out.items()})
        return joints_above(image_from_input(affines, points), confidence, self.options.threshold)


def normalised(inputs_bgr: Array) -> Array:
    """(N, H, W, 3) uint8 BGR -> (N, 3, H, W) float32 RGB by ImageNet's mean and deviation."""
    rgb = (inputs_bgr[..., ::-1].astype(np.float32) - MEAN_RGB) / DEVIATION_RGB
    return rgb.transpose(0, 3, 1, 2)
