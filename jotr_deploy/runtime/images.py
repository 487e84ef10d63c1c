"""Image files in and out, without surprises."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import OutputError, SourceError, first_line
from jotr_deploy.writing import written_aside

Array = NDArray[Any]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
KNOWN_SUFFIXES = f"known image suffixes: {' '.join(IMAGE_SUFFIXES)}"

# The log level belongs to the process: the first of several threads lowers it, the last one puts it back.
_lock = Lock()
_quiet, _level_before = 0, 0
# The log level lives here or there, by release (4.10: at the top; 4.14: below).
_opencv_log = cv2 if hasattr(cv2, "getLogLevel") else cv2.utils.logging


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted so that `frame_2` stands before `frame_10`."""

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"([0-9]+)", str(path).lower())
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted(sorted(paths), key=key)


def read_image(path: Path, upright: bool = False) -> Array:
    """Read an image as (H, W, 3) uint8 BGR.

    Grey becomes BGR, alpha is dropped, 16 bits become 8.

    Args:
        path: of the file.
        upright: turn it as its EXIF data say, as every viewer does; without it they are ignored, as the published code
            does and as files of joints and boxes may expect.

    Raises:
        SourceError.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})", "check the path and its permissions") from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        with quiet_opencv():
            image: Array | None = cv2.imdecode(data, flags) if data.size else None
    except cv2.error as error:
        raise SourceError(f"{path}: cannot be decoded ({first_line(error)})", "save it as PNG or JPEG") from error
    if image is None:
        raise SourceError(f"{path}: not an image that can be decoded", "save it as PNG or JPEG")
    if image.dtype == np.uint16:
        return np.asarray(cv2.convertScaleAbs(image, alpha=1 / 257))
    if image.dtype != np.uint8:
        raise SourceError(f"{path}: pixels are {image.dtype}, not 8 or 16 bit integers", "save it as PNG or JPEG")
    return image


def write_image(path: Path, image_bgr: Array) -> None:
    """Write (H, W, 3) uint8 BGR in the format of the suffix; the file appears whole or not at all.

    Raises:
        OutputError.
    """
    try:
        encoded, data = cv2.imencode(path.suffix or ".", image_bgr)
    except cv2.error:
        encoded = False
    if not encoded:
        size = f"{image_bgr.shape[1]} x {image_bgr.shape[0]}"
        raise OutputError(
            f"{path}: an image of {size} px has no such format", f"end the name in .png; {KNOWN_SUFFIXES}"
        )
    with written_aside(path) as aside:
        aside.write_bytes(data.tobytes())


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """What goes wrong is raised in one line; OpenCV and FFmpeg would print it as well."""
    global _quiet, _level_before
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    with _lock:
        if _quiet == 0:
            _level_before = _opencv_log.getLogLevel()
            _opencv_log.setLogLevel(0)
        _quiet += 1
    try:
        yield
    finally:
        with _lock:
            _quiet -= 1
            if _quiet == 0:
                _opencv_log.setLogLevel(_level_before)
