"""Parts of a picture that the detector looks at: it is made for one or two people who fill its canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

SHARES = (0.66, 0.45)
"""Sides of the square windows, as a share of the picture's longer side."""


@dataclass(frozen=True)
class Window:
    """A part of a picture, in pixels."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int
    mirrored: bool = False  # it is looked at with left and right swapped


def whole(size_px: tuple[int, int]) -> Window:
    """All of a picture (width, height)."""
    return Window(0, 0, *size_px)


def windows(size_px: tuple[int, int]) -> list[Window]:
    """The whole picture (width, height), then square windows of each of `SHARES` that overlap by half or more."""
    found = [whole(size_px)]
    for share in SHARES:
        side = max(round(max(size_px) * share), 1)
        xs, ys = (_starts(length, side) for length in size_px)
        found += [Window(x, y, min(side, size_px[0]), min(side, size_px[1])) for y in ys for x in xs]
    return found


def both_ways(windows: list[Window]) -> list[Window]:
    """The windows, then all of them mirrored: the detector sees some people one way only."""
    return windows + [replace(window, mirrored=True) for window in windows]


def _starts(length: int, side: int) -> list[int]:
    """Where windows of a side begin, evenly spread from the first to the last pixel."""
    if side >= length:
        return [0]
    steps = math.ceil((length - side) / (side / 2))
    return [round((length - side) * step / steps) for step in range(steps + 1)]
