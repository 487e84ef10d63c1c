"""Where the places that a file gives lie in the picture: pixels, fractions, a canvas, or the unrotated pixels."""

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
"""What the coordinates of a file are: pixels of the upright picture, fractions of it, pixels before EXIF turned it."""

_SAME_SHAPE = 0.06  # canvases are rounded to multiples of 64 px
_INSIDE = 0.8  # share of the places that lie in the picture they are of
_REMEDY = "give the picture that the file was made from, or say --joints-in pixels if they are pixels of this one"


def are_fractions(places: Array) -> bool:
    """Whether most coordinates (M, 2) are fractions of a picture and not pixels.

    Half of all coordinates of a picture's people never lie in its first pixel, so the median tells, however far some
    places lie outside.
    """
    return bool(len(places) and np.median(np.abs(places)) <= 1)


def symmetric(places: Array) -> bool:
    """Whether fractions (M, 2) go from -1 to 1: more lie there below 0 than a few joints outside the picture."""
    return bool(((places >= -1) & (places < 0)).mean() > 0.25 or ((places >= -1) & (places < -0.5)).mean() > 0.1)


@dataclass
class Coordinates:
    """The frame of reference of a file's coordinates, and the way from there into a picture."""

    path: Path
    joints_in: JointsIn = "auto"
    fractions: tuple[float, float] | None = None  # where the first and the last pixel lie; None for pixels
    last_pixel_is_1: bool = False  # as OpenPose has it; else 1 is the edge of the picture
    lie_down: Callable[[int], bool] | None = None  # whether people lie in a picture so turned, as most in the file do
    _told: set[str] = field(default_factory=set)

    def in_picture(
        self, places: Array, canvas_px: Size | None, size_px: tuple[int, int], orientation: int = 1, name: str = ""
    ) -> Array:
        """Places (N, 2) of one picture in its pixels.

        Args:
            places: as the file has them.
            canvas_px: width and height that the file says the picture has, or None.
            size_px: width and height of the upright picture.
            orientation: by which EXIF tag it was turned upright; 1 where it was not.
            name: of the picture, for messages.

        Raises:
            KeypointFileError: the file says that the picture has another shape.
        """
        if not len(places):
            return places
        canvas = canvas_px if self.joints_in in ("auto", "unrotated") and self.fractions is None else None
        stored = self._of_stored(places, canvas, size_px, orientation, name)
        size = np.array(size_px[::-1] if stored and orientation in TURNED else size_px, float)
        if self.fractions is not None:
            low, high = self.fractions
            places = (places - low) / (high - low) * (size - self.last_pixel_is_1)
        elif canvas is not None:
            places = self._from_canvas(places, np.array(canvas), size, name)
        return upright_from_stored(places, orientation, size_px) if stored else places

    def _of_stored(
        self, places: Array, canvas: Size | None, size_px: tuple[int, int], orientation: int, name: str
    ) -> bool:
        """Whether places are of the pixels before they were turned upright."""
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
        self._tell(f"turned {stored}", f"'{name}' is stored turned; joints and boxes are taken to be of {frame}")
        return stored

    def _from_canvas(self, places: Array, canvas: Array, size: Array, name: str) -> Array:
        if (canvas == size).all():
            return places
        picture, said = (f"{side[0]:g} x {side[1]:g}" for side in (size, canvas))
        if _share_inside(places, canvas) < _INSIDE and _share_inside(places, size) >= _INSIDE:
            self._tell(
                "no canvas",
                f"the file says its picture has {said} px, but its places lie beyond; taken for pixels of '{name}'",
            )
            return places
        if not _same_shape(canvas, size):
            raise KeypointFileError(
                f"{self.path}: coordinates are of a picture of {said} px, '{name}' has {picture}, which is another"
                " shape",
                _REMEDY,
            )
        self._tell("canvas", f"coordinates are of a picture of {said} px, and are scaled to the {picture} of '{name}'")
        return places * (size / canvas)

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            logging.getLogger("jotr_deploy").warning(f"%s: {text}; --joints-in says otherwise", self.path)
        self._told.add(what)


def coordinates_of(path: Path, places: Array, joints_in: JointsIn, last_pixel_is_1: bool = False) -> Coordinates:
    """The frame of reference of a file with these places (M, 2); says so where they are fractions unasked.

    Pixels and unrotated pixels are what they are said to be; "auto" goes by the bulk of the values.
    """
    if joints_in == "pixels":
        return Coordinates(path, joints_in)
    low_high = None
    if joints_in == "normalised" or are_fractions(places):
        low = -1.0 if len(places) and symmetric(places) else 0.0
        low_high = (low, 1.0)
        if joints_in != "normalised":
            beyond = int((np.abs(places - (low + 1) / 2) > (1 - low) / 2).any(1).sum())
            some = f", but for {beyond} of {len(places)} places" if beyond else ""
            logging.getLogger("jotr_deploy").warning(
                "%s: coordinates lie within %g..1%s; taken as fractions of the image, not as pixels", path, low, some
            )
    return Coordinates(path, joints_in, low_high, last_pixel_is_1 or low_high == (-1.0, 1.0))


def _same_shape(one: Any, other: Any) -> bool:
    ratio = (one[0] / one[1]) / (other[0] / other[1])
    return bool(max(ratio, 1 / ratio) < 1 + _SAME_SHAPE)


def _share_inside(places: Array, size: Any) -> float:
    return float(((places >= 0) & (places <= np.asarray(size))).all(1).mean())
