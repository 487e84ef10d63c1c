"""The common interface of all frame sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from jotr_deploy.errors import SourceError
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class Frame:
    """One image of a source."""

    index: int  # 0-based position in the source
    name: str  # file name of a still; `<video>_<12 digits of the index>` for a frame of a video or stream
    image_bgr: Array  # (H, W, 3) uint8; one source may give several sizes
    # Since frame 0 of a video, by its timestamps; since the first frame of a stream; None if unknown.
    time_s: float | None = None
    path: Path | bytes | None = None  # file of a still picture, or its content


BLOCK_FRAMES = 1000
"""Frames of a film, or pictures, after which nothing found in earlier ones is carried on: see `FrameSource.block`."""

Failed = Callable[[Frame, Exception], None]
"""Called with a frame that could not be processed, and the error."""


def moment(frame: Frame, fps: float) -> float:
    """Time at which a frame is shown, in frames at a steady `fps`: its number, unless it has a timestamp."""
    return frame.index if frame.time_s is None else frame.time_s * fps


class FrameSource(ABC):
    """Numbered frames. Iterating again starts anew and ends the current iteration; leaving `with` ends it too."""

    kind: str  # "image", "images", "video", or "stream": a camera, or a URL without a known end
    name: str  # of the file or folder, the glob, the last part of a URL, `camera_0`
    fps: float  # frames per second of the source, possibly a guess for a stream; 0 for images and if unknown
    total: int | None  # number of frames; None for a stream, and if a video does not state it
    count: int | None  # number of frames requested, including those that are skipped: every Nth of `total`
    every: int  # only frames 0, every, 2 * every ... are given
    size_px: tuple[int, int]  # width, height of the first frame
    # At frame block, 2 * block ... people are found and fitted as if it were the first, so that a film may be cut there
    # and its parts processed apart, with equal results. None for a camera, which nobody cuts.
    block: int | None = None
    first: int = 0  # frames before this one are not given
    end: int | None = None  # nor are this one and those after it
    dropped: int = 0  # frames of the current iteration that arrived too fast to be taken; 0 except for streams
    fault: SourceError | None = None  # why the last iteration ended early; the frames given are valid
    read: int = 0  # frames given in the current iteration
    left_out: dict[str, str]  # files and frames that were not given, by name, and why
    damage: str | None = None  # of a video with fewer frames than it should have

    _under_way: Generator[Frame, None, None] | None = None

    @property
    def moving(self) -> bool:
        """True if the frames belong to one film or camera; False for independent pictures."""
        return self.kind in ("video", "stream")

    def wanted(self, frame: int) -> bool:
        """True for a frame that is given if it can be read."""
        return frame % self.every == 0 and self.first <= frame and (self.end is None or frame < self.end)

    @abstractmethod
    def frame_names(self) -> Iterator[str]:
        """The names of all `total` frames in order, without reading them; empty if `total` is None."""

    def path_of(self, frame: int) -> Path | None:
        """The file of a still by its 0-based position; None for other frames."""
        return None

    def orientation_of(self, frame: int) -> int:
        """The EXIF orientation by which a picture was turned upright, 1 to 8; 1 if it was not turned."""
        return 1

    def settle_total(self) -> int | None:
        """`total`, counted if a film's container only estimates it; takes as long as decoding the film."""
        return self.total

    @abstractmethod
    def _frames(self) -> Generator[Frame, None, None]:
        """The frames, from the first one."""

    def __iter__(self) -> Iterator[Frame]:
        self._end_iteration()
        self.fault, self.dropped = None, 0
        self.read = 0
        self._under_way = self._counted()
        return self._under_way

    def _counted(self) -> Generator[Frame, None, None]:
        with closing(self._frames()) as frames:
            for frame in frames:
                self.read += 1
                yield frame

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the current iteration and close open files and devices."""
        self._end_iteration()

    def _end_iteration(self) -> None:
        if self._under_way is not None:
            self._under_way.close()


def apart(frame: int, other: int, block: int | None) -> bool:
    """True if nothing may be carried from one of these frames to the other; see `FrameSource.block`."""
    return block is not None and frame // block != other // block


def size_of(image_bgr: Array) -> tuple[int, int]:
    """Width and height, px."""
    return image_bgr.shape[1], image_bgr.shape[0]
