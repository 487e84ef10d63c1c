"""Heat maps: every cell where its patch is, with the colour of its number."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from jotr_deploy.skeletons import SMPL30_INDEX
from jotr_deploy.visual.heat_map import _MAP_PX, _MARGIN_PX, _TOP_PX, HeatMap, draw_heat_map, limb_share

Array = np.ndarray
SIDE = 100
VIRIDIS = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_VIRIDIS)[:, 0]


def boxes(count: int, step: int, side: int) -> Array:
    start = step * np.arange(count)
    y, x = (axis.ravel() for axis in np.meshgrid(start, start, indexing="ij"))
    return np.stack([x, y, x + side, y + side], -1).clip(0, SIDE)


def heat(values: Array, boxes_px: Array, joints_px: Array | None = None) -> HeatMap:
    nobody = np.zeros((0, 30, 2))
    return HeatMap(values, boxes_px, SIDE, nobody if joints_px is None else joints_px, (0.0, 255.0), "title", "mm")


def colour(picture: Array, x: float, y: float) -> list[int]:
    """At a place of the crop."""
    row, column = _TOP_PX + round(y * _MAP_PX / SIDE), _MARGIN_PX + round(x * _MAP_PX / SIDE)
    return picture[row, column].astype(int).tolist()


def test_cells_lie_about_the_middles_of_their_boxes() -> None:
    values = np.array([[0.0, 80], [160, 255]])
    picture = draw_heat_map(heat(values, boxes(2, 50, 20)))  # middles at 10 and 60: cells from -15 to 35 to 85
    for y, row in ((25, 0), (38, 1)):
        for x, column in ((2, 0), (33, 0), (37, 1), (83, 1)):
            assert colour(picture, x, y) == VIRIDIS[int(values[row, column])].tolist(), (x, y)
    assert colour(picture, 88, 25) == colour(picture, 25, 88) == [205, 205, 205]  # no patch has its middle there


def test_numbers_beyond_the_span_have_its_ends_colours() -> None:
    picture = draw_heat_map(heat(np.array([[-5.0, 300], [300, 300]]), boxes(2, 50, 50)))
    assert colour(picture, 10, 40) == VIRIDIS[0].tolist()
    assert colour(picture, 70, 70) == VIRIDIS[255].tolist()


def test_the_largest_number_has_its_patch_drawn() -> None:
    plain = draw_heat_map(heat(np.array([[1.0, 1], [1, 1]]), boxes(2, 50, 40)))
    picture = draw_heat_map(heat(np.array([[1.0, 1], [1.2, 1]]), boxes(2, 50, 40)))
    assert colour(picture, 20, 50) == [255, 255, 255]  # the upper edge of the box of row 1, column 0
    assert colour(plain, 20, 50) != [255, 255, 255]
    assert colour(plain, 20, 39.8) == [255, 255, 255]  # the first of equals


def test_places_without_a_number_have_no_colour() -> None:
    some = np.array([[np.nan, 10], [10, 10]])
    assert colour(draw_heat_map(heat(some, boxes(2, 50, 50))), 10, 40) == [205, 205, 205]
    none = draw_heat_map(heat(np.full((1, 1), np.nan), boxes(1, 1, SIDE)))
    assert colour(none, 50, 50) == [205, 205, 205]


def test_one_place_is_one_cell() -> None:
    picture = draw_heat_map(heat(np.array([[99.0]]), boxes(1, 1, SIDE)))
    assert colour(picture, 10, 90) == colour(picture, 90, 40) == VIRIDIS[99].tolist()


def test_limbs() -> None:
    joints_px = np.full((2, 30, 2), np.nan)
    knee, ankle = SMPL30_INDEX["L_Knee"], SMPL30_INDEX["L_Ankle"]
    joints_px[0, knee], joints_px[0, ankle] = (50, 20), (50, 60)
    joints_px[1, knee] = (50, 20)  # half a limb is none
    share = limb_share(joints_px, SIDE)
    assert (share[40, 50], share[40, 60], share[90, 50]) == (0.5, 0, 0)
    assert set(np.unique(share)) == {0, 0.5}
    assert 4 <= (share[40] > 0).sum() <= 8  # 6 % of the crop
    assert not limb_share(np.zeros((0, 30, 2)), SIDE).any()


def test_people_are_outlined() -> None:
    joints_px = np.full((1, 30, 2), np.nan)
    joints_px[0, SMPL30_INDEX["L_Knee"]], joints_px[0, SMPL30_INDEX["L_Ankle"]] = (50, 20), (50, 80)
    values, places = np.full((2, 2), 9.0), boxes(2, 50, 50)
    without, picture = draw_heat_map(heat(values, places)), draw_heat_map(heat(values, places, joints_px))
    changed = (without != picture).any(-1)[_TOP_PX:]
    columns = (np.flatnonzero(changed.any(0)) - _MARGIN_PX) * SIDE / _MAP_PX
    assert 40 < columns.min() < 48
    assert 52 < columns.max() < 60


@pytest.mark.parametrize("length", [1, 90])
def test_a_title_fits(length: int) -> None:
    picture = draw_heat_map(HeatMap(np.ones((1, 1)), boxes(1, 1, 9), SIDE, np.zeros((0, 30, 2)), (0, 1), "W" * length,
                                    "mm"))  # fmt: skip
    assert (picture[:20, -_MARGIN_PX // 2 :] == 255).all()
    assert (picture[:24, _MARGIN_PX : _MARGIN_PX + 10] < 255).any()
