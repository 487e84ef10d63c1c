"""BlazePose's detector, as converted by `fetch people`.

Input [B, 224, 224, 3] RGB in -1..1, the image in the middle of a black square; outputs `boxes` [B, 2254, 12] and
`logits` [B, 2254, 1]. It processes windows of the image and returns a circle around each body, which its own
landmark network verifies: `blazepose.source.BlazePosePeople` combines both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.blazepose import person_rules
from jotr_deploy.runtime.finding.blazepose.person_detector import SIDE, BlazeDetector, anchors
from jotr_deploy.runtime.finding.blazepose.rotated_crops import radii_px
from jotr_deploy.runtime.finding.blazepose.windows import windows
from jotr_deploy.runtime.finding.detection.base import Detector
from jotr_deploy.runtime.finding.detection.implausible import odd_pixels
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array


class BlazePoseDetector(Detector):
    """BlazePose's detector alone; a person's box is the square around the circle."""

    name = "blazepose"
    recipe = recognition.Recipe
    size_of = staticmethod(recognition.last_colour_size_px)

    def __init__(self, session: Session, recipe: recognition.Recipe) -> None:
        super().__init__(session, recipe)
        self.network = BlazeDetector(recognition.InBatches(session))

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one channels-last image as input, and outputs `boxes` and `logits` for every anchor."""
        rows = len(anchors())
        return recognition.last_colour_size_px(session) == (SIDE, SIDE) and recognition.rows_of(session) == {
            "boxes": (rows, 12),
            "logits": (rows, 1),
        }

    def facts(self) -> tuple[str, ...]:
        """Search in windows."""
        return ("searches in windows",)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that the boxes are implausible, if they are."""
        sure, sizes = outputs["logits"].reshape(-1), outputs["boxes"].reshape(-1, 12)[:, :4]
        return odd_pixels(sizes, sure, 0.0)

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image."""
        height, width = image_bgr.shape[:2]
        found = self.network(image_bgr, windows((width, height)))
        found = found[np.argsort(-found.scores, kind="stable")]
        found = found[person_rules.distinct_rois(found.rois_px)]
        centres, reach = found.rois_px[:, 0], radii_px(found.rois_px)[:, None]
        boxes = np.concatenate([centres - reach, centres + reach], -1)
        edges = np.array([width, height] * 2) - 0.5
        return boxes.clip(-0.5, edges).astype(np.float32), found.scores.astype(np.float32)
