"""Which rows of a keypoint or box file belong to which image."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.images import IMAGE_SUFFIXES
from jotr_deploy.runtime.video import FrameSource

# How a file names an image: its name, its number, or not at all (the file is about one image).
ImageKey = str | int | None

K = TypeVar("K", str, int)


def image_stem(name: str) -> str:
    """The file name without folder and without an image suffix; a name may hold other dots."""
    base = Path(name).name
    return base[: -len(Path(base).suffix)] if Path(base).suffix.lower() in IMAGE_SUFFIXES else base


def trailing_number(name: str) -> int | None:
    """The number at the end of an image's name: 12 of `frame_0012.jpg`."""
    digits = re.search(r"[0-9]{1,18}$", image_stem(name))
    return int(digits.group()) if digits else None


def key_text(key: ImageKey) -> str:
    """A key as messages show it."""
    return f"'{key}'" if isinstance(key, str) else str(key)


@dataclass(frozen=True)
class ImageIndex:
    """The rows of each image of a file. An image with an empty list is known to show nobody."""

    path: Path
    rows: Mapping[ImageKey, list[int]]
    by_position: bool = False  # numbers count the images of the source, stills too

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return _unambiguous((image_stem(key), key) for key in self.rows if isinstance(key, str))

    @cached_property
    def _by_number(self) -> dict[int, str]:
        numbered = ((trailing_number(key), key) for key in self.rows if isinstance(key, str))
        return _unambiguous((number, key) for number, key in numbered if number is not None)

    def find(self, name: str, image_id: int | None = None, frame: int | None = None) -> list[int] | None:
        """The rows of one image, None when the file does not know it.

        Names match with or without suffix. A number in the file is the 0-based frame of a video, or the id of a still.

        Args:
            name: of the still, or of the frame of a video.
            image_id: of a still; by default the number at the end of its name.
            frame: 0-based, for a frame of a video (with `by_position` for a still too), else None. A frame is also
                found under the number at the end of a name: `0.jpg`, `frame_0.jpg`.
        """
        if None in self.rows:
            return self.rows[None]
        base = Path(name).name
        keys: list[ImageKey] = [base, self._by_stem.get(image_stem(base))]
        if frame is not None:
            keys += [self._by_number.get(frame), frame]
        else:
            keys += [trailing_number(base) if image_id is None else image_id]
        return next((self.rows[key] for key in keys if key is not None and key in self.rows), None)

    def check(self, source: FrameSource) -> None:
        """Refuse a file without any entry for a source; a file without any entry at all knows that nobody is there.

        Raises:
            KeypointFileError.
        """
        if None in self.rows and source.total != 1:
            raise KeypointFileError(
                f"{self.path}: names no image, but '{source.name}' has {source.total or 'many'}",
                "write the name of its image with every entry",
            )
        video = source.kind == "video"
        frames = (
            (name, frame if video or self.by_position else None) for frame, name in enumerate(source.frame_names())
        )
        if not self.rows or any(self.find(name, frame=frame) is not None for name, frame in frames):
            self._warn_beyond(source)
            return
        present = ", ".join(key_text(key) for key in list(self.rows)[:3]) + (", ..." if len(self.rows) > 3 else "")
        raise KeypointFileError(
            f"{self.path}: no entry belongs to '{source.name}' (the file names {present})",
            "give the file made from this source; images are found by file name, frames of a video by 0-based number",
        )

    def _warn_beyond(self, source: FrameSource) -> None:
        """Frames numbered from 1, or another video's, would be used silently: what gives them away is the last one."""
        numbers = [*self._by_number, *(key for key in self.rows if isinstance(key, int))]
        if source.kind == "video" and source.total and max(numbers, default=0) >= source.total:
            logging.getLogger("jotr_deploy").warning(
                "%s: has an entry for frame %d, but '%s' ends with frame %d; frames are counted from 0",
                *(self.path, max(numbers), source.name, source.total - 1),
            )


def _unambiguous(pairs: Iterable[tuple[K, str]]) -> dict[K, str]:
    """What stands for one name only."""
    names: dict[K, list[str]] = {}
    for short, name in pairs:
        names.setdefault(short, []).append(name)
    return {short: found[0] for short, found in names.items() if len(found) == 1}
