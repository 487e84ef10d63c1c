"""Focal length from the EXIF data that a camera wrote into a picture's file."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FULL_FRAME_MM = math.hypot(36, 24)
"""Diagonal of the film format that "35 mm equivalent" refers to."""
SAME_ASPECT = 0.02
"""Largest difference in aspect ratio at which a picture counts as resized, not cropped."""

_EXIF_IFD, _FOCAL_MM, _FOCAL_35, _WIDTH, _HEIGHT = 0x8769, 0x920A, 0xA405, 0xA002, 0xA003
_PLANE_X, _PLANE_UNIT = 0xA20E, 0xA210
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_KINDS = ("JPEG", "PNG", "WebP", "TIFF", "AVIF")


@dataclass(frozen=True)
class FocalLength:
    """Focal length of a picture, according to its file."""

    px: float  # in the picture's current size
    text: str  # its origin


def focal_length(file: Path | bytes, size_px: tuple[int, int]) -> FocalLength | None:
    """The focal length of a picture of this width and height; None if its file does not state it clearly.

    `file` is the path of the file, or its content.

    A 35 mm equivalent compares diagonals. A picture smaller than the one captured counts as resized if the aspect
    ratio is the same, and otherwise as cropped.
    """
    fields = exif_fields(file)
    taken = fields.get(_WIDTH, 0), fields.get(_HEIGHT, 0)
    if min(taken) < 1:
        taken = size_px
    now, then = sorted(size_px), sorted(taken)
    resized = abs(now[0] * then[1] - now[1] * then[0]) <= SAME_ASPECT * now[1] * then[1]
    scale = now[1] / then[1] if resized else 1.0
    if fields.get(_FOCAL_35, 0) >= 1:
        equivalent_mm = fields[_FOCAL_35]
        focal_px = scale * equivalent_mm * math.hypot(*taken) / FULL_FRAME_MM
        return FocalLength(focal_px, f"EXIF, {equivalent_mm:g} mm (35 mm equivalent)")
    unit_mm = _MM_PER_UNIT.get(int(fields.get(_PLANE_UNIT, 2)))
    focal_mm, per_unit = fields.get(_FOCAL_MM, 0), fields.get(_PLANE_X, 0)
    focal_px = scale * focal_mm * per_unit / unit_mm if unit_mm else 0
    if focal_px >= 0.2 * now[1]:  # otherwise the resolution is meant for a printer, such as 72 dpi
        return FocalLength(focal_px, f"EXIF, {focal_mm:g} mm on the sensor")
    return None


def exif_fields(file: Path | bytes) -> dict[int, float]:
    """The numbers in a picture's EXIF directory by tag; empty if there are none, or they are damaged."""
    found = {}
    try:
        fields = _directory(file)
    except Exception:  # a file may contain anything; unreadable EXIF data count as absent, as in every viewer
        return {}
    for tag in (_FOCAL_MM, _FOCAL_35, _WIDTH, _HEIGHT, _PLANE_X, _PLANE_UNIT):
        try:
            value = float(fields[tag])
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
        if math.isfinite(value) and 0 < value < 1e9:
            found[tag] = value
    return found


def _directory(file: Path | bytes) -> Mapping[int, Any]:
    from PIL import Image

    from jotr_deploy.runtime.sources.picture_kinds import HEAD_BYTES, kind_of_file, picture_kind

    kind = picture_kind(file[:HEAD_BYTES]) if isinstance(file, bytes) else kind_of_file(file)
    readable = io.BytesIO(file) if isinstance(file, bytes) else file
    if kind == "HEIC":
        import pi_heif

        exif = Image.Exif()
        exif.load(pi_heif.open_heif(readable).info["exif"])
        return exif.get_ifd(_EXIF_IFD)
    if kind not in _KINDS:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged data
        with Image.open(readable, formats=(kind.upper(),)) as picture:
            return picture.getexif().get_ifd(_EXIF_IFD)
