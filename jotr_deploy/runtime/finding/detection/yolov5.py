"""YOLOv5 and YOLOv7 without non-maximum suppression: three boxes per cell, decoded inside the network.

Input [B, 3, H, W] RGB 0..1, letterboxed in the middle; one output [B, 3 A, 5 + C] for A cells of all levels: centre and
size on the canvas, objectness, C classes, the last two between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection.base import Detector, OfClasses, class_facts
from jotr_deploy.runtime.finding.detection.centred import answers, best_of, corners
from jotr_deploy.runtime.finding.detection.implausible import odd_pixels, odd_scores
from jotr_deploy.runtime.finding.detection.letterbox import boxes_in_image
from jotr_deploy.runtime.finding.detection.yolox import STRIDES, cells_of
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

ANCHORS = 3
_BOX, _OBJECTNESS, _CLASSES = slice(0, 4), 4, 5

Share = Annotated[float, Field(ge=0, le=1)]


class Recipe(OfClasses):
    """Settings of a detector with objectness."""

    threshold: Share = 0.25
    """People must exceed this score."""
    iou: Share = 0.45
    """Largest IoU of two people."""


class WithObjectness(Detector):
    """Detector with one output [B, n, 5 + C]: centre and size on the canvas, objectness, classes."""

    recipe = Recipe
    options: Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        (spec,) = session.outputs.values()
        self.classes = int(spec.shape[2]) - _CLASSES
        self.people = self.person_classes(self.classes)

    def facts(self) -> tuple[str, ...]:
        """Classes of the detector."""
        return class_facts(self.people, self.classes)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that scores or boxes are implausible, if they are."""
        (rows,) = (rows[0] for rows in outputs.values())
        boxes, scores = self._decode(rows)
        return odd_scores(rows[:, _OBJECTNESS:]) or odd_pixels(boxes, scores, self.options.threshold)

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image."""
        out, scale, left_top = answers(self.session, image_bgr, self.size_px)
        (rows,) = out.values()
        boxes, scores = self._decode(rows)
        boxes_px = boxes_in_image(boxes, scale, (image_bgr.shape[1], image_bgr.shape[0]), left_top)
        kept = select_boxes(boxes_px, scores, self.options.threshold, self.options.iou)
        return boxes_px[kept], scores[kept].clip(max=1)

    def _decode(self, rows: Array) -> tuple[Array, Array]:
        """(n, 5 + C) -> corners (n, 4) on the canvas and person scores (n,)."""
        return corners(rows[:, _BOX]), rows[:, _OBJECTNESS] * best_of(rows[:, _CLASSES:], self.people)


class Yolov5(WithObjectness):
    """YOLOv5 or YOLOv7."""

    name = "yolov5"

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and three rows per cell with objectness and at least one class."""
        return rows_for_each_cell(session) == ANCHORS


def rows_for_each_cell(session: Session) -> int:
    """Number of boxes per cell in the one output [B, n, 5 + C], for levels of any of `STRIDES`; 0 for other files."""
    size_px = recognition.image_size_px(session)
    if size_px is None or len(session.outputs) != 1:
        return 0
    (spec,) = session.outputs.values()
    shape = spec.shape
    if len(shape) != 3 or not isinstance(shape[1], int) or not isinstance(shape[2], int) or shape[2] <= _CLASSES:
        return 0
    cells = [cells_of(size_px, strides) for strides in STRIDES]
    return next((count for count in (1, ANCHORS) if shape[1] in [count * each for each in cells]), 0)
