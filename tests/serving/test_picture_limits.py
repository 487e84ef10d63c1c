"""Limits on pictures: formats, pixels and scans, before anything is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from pictures import noise
from PIL import Image

from jotr_deploy.serving.picture_limits import MOST_SCANS, check_picture
from jotr_deploy.serving.refusals import Refused

MOST_PIXELS = 10_000


def encoded(kind: str, size_px: tuple[int, int] = (80, 60), **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise()).resize(size_px).save(file, kind, **options)
    return file.getvalue()


def png_bomb(width: int, height: int, rows: int | None = None) -> bytes:
    """A picture of one colour, whose pixels were never in memory; complete with all of its rows."""
    squeezed = zlib.compressobj(9)
    row = bytes(1 + 3 * width) if rows is None else b""
    data = b"".join(squeezed.compress(row) for _ in range(height if rows is None else rows)) + squeezed.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def webp_header(kind: bytes, content: bytes) -> bytes:
    return b"RIFF" + bytes(4) + b"WEBP" + kind + bytes(4) + content


GOOD = {
    "JPEG": encoded("JPEG"),
    "progressive JPEG": encoded("JPEG", progressive=True),
    "PNG": encoded("PNG"),
    "grey PNG": encoded("PNG", (100, 100)),
    "WebP": encoded("WEBP"),
    "lossless WebP": encoded("WEBP", lossless=True),
    "WebP with EXIF": encoded("WEBP", exif=Image.Exif().tobytes() + b"\0"),
}


@pytest.mark.parametrize("name", GOOD)
def test_pictures_in_known_formats_pass(name: str) -> None:
    check_picture(GOOD[name], MOST_PIXELS)


BAD = {
    "nothing": (b"", 415, "not a picture"),
    "text": (b"GET / HTTP/1.1", 415, "not a picture"),
    "an archive": (b"PK\3\4" + bytes(99), 415, "not a picture"),
    "an address": (b"http://169.254.169.254/latest/meta-data", 415, "not a picture"),
    "GIF": (encoded("GIF"), 415, "a GIF picture"),
    "TIFF": (encoded("TIFF"), 415, "a TIFF picture"),
    "a large JPEG": (encoded("JPEG", (101, 100)), 413, "101 x 100 px"),
    "a large PNG": (encoded("PNG", (100, 101)), 413, "100 x 101 px"),
    "a large WebP": (encoded("WEBP", (200, 100)), 413, "200 x 100 px"),
    "a large lossless WebP": (encoded("WEBP", (200, 100), lossless=True), 413, "200 x 100 px"),
    "a large WebP with alpha": (webp_header(b"VP8X", bytes(4) + b"\xff\xff\0\xff\xff\0"), 413, "65536 x 65536 px"),
    "a bomb": (png_bomb(5000, 5000), 413, "5000 x 5000 px"),
    "a PNG that says it is endless": (png_bomb(2**31 - 1, 2**31 - 1, 0), 413, " px"),
    "half a header": (encoded("PNG")[:20], 422, "damaged"),
    "a WebP of 20 bytes": (encoded("WEBP")[:20], 422, "damaged"),
    "a WebP of another kind": (webp_header(b"ABCD", bytes(20)), 422, "damaged"),
    "a JPEG of many scans": (encoded("JPEG") + b"\xff\xda" * MOST_SCANS, 422, "scans"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_others_are_refused_by_their_first_bytes(name: str) -> None:
    data, status, cause = BAD[name]
    with pytest.raises(Refused) as refusal:
        check_picture(data, MOST_PIXELS)
    assert refusal.value.status == status
    assert cause in refusal.value.cause


def test_random_damage_is_refused_or_passes(rng: np.random.Generator) -> None:
    for data in GOOD.values():
        for _ in range(30):
            changed = bytearray(data[: rng.integers(len(data))])
            for at in rng.integers(0, max(len(changed), 1), 3):
                changed[at : at + 1] = rng.bytes(1)
            with suppress(Refused):  # anything else fails
                check_picture(bytes(changed), MOST_PIXELS)
