"""YOLOv6 as written by its own exporter, without non-maximum suppression.

Input [B, 3, H, W] RGB 0..1, letterboxed in the middle; output `outputs` [B, A, 5 + C]: a row per cell with centre and
size on the canvas, an objectness that is always 1, C classes. YOLOX has the same shapes, but other pixels, other
boxes and the name `output`.
"""

from __future__ import annotations

from jotr_deploy.runtime.finding.detection.yolov5 import WithObjectness, rows_for_each_cell
from jotr_deploy.runtime.sessions import Session

OUTPUT = "outputs"


class Yolov6(WithObjectness):
    """YOLOv6."""

    name = "yolov6"

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and `outputs` with one row per cell."""
        return set(session.outputs) == {OUTPUT} and rows_for_each_cell(session) == 1
