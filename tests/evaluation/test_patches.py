"""Where patches lie: the published grids, rounding, the border."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.evaluation.patches import SIZES, STRIDE, covered, patch_grid, patch_sizes


@pytest.mark.parametrize(
    ("size", "stride", "crop_side", "side_px", "step_px", "count"),
    [
        (40, 10, 224, 40, 10, 20),
        (80, 10, 224, 80, 10, 16),
        (40, 10, 320, 57, 14, 20),
        (80, 10, 320, 114, 14, 16),
        (80, 40, 224, 80, 40, 5),
        (40, 10, 256, 46, 11, 20),
        (40, 10, 128, 23, 6, 20),
        (224, 10, 224, 224, 10, 1),
        (1, 1, 224, 1, 1, 224),
        (1, 1, 32, 1, 1, 32),  # rounding up would move places 32 to 223 out of the crop
        (1, 150, 224, 1, 150, 2),  # the third would start at 300
    ],
)
def test_grids(size: int, stride: int, crop_side: int, side_px: int, step_px: int, count: int) -> None:
    grid = patch_grid(size, stride, crop_side)
    assert (grid.side_px, grid.step_px, grid.count) == (side_px, step_px, count)
    assert len(grid) == count**2
    width, height = (grid.boxes_px[:, 2:] - grid.boxes_px[:, :2]).T
    assert min(width.min(), height.min()) >= 1
    assert (width.max(), height.max()) == (side_px, side_px)
    assert grid.boxes_px.min() == 0
    assert grid.boxes_px.max() <= crop_side


def test_the_last_patch_is_cut_by_the_border() -> None:
    grid = patch_grid(40, 10, 224)
    assert grid.place(0) == (0, 0)
    assert grid.place(19) == (0, 19)
    assert grid.place(20) == (1, 0)
    assert_array_equal(grid.boxes_px[[0, 18, 19, 20, 399]], [
        [0, 0, 40, 40], [180, 0, 220, 40], [190, 0, 224, 40], [0, 10, 40, 50], [190, 190, 224, 224],
    ])  # fmt: skip


def test_the_published_sizes() -> None:
    assert (SIZES, STRIDE) == ((40, 80), 10)


def test_what_lies_under_a_patch() -> None:
    points = np.array([[2.0, 3], [4.99, 3], [5, 3], [2, 7], [1.99, 3], [np.nan, 4]])
    boxes = np.array([[2, 3, 5, 7], [0, 0, 0, 0]])
    assert_array_equal(covered(points, boxes), [[True, True, False, False, False, False], [False] * 6])
    assert covered(np.zeros((0, 2)), boxes).shape == (2, 0)


@pytest.mark.parametrize(("text", "sizes"), [("40,80", (40, 80)), ("80", (80,)), (" 80 , 1", (80, 1))])
def test_sizes(text: str, sizes: tuple[int, ...]) -> None:
    assert patch_sizes(text) == sizes


@pytest.mark.parametrize("text", ["", "40,", "forty", "-4", "40.5", "40;80"])
def test_no_list_of_sizes(text: str) -> None:
    with pytest.raises(JotrDeployError) as refused:
        patch_sizes(text)
    assert refused.value.cause == f"--occlusion {text}: not a list of patch sides"
    assert refused.value.remedy == "give one such as 40,80"


def test_a_size_twice() -> None:
    with pytest.raises(JotrDeployError, match=r"--occlusion 40,80,40: a side is given twice"):
        patch_sizes("40,80,40")


@pytest.mark.parametrize(
    ("size", "stride", "cause"),
    [
        (0, 10, "--occlusion 0: not from 1 to 224"),
        (225, 10, "--occlusion 225: not from 1 to 224"),
        (40, 0, "--stride 0: not from 1 to 224"),
        (40, 225, "--stride 225: not from 1 to 224"),
    ],
)
def test_refusals(size: int, stride: int, cause: str) -> None:
    with pytest.raises(JotrDeployError) as refused:
        patch_grid(size, stride, 128)
    assert (refused.value.cause, refused.value.remedy) == (cause, "give pixels of a crop of 224")
