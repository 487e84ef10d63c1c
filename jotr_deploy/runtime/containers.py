"""Containers of films, as far as OpenCV does not tell: the tracks of an MP4 or QuickTime file, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 1 << 26
"""An index beyond this size is not read."""


@dataclass(frozen=True)
class Track:
    """One track of an MP4 or QuickTime film."""

    id: int
    is_video: bool
    size_px: tuple[int, int]  # width, height as shown; 0 for sound


def is_mp4(path: Path) -> bool:
    """Whether a file is an MP4 or QuickTime film by its first box."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(8)[4:] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    return False


def tracks_of(path: Path) -> list[Track]:
    """The tracks that an MP4 or QuickTime file lists; none where it has no index or is something else."""
    with suppress(OSError, IndexError, ValueError), path.open("rb") as file:
        moov = next((_content(file, at, size) for kind, at, size in _boxes_of(file) if kind == b"moov"), b"")
        return [_track(content) for kind, content in _boxes(moov) if kind == b"trak"]
    return []


def bytes_missing(path: Path) -> int:
    """How many bytes a cut off MP4 or QuickTime file lacks by the length of its last box."""
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


def _boxes_of(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Type, place and whole size of the outermost boxes of a file."""
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
    """Type and content of the boxes one after another in a box."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size
