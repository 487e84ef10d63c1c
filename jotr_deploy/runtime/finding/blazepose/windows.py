"""Windows of an image given to the detector, which is made for one or two people filling its canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

SHARES = (0.66, 0.45)
"""Sides of the square windows, as fractions of the image's longer side."""


@dataclass(frozen=True)
class Window:
    """Part of an image, in pixels."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int
    mirrored: bool = False  # processed with left and right swapped


def whole(size_px: tuple[int, int]) -> Window:
    """Window covering the whole image (width, height)."""
    return Window(0, 0, *size_px)


def windows(size_px: tuple[int, int]) -> list[Window]:
    """Whole image (width, height), then square windows of each size in `SHARES` that overlap by half or more."""
    found = [whole(size_px)]
    for share in SHARES:
        side = max(round(max(size_px) * share), 1)
        xs, ys = (_starts(length, side) for length in size_px)
        found += [Window(x, y, min(side, size_px[0]), min(side, size_px[1])) for y in ys for x in xs]
    return found


def both_ways(windows: list[Window]) -> list[Window]:
    """The windows, then their mirror images: the detector finds some people in one orientation only."""
    return windows + [replace(window, mirrored=True) for window in windows]


def _starts(length: int, side: int) -> list[int]:
    """Starts of windows along one axis, evenly spread from the first to the last pixel."""
    if side >= length:
        return [0]
    steps = math.ceil((length - side) / (side / 2))
    return [round((length - side) * step / steps) for step in range(steps + 1)]
