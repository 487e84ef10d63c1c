"""Limits on a picture that a stranger sends, checked on its first bytes, before anything is decoded."""

from __future__ import annotations

import io
import warnings

from jotr_deploy.runtime.sources.picture_kinds import HEAD_BYTES, picture_kind
from jotr_deploy.serving.refusals import Refused

KINDS = ("JPEG", "PNG", "WebP")
MOST_SCANS = 100
"""Scans of a progressive JPEG, each of which is decoded over the whole picture; usual are 10."""


def check_picture(data: bytes, max_pixels: int) -> None:
    """Refuse what is not a picture in a supported format, or would need too much memory or time.

    A PNG of 1.2 MB can be a picture of 1.2 GB.

    Raises:
        Refused: 415 for other formats, 413 for too many pixels, 422 for a damaged header.
    """
    kind = picture_kind(data[:HEAD_BYTES])
    if kind not in KINDS:
        what = "not a picture" if kind is None else f"a {kind} picture"
        raise Refused(415, f"the body is {what}", f"send the file of a picture: {', '.join(KINDS)}")
    size_px = _size_px(data, kind)
    if size_px is None or min(size_px) < 1:
        raise Refused(422, f"the {kind} picture is damaged", "copy it again, or save it as PNG or JPEG")
    if size_px[0] * size_px[1] > max_pixels:
        raise Refused(
            413,
            f"the picture has {size_px[0]} x {size_px[1]} px; the limit is {max_pixels / 1e6:g} megapixels",
            "make it smaller",
        )
    if kind == "JPEG" and data.count(b"\xff\xda") > MOST_SCANS:
        raise Refused(422, f"the JPEG picture has more than {MOST_SCANS} scans", "save it again")


def _size_px(data: bytes, kind: str) -> tuple[int, int] | None:
    """Width and height according to the header; None if it is damaged."""
    if kind == "WebP":
        return _webp_size_px(data)
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a decompression bomb, which is refused here
            with Image.open(io.BytesIO(data), formats=(kind, "MPO") if kind == "JPEG" else (kind,)) as picture:
                return picture.size
    except Image.DecompressionBombError:
        return 1 << 16, 1 << 16
    except Exception:  # Pillow raises anything on invalid bytes
        return None


def _webp_size_px(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP file: Pillow's reader would already allocate its canvas."""
    head = data[12:30]
    if len(head) < 18:
        return None
    if head[:4] == b"VP8X":
        return 1 + int.from_bytes(head[12:15], "little"), 1 + int.from_bytes(head[15:18], "little")
    if head[:4] == b"VP8L":
        bits = int.from_bytes(head[9:13], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if head[:4] == b"VP8 ":
        return int.from_bytes(head[14:16], "little") & 0x3FFF, int.from_bytes(head[16:18], "little") & 0x3FFF
    return None
