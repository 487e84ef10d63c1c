"""The exact cameras: of the crop, and of a person in the full image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotr_deploy.geometry.camera import FOCAL_PER_SIDE, camera_from_box, crop_camera, looking_at, project_px
from jotr_deploy.geometry.crop import crop_from_image, image_from_crop, transform_px

corners = st.floats(-1e4, 1e4)
sides = st.floats(1, 2e4)
places = st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(1, 60))


@pytest.mark.parametrize(("side", "focal", "principal"), [(256, 5000, 128), (64, 1250, 32), (512, 10000, 256)])
def test_the_published_crop_camera_scales_with_the_crop(side: int, focal: float, principal: float) -> None:
    assert crop_camera(side) == (focal, principal)
    assert focal / side == FOCAL_PER_SIDE


@given(corners, corners, sides)
def test_the_camera_of_a_box(x: float, y: float, side: float) -> None:
    focal, principal = camera_from_box(np.array([[x, y, x + side, y + side]]))
    assert (focal.shape, focal.dtype, principal.shape, principal.dtype) == ((1,), np.float32, (1, 2), np.float32)
    assert focal[0] == pytest.approx(5000 * side / 256, rel=1e-6)
    np.testing.assert_allclose(principal[0], [x + side / 2, y + side / 2], rtol=1e-6, atol=1e-3)


@given(corners, corners, sides, places, st.sampled_from([64, 128, 256]))
def test_crop_camera_and_crop_agree_with_the_camera_of_the_box(
    x: float, y: float, side: float, place: tuple[float, float, float], crop_side: int
) -> None:
    """Project into the crop, move into the image == project with the person's own camera; and the way back."""
    box = np.array([[x, y, x + side, y + side]])
    point = np.array([[place]])
    focal, middle = crop_camera(crop_side)
    in_crop = project_px(point, np.array([focal]), np.array([[middle, middle]]))
    in_image = project_px(point, *camera_from_box(box))
    tolerance = 1e-5 * (side * FOCAL_PER_SIDE * 2 + abs(x) + abs(y) + side)
    np.testing.assert_allclose(transform_px(image_from_crop(box, crop_side), in_crop), in_image, atol=tolerance)
    scale = crop_side / side
    np.testing.assert_allclose(
        transform_px(crop_from_image(box, crop_side), in_image), in_crop, atol=tolerance * scale + 1e-9
    )


@given(places, st.floats(0.1, 10))
def test_projection_knows_directions_only(place: tuple[float, float, float], factor: float) -> None:
    camera = np.array([800.0]), np.array([[320.0, 240.0]])
    near, far = (project_px(np.array([[place]]) * scale, *camera) for scale in (1.0, factor))
    np.testing.assert_allclose(near, far, rtol=1e-9, atol=1e-6)


def test_each_row_has_its_own_camera() -> None:
    points = np.tile([[[0.0, 0.0, 10.0], [1.0, -2.0, 10.0]]], (2, 1, 1))
    found = project_px(points, np.array([100.0, 1000.0]), np.array([[0.0, 0.0], [50.0, 60.0]]))
    np.testing.assert_allclose(found, [[[0, 0], [10, -20]], [[50, 60], [150, -140]]])


def test_nobody() -> None:
    focal, principal = camera_from_box(np.zeros((0, 4)))
    assert (focal.shape, principal.shape) == ((0,), (0, 2))
    assert project_px(np.zeros((0, 7, 3)), focal, principal).shape == (0, 7, 2)


@given(st.floats(-2000, 2000), st.floats(-2000, 2000), st.floats(100, 5000))
def test_a_camera_that_looks_at_a_pixel(x: float, y: float, focal: float) -> None:
    """It is a rotation, the pixel's ray is its axis, and what is straight across the ray stays as it is: no roll."""
    turn = looking_at(np.array([x + 320, y + 240]), focal, np.array([320, 240]))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    ray = np.array([x, y, focal])
    np.testing.assert_allclose(turn @ ray, [0, 0, np.linalg.norm(ray)], atol=1e-8)
    across = np.array([-y, x, 0])
    np.testing.assert_allclose(turn @ across, across, atol=1e-8)


@pytest.mark.parametrize("shape", [(0,), (4,), (2, 3)])
def test_cameras_that_look_at_many_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).uniform(0, 400, (*shape, 2))
    turns = looking_at(pixels, 500.0, np.array([200.0, 150.0]))
    assert turns.shape == (*shape, 3, 3)
    alone = [looking_at(pixel, 500.0, np.array([200.0, 150.0])) for pixel in pixels.reshape(-1, 2)]
    np.testing.assert_array_equal(turns.reshape(-1, 3, 3), np.array(alone).reshape(-1, 3, 3))


def test_looking_ahead_turns_nothing() -> None:
    np.testing.assert_array_equal(looking_at(np.array([5.0, 6.0]), 100.0, np.array([5.0, 6.0])), np.eye(3))
