"""Which rows of a keypoint or box file belong to which image."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.sources.frame_source import FrameSource
from jotr_deploy.runtime.sources.images import IMAGE_SUFFIXES

# How a file names an image: its name, its number, or not at all (the file is about one image).
ImageKey = str | int | None

K = TypeVar("K", str, int)

_WITHOUT_NUMBER = re.compile(r"[\W_]*[0-9]+$")
_FOR_ANY_FILM = frozenset(("", "frame", "frames", "image", "img", "im", "picture", "output", "out", "rgb", "color"))
_SUFFIXES = {*IMAGE_SUFFIXES, ".json"}
_REMEDY = "give the file made from this source; images are found by file name, frames of a video by 0-based number"
_NUMBERS = "a number must be in the picture's name, or its place in the source from 0; write file names or add 'images'"
_WRITE_NAMES = "write the file name of the picture as image_id, with its folder where names repeat"


def as_path(name: str) -> str:
    """A file name of any system in one form: composed letters, slashes, no `./`."""
    return str(PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/"))) if name else ""


def image_stem(name: str) -> str:
    """The file name without folder and without an image suffix; a name may hold other dots."""
    base = PurePosixPath(as_path(name)).name
    suffix = PurePosixPath(base).suffix
    return base[: -len(suffix)] if suffix.lower() in _SUFFIXES else base


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
    complete: bool = False  # it lists every picture of its source, in order

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped((image_stem(key), key) for key in self.rows if isinstance(key, str))

    @cached_property
    def _by_number(self) -> dict[int, list[str]]:
        numbered = ((trailing_number(key), key) for key in self.rows if isinstance(key, str))
        return _grouped((number, key) for number, key in numbered if number is not None)

    def find(self, name: str, image_id: int | None = None, frame: int | None = None) -> list[int] | None:
        """The rows of one image on its own, None when the file does not know it.

        Names match with or without suffix and folders. A number in the file is the 0-based frame of a video, or the id
        of a still.

        Args:
            name: of the still, perhaps with folders, or of the frame of a video.
            image_id: of a still; by default the number at the end of its name.
            frame: 0-based, for a frame of a video (with `by_position` for a still too), else None. A frame is also
                found under the number at the end of a name: `0.jpg`, `frame_0.jpg`.

        Raises:
            KeypointFileError: several entries fit equally well.
        """
        if None in self.rows:
            return self.rows[None]
        key = self._named(name)
        if key is None and frame is not None:
            key = self._closest(name, self._by_number.get(frame, []))
        if key is not None:
            return self.rows[key]
        number = frame if frame is not None else trailing_number(name) if image_id is None else image_id
        return self.rows.get(number) if number is not None else None

    def _named(self, name: str) -> str | None:
        """The key that names a picture: of the same stem, the same suffix before another, then most folders alike."""
        return self._closest(name, self._by_stem.get(image_stem(name), []))

    def _closest(self, name: str, keys: Sequence[str]) -> str | None:
        if not keys:
            return None
        fits = [_likeness(key, name) for key in keys]
        best = [key for key, fit in zip(keys, fits, strict=True) if fit == max(fits)]
        if len(best) > 1:
            raise KeypointFileError(
                f"{self.path}: '{PurePosixPath(as_path(name)).name}' may be {' or '.join(map(key_text, best[:3]))}",
                _WRITE_NAMES,
            )
        return best[0]

    def match(self, source: FrameSource) -> Belonging:
        """Which entries belong to the pictures of a source.

        A file without any entry at all knows that nobody is there. Warns where it was not obvious.

        Raises:
            KeypointFileError: none belongs to it, or it is not clear which.
        """
        if None in self.rows and source.total != 1:
            raise KeypointFileError(
                f"{self.path}: names no image, but '{source.name}' has {source.total or 'many'}",
                "write the name of its image with every entry",
            )
        if None in self.rows or not self.rows:
            return Belonging(self)
        if self.complete and source.total is not None and len(self.rows) != source.settle_total():
            raise KeypointFileError(
                f"{self.path}: lists {len(self.rows)} pictures, '{source.name}' has {source.total}",
                "give the source that it was made from; where pictures were passed over, write every one's frame_id",
            )
        video = source.kind not in ("image", "images")
        found = self._of_video(source) if video else self._of_stills(source)
        if not found.known and source.total is not None:
            keys = [key_text(key) for key in list(self.rows)[:3]]
            present = ", ".join(keys) + (", ..." if len(self.rows) > 3 else "")
            raise KeypointFileError(
                f"{self.path}: no entry belongs to '{source.name}' (the file names {present})",
                _REMEDY if video or any(isinstance(key, str) for key in self.rows) else _NUMBERS,
            )
        return found

    def _of_video(self, source: FrameSource) -> Belonging:
        """Frames by number. Numbers from 1 to the number of frames count from 1."""
        numbers = {*self._by_number, *(key for key in self.rows if isinstance(key, int))}
        first, last, total = min(numbers, default=0), max(numbers, default=0), source.total
        if total is None or last >= total or (first >= 1 and not self.by_position):
            total = source.settle_total()
        names = list(source.frame_names())
        counted_from = 0
        if total and first >= 1 and last == total and not self.by_position:
            counted_from = 1
            _warn("%s: frames are numbered 1 to %d, and are taken to be counted from 1", self.path, last)
        elif total and last >= total:
            _warn(
                "%s: has an entry for frame %d, but '%s' ends with frame %d; frames are counted from 0",
                *(self.path, last, source.name, total - 1),
            )
        self._tell_of_another_film(source.name)
        found = Belonging(self, first=counted_from, folder=as_path(source.name).rsplit(".", 1)[0])
        known = {at: rows for at, name in enumerate(names) if (rows := found.rows(name, at)) is not None}
        return replace(found, known=known if names else None)

    def _tell_of_another_film(self, film: str) -> None:
        """Warn where all entries are named after another film, and only their numbers fit."""
        own = Path(film).stem.lower()
        prefixes = {}
        for key in self.rows:
            if isinstance(key, str):
                words = [part.lower() for part in PurePosixPath(key).parent.parts]
                prefixes[_WITHOUT_NUMBER.sub("", image_stem(key)).lower()] = key
                if own in words or image_stem(key).lower().startswith(own):
                    return
        if named := sorted(prefixes.keys() - _FOR_ANY_FILM):
            _warn("%s: '%s' is not named after '%s'; entries are matched by their numbers",
                  self.path, prefixes[named[0]], film)  # fmt: skip

    def _of_stills(self, source: FrameSource) -> Belonging:
        names = list(source.frame_names())
        paths = [as_path(str(source.path_of(at) or name)) for at, name in enumerate(names)]
        found: dict[int, list[int]] = {}
        for at, key in self._keys_of(paths).items():
            found[at] = self.rows[key]
        ids = {key for key in self.rows if isinstance(key, int)}
        ids_of: dict[int, ImageKey] = {key: key for key in ids}
        words = [key for key in self.rows if isinstance(key, str)]
        if not ids and not found and words and all(image_stem(key).isdecimal() for key in words):
            ids_of = {int(image_stem(key)): key for key in words if len(image_stem(key)) < 19}
        if ids_of:
            for at, number in self._ids_of(names, set(ids_of), bool(found)).items():
                found.setdefault(at, self.rows[ids_of[number]])
        return Belonging(self, found)

    def _keys_of(self, paths: Sequence[str]) -> dict[int, str]:
        """The key of every picture that the file names; among pictures of one name the folders decide."""
        pictures: dict[str, list[int]] = {}
        for at, path in enumerate(paths):
            pictures.setdefault(image_stem(path), []).append(at)
        keys: dict[int, str] = {}
        for stem, same in pictures.items():
            claimed = self._by_stem.get(stem, [])
            if len(same) > 1:
                for at in same:
                    if mine := [key for key in claimed if self._picture_of(key, same, paths) == at]:
                        keys[at] = str(self._closest(paths[at], mine))
            elif claimed:
                keys[same[0]] = str(self._closest(paths[same[0]], claimed))
        return keys

    def _picture_of(self, key: str, same: Sequence[int], paths: Sequence[str]) -> int:
        fits = [_likeness(key, paths[at]) for at in same]
        best = [at for at, fit in zip(same, fits, strict=True) if fit == max(fits)]
        if len(best) > 1:
            where = " or ".join(f"'{paths[at]}'" for at in best[:2])
            raise KeypointFileError(f"{self.path}: '{key}' may be {where}", _WRITE_NAMES)
        return best[0]

    def _ids_of(self, names: Sequence[str], ids: set[int], by_names: bool) -> dict[int, int]:
        """The number that the file has for every picture: that in its name, or its place, from 0 or from 1.

        That in its name where the file finds others `by_names` as a whole.
        """
        count = len(names)
        places = [{at: at + first for at in range(count) if at + first in ids} for first in (0, 1)]
        fits = [ids <= set(range(count)), ids <= set(range(1, count + 1))]
        if self.by_position:
            return places[0]
        numbers = [trailing_number(name) for name in names]
        by_name = {at: number for at, number in enumerate(numbers) if number is not None and number in ids}
        taken = set(by_name.values())
        if by_names or ids == set(numbers) or not any(fits) or (taken == ids and by_name == places[0]):
            return self._each_once(by_name, names)
        if count == 1 and numbers[0] is not None and abs(numbers[0] - min(ids)) > 1:
            return by_name
        ways = [way for way, fit in zip(places, fits, strict=True) if fit]
        if taken == ids or (by_name and taken >= {number for number in numbers if number is not None}):
            ways.append(by_name)
        if by_name in ways:
            self._each_once(by_name, names)
        if any(way != ways[0] for way in ways):
            raise KeypointFileError(
                f"{self.path}: numbers {min(ids)} to {max(ids)} may count the pictures of the source, from 0 or from 1,"
                " or be those in their names",
                _WRITE_NAMES,
            )
        if ways[0] != by_name:
            first = 0 if ways[0] is places[0] else 1
            _warn("%s: image ids are taken for places of the pictures in the source, from %d", self.path, first)
        return ways[0]

    def _each_once(self, by_name: dict[int, int], names: Sequence[str]) -> dict[int, int]:
        """The same numbers, each of which is that of one picture only."""
        first: dict[int, int] = {}
        for at, number in by_name.items():
            if first.setdefault(number, at) != at:
                raise KeypointFileError(
                    f"{self.path}: {number} may be '{names[first[number]]}' or '{names[at]}'", _WRITE_NAMES
                )
        return by_name


@dataclass(frozen=True)
class Belonging:
    """The rows of a file for the pictures of one source."""

    index: ImageIndex
    known: Mapping[int, list[int]] | None = None  # by the number of the frame; None where frames cannot be listed
    first: int = 0  # number that the file gives the first frame of a video
    folder: str | None = None  # what a video is called

    def rows(self, name: str, frame: int) -> list[int] | None:
        """The rows of one picture, None when the file does not know it."""
        if self.folder is not None:  # a video, which may have more frames than it says
            name = f"{self.folder}/{frame + self.first if self.first else name}"
            return self.index.find(name, frame=frame + self.first)
        if self.known is not None:
            return self.known.get(frame)
        return self.index.find(name, frame=frame)


def _likeness(key: str, name: str) -> tuple[int, bool]:
    """How well a key fits a picture: how many names from the end are alike, and whether the suffixes are."""
    ours, theirs = (list(reversed(PurePosixPath(as_path(text)).parts)) for text in (key, name))
    alike = 0
    for a, b in zip(ours[1:], theirs[1:], strict=False):
        if a != b:
            break
        alike += 1
    return alike, ours[:1] == theirs[:1]


def _grouped(pairs: Iterable[tuple[K, str]]) -> dict[K, list[str]]:
    names: dict[K, list[str]] = {}
    for short, name in pairs:
        names.setdefault(short, []).append(name)
    return names


def _warn(text: str, *values: object) -> None:
    logging.getLogger("jotr_deploy").warning(text, *values)
