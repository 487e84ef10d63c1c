"""Heat map of a number for every place on a crop, under outlines of where people are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jotr_deploy.skeletons import SMPL30_BONES
from jotr_deploy.support.aliases import Array

_MAP_PX, _MARGIN_PX, _TOP_PX, _RIGHT_PX, _BAR_PX = 400, 12, 50, 108, 18
_FINER = 2  # drawn this much larger and shrunk, which keeps letters and lines clear
_INK, _PAPER, _NOTHING = (40, 40, 40), 255, 205
_LEVELS = (0.2, 0.5)  # outlines enclose pixels where this share of people have a limb
_LIMB_SHARE, _BLUR_SHARE = 0.06, 0.015  # of the crop's side: thickness of a limb, how much outlines are smoothed
_TICKS = 5


@dataclass(frozen=True)
class HeatMap:
    """Numbers by the position of a box on a crop, in crop pixels."""

    values: Array  # (R, C) of rows and columns of boxes; NaN where there is none
    boxes_px: Array  # (R * C, 4) x0 y0 x1 y1, row by row: a cell lies about the middle of its box
    crop_side: int
    joints_px: Array  # (N, 30, 2) of the people in their crops
    span: tuple[float, float]  # of the colours
    title: str
    unit: str


def draw_heat_map(heat: HeatMap) -> Array:
    """Draw the map with a colour bar, (H, W, 3) uint8 BGR, and the box with the largest number."""
    import cv2

    width, height = _MAP_PX + _MARGIN_PX + _RIGHT_PX, _MAP_PX + _MARGIN_PX + _TOP_PX
    page = np.full((height * _FINER, width * _FINER, 3), _PAPER, np.uint8)
    x, y, side = _MARGIN_PX * _FINER, _TOP_PX * _FINER, _MAP_PX * _FINER
    picture = page[y : y + side, x : x + side]
    picture[:] = _cells(heat, side)
    _outline_people(picture, heat)
    if np.isfinite(heat.values).any():
        _mark_largest(picture, heat)
    _bar(page[y : y + side, x + side + 14 * _FINER :], heat)
    for line, (text, size) in enumerate(((heat.title, 0.44), (_caption(heat), 0.36))):
        room = (width - 2 * _MARGIN_PX) * _FINER
        wide = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size * _FINER, _FINER)[0][0]
        _write(page, text, (x, (20 + 20 * line) * _FINER), size * min(1, room / wide))
    return np.asarray(cv2.resize(page, (width, height), interpolation=cv2.INTER_AREA))


def _caption(heat: HeatMap) -> str:
    levels = " and ".join(f"{level:.0%}" for level in _LEVELS)
    return f"cell: middle of the patch; outlines: where {levels} of {len(heat.joints_px)} people have a limb"


def _colours(shares: Array) -> Array:
    """(...,) in 0..1 to (..., 3) BGR."""
    import cv2

    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_VIRIDIS)[:, 0]
    return np.asarray(table[np.rint(255 * np.clip(shares, 0, 1)).astype(np.int64)])


def _cells(heat: HeatMap, side: int) -> Array:
    """Colour every pixel by the cell it is in; pixels between cells and border have none."""
    rows, columns = heat.values.shape
    middles = (heat.boxes_px[:, :2] + heat.boxes_px[:, 2:]).reshape(rows, columns, 2) / 2
    row, column = (_cell_of(axis, heat.crop_side, side) for axis in (middles[:, 0, 1], middles[0, :, 0]))
    there = (row >= 0)[:, None] & (column >= 0)[None]
    values = np.where(there, heat.values[np.ix_(np.maximum(row, 0), np.maximum(column, 0))], np.nan)
    known, (low, high) = np.isfinite(values), heat.span
    return np.where(known[..., None], _colours((np.where(known, values, low) - low) / max(high - low, 1e-6)), _NOTHING)


def _cell_of(middles_px: Array, crop_side: int, side: int) -> Array:
    """Cell of each of `side` pixels across the crop, or -1."""
    half = np.diff(middles_px).mean() / 2 if len(middles_px) > 1 else crop_side / 2
    between = (middles_px[1:] + middles_px[:-1]) / 2
    edges = np.concatenate([[middles_px[0] - half], between, [middles_px[-1] + half]])
    cell = np.searchsorted(edges, (np.arange(side) + 0.5) * crop_side / side, side="right") - 1
    return np.where(cell < len(middles_px), cell, -1)


def _outline_people(picture: Array, heat: HeatMap) -> None:
    import cv2

    side = len(picture)
    share = cv2.resize(limb_share(heat.joints_px, heat.crop_side).astype(np.float32), (side, side))
    smooth = cv2.GaussianBlur(share, (0, 0), _BLUR_SHARE * side)
    for level in _LEVELS:
        lines, _ = cv2.findContours((smooth >= level).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, (255, 255, 255), _FINER, cv2.LINE_AA)


def limb_share(joints_px: Array, crop_side: int) -> Array:
    """(S, S) in 0..1, share of the people who have a limb at this pixel; limbs with a NaN are left out."""
    import cv2

    total = np.zeros((crop_side, crop_side))
    for person in joints_px:
        own = np.zeros((crop_side, crop_side), np.uint8)
        for ends in person[np.array(SMPL30_BONES)]:
            if np.isfinite(ends).all():
                (x0, y0), (x1, y1) = np.rint(np.clip(ends, -4 * crop_side, 4 * crop_side)).astype(int).tolist()
                cv2.line(own, (x0, y0), (x1, y1), 1, max(1, round(_LIMB_SHARE * crop_side)))
        total += own
    return total / max(1, len(joints_px))


def _mark_largest(picture: Array, heat: HeatMap) -> None:
    import cv2

    place = int(np.nanargmax(heat.values))
    x0, y0, x1, y1 = np.rint(heat.boxes_px[place] * len(picture) / heat.crop_side).astype(int).tolist()
    for colour, thick in ((_INK, 4 * _FINER), ((255, 255, 255), 2 * _FINER)):
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, thick)
    text = f"{heat.values.flat[place]:.1f}"
    for ink, thick in ((_INK, 4), ((255, 255, 255), 1)):
        _write(picture, text, (x0 + 7 * _FINER, y0 + 18 * _FINER), 0.45, ink, thick)


def _bar(strip: Array, heat: HeatMap) -> None:
    """Colour bar from the lowest number at the bottom to the highest at the top, with some labels."""
    rows, wide, (low, high) = len(strip), _BAR_PX * _FINER, heat.span
    strip[:, :wide] = _colours(np.linspace(1, 0, rows))[:, None]
    for share in np.linspace(0, 1, _TICKS).tolist():
        at = round((1 - share) * (rows - 10 * _FINER)) + 9 * _FINER  # the outer numbers end with the bar
        name = f" {heat.unit}" if share == 1 else ""
        _write(strip, f"{low + share * (high - low):.1f}{name}", (wide + 6 * _FINER, at), 0.38)


def _write(
    page: Array, text: str, at: tuple[int, int], size: float, ink: tuple[int, int, int] = _INK, thick: int = 1
) -> None:
    import cv2

    cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, size * _FINER, ink, thick * _FINER, cv2.LINE_AA)
