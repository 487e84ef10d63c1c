"""OpenCV captures of video files, URLs and cameras: opened with a time limit, silent, with every pixel valid."""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import cv2

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources.containers import Track, bytes_missing, matroska_tracks_of, tracks_of
from jotr_deploy.runtime.sources.decoder_log import decoder_log
from jotr_deploy.runtime.sources.images import READ_FORMATS, quiet_opencv
from jotr_deploy.runtime.sources.picture_kinds import OTHER_PICTURES
from jotr_deploy.runtime.sources.stream_containers import video_streams_of
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_kinds import UNKNOWN, advice, describe_file

_SAVE = f"save it as PNG or JPEG; {READ_FORMATS}"
READS_TO_END = 300
"""Number of reads without a frame that counts as the end. A broken frame fails alone; a broken key frame also takes the
frames up to the next key frame."""


class Capture(Protocol):
    """The methods of `cv2.VideoCapture` that are used."""

    def grab(self) -> bool:
        """Advance to the next frame; False at the end, for a frame that cannot be decoded, and after the timeout."""
        ...

    def retrieve(self) -> tuple[bool, Array | None]:
        """Success, and the pixels (H, W, 3) uint8 of the frame grabbed, None on failure."""
        ...

    def get(self, prop: int) -> float:
        """A property by OpenCV's number; 0 if it is unknown."""
        ...

    def set(self, prop: int, value: float) -> bool:
        """Change a property; False if that is not possible."""
        ...

    def release(self) -> None:
        """Close the capture."""
        ...


class Film:
    """A capture that only gives fully converted frames, with square pixels if requested."""

    def __init__(self, capture: Any, shown: str, square: bool) -> None:
        self._capture, self._shown = capture, shown
        self._aspect = pixel_aspect(capture)
        self._square = square
        self._seen: Array | None = None  # every eighth pixel of the previous frame
        if self._aspect != 1:
            how = "made square" if square else "left as they are: shapes are distorted by that much"
            logging.getLogger("jotr_deploy").log(
                logging.INFO if square else logging.WARNING, "%s: pixels of %.4g to 1 are %s", shown, self._aspect, how
            )

    def grab(self) -> bool:
        """Advance to the next frame."""
        return bool(self._capture.grab())

    def retrieve(self) -> tuple[bool, Array | None]:
        """Success, and the pixels of the frame grabbed.

        Where FFmpeg cannot convert a frame (newer versions cannot convert interlaced ones), OpenCV returns the previous
        frame again, or uninitialised memory. Therefore FFmpeg's log is checked for the first frame and for every frame
        that equals the one before.

        Raises:
            SourceError: a frame that cannot be converted.
        """
        read, image_bgr = self._capture.retrieve()
        if not read or image_bgr is None:
            return False, None
        seen, self._seen = self._seen, image_bgr[::8, ::8].copy()
        if (
            seen is None
            or (seen.shape == self._seen.shape and (seen == self._seen).all())
            or seen.shape != self._seen.shape
        ):
            with decoder_log() as errors:
                read, image_bgr = self._capture.retrieve()
            self._check_converted(errors)
        return read, squared(image_bgr, self._aspect) if self._square else image_bgr

    def _check_converted(self, errors: list[str]) -> None:
        text = " ".join(errors)
        if "interlaced" in text:
            raise SourceError(
                f"{self._shown}: the video is interlaced, which is not supported", _deinterlacing(self._shown)
            )
        if "fmt:" in text or "swscaler" in text:
            raise SourceError(
                f"{self._shown}: its pixels cannot be converted", _converting(self._shown, "-pix_fmt yuv420p")
            )

    def get(self, prop: int) -> float:
        """A property by OpenCV's number; 0 if it is unknown."""
        return float(self._capture.get(prop))

    def set(self, prop: int, value: float) -> bool:
        """Change a property; False if that is not possible."""
        return bool(self._capture.set(prop, value))

    def release(self) -> None:
        """Close the capture."""
        self._capture.release()


def squared(image_bgr: Array, aspect: float) -> Array:
    """An image whose pixels are `aspect` times as wide as high, enlarged along one side until they are square."""
    if aspect == 1:
        return image_bgr
    height, width = image_bgr.shape[:2]
    size_px = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return cv2.resize(image_bgr, size_px, interpolation=cv2.INTER_LINEAR)


def pixel_aspect(capture: Any) -> float:
    """Width of a pixel over its height as displayed; 1 if it is not stated, negligible or implausible."""
    across, down = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    if not (across > 0 and down > 0 and abs(across / down - 1) > 0.01 and 0.2 < across / down < 5):
        return 1.0
    return float(down / across if capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 else across / down)


def _deinterlacing(shown: str) -> str:
    return "deinterlace it: " + _converting(shown, "-vf yadif").partition(": ")[2]


def _converting(shown: str, options: str) -> str:
    if "://" in shown:
        return f"convert it: ffmpeg -i URL {options} converted.mp4"
    return f"convert it: ffmpeg -i {shlex.quote(shown)} {options} {shlex.quote(Path(shown).stem + '_converted.mp4')}"


def capture_of_file(path: Path, square: bool = False, animated: bool = False) -> Capture:
    """Open a video file; out of several video streams, the one with the largest picture.

    Args:
        path: of the file.
        square: resample non-square pixels to square ones; otherwise they are left as they are, with a warning.
        animated: the file is an animated picture.

    Raises:
        SourceError.
    """
    what = describe_file(path)
    if not (animated or what == UNKNOWN or any(word in what for word in ("video", "stream"))):  # FFmpeg plays even text
        raise SourceError(*_why_not_opened(path))
    with quiet_opencv(), _largest_stream(path) as opened:
        capture = cv2.VideoCapture(*opened)
    still = what == UNKNOWN and capture.isOpened() and _is_one_picture(path)
    if not capture.isOpened() or capture.getBackendName() == "CV_IMAGES" or still:
        capture.release()
        raise SourceError(*_why_not_opened(path))
    return Film(capture, str(path), square)


def _is_one_picture(path: Path) -> bool:
    """True if FFmpeg finds a single frame: the file is a picture of an unsupported kind, not a film."""
    with quiet_opencv(), released(cv2.VideoCapture(str(path))) as capture:
        return not (capture.grab() and capture.grab())


@contextmanager
def _largest_stream(path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments that open the largest video stream of a film; OpenCV takes the first one."""
    matroska = [track for track in matroska_tracks_of(path) if track.is_video]
    videos = matroska or [track for track in tracks_of(path) if track.is_video] or _measured(path)
    largest = max(videos, key=lambda track: track.size_px[0] * track.size_px[1], default=None)
    if largest is None or largest.size_px == videos[0].size_px:
        yield (str(path),)
        return
    if matroska:  # its streams have no ids in FFmpeg
        options = f"-map 0:v:{videos.index(largest)}"
        raise SourceError(
            f"{path}: the largest of its {len(videos)} video streams is not the first, and only that one can be read",
            f"extract the largest stream: {_converting(str(path), options).partition(': ')[2]}",
        )
    logging.getLogger("jotr_deploy").info("%s: of %d video streams the largest is read", path, len(videos))
    with _one_stream(path, largest.id) as opened:
        yield opened


def _measured(path: Path) -> list[Track]:
    """The video streams of a film with several whose container does not state their sizes: each is opened."""
    ids = video_streams_of(path)
    found = []
    for number in ids if len(ids) > 1 else ():
        with _one_stream(path, number) as opened, released(cv2.VideoCapture(*opened)) as capture:
            size = (int(capture.get(prop)) for prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
            found.append(Track(number, True, (next(size), next(size))))
    return found


@contextmanager
def _one_stream(path: Path, number: int) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments that open the stream with this FFmpeg id instead of the first video stream."""
    quoted = str(path.resolve()).replace("'", "'\\''")
    with tempfile.NamedTemporaryFile("w", suffix=".ffconcat") as script, capture_options("safe;0"):
        script.write(f"ffconcat version 1.0\nstream\nexact_stream_id {number}\nfile '{quoted}'\n")
        script.flush()
        yield script.name, cv2.CAP_FFMPEG


_options_lock = Lock()


@contextmanager
def capture_options(options: str) -> Iterator[None]:
    """Set FFmpeg's options for captures opened within the block, in addition to the user's."""
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    with _options_lock:
        before = os.environ.get(name)
        os.environ[name] = f"{before}|{options}" if before else options
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def _why_not_opened(path: Path) -> tuple[str, str]:
    """Cause and remedy for a file that OpenCV does not open."""
    what, tracks = describe_file(path), tracks_of(path)
    remedy = advice(path)
    if (tracks or (tracks := matroska_tracks_of(path))) and not any(track.is_video for track in tracks):
        return f"{path}: contains sound or text, but no pictures", "give a film or a picture"
    if what == "an MPEG transport stream":
        return f"{path}: {what} without decodable pictures", "give a film or a picture"
    if remedy is None and (missing := bytes_missing(path)):
        return f"{path}: {what} that is cut off: {missing} bytes are missing", "copy or download it again"
    if remedy is None and "video" in what:
        return f"{path}: {what} that cannot be decoded", _converting(str(path), "-c:v libx264")
    if remedy is not None:
        return f"{path}: {what}", remedy
    if "picture" in what or path.suffix.lower() in OTHER_PICTURES:
        raw = "camera" in what and "TIFF" not in what
        return f"{path}: {what}, which is not supported", "develop it: save it as PNG or JPEG" if raw else _SAVE
    return f"{path}: {what}, not a supported picture or film", f"{READ_FORMATS}; films as FFmpeg reads them"


def capture_of_url(url: str, limit_s: float, square: bool = False) -> Capture:
    """Open a URL through FFmpeg; connecting and every later read take at most `limit_s`. `square`: as for a file.

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
            f"{shown(url)}: cannot be opened", "check the address, and that it serves a video or an image"
        )
    return Film(capture, shown(url), square)


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
            f"there is {devices} here; check that no other program uses the camera, and that you may read it",
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
    """Frames per second; 0 if unknown."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if math.isfinite(fps) and 0 < fps <= 1000 else 0.0


def frame_count(capture: Capture) -> int | None:
    """Number of frames according to the container; None if unknown: 0, negative or absurd."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e9 else None


def shown(url: str) -> str:
    """A source for display in messages and results: a URL without user, password and query, which may be secret."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition('://')[0]}://"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def name_of_url(url: str) -> str:
    """A file name for the results of a URL: the last part of its path, else the host.

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
