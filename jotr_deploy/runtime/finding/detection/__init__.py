"""Detectors of people. A format is one file with a class derived from `Detector`, listed in `FORMATS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jotr_deploy.runtime.finding.detection.base import Detector
from jotr_deploy.runtime.finding.detection.blazepose import BlazePoseDetector
from jotr_deploy.runtime.finding.detection.detr_family import RfDetr, RtDetrUltralytics
from jotr_deploy.runtime.finding.detection.efficient_nms import EfficientNms
from jotr_deploy.runtime.finding.detection.mmdeploy import Mmdeploy
from jotr_deploy.runtime.finding.detection.rtmo import Rtmo
from jotr_deploy.runtime.finding.detection.ultralytics import Ultralytics
from jotr_deploy.runtime.finding.detection.ultralytics_pose import UltralyticsPose
from jotr_deploy.runtime.finding.detection.unsupported import unread
from jotr_deploy.runtime.finding.detection.yolov5 import Yolov5
from jotr_deploy.runtime.finding.detection.yolov6 import Yolov6
from jotr_deploy.runtime.finding.detection.yolox import Yolox
from jotr_deploy.runtime.finding.recognition import open_format
from jotr_deploy.runtime.sessions import Session

__all__ = ["FORMATS", "Detector", "open_detector"]

# Formats recognised by the names of their outputs come before those recognised by shapes alone.
FORMATS: tuple[type[Detector], ...] = (
    Mmdeploy,
    RfDetr,
    Rtmo,
    EfficientNms,
    Ultralytics,
    UltralyticsPose,
    RtDetrUltralytics,
    Yolov6,
    Yolov5,
    Yolox,
    BlazePoseDetector,
)

USUAL_PX = (640, 640)
"""Width and height of the input if the file leaves them open and its recipe does not set them."""


def open_detector(session: Session, recipe: Mapping[str, Any] | None = None) -> Detector:
    """Open the detector of a session.

    Args:
        session: network in one of `FORMATS`, determined from its names, shapes and metadata.
        recipe: settings of its bundle entry: `format` and those of that format's `recipe`, all optional.

    Raises:
        SessionError: the file fits no format.
        BundleError: a recipe with an unknown setting.
    """
    return open_format("detector", FORMATS, session, recipe or {}, USUAL_PX, unread)
