"""YOLOv8, YOLO11 and their kin as Ultralytics exports them, with and without the choice of boxes inside.

Input [B, 3, H, W] RGB 0..1, letterboxed in the middle; output `output0`, boxes on the canvas:

* raw [B, 4 + C, A]: a column for each cell of every level, with centre, size and C classes, no objectness;
* end to end [B, n, 6]: corners, score, class; n is less than the number of cells, unused rows have a score of 0.

Person is class 0: the names of the classes are in the file's metadata, which sessions do not give. Pose files have the
same name and 56 rows or 57 columns and are not taken; neither is, by that, a raw detector of exactly 52 classes.

Ultralytics' code and weights are under the AGPL; nothing of either is in this project, which only reads files that
users bring.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from jotr_deploy.runtime import formats
from jotr_deploy.runtime.detection.chosen import chosen
from jotr_deploy.runtime.detection.contract import Detector
from jotr_deploy.runtime.detection.letterbox import boxes_in_image, letterbox_centred
from jotr_deploy.runtime.detection.yolox import cells_of
from jotr_deploy.runtime.sessions import Session

Array = NDArray[Any]

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
PERSON = 0
POSE_ROWS = 4 + 1 + 17 * 3
_END_TO_END = 6

Share = Annotated[float, Field(ge=0, le=1)]


class Recipe(formats.Recipe):
    """See `formats.Recipe`."""

    threshold: Share = 0.25
    """A person's score is above it."""
    iou: Share = 0.45
    """Two people share at most this; without effect on end-to-end files, which have told them apart."""


class Ultralytics(Detector):
    """See the module and `Detector`."""

    name = "ultralytics"
    recipe = Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.end_to_end = session.outputs["output0"].shape[2] == _END_TO_END

    @staticmethod
    def fits(session: Session) -> bool:
        """One image in; `output0` out, of a column for each cell or of a few rows of six numbers."""
        rows, columns, cells = layout(session)
        # As many rows of six as cells is one row for each: another decoding, with an objectness.
        end_to_end = columns == _END_TO_END and rows < min(cells)
        raw = columns in cells and 4 < rows != POSE_ROWS
        return end_to_end or raw

    def facts(self) -> tuple[str, ...]:
        """See `Format`."""
        rows = self.session.outputs["output0"].shape[1]
        return ("end to end",) if self.end_to_end else (f"classes: {int(rows) - 4}",)

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """See `Detector`."""
        output, scale, left_top = answer(self.session, image_bgr, self.size_px)
        boxes, scores = from_end_to_end(output) if self.end_to_end else from_raw(output)
        boxes_px = boxes_in_image(boxes, scale, (image_bgr.shape[1], image_bgr.shape[0]), left_top)
        kept = chosen(boxes_px, scores, self.options.threshold, 1.0 if self.end_to_end else self.options.iou)
        return boxes_px[kept], np.minimum(scores[kept], np.float32(1))


def layout(session: Session) -> tuple[int, int, list[int]]:
    """Rows and columns of `output0`, and how many cells the input has by each of `STRIDES`; 0, 0 of other files."""
    size_px = formats.image_size_px(session)
    if size_px is None or set(session.outputs) != {"output0"}:
        return 0, 0, [0]
    shape = session.outputs["output0"].shape
    if len(shape) != 3 or not isinstance(shape[1], int) or not isinstance(shape[2], int):
        return 0, 0, [0]
    return shape[1], shape[2], [cells_of(size_px, strides) for strides in STRIDES]


def answer(session: Session, image_bgr: Array, size_px: tuple[int, int]) -> tuple[Array, Array, Array]:
    """What the network says of a picture: `output0` without its batch, and scale and place of `letterbox_centred`."""
    canvas, scale, left_top = letterbox_centred(image_bgr, size_px)
    rgb = canvas[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255
    return formats.in_batches(session, rgb)["output0"][0].astype(np.float32), scale, left_top


def from_raw(output: Array) -> tuple[Array, Array]:
    """(4 + C, A) -> corners (A, 4) on the canvas and scores of a person (A,)."""
    rows = output.T
    centre, size = rows[:, 0:2], rows[:, 2:4]
    return np.concatenate([centre - size / 2, centre + size / 2], 1), rows[:, 4 + PERSON]


def from_end_to_end(output: Array) -> tuple[Array, Array]:
    """(n, 6) -> corners (P, 4) on the canvas and scores (P,) of those that are people."""
    found = output[output[:, 5] == PERSON]
    return found[:, 0:4], found[:, 4]
