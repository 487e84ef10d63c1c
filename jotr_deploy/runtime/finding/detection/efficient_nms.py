"""YOLOv5 to YOLOv9 exported with non-maximum suppression, by TensorRT's EfficientNMS or with the same outputs.

Input [B, 3, H, W] RGB 0..1, letterboxed in the middle; outputs `num_dets` [B, 1]: number of valid rows, `det_boxes`
[B, n, 4]: x0 y0 x1 y1 on the canvas, `det_scores` [B, n] and `det_classes` [B, n]. These names are those of the YOLOv7
and YOLOv6 exporters; others name boxes, scores and classes `bboxes`, `scores` and `labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection.base import Detector, OfClasses, class_facts
from jotr_deploy.runtime.finding.detection.centred import answers
from jotr_deploy.runtime.finding.detection.implausible import odd_pixels, odd_scores
from jotr_deploy.runtime.finding.detection.letterbox import boxes_in_image
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

COUNT = "num_dets"
NAMES = (("det_boxes", "det_scores", "det_classes"), ("bboxes", "scores", "labels"))
"""Output names of boxes, scores and classes."""


class Recipe(OfClasses):
    """Settings of a detector with EfficientNMS."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.25
    """People must exceed this score; the file's built-in threshold has already removed some."""


class EfficientNms(Detector):
    """Detector with EfficientNMS outputs."""

    name = "efficient-nms"
    recipe = Recipe
    options: Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self._names = next(names for names in NAMES if set(names) <= set(session.outputs))
        self.people = self.person_classes(None)

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and the four outputs listed above."""
        if recognition.image_size_px(session) is None:
            return False
        names = next((names for names in NAMES if {COUNT, *names} == set(session.outputs)), None)
        if names is None:
            return False
        count, boxes, scores, classes = (session.outputs[name] for name in (COUNT, *names))
        ranks = tuple(len(spec.shape) for spec in (boxes, scores, classes))
        return ranks == (3, 2, 2) and boxes.shape[2] == 4 and count.dtype.kind == "i"

    def facts(self) -> tuple[str, ...]:
        """End to end, and its classes."""
        return ("end to end", *class_facts(self.people, None, self.sure_of_people))

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that scores or boxes are implausible, if they are."""
        boxes, scores = self._found({name: rows[0] for name, rows in outputs.items()})
        return odd_scores(scores) or odd_pixels(boxes, scores, self.options.threshold)

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image."""
        out, scale, left_top = answers(self.session, image_bgr, self.size_px)
        boxes, scores = self._found(out)
        boxes_px = boxes_in_image(boxes, scale, (image_bgr.shape[1], image_bgr.shape[0]), left_top)
        kept = select_boxes(boxes_px, scores, self.options.threshold)
        return boxes_px[kept], scores[kept].clip(max=1)

    def _found(self, out: Mapping[str, Array]) -> tuple[Array, Array]:
        """Corners (P, 4) on the canvas and scores (P,) of the people among the valid rows."""
        boxes, scores, classes = (out[name][: int(out[COUNT].reshape(-1)[0])] for name in self._names)
        people = np.isin(classes, self.people)
        return boxes[people], scores[people]
