"""Video container parsing beyond OpenCV: tracks of MP4, QuickTime and Matroska, and truncated files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 1 << 26
"""Size limit for an index; larger ones are not read."""
MOST_HEAD_BYTES = 1 << 20
"""Size limit for the header of a Matroska file, which contains its tracks."""


@dataclass(frozen=True)
class Track:
    """One track of a film."""

    id: int
    is_video: bool
    size_px: tuple[int, int]  # width, height as displayed; 0 for sound


def is_mp4(path: Path) -> bool:
    """True if a file is an MP4 or QuickTime film, by its first box."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(8)[4:] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    return False


def tracks_of(path: Path) -> list[Track]:
    """The tracks listed in an MP4 or QuickTime file; empty if it has no index or is another kind of file."""
    with suppress(OSError, IndexError, ValueError), path.open("rb") as file:
        moov = next((_content(file, at, size) for kind, at, size in _boxes_of(file) if kind == b"moov"), b"")
        return [_track(content) for kind, content in _boxes(moov) if kind == b"trak"]
    return []


def matroska_tracks_of(path: Path) -> list[Track]:
    """The tracks listed in a Matroska or WebM file before its frames; empty for another kind of file."""
    with suppress(OSError, IndexError), path.open("rb") as file:
        head = file.read(MOST_HEAD_BYTES)
        if head.startswith(b"\x1aE\xdf\xa3"):
            segment = _element(_element(head, 0x18538067), 0x1654AE6B)
            return [_matroska_track(entry) for kind, entry in _elements(segment) if kind == 0xAE]
    return []


def bytes_missing(path: Path) -> int:
    """Number of bytes missing from a truncated MP4 or QuickTime file, by the length of its last box."""
    if not is_mp4(path):
        return 0
    with suppress(OSError), path.open("rb") as file:
        ends = [at + size for _, at, size in _boxes_of(file)]
        return max(0, ends[-1] - path.stat().st_size) if ends else 0
    return 0


def _track(trak: bytes) -> Track:
    parts = dict(_boxes(trak))
    header, media = parts.get(b"tkhd", b""), dict(_boxes(parts.get(b"mdia", b"")))
    at = 20 if header[:1] == b"\1" else 12
    width, height = (int.from_bytes(header[place : place + 2], "big") for place in (len(header) - 8, len(header) - 4))
    handler = media.get(b"hdlr", b"")[8:12]
    return Track(int.from_bytes(header[at : at + 4], "big"), handler == b"vide", (width, height))


def _matroska_track(entry: bytes) -> Track:
    video = _element(entry, 0xE0)
    width, height = (int.from_bytes(_element(video, kind), "big") for kind in (0xB0, 0xBA))
    return Track(int.from_bytes(_element(entry, 0xD7), "big"), _element(entry, 0x83) == b"\1", (width, height))


def _element(data: bytes, wanted: int) -> bytes:
    """Content of the first element of a kind; empty if there is none."""
    return next((content for kind, content in _elements(data) if kind == wanted), b"")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of consecutive elements; one of unknown length extends to the end."""
    at = 0
    while at < len(data) and data[at]:
        length = 9 - data[at].bit_length()
        kind, at = int.from_bytes(data[at : at + length], "big"), at + length
        length = 9 - data[at].bit_length()
        size, at = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1), at + length
        yield kind, data[at : at + size]
        at += size


def _boxes_of(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Type, offset and total size of the top-level boxes of a file."""
    file.seek(0, 2)
    end, at = file.tell(), 0
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:16], "big") if size == 1 else size or end - at
        if size < 8:
            return
        yield head[4:8], at, size
        at += size


def _content(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(min(size, MOST_BYTES))
    return data[16:] if data[:4] == b"\0\0\0\1" else data[8:]


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of consecutive boxes inside a box."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size
