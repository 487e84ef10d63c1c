"""YOLOX as written by its own exporter: the raw head, or boxes decoded inside the network.

Input [B, 3, H, W] BGR 0..255, letterboxed; output [B, A, 5 + C]: centre, size, objectness, C classes; A rows for the
cells of every level, fine to coarse, row-major. YOLOv6 has the same shapes, but names its output `outputs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from jotr_deploy.geometry.boxes import mirrored
from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.box_selection import average_alike, select_boxes
from jotr_deploy.runtime.finding.detection.base import Detector, OfClasses, class_facts
from jotr_deploy.runtime.finding.detection.centred import best_of, corners
from jotr_deploy.runtime.finding.detection.implausible import odd_scores
from jotr_deploy.runtime.finding.detection.letterbox import boxes_in_image, letterbox
from jotr_deploy.runtime.finding.network_metadata import declared
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

STRIDES = ((8, 16, 32), (8, 16, 32, 64))
OTHERS_OUTPUTS = frozenset({"outputs", "output0"})
"""Output names used by other exporters, whose pixels and boxes differ."""
NEITHER = (80 + 4 * 8, 80 + 4)
"""Column counts of NanoDet and of row-wise YOLOv8, whose files also have a row per cell and the usual names."""
_BOX, _OBJECTNESS, _CLASSES = slice(0, 4), 4, 5
# exp(20) strides would be larger than any image, while decoded sizes are in pixels and often exceed 20.
_LARGEST_LOG = 20.0

Share = Annotated[float, Field(ge=0, le=1)]


class Recipe(OfClasses):
    """Settings of YOLOX."""

    threshold: Share = 0.3
    """People must exceed this score."""
    iou: Share = 0.45
    """Largest IoU of two people."""
    flip_test: bool = False
    """Process the image twice, the second time mirrored, and average boxes that agree."""
    decoded: bool | None = None
    """True if decoding is inside the file; by default inferred from the magnitude of each output."""


class Yolox(Detector):
    """YOLOX."""

    name = "yolox"
    recipe = Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self._cell, self._stride = cells(self.size_px, _strides(session))
        (spec,) = session.outputs.values()
        self.classes = int(spec.shape[2]) - _CLASSES
        self.people = self.person_classes(self.classes)

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and one row per cell with a box, objectness and at least one class."""
        return bool(_strides(session))

    def facts(self) -> tuple[str, ...]:
        """Classes of the detector."""
        return class_facts(self.people, self.classes)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that objectness, boxes or scores are implausible, if they are."""
        (rows,) = (rows[0].astype(np.float32) for rows in outputs.values())
        if (rows[:, _OBJECTNESS] == 1).all():
            return "its objectness is 1 everywhere, as in YOLOv6"
        if (rows[:, _BOX] >= 0).all() and (rows[:, _BOX] <= 1).all():  # logarithms of sizes are below 0 as well
            return "its boxes are fractions of the picture, not pixels"
        return odd_scores(rows[:, _OBJECTNESS:])

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image."""
        boxes_px, scores = self._look(image_bgr)
        if self.options.flip_test:
            other_px, other = self._look(cv2.flip(image_bgr, 1))
            boxes_px = np.concatenate([boxes_px, mirrored(other_px, image_bgr.shape[1])])
            scores = np.concatenate([scores, other])
        kept = select_boxes(boxes_px, scores, self.options.threshold, self.options.iou)
        if self.options.flip_test:
            boxes_px[kept] = average_alike(boxes_px, scores, kept, self.options.threshold)
        return boxes_px[kept], np.minimum(scores[kept], np.float32(1))

    def _look(self, image_bgr: Array) -> tuple[Array, Array]:
        """Box (A, 4) in the image of every cell, and its score (A,)."""
        canvas, scale = letterbox(image_bgr, self.size_px)
        (output,) = recognition.in_batches(self.session, canvas.transpose(2, 0, 1)[None]).values()
        boxes, scores = self._decode(output[0].astype(np.float32))
        return boxes_in_image(boxes, scale, (image_bgr.shape[1], image_bgr.shape[0])), scores

    def _decode(self, rows: Array) -> tuple[Array, Array]:
        """(A, 5 + C) -> corners (A, 4) on the canvas and person scores (A,)."""
        centre, size = rows[:, 0:2], rows[:, 2:4]
        decoded = self.options.decoded
        if decoded is None:
            decoded = bool(np.nanmax(size, initial=0) > _LARGEST_LOG)
        if not decoded:
            centre = (centre + self._cell) * self._stride
            size = np.exp(np.minimum(size, _LARGEST_LOG)) * self._stride
        boxes = corners(np.concatenate([centre, size], 1))
        return boxes, rows[:, _OBJECTNESS] * best_of(rows[:, _CLASSES:], self.people)


def cells(size_px: tuple[int, int], strides: tuple[int, ...]) -> tuple[Array, Array]:
    """Column and row (A, 2) of every output row in its level, and the level's stride (A, 1); float32."""
    grids = [np.mgrid[: size_px[1] // s, : size_px[0] // s][::-1].reshape(2, -1).T for s in strides]
    stride = np.repeat(strides, [len(grid) for grid in grids])
    return np.concatenate(grids).astype(np.float32), stride[:, None].astype(np.float32)


def cells_of(size_px: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Number of rows of `cells`."""
    return sum((size_px[0] // s) * (size_px[1] // s) for s in strides)


def _strides(session: Session) -> tuple[int, ...]:
    """Strides of the levels of a file in this format; empty for any other."""
    size_px = recognition.image_size_px(session)
    if size_px is None or len(session.outputs) != 1 or OTHERS_OUTPUTS & set(session.outputs):
        return ()
    (spec,) = session.outputs.values()
    if len(spec.shape) != 3 or not isinstance(spec.shape[2], int) or spec.shape[2] <= _CLASSES:
        return ()
    if spec.shape[2] in NEITHER and not declared(session).names:
        return ()
    return next((strides for strides in STRIDES if spec.shape[1] == cells_of(size_px, strides)), ())
