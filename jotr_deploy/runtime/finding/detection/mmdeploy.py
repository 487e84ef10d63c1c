"""YOLOX and RTMDet as mmdeploy exports them: boxes decoded and told apart inside the network.

Input [B, 3, H, W] BGR, letterboxed at the top left; outputs `dets` [B, n, 5]: x0 y0 x1 y1 on the canvas and a score,
and `labels` [B, n] of an integer type. n may differ from call to call and counts rows of padding, with a score of 0 or
-1. Person is class 0, unless the recipe says another.

RTMDet takes its pixels by ImageNet's mean and deviation, YOLOX as they are, and the wrong pixels find fewer people
without a word. Of an ONNX file the first layer tells YOLOX, which takes pixels four at a time; for RTMDet the recipe
has to say `"family": "rtmdet"`. Faster R-CNN, RetinaNet and others with a ResNet have these outputs and pixels of their
own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection.base import Detector, OfClasses, told_classes
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
    """See `formats.Recipe`."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
    """A person's score is above it; the one inside the file has left out some already."""
    family: Literal["yolox", "rtmdet"] | None = None
    """Which pixels the network takes; see the module. Unknown, it is YOLOX, unless the file's first layer is not."""


class Mmdeploy(Detector):
    """See the module and `Detector`."""

    name = "mmdeploy"
    recipe = Recipe
    options: Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.family = _family(session, recipe.family)
        self.people = self.person_classes(None)

    @staticmethod
    def fits(session: Session) -> bool:
        """One image in; `dets` of five columns and a whole number for each row in `labels` out."""
        if recognition.image_size_px(session) is None or set(session.outputs) != {"dets", "labels"}:
            return False
        dets, labels = session.outputs["dets"], session.outputs["labels"]
        if (len(dets.shape), dets.dtype.kind, len(labels.shape), labels.dtype.kind) != (3, "f", 2, "i"):
            return False
        return dets.shape[2] == _COLUMNS or isinstance(dets.shape[2], str)  # the exporter often leaves it open

    def facts(self) -> tuple[str, ...]:
        """See `Format`."""
        return (f"pixels as {self.family} takes them", *told_classes(self.people, None, self.sure_of_people))

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """See `Format`."""
        dets = outputs["dets"][0].astype(np.float32)
        scores = np.maximum(dets[:, _SCORE], 0)  # -1 is padding
        return odd_scores(scores) or odd_pixels(dets[:, _BOX], scores, self.options.threshold)

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """See `Detector`.

        Raises:
            SessionError: `dets`, where the file leaves their number open, have other than five columns.
        """
        canvas, scale = letterbox(image_bgr, self.size_px)
        out = recognition.in_batches(self.session, self._pixels(canvas).transpose(2, 0, 1)[None])
        dets, labels = out["dets"][0].astype(np.float32), out["labels"][0]
        if dets.shape[1] != _COLUMNS:
            raise SessionError(
                f"{self.session.path}: dets have {dets.shape[1]} columns, {_COLUMNS} were expected",
                "give a file that finds upright boxes, as its exporter writes it",
            )
        dets = dets[np.isin(labels, self.people)]
        boxes_px = boxes_in_image(dets[:, _BOX], scale, (image_bgr.shape[1], image_bgr.shape[0]))
        kept = select_boxes(boxes_px, dets[:, _SCORE], self.options.threshold)
        return boxes_px[kept], np.minimum(dets[kept, _SCORE], np.float32(1))

    def _pixels(self, canvas: Array) -> Array:
        return canvas if self.family == "yolox" else (canvas - MEAN_BGR) / DEVIATION_BGR


def _family(session: Session, said: Literal["yolox", "rtmdet"] | None) -> Literal["yolox", "rtmdet"]:
    """The pixels that a network takes, as the recipe says and the first layer of its file allows."""
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
            f"{session.path}: its outputs are those of mmdeploy, but its first layer of {high} x {wide} pixels is that "
            "of another network than YOLOX and RTMDet, such as Faster R-CNN or RetinaNet, whose pixels are not known",
            "give YOLOX or RTMDet as mmdeploy exports them",
        )
    if said != "rtmdet":
        raise SessionError(
            f"{session.path}: its outputs are those of mmdeploy, but its first layer is not that of YOLOX",
            "if it is RTMDet, say so: --set detector.family=rtmdet; others that mmdeploy exports are not read",
        )
    return said
