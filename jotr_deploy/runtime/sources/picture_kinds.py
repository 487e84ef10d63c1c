"""Detection of picture formats by the first bytes of a file: its suffix may be wrong or missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

HEAD_BYTES = 64
"""Number of bytes that `picture_kind` inspects."""

OTHER_PICTURES = (
    *(".tga", ".psd", ".exr", ".hdr", ".dds", ".pcx", ".qoi", ".jxl", ".ico", ".svg", ".pict", ".sgi", ".xbm", ".pam"),
    *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)
"""Suffixes of unsupported picture formats."""

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def picture_kind(head: bytes) -> str | None:
    """The format of a picture from the first `HEAD_BYTES` of its file; None if it is not a picture."""
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return None if kind == "TIFF" and head[8:10] == b"CR" else kind  # Canon raw photos
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#":
        return "PNM"
    if head[4:8] == b"ftyp":
        end = min(len(head), max(16, int.from_bytes(head[:4], "big")))
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
        if brands[0] in _AVIF or (brands[0] in _HEIC and _AVIF.intersection(brands)):
            return "AVIF"
        if brands[0] in _HEIC:
            return "HEIC"
    return None


def is_motion_jpeg(data: bytes) -> bool:
    """True if the file is a sequence of JPEG pictures, the frames of a film.

    A picture may contain others, such as its thumbnail, but they are not all that follows its end.
    """
    ends = [at + 2 for at in _ends_of_jpegs(data)]
    return len(ends) > 1 and all(data.startswith(b"\xff\xd8\xff", end) for end in ends[:-1])


def _ends_of_jpegs(data: bytes) -> Iterator[int]:
    """Offsets of the end markers of JPEG pictures that follow one another without a gap."""
    at = 0
    while data.startswith(b"\xff\xd8", at):
        at += 2
        while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b""):
            if data[at + 1] in (0xE1, 0xE2):  # a photo, to which phones append others: a depth map, a brighter version
                return
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        at = data.find(b"\xff\xd9", at)
        if at < 0:
            return
        yield at
        at += 2


def kind_of_file(path: Path) -> str | None:
    """The format of a picture file; None if it is not a picture. Raises OSError."""
    with path.open("rb") as file:
        return picture_kind(file.read(HEAD_BYTES))
