"""2-D pose networks. A format is one file with a class derived from `PoseNetwork`, listed in `FORMATS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jotr_deploy.runtime.finding.pose.base import PoseNetwork
from jotr_deploy.runtime.finding.pose.blazepose import BlazePoseLandmarks
from jotr_deploy.runtime.finding.pose.decoded import Decoded
from jotr_deploy.runtime.finding.pose.heatmaps import HeatMaps
from jotr_deploy.runtime.finding.pose.simcc import SimCC
from jotr_deploy.runtime.finding.pose.unsupported import unread
from jotr_deploy.runtime.finding.recognition import open_format
from jotr_deploy.runtime.sessions import Session

__all__ = ["FORMATS", "PoseNetwork", "open_pose_network"]

FORMATS: tuple[type[PoseNetwork], ...] = (SimCC, Decoded, HeatMaps, BlazePoseLandmarks)

USUAL_PX = (192, 256)
"""Width and height of the input if the file leaves them open and its recipe does not set them."""


def open_pose_network(session: Session, recipe: Mapping[str, Any] | None = None) -> PoseNetwork:
    """Open the pose network of a session.

    Args:
        session: network in one of `FORMATS`, determined from its names, shapes and metadata.
        recipe: settings of its bundle entry: `format` and those of that format's `recipe`, all optional.

    Raises:
        SessionError: the file fits no format.
        BundleError: a recipe with an unknown setting, or joints in an unknown order.
    """
    return open_format("pose network", FORMATS, session, recipe or {}, USUAL_PX, unread)
