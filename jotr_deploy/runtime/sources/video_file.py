"""A video file, or a URL with a known number of frames, as a source of frames."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources.captures import (
    READS_TO_END,
    Capture,
    capture_options,
    frame_count,
    frame_rate,
    released,
)
from jotr_deploy.runtime.sources.containers import bytes_missing, is_mp4
from jotr_deploy.runtime.sources.decoder_log import decoder_log
from jotr_deploy.runtime.sources.film_cuts import begins_evenly, landed, seam_of
from jotr_deploy.runtime.sources.frame_source import BLOCK_FRAMES, Frame, FrameSource, size_of
from jotr_deploy.runtime.sources.images import quiet_opencv
from jotr_deploy.support.aliases import Array

_ORIENTATIONS = {90: 6, 180: 3, 270: 8}
"""EXIF orientation for the clockwise rotation, in degrees, by which OpenCV turns a film upright."""
_REMEDY = "check that a video player shows it"
_REMEDY_URL = f"{_REMEDY}; an mp4 needs its index first: ffmpeg -movflags +faststart"


class Video(FrameSource):
    """Frames of a film in order, with their timestamps.

    Part of a film, from `first` to `end`, is read from the film's start, which counts its frames exactly; or, where
    frames are `even` in time, from a second before. Then `seam` shows whether its number is right: it must equal the
    `next_seam` of the part before.
    """

    kind, block = "video", BLOCK_FRAMES
    even = False  # whether frame k is shown at k / fps, as far as known
    seam: list[Any] | None = None  # of the first frame given, or, where the part has none, of the first after it
    next_seam: list[Any] | None = None  # of the first frame after the part; None where the film ends
    ended_at: int | None = None  # number of frames of the film, where its end was read

    def __init__(
        self,
        opened: Callable[[], Capture],
        shown: str,
        name: str,
        skipped: list[str] | None,
        every: int,
        limit_s: float = math.inf,
    ) -> None:
        self.name, self.every, self.left_out = name, every, {}
        self._opened, self._shown, self._skipped, self._limit_s = opened, shown, skipped, limit_s
        self._settled = False  # True once `total` was counted
        with released(opened()) as capture:
            self.fps = frame_rate(capture)
            self._orientation = _ORIENTATIONS.get(round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360, 1)
            self._count(frame_count(capture))
            first = next(self._read(capture), None)  # of the film, not of a part
        if first is None:
            raise SourceError(
                f"{shown}: the video has no frame that can be read", _REMEDY_URL if "://" in shown else _REMEDY
            )
        self.size_px = size_of(first.image_bgr)

    def _count(self, total: int | None) -> None:
        self.total, self.count = total, None if total is None else -(-total // self.every)

    def settle_total(self) -> int | None:
        if not self._settled and "://" not in self._shown:
            with quiet_opencv(), released(self._opened()) as capture:
                self._count(_count_grabbed(capture))
            self._settled = True
        return self.total

    def probe(self) -> bool:
        """True if the first `film_cuts.PROBED` frames are even in time."""
        with quiet_opencv(), released(self._opened()) as capture:
            return begins_evenly(capture, self.fps)

    def orientation_of(self, frame: int) -> int:
        return self._orientation

    def frame_names(self) -> Iterator[str]:
        return (self._frame_name(index) for index in range(self.total or 0))

    def _frame_name(self, index: int) -> str:
        return f"{Path(self.name).stem}_{index:012d}"  # OpenPose's names for the frames of a video

    def _frames(self) -> Generator[Frame, None, None]:
        self.seam = self.next_seam = self.ended_at = None
        with ExitStack() as stack:
            capture = stack.enter_context(released(self._opened()))
            start = 0
            if self.even and self.first and not (start := landed(capture, self.first, self.fps)):
                capture = stack.enter_context(released(self._opened()))
            end, stalled = yield from self._read(capture, start)
        if end is None:  # of the part, not of the film
            return
        self.ended_at = end
        if self.total is None or end >= self.total:
            self._count(end)
            return
        cause = f"{self._shown}: ends after {end} of {self.total} frames"
        if stalled:
            self.fault = SourceError(f"{cause}, no data for {self._limit_s:g} s", "check the connection")
        elif (why := self._damage(end)) is not None:
            logging.getLogger("jotr_deploy").warning("%s; %s", cause, why)
            self.damage = f"{cause}; {why}"
        else:
            self._count(end)

    def _damage(self, end: int) -> str | None:
        """The reason why fewer frames came than the container counts; None if nothing is wrong.

        Many containers only give an estimate, and films trimmed without re-encoding contain hidden frames.
        """
        path = Path(self._shown)
        if "://" in self._shown:
            return "the file may be damaged"
        if missing := bytes_missing(path):
            return f"the file is cut off: {missing} bytes are missing"
        if is_mp4(path):
            with quiet_opencv(), capture_options("ignore_editlist;1"), released(cv2.VideoCapture(str(path))) as capture:
                whole = _count_grabbed(capture)
            return None if whole >= (self.total or 0) else "the file may be damaged"
        with decoder_log() as errors, released(self._opened()) as capture:
            _count_grabbed(capture)
        return "the file may be damaged" if errors else None

    def _read(self, capture: Capture, index: int = 0) -> Generator[Frame, None, tuple[int | None, bool]]:
        """The frames of a capture, the next of which has this number.

        Returns the index after the last good one, None if the part ended before the film; and True if it stalled.
        """
        stalled, clock = False, _Clock(self.fps)
        time_s: float | None = None
        lost: list[int] = []  # frames that failed since the last good one: broken ones, or the end
        while len(lost) < READS_TO_END:
            start_s = time.monotonic()
            read, image_bgr = _next_image(capture, wanted=index % self.every == 0 and index >= self.first)
            stalled |= time.monotonic() - start_s >= self._limit_s
            if read:
                time_s = clock.time_s(index, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                self._leave_out(lost)
                lost = []
            else:
                lost.append(index)
                if stalled or (self.total is not None and index >= self.total):
                    break
            if image_bgr is not None:
                frame = Frame(index, self._frame_name(index), image_bgr, time_s)
                if self.first and self.seam is None:
                    self.seam = seam_of(frame)
                if not self.wanted(index):
                    self.next_seam = seam_of(frame)
                    return None, stalled
                yield frame
            index += 1
        return lost[0], stalled

    def _leave_out(self, broken: list[int]) -> None:
        for index in broken:
            name = self._frame_name(index)
            if not self.wanted(index) or name in (self._skipped or ()):
                continue
            if self._skipped is None and (missing := bytes_missing(Path(self._shown))):
                raise SourceError(
                    f"{self._shown}: the file is cut off: {missing} bytes are missing",
                    "copy or download it again, or use the frames that are there: --keep-going",
                )
            if self._skipped is None:
                raise SourceError(
                    f"{self._shown}: frame {index} cannot be decoded",
                    "repair the video (re-encode it with ffmpeg), or skip such frames: --keep-going",
                )
            self._skipped.append(name)
            self.left_out[name] = f"{name}: cannot be decoded"


class _Clock:
    """Timestamps of a film's frames: the film's own, or from its frame rate if they are missing or implausible."""

    def __init__(self, fps: float) -> None:
        self._step_s = 1 / fps if fps else None  # from frame to frame, if the film has no timestamps
        self._index, self._time_s = 0, -math.inf

    def time_s(self, index: int, said_s: float) -> float | None:
        """Time of the frame with this number, later than the one before; None if nothing is known."""
        time_s = round(said_s, 6) if 0 <= said_s < 1e7 else -1.0
        if time_s <= self._time_s or time_s < 0:
            if self._step_s is None:
                return None
            time_s = round(max(self._time_s, 0.0) + max(index - self._index, 0) * self._step_s, 6)
        elif self._step_s is None and index > self._index and self._time_s >= 0:
            self._step_s = (time_s - self._time_s) / (index - self._index)
        self._index, self._time_s = index, time_s
        return time_s


def _count_grabbed(capture: Capture) -> int:
    """Number of intact frames left in a capture."""
    count = failed = 0
    while failed < READS_TO_END:
        if capture.grab():
            count, failed = count + 1, 0
        else:
            failed += 1
    return count


def _next_image(capture: Capture, wanted: bool) -> tuple[bool, Array | None]:
    """Success, and the pixels of the next frame if they are wanted."""
    with quiet_opencv():
        if not capture.grab():
            return False, None
        return capture.retrieve() if wanted else (True, None)
