"""Coordinate conventions of keypoint and box files: pixels, fractions, another canvas size, unrotated pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.geometry.orientation import TURNED, upright_from_stored
from jotr_deploy.runtime.joint_files.person_entry import Size
from jotr_deploy.support.aliases import Array

JointsIn = Literal["auto", "pixels", "normalised", "unrotated"]
JOINTS_IN: tuple[str, ...] = get_args(JointsIn)
"""Coordinate conventions: pixels of the upright picture, fractions of it, or pixels before its EXIF rotation."""

_SAME_SHAPE = 0.06  # canvases are rounded to multiples of 64 px
_INSIDE = 0.8  # fraction of points that must lie inside their picture
_REMEDY = "give the picture that the file was made from, or --joints-in pixels if these are its pixels"


def are_fractions(places: Array) -> bool:
    """True if most coordinates (M, 2) are fractions of a picture rather than pixels.

    Half of all coordinates in a picture never lie within its first pixel, so the median decides, however far outside
    some points lie.
    """
    return bool(len(places) and np.median(np.abs(places)) <= 1)


def symmetric(places: Array) -> bool:
    """True if fractions (M, 2) range over -1..1: more are negative than a few joints outside the picture explain."""
    return bool(((places >= -1) & (places < 0)).mean() > 0.25 or ((places >= -1) & (places < -0.5)).mean() > 0.1)


@dataclass
class Coordinates:
    """Coordinate convention of a file, and conversion from it to pixels of a picture."""

    path: Path
    joints_in: JointsIn = "auto"
    fractions: tuple[float, float] | None = None  # values at the first and last pixel; None for pixels
    last_pixel_is_1: bool = False  # as in OpenPose; otherwise 1 is the edge of the picture
    lie_down: Callable[[int], bool] | None = None  # whether people lie sideways in pictures of this EXIF orientation
    _told: set[str] = field(default_factory=set)

    def in_picture(
        self, places: Array, canvas_px: Size | None, size_px: tuple[int, int], orientation: int = 1, name: str = ""
    ) -> Array:
        """Convert points (N, 2) of one picture to its pixels.

        Args:
            places: points as stored in the file.
            canvas_px: width and height that the file declares for the picture, or None.
            size_px: width and height of the upright picture.
            orientation: EXIF orientation that was undone; 1 if none.
            name: name of the picture, for messages.

        Raises:
            KeypointFileError: the file declares a different aspect ratio for the picture.
        """
        if not len(places):
            return places
        canvas = canvas_px if self.joints_in in ("auto", "unrotated") and self.fractions is None else None
        stored = self._are_unrotated(places, canvas, size_px, orientation, name)
        size = np.array(size_px[::-1] if stored and orientation in TURNED else size_px, float)
        if self.fractions is not None:
            low, high = self.fractions
            places = (places - low) / (high - low) * (size - self.last_pixel_is_1)
        elif canvas is not None:
            places = self._from_canvas(places, np.array(canvas), size, name)
        return upright_from_stored(places, orientation, size_px) if stored else places

    def _are_unrotated(
        self, places: Array, canvas: Size | None, size_px: tuple[int, int], orientation: int, name: str
    ) -> bool:
        """True if points refer to the stored pixels, before the EXIF rotation."""
        if orientation == 1 or self.joints_in == "pixels":
            return False
        if self.joints_in == "unrotated":
            return True
        stored_px = size_px[::-1] if orientation in TURNED else size_px
        stored: bool | None = None
        if canvas is not None and _same_shape(canvas, size_px) != _same_shape(canvas, stored_px):
            stored = _same_shape(canvas, stored_px)
        elif self.fractions is None and canvas is None:
            upright_in, stored_in = _share_inside(places, size_px), _share_inside(places, stored_px)
            if max(upright_in, stored_in) == 1 and upright_in != stored_in:
                stored = stored_in > upright_in
        if stored is None:
            stored = self.lie_down(orientation) if self.lie_down is not None else False
        frame = "the unrotated pixels" if stored else "the upright picture"
        self._tell(f"turned {stored}", f"'{name}' has an EXIF rotation; joints and boxes are assumed to use {frame}")
        return stored

    def _from_canvas(self, places: Array, canvas: Array, size: Array, name: str) -> Array:
        if (canvas == size).all():
            return places
        picture, said = (f"{side[0]:g} x {side[1]:g}" for side in (size, canvas))
        if _share_inside(places, canvas) < _INSIDE and _share_inside(places, size) >= _INSIDE:
            self._tell(
                "no canvas",
                f"the file declares a picture of {said} px, but its points lie outside; taken for pixels of '{name}'",
            )
            return places
        if not _same_shape(canvas, size):
            raise KeypointFileError(
                f"{self.path}: coordinates are for a picture of {said} px, but '{name}' has {picture}, a different"
                " aspect ratio",
                _REMEDY,
            )
        self._tell("canvas", f"coordinates are for a picture of {said} px and are scaled to {picture} px of '{name}'")
        return places * (size / canvas)

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            logging.getLogger("jotr_deploy").warning(f"%s: {text}; override with --joints-in", self.path)
        self._told.add(what)


def coordinates_of(path: Path, places: Array, joints_in: JointsIn, last_pixel_is_1: bool = False) -> Coordinates:
    """Determine the coordinate convention of a file with these points (M, 2); warns if "auto" finds fractions.

    "pixels" is taken as given; otherwise the bulk of the values decides whether they are fractions.
    """
    if joints_in == "pixels":
        return Coordinates(path, joints_in)
    low_high = None
    if joints_in == "normalised" or are_fractions(places):
        low = -1.0 if len(places) and symmetric(places) else 0.0
        low_high = (low, 1.0)
        if joints_in != "normalised":
            beyond = int((np.abs(places - (low + 1) / 2) > (1 - low) / 2).any(1).sum())
            some = f", except {beyond} of {len(places)} points" if beyond else ""
            logging.getLogger("jotr_deploy").warning(
                "%s: coordinates lie within %g..1%s; interpreted as fractions of the image, not pixels", path, low, some
            )
    return Coordinates(path, joints_in, low_high, last_pixel_is_1 or low_high == (-1.0, 1.0))


def _same_shape(one: Any, other: Any) -> bool:
    ratio = (one[0] / one[1]) / (other[0] / other[1])
    return bool(max(ratio, 1 / ratio) < 1 + _SAME_SHAPE)


def _share_inside(places: Array, size: Any) -> float:
    return float(((places >= 0) & (places <= np.asarray(size))).all(1).mean())
