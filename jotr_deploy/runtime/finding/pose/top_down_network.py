"""Base of top-down pose networks: every person's box is cropped, normalised and processed on its own.

Input [B, 3, H, W] RGB, normalised by ImageNet's mean and standard deviation; joints are the second axis of each output.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.joint_outputs import joints_above, skeleton_of
from jotr_deploy.runtime.finding.pose.base import PoseNetwork
from jotr_deploy.runtime.finding.pose.top_down import cut, image_from_input, input_from_image
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.skeletons import SKELETONS, mirrored_order
from jotr_deploy.support.aliases import Array

MEAN_RGB = np.array([123.675, 116.28, 103.53], np.float32)
DEVIATION_RGB = np.array([58.395, 57.12, 57.375], np.float32)


class Recipe(recognition.Recipe):
    """Settings of a top-down pose network."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Joints must exceed this confidence; the right value depends on the network's own scale of confidences."""
    flip_test: bool = False
    """Process everybody twice, the second time mirrored, and average: more accurate, but twice the time."""
    least_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Minimum strength of a detected person: box score to the power of `score_power`, times mean joint confidence."""
    score_power: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Exponent of the box score in a person's strength: at 0 only the joints count."""
    most_explained: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Largest share of a detected person's joints on the limbs of a stronger one in whose box they mostly are."""
    skeleton: str | None = None
    """Order of the joints; inferred from their number by default."""


class TopDown(PoseNetwork):
    """Top-down pose network; a format defines which files fit and how their outputs encode the joints."""

    recipe = Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        joints = next(iter(session.outputs.values())).shape[1]
        self.skeleton = skeleton_of(session, int(joints), recipe.skeleton, "pose")
        self.least_score, self.score_power = recipe.least_score, recipe.score_power
        self.most_explained = recipe.most_explained

    @abstractmethod
    def points(self, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Decode outputs of N people and J joints -> points (N, J, 2) in input pixels, confidence (N, J) in 0..1."""

    def input_from_image(self, boxes_px: Array) -> Array:
        """Affines of the crop around each box, see `top_down.input_from_image`."""
        return input_from_image(boxes_px, self.size_px)

    def __call__(self, image_bgr: Array, boxes_px: Array) -> Array:
        """Joints of everybody in one image."""
        if not len(boxes_px):
            return np.zeros((0, len(SKELETONS[self.skeleton]), 3), np.float32)
        affines = self.input_from_image(boxes_px)
        inputs_bgr = np.stack([cut(image_bgr, affine, self.size_px) for affine in affines])
        points, confidence = self._look(inputs_bgr)
        if self.options.flip_test:
            order = list(mirrored_order(SKELETONS[self.skeleton]))
            mirrored, sure = self._look(inputs_bgr[:, :, ::-1])
            mirrored = np.stack([self.size_px[0] - 1 - mirrored[..., 0], mirrored[..., 1]], -1)
            points, confidence = mean_of(points, confidence, mirrored[:, order], sure[:, order])
        return joints_above(image_from_input(affines, points), confidence, self.options.threshold)

    def _look(self, inputs_bgr: Array) -> tuple[Array, Array]:
        """Inputs (N, H, W, 3) uint8 -> points (N, J, 2) in their pixels, confidence (N, J)."""
        out = recognition.in_batches(self.session, normalised(inputs_bgr))
        joints = len(SKELETONS[self.skeleton])
        return self.points({name: rows[:, :joints] for name, rows in out.items()})


def mean_of(points: Array, confidence: Array, other_points: Array, other_confidence: Array) -> tuple[Array, Array]:
    """Mean of two estimates of the same joints, (N, J, 2) and (N, J) each, with points weighted by confidence."""
    both, sure = np.stack([points, other_points]), np.stack([confidence, other_confidence])
    weight = np.where(np.isfinite(both).all(-1), sure, 0)[..., None]
    place = np.where(weight > 0, both * weight, 0).sum(0) / np.maximum(weight.sum(0), 1e-9)
    return place, weight[..., 0].mean(0)


def normalised(inputs_bgr: Array) -> Array:
    """(N, H, W, 3) uint8 BGR -> (N, 3, H, W) float32 RGB, normalised by ImageNet's mean and standard deviation."""
    rgb = (inputs_bgr[..., ::-1].astype(np.float32) - MEAN_RGB) / DEVIATION_RGB
    return rgb.transpose(0, 3, 1, 2)
