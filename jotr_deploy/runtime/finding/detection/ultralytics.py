"""YOLOv8, YOLO11 and relatives as exported by Ultralytics, with and without non-maximum suppression inside.

Input [B, 3, H, W] RGB 0..1, letterboxed in the middle; output `output0`, boxes on the canvas:

* raw [B, 4 + C, A]: a column per cell of every level, with centre, size and C classes, no objectness;
* end to end [B, n, 6]: corners, score, class; n is less than the number of cells, unused rows have a score of 0.

The file's metadata name the classes, and thereby the person class. Pose files have the same output name and, with the
17 joints of COCO, 56 rows or 57 columns: without metadata they are not accepted, and so neither is a raw detector with
exactly 52 classes.

Ultralytics' code and weights are under the AGPL; this project contains neither and only reads files that users supply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection.base import Detector, OfClasses, class_facts
from jotr_deploy.runtime.finding.detection.centred import answers, best_of, corners, in_float32
from jotr_deploy.runtime.finding.detection.implausible import odd_pixels, odd_scores
from jotr_deploy.runtime.finding.detection.letterbox import boxes_in_image
from jotr_deploy.runtime.finding.detection.yolox import cells_of
from jotr_deploy.runtime.finding.network_metadata import declared
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
POSE_ROWS = 4 + 1 + 17 * 3
END_TO_END = 6

Share = Annotated[float, Field(ge=0, le=1)]


class Recipe(OfClasses):
    """Settings of a detector exported by Ultralytics."""

    threshold: Share = 0.25
    """People must exceed this score."""
    iou: Share = 0.45
    """Largest IoU of two people; no effect on end-to-end files, which have removed duplicates themselves."""


class Ultralytics(Detector):
    """Detector exported by Ultralytics, raw or end to end."""

    name = "ultralytics"
    recipe = Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        _, rows, columns = session.outputs["output0"].shape
        self.end_to_end = columns == END_TO_END
        self.classes = None if self.end_to_end else int(rows) - 4
        self.people = self.person_classes(self.classes)

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and `output0` with a column per cell or a few rows of six numbers."""
        rows, columns, cells = layout(session)
        said = declared(session)
        if "rtdetr" in said.description:  # its six columns are fractions of the image and two classes
            return False
        # As many rows of six as cells means one row per cell: another decoding, with objectness.
        end_to_end = columns == END_TO_END and rows < min(cells)
        raw = columns in cells and rows > 4 and (rows != POSE_ROWS or said.task == "detect")
        return end_to_end or raw

    def facts(self) -> tuple[str, ...]:
        """Classes, and whether it is end to end."""
        if self.end_to_end:
            return ("end to end", *class_facts(self.people, None, self.sure_of_people))
        return class_facts(self.people, self.classes)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that classes, scores or boxes are implausible, if they are."""
        output = in_float32(outputs["output0"][0])
        if self.end_to_end and (output[:, 5] % 1 != 0).any():
            return "its classes are not integers"
        of_classes = output[:, 4] if self.end_to_end else output[4:]
        return odd_scores(of_classes) or odd_pixels(*self._decode(output), self.options.threshold)

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image."""
        out, scale, left_top = answers(self.session, image_bgr, self.size_px)
        boxes, scores = self._decode(out["output0"])
        boxes_px = boxes_in_image(boxes, scale, (image_bgr.shape[1], image_bgr.shape[0]), left_top)
        kept = select_boxes(boxes_px, scores, self.options.threshold, 1.0 if self.end_to_end else self.options.iou)
        return boxes_px[kept], np.minimum(scores[kept], np.float32(1))

    def _decode(self, output: Array) -> tuple[Array, Array]:
        """Corners (n, 4) on the canvas and person scores (n,)."""
        if self.end_to_end:
            found = output[np.isin(output[:, 5], self.people)]
            return found[:, 0:4], found[:, 4]
        return corners(output.T), best_of(output[4:].T, self.people)


def layout(session: Session) -> tuple[int, int, list[int]]:
    """Rows and columns of `output0`, and number of input cells for each of `STRIDES`; 0, 0 for other files."""
    size_px = recognition.image_size_px(session)
    if size_px is None or set(session.outputs) != {"output0"}:
        return 0, 0, [0]
    shape = session.outputs["output0"].shape
    if len(shape) != 3 or not isinstance(shape[1], int) or not isinstance(shape[2], int):
        return 0, 0, [0]
    return shape[1], shape[2], [cells_of(size_px, strides) for strides in STRIDES]
