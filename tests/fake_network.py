"""A network that says what a test wants it to say."""

from __future__ import annotations

import numpy as np

from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.support.aliases import Array

SIDE = 64


class FakeNetwork:
    """Says of everybody what `answer` made of the call's people; keeps how many came in every call."""

    crop_side = SIDE

    def __init__(self, joints_m: Array, vertices_m: Array) -> None:
        self.joints_m, self.vertices_m = joints_m, vertices_m
        self.calls: list[int] = []

    def __call__(self, crops: Crops, people: Detections) -> People:
        start = sum(self.calls)
        own = slice(start, start + len(crops))
        self.calls.append(len(crops))
        count = len(crops)

        def zeros(*shape: int) -> Array:
            return np.zeros((count, *shape))

        return People(
            boxes_px=crops.boxes_px, scores=people.scores, track_ids=people.track_ids,
            keypoints_px=people.keypoints_px, joints_used=crops.joints_mask.sum(1), joints_img=zeros(15, 3),
            pose_rad=zeros(24, 3), betas=zeros(10), cam=zeros(3), translation_m=zeros(3), focal_px=zeros(),
            principal_px=zeros(2), joints_m=self.joints_m[own], vertices_m=self.vertices_m[own],
        )  # fmt: skip
