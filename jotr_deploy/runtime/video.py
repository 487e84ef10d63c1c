"""Images, folders, globs, videos, cameras and URLs as one iterator of numbered frames."""

from __future__ import annotations

import glob
import logging
import math
import re
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.captures import (
    READS_TO_END,
    Capture,
    capture_of_camera,
    capture_of_file,
    capture_of_url,
    frame_count,
    frame_rate,
    name_of_url,
    released,
    shown,
)
from jotr_deploy.runtime.frames import Frame, FrameSource, size_of
from jotr_deploy.runtime.images import IMAGE_SUFFIXES, KNOWN_SUFFIXES, natural_order, quiet_opencv, read_image
from jotr_deploy.runtime.stream import Stream
from jotr_deploy.runtime.video_writer import VideoWriter

__all__ = ["Frame", "FrameSource", "VideoWriter", "open_source"]

Array = NDArray[Any]

_REMEDY_URL = "check that a video player shows it; an mp4 needs its index first: ffmpeg -movflags +faststart"
STALL_S = 10.0
"""How long a camera or a URL may take to answer, and then for every frame."""


class _Images(FrameSource):
    def __init__(
        self, kind: str, name: str, paths: list[Path], skipped: list[str] | None, every: int, upright: bool
    ) -> None:
        self.kind, self.name, self.fps, self.every = kind, name, 0.0, every
        self.total, self.count = len(paths), -(-len(paths) // every)
        self._paths, self._skipped, self._upright = paths, skipped, upright
        self._left_out: set[int] = set()
        self._first: Frame | None = None
        first = next(self._frames(), None)
        if first is None:
            raise SourceError(f"{name}: none of {self.count} images can be read", "save them as PNG or JPEG")
        self._first, self.size_px = first, size_of(first.image_bgr)  # read once, handed out once

    def frame_names(self) -> Iterator[str]:
        return (path.name for path in self._paths)

    def _frames(self) -> Generator[Frame, None, None]:
        first, self._first = self._first, None
        for index in range(0, len(self._paths), self.every):
            path = self._paths[index]
            if first is not None and index <= first.index:
                if index == first.index:
                    yield first
                continue
            try:
                yield Frame(index, path.name, read_image(path, self._upright))
            except SourceError:
                if self._skipped is None:
                    raise
                if index not in self._left_out:  # the first one is read twice where none before it can be
                    self._left_out.add(index)
                    self._skipped.append(path.name)


class _Video(FrameSource):
    """A video file, a URL that says how many frames it has, or the one image behind a URL."""

    def __init__(
        self,
        opened: Callable[[], Capture],
        shown: str,
        name: str,
        skipped: list[str] | None,
        every: int,
        limit_s: float = math.inf,
    ) -> None:
        self.kind, self.name, self.every = "video", name, every
        self._opened, self._shown, self._skipped, self._limit_s = opened, shown, skipped, limit_s
        with released(opened()) as capture:
            self.fps, self.total = frame_rate(capture), frame_count(capture)
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                self.kind, self.fps, self.total = "image", 0.0, 1
            first = next(self._read(capture), None)
        if first is None:
            raise SourceError(
                f"{shown}: the video has no frame that can be read",
                _REMEDY_URL if "://" in shown else "check that a video player shows it",
            )
        self.count = None if self.total is None else -(-self.total // every)
        self.size_px = size_of(first.image_bgr)

    def frame_names(self) -> Iterator[str]:
        return (self._frame_name(index) for index in range(self.total or 0))

    def _frame_name(self, index: int) -> str:
        # As OpenPose names the frames of a video.
        return self.name if self.kind == "image" else f"{Path(self.name).stem}_{index:012d}"

    def _frames(self) -> Generator[Frame, None, None]:
        with released(self._opened()) as capture:
            end, stalled = yield from self._read(capture)
        if self.total is None or end >= self.total:
            return
        cause = f"{self._shown}: ends after {end} of {self.total} frames"
        if stalled:
            self.fault = SourceError(f"{cause}, nothing for {self._limit_s:g} s", "check the connection")
        else:
            logging.getLogger("jotr_deploy").warning("%s; the file may be damaged", cause)

    def _read(self, capture: Capture) -> Generator[Frame, None, tuple[int, bool]]:
        """The frames of a capture; returns the number after the last good one, and whether the capture stalled."""
        index, stalled = 0, False
        lost: list[int] = []  # frames that failed since the last good one: broken, or the end
        while len(lost) < READS_TO_END:
            start_s = time.monotonic()
            read, image_bgr = _next_image(capture, wanted=index % self.every == 0)
            stalled |= time.monotonic() - start_s >= self._limit_s
            if read:
                self._leave_out(lost)
                lost = []
            else:
                lost.append(index)
                if stalled or (self.total is not None and index >= self.total):
                    break
            if image_bgr is not None:
                yield Frame(index, self._frame_name(index), image_bgr, index / self.fps if self.fps else None)
            index += 1
        return lost[0], stalled

    def _leave_out(self, broken: list[int]) -> None:
        for index in broken:
            name = self._frame_name(index)
            if index % self.every or name in (self._skipped or ()):
                continue
            if self._skipped is None:
                raise SourceError(
                    f"{self._shown}: frame {index} cannot be decoded",
                    "repair the video (ffmpeg writes a sound copy), or leave such frames out: --keep-going",
                )
            self._skipped.append(name)


def _next_image(capture: Capture, wanted: bool) -> tuple[bool, Array | None]:
    """Whether there was a frame, and its pixels if they are wanted."""
    with quiet_opencv():
        if not capture.grab():
            return False, None
        return capture.retrieve() if wanted else (True, None)


def open_source(
    path_or_url: str | Path,
    skipped: list[str] | None = None,
    *,
    every: int = 1,
    stall_s: float = STALL_S,
    upright: bool = False,
) -> FrameSource:
    """Open an image, a folder of images, a glob of images, a video file, a camera or a URL.

    The suffix tells an image from a video. Folders and globs are in natural order (2 before 10). A number of up to
    three digits that is no file is a camera. A URL is anything with `://` that OpenCV opens through FFmpeg.

    Args:
        path_or_url: of one of these.
        skipped: gets the names of frames that cannot be read, which are then left out; without it they are errors.
        every: give only frames 0, every, 2 * every ...
        stall_s: how long a camera or a URL may take to answer, and then for every frame.
        upright: turn image files as their EXIF data say.

    Raises:
        SourceError: nothing there, or nothing in it that can be read.
    """
    if every < 1:
        raise ValueError(f"every {every}. frame: give 1 or more")
    name, path = str(path_or_url), Path(path_or_url)
    if "://" in name:
        return _open_url(name, skipped, every, stall_s)
    try:
        if path.is_dir():
            return _Images("images", path.resolve().name, _images_in(path), skipped, every, upright)
        if path.is_file():
            if path.stat().st_size == 0:
                raise SourceError(f"{path}: the file is empty", "give an image or a video")
            if path.suffix.lower() in IMAGE_SUFFIXES:
                return _Images("image", path.name, [path], None, every, upright)
            return _Video(partial(capture_of_file, path), str(path), path.name, skipped, every)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})", "check the path and its permissions") from error
    if re.fullmatch(r"[0-9]{1,3}", name):
        index = int(name)
        return Stream(capture_of_camera(index), f"camera_{index}", f"camera {index}", every, stall_s)
    return _Images("images", name, _images_of_glob(path), skipped, every, upright)


def _open_url(url: str, skipped: list[str] | None, every: int, stall_s: float) -> FrameSource:
    """Frames are dropped, as a live picture wants it, where the URL does not say how many there are."""
    name = name_of_url(url)
    capture = capture_of_url(url, stall_s)
    if frame_count(capture) is None and Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        return Stream(capture, name, shown(url), every, stall_s)
    capture.release()
    return _Video(partial(capture_of_url, url, stall_s), shown(url), name, skipped, every, stall_s)


def _images_in(folder: Path) -> list[Path]:
    images = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not images:
        raise SourceError(f"{folder}: no images in this folder", KNOWN_SUFFIXES)
    return natural_order(images)


def _images_of_glob(pattern: Path) -> list[Path]:
    if not glob.has_magic(str(pattern)):
        raise SourceError(
            f"{pattern}: no such file or folder",
            "give an image, a folder, a glob in quotes, a video, a camera's number or a URL",
        )
    matches = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 (Path.glob: no absolute)
    files = [Path(match) for match in matches if Path(match).is_file()]
    if not files:
        raise SourceError(f"{pattern}: no file matches", "check the pattern, and put it in quotes")
    return natural_order(files)
