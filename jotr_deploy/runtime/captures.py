"""OpenCV captures of video files, URLs and cameras, opened within a limit of time and without its chatter."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import cv2
from numpy.typing import NDArray

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.images import KNOWN_SUFFIXES, quiet_opencv

Array = NDArray[Any]

READS_TO_END = 300
"""So many reads without a frame are the end. A broken frame fails alone, a broken key frame takes those up to the next
one with it."""


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def grab(self) -> bool:
        """Go to the next frame; False at the end, at a frame that cannot be decoded, and after the read timeout."""
        ...

    def retrieve(self) -> tuple[bool, Array | None]:
        """Whether the frame that was grabbed can be had, and its pixels (H, W, 3) uint8, None where not."""
        ...

    def get(self, prop: int) -> float:
        """A property by OpenCV's number; 0 where it is not known."""
        ...

    def release(self) -> None:
        """Close it."""
        ...


def capture_of_file(path: Path) -> Capture:
    """Open a video file.

    Raises:
        SourceError.
    """
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        capture.release()
        raise SourceError(f"{path}: neither an image nor a video that can be read", KNOWN_SUFFIXES)
    return capture


def capture_of_url(url: str, limit_s: float) -> Capture:
    """Open a URL through FFmpeg; connecting, and later every read, takes `limit_s` at most.

    Raises:
        SourceError.
    """
    limit_ms = max(1, round(1000 * limit_s))
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms]
    start_s = time.monotonic()
    with quiet_opencv():
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        capture.release()
        if time.monotonic() - start_s >= limit_s:
            raise SourceError(f"{shown(url)}: no answer within {limit_s:g} s", "check the address and the network")
        raise SourceError(
            f"{shown(url)}: cannot be opened", "check the address, and that what it serves is a video or an image"
        )
    return capture


def capture_of_camera(index: int) -> Capture:
    """Open a camera by OpenCV's number.

    Raises:
        SourceError.
    """
    with quiet_opencv():
        capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        capture.release()
        devices = ", ".join(sorted(str(device) for device in Path("/dev").glob("video*"))) or "no /dev/video*"
        raise SourceError(
            f"camera {index}: cannot be opened, and there is no file '{index}'",
            f"there is {devices} here; check that nothing else uses the camera and that you may read it",
        )
    return capture


@contextmanager
def released(capture: Capture) -> Iterator[Capture]:
    """Close a capture when the block ends."""
    try:
        yield capture
    finally:
        capture.release()


def frame_rate(capture: Capture) -> float:
    """Frames per second, 0 where it is not known."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if math.isfinite(fps) and 0 < fps <= 1000 else 0.0


def frame_count(capture: Capture) -> int | None:
    """How many frames there are by the container; those that do not know answer 0, a negative or an absurd number."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e9 else None


def shown(url: str) -> str:
    """A source as messages and results show it: a URL without user, password and query, which may be secret."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition('://')[0]}://"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def name_of_url(url: str) -> str:
    """A file name for what comes from a URL: the last part of its path, else the host.

    Raises:
        SourceError: not a URL.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").replace(".", "_")
    except ValueError as error:
        raise SourceError(f"{shown(url)}: not a URL ({error})", "give it as scheme://host/path") from error
    last = unquote(parts.path.rstrip("/").rpartition("/")[2])
    names = (re.sub(r"[^\w.-]+", "_", part).strip("._") for part in (last, host))
    return next(filter(None, names), "stream")
