"""DETR's family: the picture stretched to the input, boxes as shares of it, each person once without choosing.

* `rtdetr-ultralytics`: RT-DETR as Ultralytics exports it. Input RGB 0..1; `output0` [B, n, 4 + C]: centre and size in
  0..1 of the picture, C classes, already between 0 and 1.
* `rf-detr`: RF-DETR. Input RGB by ImageNet's mean and deviation; `dets` [B, n, 4]: centre and size in 0..1 of the
  picture, and `labels` [B, n, C], logits of the categories of COCO, counted from 1, so that person is 1.
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
from jotr_deploy.runtime.finding.detection.base import Detector, OfClasses, told_classes
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
"""A person's number by the number of classes, where they are the categories of COCO."""
SURE_NUMBERS = frozenset({80, 365})
"""Numbers of columns after the box that are classes, without metadata: those of COCO and of Objects365."""


class Recipe(OfClasses):
    """See `formats.Recipe`."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A person's score is above it."""


class Stretched(Detector):
    """A detector that sees the whole picture stretched to its input and answers in shares of it."""

    recipe = Recipe
    options: Recipe
    classes: int
    people: list[int]

    def facts(self) -> tuple[str, ...]:
        """See `Format`."""
        return told_classes(self.people, self.classes)

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """See `Detector`."""
        size_px = (image_bgr.shape[1], image_bgr.shape[0])
        rgb = cv2.resize(image_bgr, self.size_px, interpolation=cv2.INTER_LINEAR)[..., ::-1].astype(np.float32) / 255
        out = recognition.in_batches(self.session, self._pixels(rgb).transpose(2, 0, 1)[None])
        boxes, scores = self._decode({name: in_float32(rows[0]) for name, rows in out.items()})
        boxes_px = boxes_in_image(corners(boxes), 1 / np.array(size_px), size_px)
        kept = select_boxes(boxes_px, scores, self.options.threshold)
        return boxes_px[kept], scores[kept].clip(max=1)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """See `Format`."""
        boxes, scores = self._decode({name: in_float32(rows[0]) for name, rows in outputs.items()})
        return odd_scores(scores) or odd_shares(boxes, scores, self.options.threshold)

    def _pixels(self, rgb: Array) -> Array:
        """The input (H, W, 3) of a picture in RGB 0..1."""
        return rgb

    @abstractmethod
    def _decode(self, out: Mapping[str, Array]) -> tuple[Array, Array]:
        """Outputs without their batch -> centre and size (n, 4) in shares of the picture, scores of a person (n,)."""


class RtDetrUltralytics(Stretched):
    """See the module and `Detector`."""

    name = "rtdetr-ultralytics"

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.classes = layout(session)[1] - 4
        self.people = self.person_classes(self.classes)

    @staticmethod
    def fits(session: Session) -> bool:
        """One image in; `output0` out, fewer rows than the input has cells, and more columns than an end-to-end file.

        The numbers after the box are classes if they are as many as usual, or as the metadata name, or if the metadata
        call it a detector; else they may be an angle or joints.
        """
        rows, columns, cells = layout(session)
        said, classes = declared(session), columns - 4
        by_number = classes in SURE_NUMBERS or classes == len(said.names or ())
        return 4 < columns != END_TO_END and rows < min(cells) and (by_number or said.task == "detect")

    def _decode(self, out: Mapping[str, Array]) -> tuple[Array, Array]:
        rows = out["output0"]
        return rows[:, :4], best_of(rows[:, 4:], self.people)


class RfDetr(Stretched):
    """See the module and `Detector`."""

    name = "rf-detr"
    usual = COUNTED_FROM_1

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.classes = int(session.outputs["labels"].shape[2])
        self.people = self.person_classes(self.classes)

    @staticmethod
    def fits(session: Session) -> bool:
        """One image in; `dets` of four numbers and `labels` with a logit for each class out."""
        if recognition.image_size_px(session) is None or set(session.outputs) != {"dets", "labels"}:
            return False
        dets, labels = session.outputs["dets"], session.outputs["labels"]
        if dets.shape[2:] != (4,) or len(labels.shape) != 3 or labels.dtype.kind != "f":
            return False
        return isinstance(labels.shape[2], int)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """See `Format`."""
        if (outputs["labels"] >= 0).all():
            return "its labels are never negative: they are no logits"
        return super().oddity(outputs)

    def _pixels(self, rgb: Array) -> Array:
        return by_imagenet(rgb)

    def _decode(self, out: Mapping[str, Array]) -> tuple[Array, Array]:
        logits = best_of(out["labels"], self.people)
        return out["dets"], 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def by_imagenet(rgb: Array) -> Array:
    """(..., 3) RGB in 0..1 by ImageNet's mean and deviation."""
    normalised: Array = (rgb - MEAN_RGB) / DEVIATION_RGB
    return normalised
