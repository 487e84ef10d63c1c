"""What every source of frames is, whatever it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
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
    # Since frame 0 of a video, as it says; since the first frame of a stream; None where unknown.
    time_s: float | None = None
    path: Path | None = None  # file of a still picture


def moment(frame: Frame, fps: float) -> float:
    """When a frame is shown, counted in frames of a steady `fps`: its number, unless the frame says when."""
    return frame.index if frame.time_s is None else frame.time_s * fps


class FrameSource(ABC):
    """Numbered frames. Iterating again starts anew and ends the iteration under way; leaving `with` ends it too."""

    kind: str  # "image", "images", "video", or "stream": a camera or a URL that does not say where it ends
    name: str  # of the file or folder, the glob, the last part of a URL, `camera_0`
    fps: float  # frames per second of the source, of a stream perhaps a guess; 0 for images, and where nothing says
    total: int | None  # how many frames there are; None for a stream, and where a video does not say
    count: int | None  # how many frames are asked for, those that are skipped too: one in `every` of `total`
    every: int  # only frames 0, every, 2 * every ... are given
    size_px: tuple[int, int]  # width, height of the first frame
    dropped: int = 0  # frames of the iteration under way that came faster than they were taken; 0 but for streams
    fault: SourceError | None = None  # why the last iteration ended before its time; what was given is sound
    read: int = 0  # frames given in the iteration under way
    left_out: dict[str, str]  # by name: files and frames that were not given, and why
    damage: str | None = None  # of a video that has fewer frames than it should

    _under_way: Generator[Frame, None, None] | None = None

    @property
    def moving(self) -> bool:
        """Whether the frames are those of one film or camera, not pictures of their own."""
        return self.kind in ("video", "stream")

    @abstractmethod
    def frame_names(self) -> Iterator[str]:
        """The names of all `total` frames in order, without reading them; none where `total` is None."""

    def path_of(self, frame: int) -> Path | None:
        """The file of a still by its 0-based position; None for a frame of anything else."""
        return None

    def orientation_of(self, frame: int) -> int:
        """The EXIF orientation by which a picture was turned upright, 1 to 8; 1 where it was not turned."""
        return 1

    def settle_total(self) -> int | None:
        """`total`, counted where the container of a film only guesses it; takes as long as decoding the film."""
        return self.total

    @abstractmethod
    def _frames(self) -> Generator[Frame, None, None]:
        """The frames, from the first one on."""

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
        """End the iteration under way and close what is open."""
        self._end_iteration()

    def _end_iteration(self) -> None:
        if self._under_way is not None:
            self._under_way.close()


def size_of(image_bgr: Array) -> tuple[int, int]:
    """Width and height, px."""
    return image_bgr.shape[1], image_bgr.shape[0]
