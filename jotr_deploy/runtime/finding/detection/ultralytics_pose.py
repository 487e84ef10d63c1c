"""YOLOv8-pose, YOLO11-pose and relatives as exported by Ultralytics, with and without non-maximum suppression.

Input [B, 3, H, W] RGB 0..1, letterboxed in the middle; output `output0`, boxes and K joints on the canvas:

* raw [B, 4 + C + 3 K, A]: a column per cell of every level, with centre, size, C classes and x, y, visibility;
* end to end [B, n, 4 + 1 + 1 + 3 K]: corners, score, class, the same joints; unused rows have a score of 0.

The metadata give K (`kpt_shape`) and the classes; without them one class and the 17 joints of COCO are assumed. Other
joints need an order: the names in the metadata, or the recipe's `skeleton`.

This project contains none of Ultralytics' code or weights, see `ultralytics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection import one_stage
from jotr_deploy.runtime.finding.detection.centred import answers, best_of, corners, in_float32
from jotr_deploy.runtime.finding.detection.implausible import odd_pixels, odd_scores
from jotr_deploy.runtime.finding.detection.letterbox import boxes_in_image
from jotr_deploy.runtime.finding.detection.one_stage import OneStage, Share, joints_in_image
from jotr_deploy.runtime.finding.detection.ultralytics import layout
from jotr_deploy.runtime.finding.joint_outputs import KNOWN_NUMBERS, WHOLE_BODY, skeleton_of
from jotr_deploy.runtime.finding.network_metadata import declared, person_classes
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.skeletons import SKELETONS
from jotr_deploy.support.aliases import Array

JOINTS = 17
"""Number of joints if the file does not declare it."""
_END_TO_END, _SCORE, _CLASS = 6, 4, 5


class Recipe(one_stage.Recipe):
    """Settings of a pose network exported by Ultralytics."""

    threshold: Share = 0.25
    """People must exceed this score."""
    iou: Share = 0.7
    """Largest IoU of two people; no effect on end-to-end files, which have removed duplicates themselves."""
    skeleton: str | None = None
    """Order of the joints; inferred from their number and names by default."""
    person: Annotated[int, Field(ge=0)] | None = None
    """Index of the person class; by default taken from the class names in the file."""


class UltralyticsPose(OneStage):
    """One-stage pose network exported by Ultralytics."""

    name = "ultralytics-pose"
    task = "pose"
    recipe = Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.joints, self.classes, self.end_to_end = _joints_and_classes(session)
        if self.joints not in (JOINTS, WHOLE_BODY) and not recipe.skeleton and not declared(session).joint_names:
            raise SessionError(
                f"{session.path}: {self.joints} joints, but the file does not name their order",
                f"name it: --set detector.skeleton=NAME, one of {', '.join(sorted(SKELETONS))}",
            )
        self.skeleton = skeleton_of(session, self.joints, recipe.skeleton, "detector")
        self.people_classes = person_classes(
            session, None if self.end_to_end else self.classes, recipe.person, {0: 0, 1: 0}
        )

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and `output0` with a column per cell or a few rows."""
        return _joints_and_classes(session)[0] in KNOWN_NUMBERS

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that scores or boxes are implausible, if they are."""
        _, boxes, scores = self._decode(in_float32(outputs["output0"][0]))
        return odd_scores(scores) or odd_pixels(boxes, scores, self.options.threshold)

    def people(self, image_bgr: Array) -> tuple[Array, Array, Array]:
        """People in one image with their joints."""
        out, scale, left_top = answers(self.session, image_bgr, self.size_px)
        rows, boxes, scores = self._decode(out["output0"])
        boxes_px = boxes_in_image(boxes, scale, (image_bgr.shape[1], image_bgr.shape[0]), left_top)
        kept = select_boxes(boxes_px, scores, self.options.threshold, 1.0 if self.end_to_end else self.options.iou)
        joints = rows[kept, -3 * self.joints :].reshape(-1, self.joints, 3)[:, : len(SKELETONS[self.skeleton])]
        joints_px = joints_in_image(joints, scale, self.options.joint_threshold, left_top)
        return boxes_px[kept], np.minimum(scores[kept], np.float32(1)), joints_px

    def _decode(self, output: Array) -> tuple[Array, Array, Array]:
        """Rows (n, ...) with the joints last, corners (n, 4) on the canvas, person scores (n,)."""
        if self.end_to_end:
            rows = output[np.isin(output[:, _CLASS], self.people_classes)]
            return rows, rows[:, 0:4], rows[:, _SCORE]
        rows = output.T
        return rows, corners(rows), best_of(rows[:, 4 : 4 + self.classes], self.people_classes)


def _joints_and_classes(session: Session) -> tuple[int, int, bool]:
    """Number of joints and of classes, and whether it is end to end; 0, 0 for other files."""
    rows, columns, cells = layout(session)
    said = declared(session)
    classes = len(said.names) if said.names else 1
    joints, values = said.keypoints or (JOINTS, 3)
    if values != 3:
        return 0, 0, False
    # As many rows as cells means one per cell: another decoding, with objectness.
    if columns == _END_TO_END + 3 * joints and rows < min(cells):
        return joints, classes, True
    if rows == 4 + classes + 3 * joints and columns in cells:
        return joints, classes, False
    return 0, 0, False
