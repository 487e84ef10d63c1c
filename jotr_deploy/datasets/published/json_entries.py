"""JSON files of any length, one checked entry at a time: some have gigabytes, and ten times that as Python objects."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import DatasetError, first_line

Array = NDArray[Any]
T = TypeVar("T")
P = TypeVar("P")

AGAIN = "get the file again; layouts: docs/datasets.md"
PIECE = 1 << 22
"""Characters read at once."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_AFTER = frozenset(" \t\r\n,]}:")
_LONGEST_WORD = 32  # what is wrong nearer to the end of a piece may be right with the next one
_BEYOND = 1e9  # no pixel, millimetre or radian of any set; float32 has room for its square


@dataclass(frozen=True)
class Entry:
    """A JSON object and where it stands; what is missing or not of its kind is refused by name."""

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
        """The object under a key."""
        return Entry(f"{self.where}: {key}", self[key])

    def text(self, key: str) -> str:
        """The text under a key, not empty."""
        value = self[key]
        if not isinstance(value, str) or not value:
            raise DatasetError(f"{self.where}: '{key}' is no text", AGAIN)
        return value

    def whole(self, key: str) -> int:
        """The whole number under a key."""
        value = self[key]
        if not isinstance(value, int):
            raise DatasetError(f"{self.where}: '{key}' is no whole number", AGAIN)
        return value

    def numbers(self, key: str, *shape: int) -> Array:
        """The numbers under a key as float64 of this shape, nested or flat."""
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
    """Everybody of a file in the manner of COCO, with their picture.

    Args:
        path: JSON with lists of `images` and `annotations`.
        image: what is needed of a picture; None leaves it out, with everybody in it.
        person: what is needed of somebody; None leaves the person out. Both should be small: all are held at once.

    Raises:
        DatasetError: see `each_entry`; a key is missing, or the image that an annotation names.
    """
    images: dict[int, T | None] = {}
    people: list[tuple[int, int, P]] = []
    sections: set[str] = set()
    for section, value in each_entry(path, sections):
        entry = Entry(
            f"{path}: {section[:-1]} {value.get('id', '') if isinstance(value, dict) else ''}".rstrip(), value
        )
        if section == "images":
            images[entry.whole("id")] = image(entry)
        elif section == "annotations" and (wanted := person(entry)) is not None:
            people.append((entry.whole("id"), entry.whole("image_id"), wanted))
    if absent := {"images", "annotations"} - sections:
        raise DatasetError(f"{path}: has no '{max(absent)}'", AGAIN)
    for number, image_number, wanted in people:
        if image_number not in images:
            raise DatasetError(f"{path}: annotation {number}: there is no image {image_number}", AGAIN)
        if (picture := images[image_number]) is not None:
            yield picture, wanted


def each_entry(path: Path, keys: set[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Every value of the object that a JSON file holds, with its key; a list item by item.

    Args:
        path: of the file.
        keys: takes up the keys of the object, those of empty lists too.

    Raises:
        DatasetError: the file cannot be read, is cut off, or no JSON object.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _walk(_Window(path, file), set() if keys is None else keys)
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror})", "check the path and its permissions"
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, nested too deep
        raise DatasetError(f"{path}: not JSON ({first_line(error)})", AGAIN) from error


def _walk(window: _Window, keys: set[str]) -> Iterator[tuple[str, Any]]:
    window.expect("{")
    more = window.peek() != "}"
    while more:
        window.peek('"')
        key = str(window.value())
        keys.add(key)
        window.expect(":")
        if window.peek() == "[":
            window.expect("[")
            items = window.peek() != "]"
            while items:
                yield key, window.value()
                items = window.peek(",]") == "," and bool(window.expect(","))
            window.expect("]")
        else:
            yield key, window.value()
        more = window.peek(",}") == "," and bool(window.expect(","))
    window.expect("}")
    if window.peek():
        raise window.wrong("more follows its end")


class _Window:
    """The part of a text that is being read."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.file = path, file
        self.text, self.at, self.before, self.ended = "", 0, 0, False

    def peek(self, wanted: str = "") -> str:
        """The next character that is no space, which must be one of those wanted; nothing at the end."""
        self.at = _end(self.text, self.at)
        while self.at == len(self.text) and not self.ended:
            self._read_on()
            self.at = _end(self.text, self.at)
        found = self.text[self.at : self.at + 1]
        if wanted and not found:
            raise self.cut()
        if wanted and found not in wanted:
            raise self.wrong(f"expected {' or '.join(wanted)}")
        return found

    def expect(self, wanted: str) -> str:
        """Go past the next character, which must be this one."""
        found = self.peek(wanted)
        self.at += 1
        return found

    def value(self) -> Any:
        """Go past the next value, whatever it is."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                if self.ended or self.text[end : end + 1] in _AFTER:  # else a number may go on
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                open_string = error.msg.startswith("Unterminated string")
                at_end = error.pos > len(self.text) - _LONGEST_WORD
                if self.ended or not (open_string or at_end):
                    cut = open_string or error.pos == len(self.text) or (at_end and self.text[-1] not in "} \n")
                    self.at = error.pos
                    raise (self.cut() if cut else self.wrong(error.msg)) from error
            self._read_on()

    def cut(self) -> DatasetError:
        return DatasetError(f"{self.path}: the JSON ends too early, the file is truncated", AGAIN)

    def wrong(self, what: str) -> DatasetError:
        return DatasetError(f"{self.path}: not JSON as expected (character {self.before + self.at}: {what})", AGAIN)

    def _read_on(self) -> None:
        """Forget what is behind; a value that is longer than a piece has the next one twice as long."""
        rest = self.text[self.at :]
        piece = self.file.read(max(PIECE, len(rest)))
        self.before += self.at
        self.text, self.at, self.ended = rest + piece, 0, not piece


def _end(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
