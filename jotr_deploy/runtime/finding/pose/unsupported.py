"""Recognition of files that are not a supported pose network, for helpful messages; see `detection.unsupported`."""

from __future__ import annotations

from jotr_deploy.runtime.finding.detection import FORMATS
from jotr_deploy.runtime.finding.detection.one_stage import OneStage
from jotr_deploy.runtime.finding.detection.unsupported import other_pictures
from jotr_deploy.runtime.finding.network_metadata import declared
from jotr_deploy.runtime.finding.recognition import Unread
from jotr_deploy.runtime.sessions import Session

_LEAST_BINS = 32
_TOP_DOWN = "give one that processes one person's box at a time, such as RTMPose or HRNet"


def unread(session: Session) -> Unread | None:
    """Kind of a file that fits no pose network format; None if it is not recognised."""
    task = declared(session).task
    for each in FORMATS:
        if task in (None, each.task) and each.fits(session):
            what = "a network that finds people and their joints" if issubclass(each, OneStage) else "a detector"
            return Unread(f"{what} ({each.name})", "give it with --detector")
    if task not in (None, "pose"):
        return Unread(f"a network for the task '{task}'", _TOP_DOWN)
    if set(session.outputs) >= {"simcc_x", "simcc_y", "simcc_z"}:
        return Unread("a 3-D pose network (RTMW3D)", _TOP_DOWN)
    if len(session.outputs) == 2 and _simcc_under_other_names(session):
        x, y = session.outputs
        return Unread(
            f"a SimCC pose network whose outputs have other names or sizes ({x}, {y})",
            "export it with the outputs simcc_x [B, K, W r] and simcc_y [B, K, H r], as mmdeploy names them",
        )
    other = next(other_pictures(session), None)
    if other is None and any(len(spec.shape) == 4 for spec in session.outputs.values()):
        return Unread(
            "a heat-map network without one output of a quarter of its input (OpenPose, HigherHRNet)", _TOP_DOWN
        )
    return other


def _simcc_under_other_names(session: Session) -> bool:
    x, y = (spec.shape for spec in session.outputs.values())
    if not len(x) == len(y) == 3 or x[1] != y[1]:
        return False
    return all(isinstance(bins, int) and bins > _LEAST_BINS for bins in (x[2], y[2]))
