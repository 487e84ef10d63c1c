"""Scenes without a renderer: grey pictures with boxes, and stand-in people whose truth is made of a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from jotr_deploy.evaluation.samples import Truth
from jotr_deploy.evaluation.synthetic import HeldOut
from jotr_deploy.geometry.crop import square_box
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.runtime.detections import Detections

Array = Any
SIDE = 64


def truth(rng: np.random.Generator, count: int) -> Truth:
    joints_m, vertices_m = rng.normal(0, 0.3, (count, 30, 3)), rng.normal(0, 0.3, (count, 6890, 3))
    joints_m[:, 0] = 0
    return Truth(joints_m, vertices_m, rng.random((count, 30)) < 0.7, rng.uniform(0, 1, count))


def fake_scene(seed: int, index: int) -> HeldOut:
    """`index % 4` people side by side: the first too small, the others 100 px tall."""
    rng, count = np.random.default_rng([seed, index]), index % 4
    left = 20.0 + 100 * np.arange(count)
    boxes_px = np.stack([left, np.full(count, 50.0), left + 40, np.full(count, 150.0)], -1)
    boxes_px[:1, 3] = 113
    known = truth(rng, count)
    keypoints_px = np.zeros((count, 30, 3))
    keypoints_px[:, :, :2] = boxes_px[:, None, :2] + rng.uniform(0, 40, (count, 30, 2))
    keypoints_px[:, :, 2] = known.joints_visible
    given = Detections(square_box(boxes_px), keypoints_px, np.ones(count), np.full(count, -1))
    tall = boxes_px[:, 3] - boxes_px[:, 1] >= 64
    image_bgr = np.full((200, 400, 3), 90, np.uint8)
    counted = tall & (known.visible_fraction >= 0.25)
    return HeldOut(image_bgr, boxes_px.astype(np.float32), known, given, tall, counted, keypoints_px[..., :2])


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
