"""YOLOv8-pose, YOLO11-pose and their kin as Ultralytics exports them, with and without the choice of people inside.

Input [B, 3, H, W] RGB 0..1, letterboxed in the middle; output `output0`, boxes and the 17 joints of COCO on the canvas:

* raw [B, 4 + 1 + 51, A]: a column for each cell of every level, with centre, size, score and x, y, visibility;
* end to end [B, n, 4 + 1 + 1 + 51]: corners, score, class, the same joints; unused rows have a score of 0.

Nothing of Ultralytics' code or weights is in this project, see `ultralytics`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.runtime.detection import one_stage
from jotr_deploy.runtime.detection.chosen import chosen
from jotr_deploy.runtime.detection.letterbox import boxes_in_image
from jotr_deploy.runtime.detection.one_stage import OneStage, Share, joints_in_image
from jotr_deploy.runtime.detection.ultralytics import PERSON, POSE_ROWS, answer, from_end_to_end, from_raw, layout
from jotr_deploy.runtime.sessions import Session

Array = NDArray[Any]

JOINTS = 17
_END_TO_END, _CLASS = POSE_ROWS + 1, 5


class Recipe(one_stage.Recipe):
    """See `formats.Recipe`."""

    threshold: Share = 0.25
    """A person's score is above it."""
    iou: Share = 0.7
    """Two people share at most this; without effect on end-to-end files, which have told them apart."""


class UltralyticsPose(OneStage):
    """See the module and `OneStage`."""

    name = "ultralytics-pose"
    recipe = Recipe
    skeleton = "coco17"

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.end_to_end = session.outputs["output0"].shape[2] == _END_TO_END

    @staticmethod
    def fits(session: Session) -> bool:
        """One image in; `output0` out, of a column for each cell or of a few rows."""
        rows, columns, cells = layout(session)
        # As many rows as cells is one for each: another decoding, with an objectness.
        end_to_end = columns == _END_TO_END and rows < min(cells)
        return end_to_end or (rows == POSE_ROWS and columns in cells)

    def people(self, image_bgr: Array) -> tuple[Array, Array, Array]:
        """See `OneStage`."""
        output, scale, left_top = answer(self.session, image_bgr, self.size_px)
        if self.end_to_end:
            rows, iou = output[output[:, _CLASS] == PERSON], 1.0
            boxes, scores = from_end_to_end(rows)
        else:
            rows, iou = output.T, self.options.iou
            boxes, scores = from_raw(output)
        boxes_px = boxes_in_image(boxes, scale, (image_bgr.shape[1], image_bgr.shape[0]), left_top)
        kept = chosen(boxes_px, scores, self.options.threshold, iou)
        joints = rows[kept, -3 * JOINTS :].reshape(-1, JOINTS, 3)
        joints_px = joints_in_image(joints, scale, self.options.joint_threshold, left_top)
        return boxes_px[kept], np.minimum(scores[kept], np.float32(1)), joints_px
