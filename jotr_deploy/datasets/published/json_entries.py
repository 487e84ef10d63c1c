"""Reader of JSON files of any length, one checked entry at a time: gigabytes would take ten times that in memory."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from jotr_deploy.errors import DatasetError, MissingDependency, first_line, install
from jotr_deploy.support.aliases import Array

T = TypeVar("T")
P = TypeVar("P")

AGAIN = "get the file again; layouts: docs/datasets.md"
_HEAD = 4096  # bytes; more than the white space before the first and after the last brace
_BEYOND = 1e9  # beyond any pixel, millimetre or radian of any set; its square fits into float32


@dataclass(frozen=True)
class Entry:
    """JSON object with its location; missing values and values of a wrong type are refused by name."""

    where: str  # file and entry, for messages
    value: Any

    def __getitem__(self, key: str) -> Any:
        if not isinstance(self.value, dict):
            raise DatasetError(f"{self.where}: is no object", AGAIN)
        if key not in self.value:
            raise DatasetError(f"{self.where}: has no '{key}'", AGAIN)
        return self.value[key]

    def __iter__(self) -> Iterator[str]:
        if not isinstance(self.value, dict):
            raise DatasetError(f"{self.where}: is no object", AGAIN)
        return iter(self.value)

    def inside(self, key: str) -> Entry:
        """Object under a key."""
        return Entry(f"{self.where}: {key}", self[key])

    def text(self, key: str) -> str:
        """Non-empty text under a key."""
        value = self[key]
        if not isinstance(value, str) or not value:
            raise DatasetError(f"{self.where}: '{key}' is no text", AGAIN)
        return value

    def whole(self, key: str) -> int:
        """Whole number under a key."""
        value = self[key]
        if not isinstance(value, int):
            raise DatasetError(f"{self.where}: '{key}' is no whole number", AGAIN)
        return value

    def numbers(self, key: str, *shape: int) -> Array:
        """Numbers under a key as float64 of this shape, nested or flat."""
        try:
            values = np.asarray(self[key], np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise DatasetError(f"{self.where}: '{key}' must be numbers", AGAIN) from error
        if values.size != math.prod(shape):
            raise DatasetError(f"{self.where}: '{key}' has {values.size} numbers, not {math.prod(shape)}", AGAIN)
        if not (np.abs(values) < _BEYOND).all():
            raise DatasetError(f"{self.where}: '{key}' holds NaN or numbers beyond reason", AGAIN)
        return values.reshape(shape)


def people_of(
    path: Path, image: Callable[[Entry], T | None], person: Callable[[Entry], P | None]
) -> Iterator[tuple[T, P]]:
    """People of a COCO-like file, with their pictures.

    Args:
        path: JSON with lists of `images` and `annotations`.
        image: extracts the data needed of a picture; None leaves it out, with everybody in it. All are held at once.
        person: extracts the data needed of a person; None leaves the person out.

    Raises:
        DatasetError: see `each_entry`; a key is missing, or the image that an annotation names.
    """
    images = {entry.whole("id"): image(entry) for entry in _each_of(path, "images")}
    for entry in _each_of(path, "annotations"):
        if (wanted := person(entry)) is None:
            continue
        if (number := entry.whole("image_id")) not in images:
            raise DatasetError(f"{entry.where}: there is no image {number}", AGAIN)
        if (picture := images[number]) is not None:
            yield picture, wanted


def each_entry(path: Path) -> Iterator[tuple[str, Any]]:
    """Every key and value of the object that a JSON file holds, one at a time.

    Raises:
        DatasetError: the file cannot be read, is cut off, or holds no JSON object.
        MissingDependency: ijson is not installed.
    """
    return _read(path, "kvitems", "")


def _each_of(path: Path, section: str) -> Iterator[Entry]:
    """Items of the list of objects under a key of the file."""
    missing = True
    for value in _read(path, "items", f"{section}.item"):
        missing = False
        number = value.get("id", "") if isinstance(value, dict) else ""
        yield Entry(f"{path}: {section[:-1]} {number}".rstrip(), value)
    if missing and (section, "start_array", None) not in _read(path, "parse"):
        raise DatasetError(f"{path}: has no list '{section}'", AGAIN)


def _read(path: Path, how: str, *prefix: str) -> Iterator[Any]:
    """Iterate over a file with a function of ijson."""
    try:
        import ijson
    except ImportError:
        raise MissingDependency("ijson is not installed, and annotations are read by it", install("datasets")) from None
    try:
        with path.open("rb") as file:
            _check_ends(path, file)
            yield from getattr(ijson, how)(file, *prefix, use_float=True)
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror})", "check the path and its permissions"
        ) from error
    except (ijson.JSONError, ValueError) as error:  # ValueError: not UTF-8
        reason = error.args[0] if error.args else ""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(error)
        if "premature EOF" in text or "Incomplete" in text:  # of the parsers in C and in Python
            raise _truncated(path) from error
        raise DatasetError(f"{path}: not JSON as expected ({first_line(ValueError(text))})", AGAIN) from error


def _check_ends(path: Path, file: BinaryIO) -> None:
    """Position a file at the start of its object; refuse it if it is not an object, or truncated.

    The parsers accept a list, and report a truncated word or number as a misspelled one.
    """
    start = file.read(_HEAD)
    text = start.removeprefix(codecs.BOM_UTF8)
    if text.strip() and not text.lstrip().startswith(b"{"):
        raise DatasetError(f"{path}: not JSON as expected (does not start with {{)", AGAIN)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _HEAD))
    if not file.read().rstrip().endswith(b"}"):
        raise _truncated(path)
    file.seek(len(start) - len(text))


def _truncated(path: Path) -> DatasetError:
    return DatasetError(f"{path}: the JSON ends too early: the file is truncated", AGAIN)
