"""RTMO as exported by mmdeploy, with non-maximum suppression inside the network.

Input [B, 3, H, W] BGR 0..255, letterboxed at the top left; outputs `dets` [B, n, 5]: x0 y0 x1 y1 on the canvas and a
score, and `keypoints` [B, n, K, 3]: x, y on the canvas and visibility. n may differ from call to call and includes
padding rows with a score of 0 or -1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection import one_stage
from jotr_deploy.runtime.finding.detection.implausible import odd_pixels, odd_scores
from jotr_deploy.runtime.finding.detection.letterbox import boxes_in_image, letterbox
from jotr_deploy.runtime.finding.detection.one_stage import OneStage, joints_in_image
from jotr_deploy.runtime.finding.joint_outputs import skeleton_of
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.skeletons import SKELETONS
from jotr_deploy.support.aliases import Array

JOINTS = 17
"""Number of joints if the file leaves it open."""
_PUBLISHED = {14: "crowdpose14"}
"""Skeletons of published RTMO networks whose number of joints alone is ambiguous."""
_BOX, _SCORE, _COLUMNS = slice(0, 4), 4, 5


class Recipe(one_stage.Recipe):
    """Settings of RTMO."""

    skeleton: str | None = None
    """Order of the joints; inferred from their number by default."""


class Rtmo(OneStage):
    """RTMO as exported by mmdeploy."""

    name = "rtmo"
    recipe = Recipe
    task = "pose"

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        joints = session.outputs["keypoints"].shape[2]
        joints = joints if isinstance(joints, int) else JOINTS
        self.skeleton = skeleton_of(session, joints, recipe.skeleton or _PUBLISHED.get(joints), "detector")

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and outputs `dets` with five columns and `keypoints` with three."""
        if recognition.image_size_px(session) is None or set(session.outputs) != {"dets", "keypoints"}:
            return False
        dets, keypoints = (session.outputs[name].shape for name in ("dets", "keypoints"))
        if (len(dets), len(keypoints)) != (3, 4):
            return False
        # The exporter often leaves sizes open.
        return all(isinstance(size, str) or size == own for size, own in ((dets[2], _COLUMNS), (keypoints[3], 3)))

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that scores or boxes are implausible, if they are."""
        dets = outputs["dets"][0].astype(np.float32)
        scores = np.maximum(dets[:, _SCORE], 0)  # -1 is padding
        return odd_scores(scores) or odd_pixels(dets[:, _BOX], scores, self.options.threshold)

    def people(self, image_bgr: Array) -> tuple[Array, Array, Array]:
        """People in one image with their joints.

        Raises:
            SessionError: outputs whose sizes the file leaves open turn out to have unexpected ones.
        """
        canvas, scale = letterbox(image_bgr, self.size_px)
        out = recognition.in_batches(self.session, canvas.transpose(2, 0, 1)[None])
        dets, keypoints = (out[name][0].astype(np.float32) for name in ("dets", "keypoints"))
        joints = len(SKELETONS[self.skeleton])
        if dets.shape[1:] != (_COLUMNS,) or keypoints.shape[1:] != (joints, 3):
            raise SessionError(
                f"{self.session.path}: a person has {dets.shape[1:]} and {keypoints.shape[1:]} values instead of "
                f"{(_COLUMNS,)} and {(joints, 3)}",
                "name the skeleton of the file in its recipe: --set detector.skeleton=NAME",
            )
        boxes_px = boxes_in_image(dets[:, _BOX], scale, (image_bgr.shape[1], image_bgr.shape[0]))
        kept = select_boxes(boxes_px, dets[:, _SCORE], self.options.threshold)
        joints_px = joints_in_image(keypoints[kept], scale, self.options.joint_threshold)
        return boxes_px[kept], np.minimum(dets[kept, _SCORE], np.float32(1)), joints_px
