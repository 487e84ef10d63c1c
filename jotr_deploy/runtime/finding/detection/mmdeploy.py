"""YOLOX and RTMDet as exported by mmdeploy: decoding and non-maximum suppression inside the network.

Input [B, 3, H, W] BGR, letterboxed at the top left; outputs `dets` [B, n, 5]: x0 y0 x1 y1 on the canvas and a score,
and `labels` [B, n] of an integer type. n may differ from call to call and includes padding rows with a score of 0 or
-1. Person is class 0, unless the recipe sets another.

RTMDet expects pixels normalised by ImageNet's mean and standard deviation, YOLOX raw pixels, and the wrong ones
silently lower recall. The first layer of an ONNX file identifies YOLOX, which stacks 2 x 2 pixels; for RTMDet the
recipe must set `"family": "rtmdet"`. Faster R-CNN, RetinaNet and others with a ResNet have the same outputs but other
pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection.base import Detector, OfClasses, class_facts
from jotr_deploy.runtime.finding.detection.implausible import odd_pixels, odd_scores
from jotr_deploy.runtime.finding.detection.letterbox import boxes_in_image, letterbox
from jotr_deploy.runtime.finding.first_layer import first_convolution
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

MEAN_BGR = np.array([103.53, 116.28, 123.675], np.float32)
DEVIATION_BGR = np.array([57.375, 57.12, 58.395], np.float32)
_BOX, _SCORE, _COLUMNS = slice(0, 4), 4, 5
_FOCUS_CHANNELS = 12  # three colours of four pixels


class Recipe(OfClasses):
    """Settings of a detector exported by mmdeploy."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
    """People must exceed this score; the file's built-in threshold has already removed some."""
    family: Literal["yolox", "rtmdet"] | None = None
    """Family, which sets the pixel normalisation; by default YOLOX, unless the file's first layer contradicts it."""


class Mmdeploy(Detector):
    """YOLOX or RTMDet as exported by mmdeploy."""

    name = "mmdeploy"
    recipe = Recipe
    options: Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.family = _family(session, recipe.family)
        self.people = self.person_classes(None)

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and outputs `dets` with five columns and `labels` with an integer per row."""
        if recognition.image_size_px(session) is None or set(session.outputs) != {"dets", "labels"}:
            return False
        dets, labels = session.outputs["dets"], session.outputs["labels"]
        if (len(dets.shape), dets.dtype.kind, len(labels.shape), labels.dtype.kind) != (3, "f", 2, "i"):
            return False
        return dets.shape[2] == _COLUMNS or isinstance(dets.shape[2], str)  # the exporter often leaves it open

    def facts(self) -> tuple[str, ...]:
        """Pixel normalisation and classes."""
        return (f"pixels as for {self.family}", *class_facts(self.people, None, self.sure_of_people))

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that scores or boxes are implausible, if they are."""
        dets = outputs["dets"][0].astype(np.float32)
        scores = np.maximum(dets[:, _SCORE], 0)  # -1 is padding
        return odd_scores(scores) or odd_pixels(dets[:, _BOX], scores, self.options.threshold)

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image.

        Raises:
            SessionError: `dets` turn out not to have five columns, if the file leaves their number open.
        """
        canvas, scale = letterbox(image_bgr, self.size_px)
        out = recognition.in_batches(self.session, self._pixels(canvas).transpose(2, 0, 1)[None])
        dets, labels = out["dets"][0].astype(np.float32), out["labels"][0]
        if dets.shape[1] != _COLUMNS:
            raise SessionError(
                f"{self.session.path}: dets have {dets.shape[1]} columns instead of {_COLUMNS}",
                "give a detector of upright boxes, exactly as its exporter writes it",
            )
        dets = dets[np.isin(labels, self.people)]
        boxes_px = boxes_in_image(dets[:, _BOX], scale, (image_bgr.shape[1], image_bgr.shape[0]))
        kept = select_boxes(boxes_px, dets[:, _SCORE], self.options.threshold)
        return boxes_px[kept], np.minimum(dets[kept, _SCORE], np.float32(1))

    def _pixels(self, canvas: Array) -> Array:
        return canvas if self.family == "yolox" else (canvas - MEAN_BGR) / DEVIATION_BGR


def _family(session: Session, said: Literal["yolox", "rtmdet"] | None) -> Literal["yolox", "rtmdet"]:
    """Family of a network, from the recipe and, as a check, the first layer of its file."""
    shape = first_convolution(session.path)
    if shape is None or shape[1] == _FOCUS_CHANNELS:
        if said == "rtmdet" and shape is not None:
            raise SessionError(
                f"{session.path}: recipe: family: its first layer is that of YOLOX, not of RTMDet",
                "leave detector.family out",
            )
        return said or "yolox"
    if shape[2:] != (3, 3):
        high, wide = shape[2:]
        raise SessionError(
            f"{session.path}: its outputs are those of mmdeploy, but its first layer of {high} x {wide} pixels is "
            "neither YOLOX's nor RTMDet's; it may be Faster R-CNN or RetinaNet",
            "give YOLOX or RTMDet as exported by mmdeploy",
        )
    if said != "rtmdet":
        raise SessionError(
            f"{session.path}: its outputs are those of mmdeploy, but its first layer is not that of YOLOX",
            "if it is RTMDet, add --set detector.family=rtmdet; others of mmdeploy are not supported",
        )
    return said
