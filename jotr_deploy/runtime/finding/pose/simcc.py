"""RTMPose: two one-dimensional distributions per joint (SimCC).

Input as in `TopDown`; outputs `simcc_x` [B, K, W r] and `simcc_y` [B, K, H r] with the split ratio r. Bin b is the
input pixel coordinate b / r, pixel centres at integers: bin 0 is the centre of the first pixel, and no half-pixel
offset is added.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.joint_outputs import as_confidence
from jotr_deploy.runtime.finding.pose.top_down_network import Recipe, TopDown
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array


class SimCC(TopDown):
    """RTMPose with SimCC outputs."""

    name = "simcc"

    def __init__(self, session: Session, recipe: Recipe) -> None:
        super().__init__(session, recipe)
        self.split_ratio = float(session.outputs["simcc_x"].shape[-1]) / self.size_px[0]

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and outputs `simcc_x` and `simcc_y` of the same split ratio."""
        size_px = recognition.image_size_px(session)
        if size_px is None or set(session.outputs) != {"simcc_x", "simcc_y"}:
            return False
        x, y = (session.outputs[name].shape for name in ("simcc_x", "simcc_y"))
        if len(x) != 3 or len(y) != 3 or not all(isinstance(size, int) for size in (*x[1:], *y[1:])):
            return False
        return x[1] == y[1] and int(x[2]) * size_px[1] == int(y[2]) * size_px[0] >= size_px[0] * size_px[1]

    def points(self, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Highest bins as points, and their heights as confidence."""
        return decode(outputs["simcc_x"], outputs["simcc_y"], self.split_ratio)


def decode(simcc_x: Array, simcc_y: Array, split_ratio: float) -> tuple[Array, Array]:
    """(N, J, bins) each -> points (N, J, 2) in input pixels, confidence (N, J) in 0..1.

    The position is that of the highest bin, the confidence the lower of both heights. A joint with a non-finite value
    has no confidence.
    """
    points = np.stack([simcc_x.argmax(-1), simcc_y.argmax(-1)], -1) / split_ratio
    heights = np.stack([simcc_x.max(-1), simcc_y.max(-1)]).astype(np.float32)
    return points, as_confidence(heights).min(0)
