"""Reading a film from its middle: seek early, read on to the frame wanted, and prove afterwards that it was that one.

Seeking by frame number is off by one in many films of a variable frame rate. So only films whose frames are even in
time are sought, and neighbouring parts are compared at the seam: both read the first frame of the later part.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from jotr_deploy.runtime.sources.frame_source import Frame
from jotr_deploy.runtime.sources.images import quiet_opencv

if TYPE_CHECKING:
    from jotr_deploy.runtime.sources.captures import Capture

PROBED = 50
"""Frames whose times are looked at before a film is cut."""
OFF = 0.25
"""Largest distance of an even frame from its time, in frames: containers round times, to milliseconds in Matroska."""
EARLY_S = 1.0
"""How long before the wanted frame reading begins."""


def begins_evenly(capture: Capture, fps: float) -> bool:
    """True if the next frames of a capture at its start are at 0, 1 / fps, 2 / fps ..."""
    if not fps:
        return False
    return all(_number(capture, fps) == index for index in range(PROBED) if capture.grab())


def landed(capture: Capture, first: int, fps: float) -> int:
    """Move a capture so that its next frame is this one; returns `first`, or 0 if it cannot be found by its time."""
    with quiet_opencv():
        capture.set(cv2.CAP_PROP_POS_FRAMES, max(0, first - round(EARLY_S * fps)))
        if not capture.grab():
            return 0
        index = _number(capture, fps)
        while index is not None and index < first - 1:
            following = _number(capture, fps) if capture.grab() else None
            index = following if following == index + 1 else None
    return first if index == first - 1 else 0


def _number(capture: Capture, fps: float) -> int | None:
    """Number of the frame just grabbed, by its time; None if that lies between two."""
    place = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 * fps
    return round(place) if abs(place - round(place)) <= OFF else None


def seam_of(frame: Frame) -> list[Any]:
    """Number, time and pixels of a frame, to compare: two parts of a film meet if they agree on it."""
    pixels = np.ascontiguousarray(frame.image_bgr)
    return [frame.index, frame.time_s, hashlib.blake2b(pixels.data, digest_size=16).hexdigest()]
