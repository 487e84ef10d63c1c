"""DETR family: the image stretched to the input, boxes as fractions of it, no non-maximum suppression needed.

* `rtdetr-ultralytics`: RT-DETR as exported by Ultralytics. Input RGB 0..1; `output0` [B, n, 4 + C]: centre and size as
  fractions of the image, C class scores already in 0..1.
* `rf-detr`: RF-DETR. Input RGB normalised by ImageNet's mean and standard deviation; `dets` [B, n, 4]: centre and size
  as fractions of the image, and `labels` [B, n, C], logits of the COCO categories, counted from 1, so person is 1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection.base import Detector, OfClasses, class_facts
from jotr_deploy.runtime.finding.detection.centred import best_of, corners, in_float32
from jotr_deploy.runtime.finding.detection.implausible import odd_scores, odd_shares
from jotr_deploy.runtime.finding.detection.letterbox import boxes_in_image
from jotr_deploy.runtime.finding.detection.ultralytics import END_TO_END, layout
from jotr_deploy.runtime.finding.network_metadata import declared
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

MEAN_RGB = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION_RGB = np.array([0.229, 0.224, 0.225], np.float32)
COUNTED_FROM_1: Mapping[int, int] = {91: 1}
"""Index of the person class by the number of classes, for COCO's category ids."""
SURE_NUMBERS = frozenset({80, 365})
"""Column counts after the box that certainly are classes, without metadata: those of COCO and Objects365."""


class Recipe(OfClasses):
    """Settings of a detector of the DETR family."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """People must exceed this score."""


class Stretched(Detector):
    """Detector that sees the whole image stretched to its input and returns boxes as fractions of it."""

    recipe = Recipe
    options: Recipe
    classes: int
    people: list[int]

    def facts(self) -> tuple[str, ...]:
        """Classes of the detector."""
        return class_facts(self.people, self.classes)

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image."""
        size_px = (image_bgr.shape[1], image_bgr.shape[0])
        rgb = cv2.resize(image_bgr, self.size_px, interpolation=cv2.INTER_LINEAR)[..., ::-1].astype(np.float32) / 255
        out = recognition.in_batches(self.session, self._pixels(rgb).transpose(2, 0, 1)[None])
        boxes, scores = self._decode({name: in_float32(rows[0]) for name, rows in out.items()})
        boxes_px = boxes_in_image(corners(boxes), 1 / np.array(size_px), size_px)
        kept = select_boxes(boxes_px, scores, self.options.threshold)
        return boxes_px[kept], scores[kept].clip(max=1)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that scores or boxes are implausible, if they are."""
        boxes, scores = self._decode({name: in_float32(rows[0]) for name, rows in outputs.items()})
        return odd_scores(scores) or odd_shares(boxes, scores, self.options.threshold)

    def _pixels(self, rgb: Array) -> Array:
        """Input (H, W, 3) for an image in RGB 0..1."""
        return rgb

    @abstractmethod
    def _decode(self, out: Mapping[str, Array]) -> tuple[Array, Array]:
        """Outputs without batch axis -> centre and size (n, 4) as fractions of the image, person scores (n,)."""


class RtDetrUltralytics(Stretched):
    """RT-DETR as exported by Ultralytics."""

    name = "rtdetr-ultralytics"

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.classes = layout(session)[1] - 4
        self.people = self.person_classes(self.classes)

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept `output0` with fewer rows than the input has cells, and not the six columns of an end-to-end file.

        The columns after the box are classes if their number is a usual one or matches the metadata, or if the metadata
        declare a detector; otherwise they may be an angle or joints.
        """
        rows, columns, cells = layout(session)
        said, classes = declared(session), columns - 4
        by_number = classes in SURE_NUMBERS or classes == len(said.names or ())
        return 4 < columns != END_TO_END and rows < min(cells) and (by_number or said.task == "detect")

    def _decode(self, out: Mapping[str, Array]) -> tuple[Array, Array]:
        rows = out["output0"]
        return rows[:, :4], best_of(rows[:, 4:], self.people)


class RfDetr(Stretched):
    """RF-DETR."""

    name = "rf-detr"
    usual = COUNTED_FROM_1

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.classes = int(session.outputs["labels"].shape[2])
        self.people = self.person_classes(self.classes)

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and outputs `dets` with four columns and `labels` with a logit per class."""
        if recognition.image_size_px(session) is None or set(session.outputs) != {"dets", "labels"}:
            return False
        dets, labels = session.outputs["dets"], session.outputs["labels"]
        if dets.shape[2:] != (4,) or len(labels.shape) != 3 or labels.dtype.kind != "f":
            return False
        return isinstance(labels.shape[2], int)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that labels, scores or boxes are implausible, if they are."""
        if (outputs["labels"] >= 0).all():
            return "its labels are never negative, so they are not logits"
        return super().oddity(outputs)

    def _pixels(self, rgb: Array) -> Array:
        return by_imagenet(rgb)

    def _decode(self, out: Mapping[str, Array]) -> tuple[Array, Array]:
        logits = best_of(out["labels"], self.people)
        return out["dets"], 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def by_imagenet(rgb: Array) -> Array:
    """RGB (..., 3) in 0..1, normalised by ImageNet's mean and standard deviation."""
    normalised: Array = (rgb - MEAN_RGB) / DEVIATION_RGB
    return normalised
