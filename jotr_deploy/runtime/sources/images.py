"""Reading and writing of image files."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import cv2
import numpy as np

from jotr_deploy.errors import MissingDependency, OutputError, SourceError, first_line, install
from jotr_deploy.runtime.sources.picture_kinds import HEAD_BYTES, picture_kind
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_kinds import advice, describe_file
from jotr_deploy.support.imports import not_importable
from jotr_deploy.support.writing import written_aside

if TYPE_CHECKING:
    from PIL.Image import Image


IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif", ".heic", ".heif"),
    *(".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm"),
)
READ_FORMATS = "pictures are read as JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, JPEG 2000, PBM, PGM and PPM"

_SAVE = "save it as PNG or JPEG"
_PILLOW = {"JPEG": ("JPEG", "MPO"), "JPEG 2000": ("JPEG2000",), "PNM": ("PPM",)}  # Pillow's names, if they differ

# The log level is global to the process: the first of several threads lowers it, the last one restores it.
_lock = Lock()
_quiet, _level_before = 0, 0
# The log level has moved between releases (4.10: at the top; 4.14: below).
_opencv_log = cv2 if hasattr(cv2, "getLogLevel") else cv2.utils.logging


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Paths sorted so that `frame_2` comes before `frame_10`."""

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"([0-9]+)", str(path).lower())
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted(sorted(paths), key=key)


def read_image(path: Path, upright: bool = False) -> Array:
    """Read an image file as (H, W, 3) uint8 BGR; see `decode_image`."""
    return decode_image(read_bytes(path), str(path), upright)


LINK_REMEDY = "put back the file that it points to, or a copy of the picture in its place"


def read_bytes(path: Path) -> bytes:
    """The content of a picture file.

    Raises:
        SourceError: it cannot be read, or is not a picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise SourceError(f"{path}: a link that leads nowhere", LINK_REMEDY) from error
        raise SourceError(f"{path}: cannot be read ({error.strerror})", "check the path and its permissions") from error
    if picture_kind(data[:HEAD_BYTES]) is None:
        raise SourceError(f"{path}: {describe_file(path)}, not a supported picture", advice(path) or READ_FORMATS)
    return data


def decode_image(data: bytes, name: str, upright: bool = False) -> Array:
    """Decode the bytes of an image file as (H, W, 3) uint8 BGR, completely or not at all.

    Grey becomes BGR, alpha is dropped, and of 16 bits the upper 8 are kept. The format is detected from the content.

    Args:
        data: of the file.
        name: of the file, for messages.
        upright: rotate by the EXIF data, as every viewer does; otherwise they are ignored, as in the published code.
            A HEIC picture is always upright.

    Raises:
        SourceError: not a picture, damaged or truncated, or several pictures in one file.
        MissingDependency: a HEIC picture, and pi-heif cannot be imported.
    """
    kind = picture_kind(data[:HEAD_BYTES])
    if kind is None:
        raise SourceError(f"{name}: not a supported picture", READ_FORMATS)
    _check_end(data, name, kind)
    with _decoding(name, kind):
        picture = _opened(data, name, kind)
        picture.load()
        scale_16 = kind in ("PNG", "PNM")  # Pillow stores some of their 16-bit values in 32 bits
        return _as_bgr(_turned(picture) if upright else picture, name, scale_16)


def count_pictures(data: bytes, name: str) -> int:
    """Number of pictures in a file: more than one in an animation or a multi-page TIFF.

    Raises:
        SourceError, MissingDependency.
    """
    kind = picture_kind(data[:HEAD_BYTES]) or "unknown"
    if kind == "HEIC":
        return 1  # the others are thumbnails, depth maps and the like
    _check_end(data, name, kind)
    with _decoding(name, kind):
        picture = _opened(data, name, kind)
        return 1 if picture.format == "MPO" else int(getattr(picture, "n_frames", 1))


@contextmanager
def _decoding(name: str, kind: str) -> Iterator[None]:
    """Convert anything Pillow raises on invalid bytes to a SourceError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (SourceError, MissingDependency):
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise SourceError(f"{name}: the {kind} picture has too many pixels", "make it smaller") from error
    except UnidentifiedImageError as error:
        raise SourceError(
            f"{name}: {_article(kind)} picture, but damaged or of an unsupported variety", _SAVE
        ) from error
    except Exception as error:
        why = first_line(error).replace("image file is truncated", "the file is cut off")
        raise SourceError(
            f"{name}: the {kind} picture is damaged ({why})", f"copy or download it again, or {_SAVE}"
        ) from error


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "AVIF" else f"a {kind}"


def _opened(data: bytes, name: str, kind: str) -> Image:
    if kind == "HEIC":
        return _opened_heic(data, name)
    from PIL import Image

    picture = Image.open(io.BytesIO(data), formats=_PILLOW.get(kind, (kind.upper(),)))
    if picture.format == "TIFF" and picture.getexif().get(254, 0) & 1:  # NewSubfileType: reduced-resolution image
        raise SourceError(f"{name}: a raw photo, with only a small preview readable", f"develop it: {_SAVE}")
    return picture


def _opened_heic(data: bytes, name: str) -> Image:
    try:
        import pi_heif
    except ImportError as error:
        what = f"{name}: a HEIC picture, and the package pi-heif"
        raise not_importable(what, "pi_heif", error, install("heif"), f", or {_SAVE}") from None
    return pi_heif.open_heif(data, convert_hdr_to_8bit=True).to_pillow()


def _turned(picture: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # unreadable EXIF data count as absent, as in every viewer
        return picture


def _as_bgr(picture: Image, name: str, scale_16: bool) -> Array:
    if picture.mode.startswith("I;16") or (picture.mode == "I" and scale_16):
        grey = (np.asarray(picture) >> 8).astype(np.uint8)
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    if picture.mode in ("I", "F"):
        raise SourceError(f"{name}: pixels have 32 bits ({picture.mode}), not 8 or 16", _SAVE)
    return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1])


def _check_end(data: bytes, name: str, kind: str) -> None:
    """Refuse truncated files for which the decoder would accept what is there.

    Unfinished downloads are often padded with zeros; after the end of a JPEG they do no harm.
    """
    cut_off = {
        "JPEG": not any(data[-64:]) and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"),  # no end after the last scan
        "PNG": b"IEND" not in data,
        "GIF": not data.rstrip(b"\0").endswith(b";"),
    }
    if cut_off.get(kind):
        raise SourceError(f"{name}: the {kind} picture is cut off", "copy or download it again")


def orientation_of(path: Path) -> int:
    """The EXIF orientation of an image file, 1 to 8, by which `read_image` turns it upright; 1 if it has none."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                found = picture.getexif().get(0x0112, 1)
    except Exception:  # unreadable EXIF data count as absent, as in `_turned`
        return 1
    return int(found) if found in range(1, 9) else 1


def write_image(path: Path, image_bgr: Array) -> None:
    """Write (H, W, 3) uint8 BGR in the format given by the suffix; the file appears whole or not at all.

    Raises:
        OutputError.
    """
    try:
        encoded, data = cv2.imencode(path.suffix or ".", image_bgr)
    except cv2.error:
        encoded = False
    if not encoded:
        size = f"{image_bgr.shape[1]} x {image_bgr.shape[0]}"
        raise OutputError(f"{path}: an image of {size} px does not fit this format", "end the name in .png or .jpg")
    with written_aside(path) as aside:
        aside.write_bytes(data.tobytes())


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV and FFmpeg, which would also print the errors that are raised."""
    global _quiet, _level_before
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    with _lock:
        if _quiet == 0:
            _level_before = _opencv_log.getLogLevel()
            _opencv_log.setLogLevel(0)
        _quiet += 1
    try:
        yield
    finally:
        with _lock:
            _quiet -= 1
            if _quiet == 0:
                _opencv_log.setLogLevel(_level_before)
