"""Joints that pose networks detect on drawn people, as the mesh network gets them when it starts from pixels alone."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from jotr_deploy.datasets.joint_errors import COCO17_IN_SMPL30
from jotr_deploy.geometry.boxes import iou
from jotr_deploy.geometry.crop import VALID_CONFIDENCE
from jotr_deploy.runtime.finding.blazepose import person_rules
from jotr_deploy.runtime.finding.blazepose.landmarks import BlazeLandmarks, Poses
from jotr_deploy.runtime.finding.blazepose.source import SKELETON
from jotr_deploy.runtime.finding.fetched_networks import require_fetched
from jotr_deploy.runtime.finding.pose.simcc import decode
from jotr_deploy.runtime.finding.pose.top_down import cut, image_from_input, input_from_image
from jotr_deploy.runtime.finding.pose.top_down_network import normalised
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.skeletons import to_smpl30
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


_NOSE, _EYES, _EARS = 0, [1, 2], [3, 4]  # among COCO-17
_EARS_OUT, _EYES_OUT, _NOSE_OUT = 0.24, 0.3, 0.2
"""How much too small BlazePose sees the heads of drawn people, which have no hair: ears as a share of their distance
from the nose, eyes and nose of that from the middle of the ears."""
_RADIUS = 0.55
"""Radius of the circle around a person, as a share of the longer side of their box: a first guess."""
_LEAST_IOU = 0.5


class BlazeJoints:
    """Landmark network of BlazePose, which was fetched; every process opens it for itself.

    Raises:
        BundleError: it was never fetched, or a file is damaged.
    """

    def __init__(self) -> None:
        self._path = require_fetched().landmarks
        self._open: tuple[ExitStack, BlazeLandmarks] | None = None

    def __getstate__(self) -> dict[str, object]:
        """State for a worker process, which opens its own session."""
        return {"_path": self._path, "_open": None}

    def __call__(self, image_bgr: Array, box_px: Array) -> Array:
        """Joints of one person, as the runtime finds them in a still once it knows where to look: (17, 3) x, y,
        confidence; zero if not found, or if they are those of somebody outside of the box.
        """
        return as_coco17(*self.passes(image_bgr, box_px), box_px)

    def passes(self, image_bgr: Array, box_px: Array) -> tuple[Poses, Poses]:
        """Landmarks of the person in a box, from the circle around it and from the one that these give."""
        if self._open is None:
            stack = ExitStack()
            session = stack.enter_context(open_session(self._path, "onnxruntime", "cpu", threads=1))
            self._open = stack, BlazeLandmarks(session)
        _, landmarks = self._open
        low, high = box_px.reshape(2, 2)
        middle = (low + high) / 2
        first = landmarks(image_bgr, np.array([[middle, middle - (0, _RADIUS * (high - low).max())]]))
        return first, landmarks(image_bgr, first.rois_px)


def as_coco17(first: Poses, second: Poses, box_px: Array) -> Array:
    """Mean of two passes over one person, (17, 3); zero if they do not agree on a person in the box."""
    mean = first.mean(second)
    there = iou(person_rules.boxes_px(mean), box_px[None])[0, 0] >= _LEAST_IOU
    if not (there and person_rules.sure(first, second, np.ones(1))[0]):
        return np.zeros((len(COCO17_IN_SMPL30), 3))
    found: Array = to_smpl30(mean.joints, SKELETON)[0, COCO17_IN_SMPL30].astype(np.float64)
    found[:, :2] = with_larger_head(found[:, :2])
    found[found[:, 2] <= VALID_CONFIDENCE] = 0
    return found


def with_larger_head(joints_px: Array) -> Array:
    """COCO-17 joints (17, 2) with the face as large as that of a drawn person.

    Photographs do not have this error of BlazePose's, so the mesh network should not learn to correct it.
    """
    nose, middle = joints_px[_NOSE], joints_px[_EARS].mean(0)
    out = joints_px.copy()
    out[_EARS] += _EARS_OUT * (out[_EARS] - nose)
    out[_EYES] += _EYES_OUT * (out[_EYES] - middle)
    out[_NOSE] += _NOSE_OUT * (nose - middle)
    return out
