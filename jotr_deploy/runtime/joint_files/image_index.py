"""Matching of the rows of a keypoint or box file to images."""

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

# Name that a file gives an image: a file name, a number, or None (the file covers a single image).
ImageKey = str | int | None

K = TypeVar("K", str, int)

_WITHOUT_NUMBER = re.compile(r"[\W_]*[0-9]+$")
_FOR_ANY_FILM = frozenset(("", "frame", "frames", "image", "img", "im", "picture", "output", "out", "rgb", "color"))
_SUFFIXES = {*IMAGE_SUFFIXES, ".json"}
_REMEDY = "give the file made from this source; images are matched by file name, video frames by 0-based number"
_NUMBERS = "a number must be in the picture's name or be its 0-based position; write file names or add 'images'"
_WRITE_NAMES = "write the picture's file name as image_id, with its folder if names repeat"


def as_path(name: str) -> str:
    """File name of any system in normal form: composed Unicode, forward slashes, no `./`."""
    return str(PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/"))) if name else ""


def image_stem(name: str) -> str:
    """File name without folder and image suffix; other dots are kept."""
    base = PurePosixPath(as_path(name)).name
    suffix = PurePosixPath(base).suffix
    return base[: -len(suffix)] if suffix.lower() in _SUFFIXES else base


def trailing_number(name: str) -> int | None:
    """Number at the end of an image's name: 12 for `frame_0012.jpg`."""
    digits = re.search(r"[0-9]{1,18}$", image_stem(name))
    return int(digits.group()) if digits else None


def key_text(key: ImageKey) -> str:
    """Key as shown in messages."""
    return f"'{key}'" if isinstance(key, str) else str(key)


@dataclass(frozen=True)
class ImageIndex:
    """Rows of a file for each image. An image with an empty list is known to show nobody."""

    path: Path
    rows: Mapping[ImageKey, list[int]]
    by_position: bool = False  # numbers are positions in the source, for stills too
    complete: bool = False  # it lists every picture of its source, in order

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped((image_stem(key), key) for key in self.rows if isinstance(key, str))

    @cached_property
    def _by_number(self) -> dict[int, list[str]]:
        numbered = ((trailing_number(key), key) for key in self.rows if isinstance(key, str))
        return _grouped((number, key) for number, key in numbered if number is not None)

    def find(self, name: str, image_id: int | None = None, frame: int | None = None) -> list[int] | None:
        """Find the rows of one image on its own; None if the file does not list it.

        Names match with or without suffix and folders. A number in the file is the 0-based frame of a video, or the id
        of a still.

        Args:
            name: name of the still, possibly with folders, or of the video frame.
            image_id: id of a still; by default the number at the end of its name.
            frame: 0-based, for a video frame (with `by_position` for a still too), else None. A frame is also found
                under the number at the end of a name: `0.jpg`, `frame_0.jpg`.

        Raises:
            KeypointFileError: several entries match equally well.
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
        """Key that best names a picture: same stem, then most matching folders, then the same suffix."""
        return self._closest(name, self._by_stem.get(image_stem(name), []))

    def _closest(self, name: str, keys: Sequence[str]) -> str | None:
        if not keys:
            return None
        fits = [_likeness(key, name) for key in keys]
        best = [key for key, fit in zip(keys, fits, strict=True) if fit == max(fits)]
        if len(best) > 1:
            raise KeypointFileError(
                f"{self.path}: '{PurePosixPath(as_path(name)).name}' matches {' and '.join(map(key_text, best[:3]))}",
                _WRITE_NAMES,
            )
        return best[0]

    def match(self, source: FrameSource) -> Belonging:
        """Match entries to the pictures of a source, with a warning if the match was a guess.

        A file without any entry means that nobody is there.

        Raises:
            KeypointFileError: no entry matches, or the match is ambiguous.
        """
        if None in self.rows and source.total != 1:
            raise KeypointFileError(
                f"{self.path}: names no image, but '{source.name}' has {source.total or 'many'}",
                "write the image name in every entry",
            )
        if None in self.rows or not self.rows:
            return Belonging(self)
        if self.complete and source.total is not None and len(self.rows) != source.settle_total():
            raise KeypointFileError(
                f"{self.path}: lists {len(self.rows)} pictures, but '{source.name}' has {source.total}",
                "give the source that it was made from; if pictures were skipped, write the frame_id of each",
            )
        video = source.kind not in ("image", "images")
        found = self._of_video(source) if video else self._of_stills(source)
        if not found.known and source.total is not None:
            keys = [key_text(key) for key in list(self.rows)[:3]]
            present = ", ".join(keys) + (", ..." if len(self.rows) > 3 else "")
            raise KeypointFileError(
                f"{self.path}: no entry matches '{source.name}' (the file names {present})",
                _REMEDY if video or any(isinstance(key, str) for key in self.rows) else _NUMBERS,
            )
        return found

    def _of_video(self, source: FrameSource) -> Belonging:
        """Match video frames by number. Numbers from 1 to the number of frames are counted from 1."""
        numbers = {*self._by_number, *(key for key in self.rows if isinstance(key, int))}
        first, last, total = min(numbers, default=0), max(numbers, default=0), source.total
        if total is None or last >= total or (first >= 1 and not self.by_position):
            total = source.settle_total()
        names = list(source.frame_names())
        counted_from = 0
        if total and first >= 1 and last == total and not self.by_position:
            counted_from = 1
            _warn("%s: frames are numbered 1 to %d, assumed to be counted from 1", self.path, last)
        elif total and last >= total:
            _warn(
                "%s: has an entry for frame %d, but the last frame of '%s' is %d; frames are counted from 0",
                *(self.path, last, source.name, total - 1),
            )
        self._tell_of_another_film(source.name)
        found = Belonging(self, first=counted_from, folder=as_path(source.name).rsplit(".", 1)[0])
        known = {at: rows for at, name in enumerate(names) if (rows := found.rows(name, at)) is not None}
        return replace(found, known=known if names else None)

    def _tell_of_another_film(self, film: str) -> None:
        """Warn if all entries are named after another video and only their numbers match."""
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
        """Key of every picture that the file names; folders decide between pictures of the same name."""
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
            raise KeypointFileError(f"{self.path}: '{key}' could be {where}", _WRITE_NAMES)
        return best[0]

    def _ids_of(self, names: Sequence[str], ids: set[int], by_names: bool) -> dict[int, int]:
        """Number that the file uses for every picture: the one in its name, or its position from 0 or 1.

        The one in its name is used if the file names other pictures by their full name (`by_names`).
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
                f"{self.path}: numbers {min(ids)} to {max(ids)} could be positions in the source, from 0 or from 1,"
                " or the numbers in the pictures' names",
                _WRITE_NAMES,
            )
        if ways[0] != by_name:
            first = 0 if ways[0] is places[0] else 1
            _warn("%s: image ids are interpreted as positions of the pictures in the source, from %d", self.path, first)
        return ways[0]

    def _each_once(self, by_name: dict[int, int], names: Sequence[str]) -> dict[int, int]:
        """The numbers unchanged, after checking that no two pictures share one."""
        first: dict[int, int] = {}
        for at, number in by_name.items():
            if first.setdefault(number, at) != at:
                raise KeypointFileError(
                    f"{self.path}: {number} could be '{names[first[number]]}' or '{names[at]}'", _WRITE_NAMES
                )
        return by_name


@dataclass(frozen=True)
class Belonging:
    """Rows of a file matched to the pictures of one source."""

    index: ImageIndex
    known: Mapping[int, list[int]] | None = None  # by frame number; None if frames cannot be listed
    first: int = 0  # number of a video's first frame in the file
    folder: str | None = None  # name of a video, without suffix

    def rows(self, name: str, frame: int) -> list[int] | None:
        """Rows of one picture; None if the file does not list it."""
        if self.folder is not None:  # a video, which may have more frames than declared
            name = f"{self.folder}/{frame + self.first if self.first else name}"
            return self.index.find(name, frame=frame + self.first)
        if self.known is not None:
            return self.known.get(frame)
        return self.index.find(name, frame=frame)


def _likeness(key: str, name: str) -> tuple[int, bool]:
    """Similarity of a key and a picture: number of matching parent folders, and whether the file names are equal."""
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
