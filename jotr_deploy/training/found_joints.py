"""Joints detected by the small pose network, as the mesh network gets them when it starts from pixels alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jotr_deploy.runtime.finding.pose.simcc import decode
from jotr_deploy.runtime.finding.pose.top_down import cut, image_from_input, input_from_image
from jotr_deploy.runtime.finding.pose.top_down_network import normalised
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.onnx_files import load_weights
from jotr_deploy.training.tiny_pose import SIZE_PX, SPLIT_RATIO, THRESHOLD, Heights, TinyPose


class FoundJoints:
    """Pose network from a run of the task `pose`.

    Raises:
        TrainingError: see `load_weights`.
    """

    def __init__(self, weights: Path) -> None:
        network = TinyPose()
        load_weights(network, weights)
        self._heights = Heights(network).eval()

    def __call__(self, image_bgr: Array, box_px: Array) -> Array:
        """Joints of one person, as `runtime.finding.pose` gives them: (17, 3) x, y, confidence; zero if not found."""
        affine = input_from_image(box_px[None], SIZE_PX)
        feed = torch.from_numpy(normalised(cut(image_bgr, affine[0], SIZE_PX)[None]))
        with torch.inference_mode():
            x, y = (each.numpy() for each in self._heights(feed))
        points, confidence = decode(x, y, SPLIT_RATIO)
        found = np.concatenate([image_from_input(affine, points), confidence[..., None]], -1)[0]
        found[found[:, 2] <= THRESHOLD] = 0
        return found
