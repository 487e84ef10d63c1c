"""Files that are no pose network that is read, by what they are; see `detection.unread`."""

from __future__ import annotations

from jotr_deploy.runtime.finding.detection import FORMATS
from jotr_deploy.runtime.finding.detection.one_stage import OneStage
from jotr_deploy.runtime.finding.detection.unsupported import other_pictures
from jotr_deploy.runtime.finding.network_metadata import declared
from jotr_deploy.runtime.finding.recognition import Unread
from jotr_deploy.runtime.sessions import Session

_TOP_DOWN = "give one that sees one person's box at a time, such as RTMPose or HRNet"


def unread(session: Session) -> Unread | None:
    """What a file is that fits no format of a pose network; None where it is not recognised."""
    task = declared(session).task
    for each in FORMATS:
        if task in (None, each.task) and each.fits(session):
            what = "a network that finds people and their joints" if issubclass(each, OneStage) else "a detector"
            return Unread(f"{what} ({each.name})", "give it with --detector")
    if task not in (None, "pose"):
        return Unread(f"a network for the task '{task}'", _TOP_DOWN)
    if set(session.outputs) >= {"simcc_x", "simcc_y", "simcc_z"}:
        return Unread("a pose network of three dimensions (RTMW3D)", _TOP_DOWN)
    other = next(other_pictures(session), None)
    if other is None and any(len(spec.shape) == 4 for spec in session.outputs.values()):
        return Unread("a network of maps that are not a quarter of its input (OpenPose, HigherHRNet)", _TOP_DOWN)
    return other
