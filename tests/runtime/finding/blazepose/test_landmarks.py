"""Crops, decoding and refinement, with made numbers."""

from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.runtime.finding.blazepose.landmarks import MOST_AT_ONCE, POINTS, BlazeLandmarks, refined
from jotr_deploy.runtime.finding.blazepose.rotated_crops import MARGIN, SIDE, cut, image_from_crop
from jotr_deploy.support.aliases import Array


@pytest.mark.parametrize("up", [(0, -40), (30, 0), (-12, 25)])
def test_the_second_point_is_above_the_middle(up: tuple[float, float]) -> None:
    roi = np.array([[[100, 80], np.add([100, 80], up)]], float)
    crop = np.array([[[SIDE / 2, SIDE / 2], [SIDE / 2, SIDE / 2 * (1 - 1 / MARGIN)]]])
    affine = image_from_crop(roi)
    assert np.allclose(transform_px(affine, crop), roi)
    assert np.linalg.det(affine[0, :, :2]) == pytest.approx((2 * MARGIN * np.hypot(*up) / SIDE) ** 2)


def test_crops_are_rgb_and_the_edge_goes_on_outside() -> None:
    image = np.full((64, 64, 3), (255, 0, 51), np.uint8)
    image[:, 0] = (0, 255, 0)
    crop = cut(image, image_from_crop(np.array([[[0, 32], [0, 0]]], float)))[0]
    assert np.allclose(crop[128, 200], [0.2, 0, 1])
    assert np.allclose(crop[:, :120], [0, 1, 0])
    assert cut(image, np.zeros((0, 2, 3))).shape == (0, SIDE, SIDE, 3)


def test_points_move_to_the_mean_of_a_sure_heat_map() -> None:
    points = np.tile(np.array([42.0, 82.0]), (2, POINTS, 1))
    heatmaps = np.full((2, 64, 64, POINTS), -100, np.float32)
    heatmaps[0, 20, 12, 0] = 100  # row, column; two cells to the right of the point's cell (10, 20)
    heatmaps[0, 21, 12, 0] = 100
    heatmaps[0, 20, 14, 1] = 100  # beyond the window
    heatmaps[1, 20, 12, 0] = -0.1  # not sure
    moved = refined(points, heatmaps)
    assert moved[0, 0] == pytest.approx([48, 82])
    moved[0, 0] = points[0, 0]
    assert np.array_equal(moved, points)


def test_points_off_the_map_stay_and_a_window_ends_at_its_edge() -> None:
    points = np.array([[[-1.0, 5.0], [256.0, 5.0], [0.0, 255.9]]])
    moved = refined(points, np.full((1, 64, 64, 3), 100, np.float32))
    assert np.array_equal(moved[0, :2], points[0, :2])
    assert moved[0, 2] == pytest.approx([1.5 * 4, 61.5 * 4])
    assert refined(np.zeros((0, 39, 2)), np.zeros((0, 64, 64, 39))).shape == (0, 39, 2)


def by_content(feeds: dict[str, Array]) -> dict[str, Array]:
    """Answers that follow from each crop alone."""
    image = feeds["image"]
    values = np.linspace(0, 255, 5 * POINTS, dtype=np.float32)
    heatmaps = np.repeat(image[:, ::4, ::4, :1] * 20 - 10, POINTS, axis=-1)
    flag = image.mean((1, 2, 3))[:, None]
    return {"landmarks": values * flag, "flag": flag, "heatmaps": heatmaps}


@pytest.mark.parametrize("count", [0, 1, 3, MOST_AT_ONCE, MOST_AT_ONCE + 2])
def test_people_in_one_call_are_those_one_by_one(rng: np.random.Generator, count: int) -> None:
    image = rng.integers(0, 256, (90, 120, 3), np.uint8)
    rois = np.stack([rng.uniform(20, 70, (count, 2)), rng.uniform(20, 70, (count, 2))], 1)
    calls: list[int] = []

    def session(feeds: dict[str, Array]) -> dict[str, Array]:
        calls.append(len(feeds["image"]))
        return by_content(feeds)

    network = BlazeLandmarks(session)  # type: ignore[arg-type]
    together = network(image, rois)
    assert max(calls, default=0) <= MOST_AT_ONCE
    assert sum(calls) == len(together) == count
    for one in range(count):
        alone = network(image, rois[one : one + 1])
        for name in ("points_px", "confidence", "flags"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[one])
