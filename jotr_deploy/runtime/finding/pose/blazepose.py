"""BlazePose's landmark network, as converted by `fetch people`.

Input [B, 256, 256, 3] RGB in 0..1, an upright person in a square; outputs `landmarks` [B, 195], `flag` [B, 1],
`heatmaps` [B, 64, 64, 39] and optionally `world`, which is ignored. The landmarks also define a second, better crop.
"""

from __future__ import annotations

import numpy as np

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.blazepose.landmarks import POINTS, BlazeLandmarks
from jotr_deploy.runtime.finding.blazepose.person_rules import LEAST_FLAG
from jotr_deploy.runtime.finding.blazepose.rotated_crops import SIDE
from jotr_deploy.runtime.finding.joint_outputs import joints_above
from jotr_deploy.runtime.finding.pose.base import PoseNetwork
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

_OUTPUTS = {"landmarks": (5 * POINTS,), "flag": (1,), "heatmaps": (SIDE // 4, SIDE // 4, POINTS)}


class BlazePoseLandmarks(PoseNetwork):
    """BlazePose's landmark network as a `PoseNetwork`."""

    name = "blazepose"
    recipe = recognition.Recipe
    skeleton = "blazepose33"
    size_of = staticmethod(recognition.last_colour_size_px)

    def __init__(self, session: Session, recipe: recognition.Recipe) -> None:
        super().__init__(session, recipe)
        self.network = BlazeLandmarks(recognition.InBatches(session))

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one channels-last image as input, and the outputs listed above."""
        rows = recognition.rows_of(session)
        return recognition.last_colour_size_px(session) == (SIDE, SIDE) and rows == {**rows, **_OUTPUTS}

    def __call__(self, image_bgr: Array, boxes_px: Array) -> Array:
        """Joints of everybody, in two passes: on the square around each box, then where that finds the body.

        Boxes that the second pass rejects as not a person get no joints.
        """
        rois_px = np.repeat((boxes_px[:, None, :2] + boxes_px[:, None, 2:]) / 2, 2, axis=1).astype(np.float64)
        rois_px[:, 1, 1] -= np.maximum((boxes_px[:, 2:] - boxes_px[:, :2]).max(1, initial=0) / 2, 0.5)
        poses = self.network(image_bgr, self.network(image_bgr, rois_px).rois_px)
        joints = poses.joints
        return joints_above(joints[..., :2], joints[..., 2] * (poses.flags >= LEAST_FLAG)[:, None], 0.0)
