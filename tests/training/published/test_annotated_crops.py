"""The varied crop: its affine by the published definition, and targets that stay on the pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from made_sets import CAMERA, PLAIN, SIZE_PX, joints_of, posed

from jotr_deploy.geometry.crop import clip_box, crop_from_image, square_box, transform_px
from jotr_deploy.geometry.rotations import angle_between, matrix_from_axis_angle
from jotr_deploy.training.published.augmented_crops import (
    Variation,
    crop_from_picture,
    cut,
    draw_variation,
    usable_box,
    varied_joints,
    varied_joints_m,
    varied_pose,
)
from jotr_deploy.training.published.fitted_bodies import projected_px

SIDE = 64
BOX = np.array([20.0, 10.0, 80.0, 110.0])
TURNED = Variation(1.1, 0.9, np.deg2rad(25), False, np.ones(3))
MIRRORED = Variation(1.0, 1.0, 0.0, True, np.ones(3))
BOTH = Variation(1.2, 1.25, np.deg2rad(-50), True, np.ones(3))
ALL = pytest.mark.parametrize("variation", [PLAIN, TURNED, MIRRORED, BOTH], ids=["plain", "turned", "mirrored", "both"])


def test_without_variation_it_is_the_square_crop() -> None:
    expected = crop_from_image(square_box(clip_box(BOX, SIZE_PX)), SIDE)
    found = crop_from_picture(BOX, SIZE_PX, Variation(1.1, 1.0, 0.0, False, np.ones(3)), SIDE)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@ALL
def test_the_published_definition(variation: Variation) -> None:
    """Centre, down and right of the turned box go to the middle, its lower and its right edge."""
    x0, y0, x1, y1 = 20, 10, 79, 109  # one pixel less, as published
    side = (y1 - y0) * variation.margin * variation.scale
    cos, sin = np.cos(variation.turn_rad), np.sin(variation.turn_rad)
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    if variation.mirrored:
        centre[0] = SIZE_PX[0] - centre[0] - 1
    down, right = side / 2 * np.array([-sin, cos]), side / 2 * np.array([cos, sin])
    points = np.stack([centre, centre + down, centre + right])
    if variation.mirrored:  # back into the picture as it is
        points[:, 0] = SIZE_PX[0] - 1 - points[:, 0]
    found = transform_px(crop_from_picture(BOX, SIZE_PX, variation, SIDE), points)
    np.testing.assert_allclose(found, [[32, 32], [32, 64], [64, 32]], atol=1e-9)


@ALL
def test_a_dot_of_the_picture_is_where_its_label_is(variation: Variation) -> None:
    picture = np.zeros((SIZE_PX[1], SIZE_PX[0], 3), np.uint8)
    cv2.circle(picture, (45, 70), 2, (255, 255, 255), -1)
    affine = crop_from_picture(BOX, SIZE_PX, variation, SIDE)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    weight = cut(picture, affine, variation, SIDE)[0].astype(float)
    found = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    np.testing.assert_allclose(found, transform_px(affine, np.array([[45.0, 70.0]]))[0], atol=0.2)


@ALL
def test_projections_stay_on_the_pixels(variation: Variation) -> None:
    """What a camera sees of the varied body is the crop of what it sees of the body, but for place and size."""
    person = posed(4)
    assert person.joints_m is not None
    affine = crop_from_picture(person.box_px, SIZE_PX, variation, SIDE)
    crop_px = varied_joints(transform_px(affine, person.joints_px[:, :2]), variation)
    plain = CAMERA.focal_px[0], CAMERA.focal_px[0]
    square_px = varied_joints(transform_px(affine, person.joints_m[:, :2] / person.joints_m[:, 2:] * plain), variation)
    seen = varied_joints_m(person.joints_m, variation)
    seen_px = seen[:, :2] / seen[:, 2:] * plain
    scale = np.sqrt(abs(np.linalg.det(affine[:, :2])))
    np.testing.assert_allclose(square_px - square_px[0], scale * (seen_px - seen_px[0]), atol=1e-6)
    assert np.abs(crop_px - SIDE / 2).max() < SIDE  # the person is in the crop


@ALL
def test_joints_are_those_of_the_varied_pose(variation: Variation) -> None:
    person = posed(5)
    assert person.fit is not None
    pose_rad, betas = person.fit.pose_rad, person.fit.betas
    joints_m, varied_m = (joints_of(pose, betas) for pose in (pose_rad, varied_pose(pose_rad, variation)))
    expected = varied_joints_m(joints_m - joints_m[0], variation)
    np.testing.assert_allclose(varied_m - varied_m[0], expected, atol=2e-3 if variation.mirrored else 1e-5)


def test_a_mirror_image_of_a_mirror_image() -> None:
    person = posed(6)
    assert person.joints_m is not None
    assert person.fit is not None
    twice_m = varied_joints_m(varied_joints_m(person.joints_m, MIRRORED), MIRRORED)
    np.testing.assert_array_equal(twice_m, person.joints_m)
    twice = varied_pose(varied_pose(person.fit.pose_rad, MIRRORED), MIRRORED)
    np.testing.assert_allclose(twice[1:], person.fit.pose_rad[1:])
    assert angle_between(twice[0], person.fit.pose_rad[0]) < 1e-6
    flags = np.arange(30)
    np.testing.assert_array_equal(varied_joints(varied_joints(flags, MIRRORED), MIRRORED), flags)
    assert varied_joints(flags, MIRRORED)[[1, 2, 4, 0]].tolist() == [2, 1, 5, 0]  # hips, left knee, pelvis


def test_a_pose_in_the_mirror_by_hand() -> None:
    pose_rad = np.zeros((24, 3))
    pose_rad[0], pose_rad[18] = (np.pi, 0, 0), (0.1, 0.2, 0.3)  # upright before a camera; left elbow
    mirrored = varied_pose(pose_rad, MIRRORED)
    np.testing.assert_allclose(mirrored[19], [0.1, -0.2, -0.3])
    assert not mirrored[18].any()
    turned = varied_pose(pose_rad, Variation(1, 1, 0.5, False, np.ones(3)))
    expected = matrix_from_axis_angle(np.array([0, 0, -0.5])) @ np.diag([1, -1, -1])
    np.testing.assert_allclose(matrix_from_axis_angle(turned[0]), expected, atol=1e-9)


def test_colours() -> None:
    picture = np.full((10, 10, 3), (10, 100, 240), np.uint8)  # BGR
    crop = cut(picture, np.eye(2, 3), Variation(1, 1, 0, False, np.array([1.2, 0.5, 0.8])), 8)
    assert crop.shape == (3, 8, 8)
    assert crop[:, 4, 4].tolist() == [255, 50, 8]
    outside = cut(picture, np.array([[1.0, 0, 20], [0, 1, 0]]), PLAIN, 8)
    assert not outside.any()


def test_what_is_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_variation(rng) for _ in range(4000)]
    margins, scales = np.array([each.margin for each in drawn]), np.array([each.scale for each in drawn])
    turns = np.rad2deg([each.turn_rad for each in drawn])
    colours = np.stack([each.colour for each in drawn])
    assert 1 <= margins.min() < 1.01 < 1.19 < margins.max() <= 1.2
    assert (scales.min(), scales.max()) == (0.75, 1.25)
    assert np.mean(scales == 0.75) == pytest.approx(0.159, abs=0.02)  # beyond one deviation
    assert np.abs(turns).max() == pytest.approx(60)
    assert np.mean(turns != 0) == pytest.approx(0.6, abs=0.03)
    assert np.mean([each.mirrored for each in drawn]) == pytest.approx(0.5, abs=0.03)
    assert colours.min() > 0.8
    assert colours.max() < 1.2
    assert np.abs(colours.mean(0) - 1).max() < 0.01


@pytest.mark.parametrize(
    ("box", "usable"),
    [
        ((10, 10, 50, 90), True),
        ((-20, -20, 300, 300), True),
        ((-20, 10, 20, 90), True),  # partly
        ((10, 10, 10, 90), False),  # no width
        ((10, 10, 11, 90), False),  # one pixel, which the published clipping takes
        ((50, 10, 40, 90), False),  # inverted
        ((-50, 10, -10, 90), False),  # left of the picture
        ((170, 10, 200, 90), False),  # right of it
        ((10, 130, 50, 150), False),  # below it
    ],
)
def test_boxes_that_are_left_out(box: tuple[float, ...], usable: bool) -> None:
    assert usable_box(np.array(box, float), SIZE_PX) is usable


def test_projection_by_hand() -> None:
    found = projected_px(np.array([[0.0, 0, 2], [1, -1, 2]]), CAMERA)
    np.testing.assert_allclose(found, [[70, 50], [145, -30]])
