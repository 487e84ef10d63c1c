"""The inputs of top-down pose networks: where they look, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.runtime.finding.pose.top_down import cut, image_from_input, input_from_image

SIZE = (48, 64)


@pytest.mark.parametrize(
    ("box", "seen"),  # what the input shows, in the picture
    [
        ([0, 0, 48, 64], [-6, -8, 54, 72]),  # 1.25 times
        ([10, 0, 20, 64], [-15, -8, 45, 72]),  # widened to the aspect
        ([0, 20, 48, 30], [-6, -15, 54, 65]),  # heightened
    ],
)
def test_the_box_grows_about_its_centre(box, seen):
    (affine,) = input_from_image(np.array([box]), SIZE)
    corners = transform_px(affine, np.array(seen, float).reshape(2, 2))
    np.testing.assert_allclose(corners, [[0, 0], SIZE], atol=1e-9)


@given(st.integers(0, 2**31), st.integers(0, 5))
def test_points_go_there_and_back(seed, people):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-100, 1000, (people, 2))
    affines = input_from_image(np.concatenate([low, low + rng.uniform(0, 1000, (people, 2))], 1), SIZE)
    points = rng.uniform(-50, 2000, (people, 17, 2))
    assert np.isfinite(affines).all()
    np.testing.assert_allclose(image_from_input(affines, transform_px(affines, points)), points, atol=1e-6)


def test_a_box_of_the_inputs_size_is_cut_pixel_for_pixel(rng):
    image = rng.integers(0, 256, (200, 300, 3), np.uint8)
    box = np.array([[100.0, 60, 100 + 48 / 1.25, 60 + 64 / 1.25]])
    (affine,) = input_from_image(box, SIZE)
    x, y = np.round((box[0, :2] + box[0, 2:]) / 2 - (24, 32)).astype(int)
    affine[:, 2] = -x, -y  # no fraction of a pixel
    np.testing.assert_array_equal(cut(image, affine, SIZE), image[y : y + 64, x : x + 48])


def test_beyond_the_picture_it_is_black():
    image = np.full((50, 50, 3), 255, np.uint8)
    (affine,) = input_from_image(np.array([[25, 0, 75, 50]]), SIZE)
    shown = cut(image, affine, SIZE)
    x = transform_px(affine, np.array([[49.0, 25], [50.0, 25]]))[:, 0]
    assert (shown[32, : int(x[0])][8:] == 255).all()
    assert (shown[:, int(np.ceil(x[1])) :] == 0).all()


@pytest.mark.parametrize("box", [[900, 900, 950, 950], [-200, -200, -100, -100], [5, 5, 5, 5], [9, 9, 3, 3]])
def test_boxes_outside_or_without_area_give_a_picture_all_the_same(box):
    shown = cut(np.full((50, 50, 3), 255, np.uint8), input_from_image(np.array([box]), SIZE)[0], SIZE)
    assert (shown.shape, shown.dtype) == ((64, 48, 3), np.uint8)


def test_pictures_wider_than_opencv_can_warp():
    image = np.zeros((60, 70000, 3), np.uint8)
    image[30, 65432] = 255
    (affine,) = input_from_image(np.array([[65432, 30, 65432, 30]]) + np.array([[-24, -32, 24, 32]]) / 1.25, SIZE)
    assert np.argwhere(cut(image, affine, SIZE)[..., 0]).tolist() == [[32, 24]]
    image[:, 35000:] = 255
    shown = cut(image, input_from_image(np.array([[0, 0, 70000, 60]]), SIZE)[0], SIZE)
    assert shown[32, :24].max() < shown[32, 25:40].min()
