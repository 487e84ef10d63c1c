"""Images, folders, globs and video files as one iterator of numbered frames; videos out again."""

from __future__ import annotations

import glob
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray

from jotr_deploy.errors import OutputError, SourceError
from jotr_deploy.runtime.images import IMAGE_SUFFIXES, KNOWN_SUFFIXES, natural_order, quiet_opencv, read_image
from jotr_deploy.writing import aside_of, discard, written_aside

Array = NDArray[Any]


@dataclass(frozen=True)
class Frame:
    """One image of a source."""

    index: int  # 0-based position in the source
    name: str  # file name of a still; `<video>_<12 digits of the index>` for a frame of a video
    image_bgr: Array  # (H, W, 3) uint8


class FrameSource(ABC):
    """Numbered frames. Iterating again starts anew and ends the iteration under way; leaving `with` ends it too."""

    kind: str  # "image", "images" or "video"
    name: str  # of the file or folder, or the glob
    fps: float  # frames per second; 0 for images, and for a video that does not say
    count: int | None  # how many frames, those that are skipped too; None where a video does not say
    size_px: tuple[int, int]  # width, height of the first frame

    _under_way: Generator[Frame, None, None] | None = None

    @abstractmethod
    def frame_names(self) -> Iterator[str]:
        """The names of all frames, without reading them; none where `count` is None."""

    @abstractmethod
    def _frames(self) -> Generator[Frame, None, None]:
        """The frames, from the first one on."""

    def __iter__(self) -> Iterator[Frame]:
        self.close()
        self._under_way = self._frames()
        return self._under_way

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration under way, which closes its file."""
        if self._under_way is not None:
            self._under_way.close()


class _Images(FrameSource):
    def __init__(self, kind: str, name: str, paths: list[Path], skipped: list[str] | None = None) -> None:
        self.kind, self.name, self.fps, self.count = kind, name, 0.0, len(paths)
        self._paths, self._skipped = paths, skipped
        self._first: Frame | None = None
        first = next(self._frames(), None)
        if first is None:
            raise SourceError(f"{name}: none of {len(paths)} images can be read", "save them as PNG or JPEG")
        self._first, self.size_px = first, _size_px(first.image_bgr)  # read once, handed out once

    def frame_names(self) -> Iterator[str]:
        return (path.name for path in self._paths)

    def _frames(self) -> Generator[Frame, None, None]:
        first, self._first = self._first, None
        for index, path in enumerate(self._paths):
            if first is not None and index <= first.index:
                if index == first.index:
                    yield first
                continue
            try:
                yield Frame(index, path.name, read_image(path))
            except SourceError:
                if self._skipped is None:
                    raise
                if path.name not in self._skipped:
                    self._skipped.append(path.name)


class _Video(FrameSource):
    def __init__(self, path: Path) -> None:
        self.kind, self.name, self._path = "video", path.name, path
        with _capture(path) as capture:
            fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
            read, first = capture.read()
        if not read:
            raise SourceError(f"{path}: the video has no frame that can be read", "check that a video player shows it")
        # Containers that do not know answer 0, a negative or an absurd number.
        self.fps = float(fps) if math.isfinite(fps) and 0 < fps <= 1000 else 0.0
        self.count = int(count) if 0 < count < 1e9 else None
        self.size_px = _size_px(first)

    def frame_names(self) -> Iterator[str]:
        return (self._frame_name(index) for index in range(self.count or 0))

    def _frame_name(self, index: int) -> str:
        return f"{self._path.stem}_{index:012d}"  # as OpenPose names the frames of a video

    def _frames(self) -> Generator[Frame, None, None]:
        index = 0
        with _capture(self._path) as capture:
            while True:
                read, image = capture.read()
                if not read:
                    break
                yield Frame(index, self._frame_name(index), image)
                index += 1
        if self.count is not None and index < self.count:
            logging.getLogger("jotr_deploy").warning(
                "%s: ends after %d of %d frames; the file may be damaged", self._path, index, self.count
            )


def open_source(path_or_glob: str | Path, skipped: list[str] | None = None) -> FrameSource:
    """Open an image, a folder of images, a glob of images, or a video file.

    The suffix tells an image from a video. Folders and globs are in natural order (2 before 10).

    Args:
        path_or_glob: of files.
        skipped: gets the names of images that cannot be read, which are then left out; without it they are errors.

    Raises:
        SourceError: nothing there, or nothing in it that can be read.
    """
    path = Path(path_or_glob)
    try:
        if path.is_dir():
            return _Images("images", path.resolve().name, _images_in(path), skipped)
        if path.is_file():
            if path.stat().st_size == 0:
                raise SourceError(f"{path}: the file is empty", "give an image or a video")
            return _Images("image", path.name, [path]) if path.suffix.lower() in IMAGE_SUFFIXES else _Video(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})", "check the path and its permissions") from error
    if not glob.has_magic(str(path)):
        raise SourceError(f"{path}: no such file or folder", "give an image, a folder, a glob in quotes, or a video")
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (Path.glob: no absolute)
    files = [match for match in matches if match.is_file()]
    if not files:
        raise SourceError(f"{path}: no file matches", "check the pattern, and put it in quotes")
    return _Images("images", str(path), natural_order(files), skipped)


def _images_in(folder: Path) -> list[Path]:
    images = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not images:
        raise SourceError(f"{folder}: no images in this folder", KNOWN_SUFFIXES)
    return natural_order(images)


class VideoWriter:
    """Frames into an mp4 file; the file appears whole when `with` ends well, and not at all otherwise.

    The first frame sets the size. Odd sizes grow by one pixel, because the codec wants even ones.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if not fps > 0:
            raise ValueError(f"a video needs a frame rate above 0, not {fps}")
        self.path, self.fps, self.count = path, fps, 0
        self._writer: Any = None
        self._size_px = (0, 0)

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image_bgr: Array) -> None:
        """Append (H, W, 3) uint8 BGR.

        Raises:
            OutputError: the file cannot be opened, or the size differs from the first frame's.
        """
        size_px = _size_px(image_bgr)
        if self._writer is None:
            self._open(size_px)
        if size_px != self._size_px:
            raise OutputError(
                f"{self.path}: frame {self.count} is {_text(size_px)} px, the video is {_text(self._size_px)} px",
                "write images to a folder instead, or give frames of one size",
            )
        width, height = size_px
        self._writer.write(cv2.copyMakeBorder(image_bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE))
        self.count += 1

    def _open(self, size_px: tuple[int, int]) -> None:
        width, height = size_px
        even = (width + width % 2, height + height % 2)
        with quiet_opencv():
            self._writer = cv2.VideoWriter(str(aside_of(self.path)), cv2.VideoWriter.fourcc(*"mp4v"), self.fps, even)
        if not self._writer.isOpened():
            raise OutputError(
                f"{self.path}: no video of {_text(size_px)} px can be opened for writing",
                "give a name that ends in .mp4 in a folder that exists and may be written; 8190 px a side at most",
            )
        self._size_px = size_px

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is not None:
            discard(aside_of(self.path))
            return
        with written_aside(self.path) as aside:
            self._check(aside)

    def _check(self, aside: Path) -> None:
        # The encoder keeps quiet about a full disk.
        try:
            with _capture(aside) as capture:
                arrived = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        except SourceError:
            arrived = 0
        if arrived != self.count:
            raise OutputError(
                f"{self.path}: only {arrived} of {self.count} frames could be written", "make room on the disk"
            )


@contextmanager
def _capture(path: Path) -> Iterator[Any]:
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise SourceError(f"{path}: neither an image nor a video that can be read", KNOWN_SUFFIXES)
        yield capture
    finally:
        capture.release()


def _size_px(image_bgr: Array) -> tuple[int, int]:
    return image_bgr.shape[1], image_bgr.shape[0]


def _text(size_px: tuple[int, int]) -> str:
    return f"{size_px[0]} x {size_px[1]}"
