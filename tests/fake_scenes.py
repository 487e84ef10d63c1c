"""Scenes without a renderer: grey pictures with boxes, and stand-in people whose truth is made of a seed."""

from __future__ import annotations

import numpy as np
from fake_network import FakeNetwork

from jotr_deploy.evaluation.held_out_scenes import HeldOut
from jotr_deploy.evaluation.measured_people import Truth
from jotr_deploy.geometry.crop import square_box
from jotr_deploy.runtime.detections import Detections

__all__ = ["FakeNetwork", "fake_scene", "truth"]


def truth(rng: np.random.Generator, count: int) -> Truth:
    joints_m, vertices_m = rng.normal(0, 0.3, (count, 30, 3)), rng.normal(0, 0.3, (count, 6890, 3))
    joints_m[:, 0] = 0
    return Truth(joints_m, vertices_m, rng.random((count, 30)) < 0.7, rng.uniform(0, 1, count))


def fake_scene(seed: int, index: int, crop_factor: float = 1.1) -> HeldOut:
    """`index % 4` people side by side: the first too small, the others 100 px tall."""
    rng, count = np.random.default_rng([seed, index]), index % 4
    left = 20.0 + 100 * np.arange(count)
    boxes_px = np.stack([left, np.full(count, 50.0), left + 40, np.full(count, 150.0)], -1)
    boxes_px[:1, 3] = 113
    known = truth(rng, count)
    keypoints_px = np.zeros((count, 30, 3))
    keypoints_px[:, :, :2] = boxes_px[:, None, :2] + rng.uniform(0, 40, (count, 30, 2))
    keypoints_px[:, :, 2] = known.joints_visible
    given = Detections(square_box(boxes_px, crop_factor), keypoints_px, np.ones(count), np.full(count, -1))
    tall = boxes_px[:, 3] - boxes_px[:, 1] >= 64
    image_bgr = np.full((200, 400, 3), 90, np.uint8)
    counted = tall & (known.visible_fraction >= 0.25)
    return HeldOut(image_bgr, boxes_px.astype(np.float32), known, given, tall, counted, keypoints_px[..., :2])
