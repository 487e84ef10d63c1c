"""Cameras and endless URLs: the newest frame, read while the previous one is processed."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources.captures import READS_TO_END, Capture, frame_rate
from jotr_deploy.runtime.sources.frame_source import Frame, FrameSource, size_of
from jotr_deploy.runtime.sources.images import quiet_opencv
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class Arrival:
    """A frame as it arrived."""

    index: int  # counting every frame that arrived, taken or not
    at_s: float  # monotonic clock
    image_bgr: Array


class NewestFrame:
    """Reads a capture in a thread of its own and keeps one frame: a newer one replaces one that was not taken.

    After construction only the thread touches the capture, and it also releases it, as a read cannot be interrupted.
    """

    def __init__(self, capture: Capture, every: int, stall_s: float) -> None:
        self.dropped = 0  # wanted frames that were not taken
        self.stalled = False  # True if the capture ended by waiting too long
        self._capture, self._every, self._stall_s = capture, every, stall_s
        self._newest: Arrival | None = None
        self._arrived = 0
        self._last_s = time.monotonic()
        self._stopped, self._ended = False, False
        self._error: Exception | None = None
        self._changed = Condition()
        self._thread = Thread(target=self._read, name="frames", daemon=True)
        self._thread.start()

    def wait(self) -> Arrival | None:
        """Wait for the newest frame, without removing it; None if the capture ended or nothing came for `stall_s`."""
        with self._changed:
            while self._newest is None and not self._ended:
                left_s = self._last_s + self._stall_s - time.monotonic()
                if left_s <= 0:
                    self.stalled = True
                    return None
                self._changed.wait(left_s)
            if self._newest is None and self._error is not None:
                raise self._error
            return self._newest

    def take(self) -> Arrival | None:
        """Wait for the newest frame and remove it; None as for `wait`."""
        with self._changed:
            arrival, self._newest = self.wait(), None
            return arrival

    def count_anew(self) -> None:
        """Restart counting: the waiting frame, or else the next one, becomes frame 0."""
        with self._changed:
            self.dropped, self._arrived = 0, 0
            if self._newest is not None:
                self._newest, self._arrived = Arrival(0, self._newest.at_s, self._newest.image_bgr), 1

    def stop(self) -> None:
        """End the thread. One blocked in a read is abandoned: it ends with that read, or with the process."""
        self._stopped = True
        self._thread.join(timeout=1.0)

    def _read(self) -> None:
        failed = 0
        try:
            while not self._stopped and failed < READS_TO_END:
                start_s = time.monotonic()
                if self._capture.grab():
                    failed = 0
                    self._arrive()
                elif time.monotonic() - start_s >= self._stall_s:  # FFmpeg's own time limit
                    self.stalled = True
                    return
                else:
                    failed += 1
        except Exception as error:  # passed on to the waiting thread
            self._error = error
        finally:
            self._capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _arrive(self) -> None:
        wanted = self._arrived % self._every == 0
        image_bgr = self._capture.retrieve()[1] if wanted else None
        with self._changed:
            if image_bgr is not None or not wanted:  # frames that can never be shown also count as a stall
                self._last_s = time.monotonic()
            if (
                image_bgr is not None and self._arrived % self._every == 0
            ):  # checked again: counting may have restarted meanwhile
                self.dropped += self._newest is not None
                self._newest = Arrival(self._arrived, self._last_s, image_bgr)
            self._arrived += 1
            self._changed.notify_all()


class Stream(FrameSource):
    """A camera, or a URL without a known number of frames.

    Frames that arrive while another is processed are dropped and counted, so the one given is never late. Frame indices
    include them. An iteration starts with the newest frame; a second one continues in time.

    Raises:
        SourceError: no frame arrives within `stall_s`.
    """

    kind, total, count = "stream", None, None

    def __init__(self, capture: Capture, name: str, shown: str, every: int, stall_s: float) -> None:
        self.name, self.every, self.fps, self.left_out = name, every, frame_rate(capture), {}
        self._shown, self._stall_s = shown, stall_s
        self._open = ExitStack()
        self._open.enter_context(quiet_opencv())
        self._reader = NewestFrame(capture, every, stall_s)
        self._open.callback(self._reader.stop)
        try:
            first = self._reader.wait()
            if first is None:
                within = f" within {stall_s:g} s" if self._reader.stalled else ""
                raise SourceError(f"{shown}: no frame{within}", "check the camera and its connection")
        except BaseException:
            self._open.close()
            raise
        self.size_px = size_of(first.image_bgr)

    def frame_names(self) -> Iterator[str]:
        """An empty iterator: a stream has no end."""
        return iter(())

    def close(self) -> None:
        """End the current iteration and release the camera."""
        super().close()
        self._open.close()

    def _frames(self) -> Generator[Frame, None, None]:
        self._reader.count_anew()
        given, start_s = 0, 0.0
        while (arrival := self._reader.take()) is not None:
            given, start_s = given + 1, start_s if given else arrival.at_s
            self.dropped = self._reader.dropped
            name = f"{Path(self.name).stem}_{arrival.index:012d}"
            yield Frame(arrival.index, name, arrival.image_bgr, arrival.at_s - start_s)
        why = f"no frame for {self._stall_s:g} s" if self._reader.stalled else "the stream ended"
        frames = f"{given} frame{'s' * (given != 1)}"
        self.fault = SourceError(f"{self._shown}: {why}, after {frames}", "check the camera and its connection")
