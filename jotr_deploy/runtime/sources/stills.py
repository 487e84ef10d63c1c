"""Image files as a source of frames: a single one, those of a folder or glob, or the bytes from a URL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jotr_deploy.errors import JotrDeployError, SourceError
from jotr_deploy.runtime.sources.frame_source import BLOCK_FRAMES, Frame, FrameSource, size_of
from jotr_deploy.runtime.sources.images import (
    IMAGE_SUFFIXES,
    LINK_REMEDY,
    READ_FORMATS,
    count_pictures,
    decode_image,
    natural_order,
    orientation_of,
    read_bytes,
)
from jotr_deploy.runtime.sources.picture_kinds import OTHER_PICTURES, kind_of_file
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_kinds import describe_file


@dataclass(frozen=True)
class Still:
    """An image that has not been read yet."""

    name: str  # of its file
    shown: str  # its name in messages
    data: Callable[[], bytes]  # may raise SourceError
    path: Path | None = None

    @classmethod
    def of_file(cls, path: Path) -> Still:
        """An image file."""
        return cls(path.name, str(path), lambda: read_bytes(path), path)


class Stills(FrameSource):
    """Images in the given order."""

    def __init__(
        self,
        kind: str,
        name: str,
        stills: Sequence[Still],
        skipped: list[str] | None,
        every: int,
        upright: bool,
        left_out: dict[str, str] | None = None,
    ) -> None:
        self.kind, self.name, self.fps, self.every = kind, name, 0.0, every
        self.total, self.count = len(stills), -(-len(stills) // every)
        self.left_out, self.block = dict(left_out or {}), BLOCK_FRAMES
        self._stills, self._skipped, self._upright = stills, skipped, upright
        self._first: Frame | None = None
        self._refused: tuple[str, str] | None = None  # cause and remedy of the first image that cannot be read
        first = next(self._frames(), None)
        if first is None:
            cause, remedy = self._refused or ("there is none", READ_FORMATS)
            raise SourceError(f"{name}: none of {self.count} images can be read ({cause})", remedy)
        self._first, self.size_px = first, size_of(first.image_bgr)  # read once and handed out once, if wanted

    def frame_names(self) -> Iterator[str]:
        return (still.name for still in self._stills)

    def path_of(self, frame: int) -> Path | None:
        return self._stills[frame].path

    def orientation_of(self, frame: int) -> int:
        path = self._stills[frame].path
        return orientation_of(path) if self._upright and path is not None else 1

    def _frames(self) -> Generator[Frame, None, None]:
        first, self._first = self._first, None
        for index in range(0, len(self._stills), self.every):
            still = self._stills[index]
            if first is not None and index <= first.index:
                if index == first.index and self.wanted(index):
                    yield first
                continue
            if not self.wanted(index):
                continue
            try:
                image_bgr = _image_of(still, self._upright)
            except JotrDeployError as error:
                if self._skipped is None:
                    raise
                if still.name not in self._skipped:  # the first one is read twice if none before it is readable
                    self._skipped.append(still.name)
                self.left_out[still.name] = error.cause
                self._refused = self._refused or (error.cause, error.remedy)
                continue
            yield Frame(index, still.name, image_bgr, path=still.path)


def _image_of(still: Still, upright: bool) -> Array:
    data = still.data()
    count = count_pictures(data, still.shown)
    if count > 1:
        logging.getLogger("jotr_deploy").warning("%s: holds %d pictures; the first is read", still.shown, count)
    return decode_image(data, still.shown, upright)


def stills_in(folder: Path) -> tuple[list[Still], dict[str, str]]:
    """The pictures of a folder, by content, in natural order; and other files that look like pictures or are films.

    Links that lead nowhere count as pictures if they are named so: reading them says what is wrong.

    Raises:
        SourceError: there is no picture.
    """
    files = [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file()]
    pictures = [path for path in files if _looks_like_a_picture(path)]
    left_out = {}
    for path in sorted(set(files) - set(pictures)):
        what = describe_file(path)
        if "video" in what or "picture" in what or path.suffix.lower() in OTHER_PICTURES:
            left_out[path.name] = f"{path.name}: {what}, not a supported picture"
    if left_out:
        names = ", ".join(list(left_out)[:3]) + (", ..." if len(left_out) > 3 else "")
        logging.getLogger("jotr_deploy").warning("%s: left out: %s (not supported pictures)", folder, names)
    links = (path for path in folder.iterdir() if path.is_symlink() and not path.exists())
    lost = natural_order(path for path in links if path.suffix.lower() in IMAGE_SUFFIXES)
    if not pictures:
        if lost:
            cause = f"{folder}: no images in this folder, and {lost[0].name} is a link that leads nowhere"
            raise SourceError(cause, LINK_REMEDY)
        inner = next((path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), None)
        remedy = (
            READ_FORMATS if inner is None else f"for those in its subfolders give a glob in quotes: '{folder}/**/*.jpg'"
        )
        raise SourceError(f"{folder}: no images in this folder", remedy)
    return [Still.of_file(path) for path in natural_order([*pictures, *lost])], left_out


def _looks_like_a_picture(path: Path) -> bool:
    return kind_of_file(path) is not None or path.suffix.lower() in IMAGE_SUFFIXES
