from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotr_deploy.geometry.camera import camera_from_box, project_px
from jotr_deploy.geometry.crop import (
    box_from_joints,
    clip_box,
    crop_from_image,
    image_from_crop,
    joints_in_grid,
    square_box,
    transform_px,
)
from jotr_deploy.skeletons import to_smpl30

GOLDEN = np.load(Path(__file__).parents[1] / "golden/preprocess.npz")
PHOTO_PX = (640, 480)
TOLERANCE_PX = 1e-3

coordinate = st.floats(-3000, 3000, width=32)
boxes = st.tuples(coordinate, coordinate, st.floats(1, 4000, width=32)).map(
    lambda v: np.array([v[0], v[1], v[0] + v[2], v[1] + v[2]])
)
sides = st.sampled_from([64, 128, 256, 384])


def xywh(boxes_px):
    return np.concatenate([boxes_px[..., :2], boxes_px[..., 2:] - boxes_px[..., :2]], -1)


def xyxy(boxes_px):
    return np.concatenate([boxes_px[..., :2], boxes_px[..., :2] + boxes_px[..., 2:]], -1)


def test_box_from_joints_is_the_published_one():
    boxes_px = box_from_joints(GOLDEN["get_bbox/pts"], GOLDEN["get_bbox/valid"])
    np.testing.assert_allclose(xywh(boxes_px), GOLDEN["get_bbox/out"], atol=TOLERANCE_PX)


def test_clipped_square_box_is_the_published_one():
    boxes_px = square_box(clip_box(xyxy(GOLDEN["process_bbox/in"]), PHOTO_PX), 1.1)
    assert boxes_px.dtype == np.float32
    np.testing.assert_allclose(xywh(boxes_px), GOLDEN["process_bbox/out"], atol=TOLERANCE_PX)


@pytest.mark.parametrize(("source", "skeleton"), [("openpose", "coco18"), ("coco", "coco17")])
def test_everything_from_detections_to_the_grid_is_the_published_one(source, skeleton):
    joints_px = to_smpl30(GOLDEN[f"{source}/detections"], skeleton)
    boxes_px = square_box(clip_box(box_from_joints(joints_px, joints_px[..., 2] > 0.05), PHOTO_PX), 1.1)
    np.testing.assert_allclose(xywh(boxes_px), GOLDEN[f"{source}/bbox"], atol=TOLERANCE_PX)
    np.testing.assert_allclose(crop_from_image(boxes_px, 256), GOLDEN[f"{source}/img2bb"], atol=TOLERANCE_PX)
    np.testing.assert_allclose(image_from_crop(boxes_px, 256), GOLDEN[f"{source}/bb2img"], atol=TOLERANCE_PX)
    joints, mask = joints_in_grid(joints_px, boxes_px, 256)
    np.testing.assert_allclose(joints, GOLDEN[f"{source}/joints"][..., :2], atol=TOLERANCE_PX)
    np.testing.assert_array_equal(mask, GOLDEN[f"{source}/joints_mask"][..., 0])


@pytest.mark.parametrize(
    ("box_px", "expected"),
    [
        ([10, 20, 111, 221], [10, 20, 110, 220]),  # inside: a pixel less
        ([-50, 20, 51, 221], [0, 20, 100, 220]),  # left edge: moved, not cut
        ([10, -70, 111, 31], [10, 0, 110, 100]),  # top edge: moved, not cut
        ([600, 400, 701, 501], [600, 400, 639, 479]),  # right and bottom edge: cut
        ([-900, 0, -799, 101], [0, 0, 100, 100]),  # beyond the left edge: moved all the way
        ([700, 0, 801, 101], [700, 0, 639, 100]),  # beyond the right edge: inverted
    ],
)
def test_clipping_moves_at_the_left_and_cuts_at_the_right(box_px, expected):
    np.testing.assert_array_equal(clip_box(np.array(box_px), PHOTO_PX), expected)


@pytest.mark.parametrize(
    ("box_px", "expected"),
    [
        ([0, 0, 100, 50], [-5, -30, 105, 80]),  # wide
        ([0, 0, 50, 100], [-30, -5, 80, 105]),  # high
        ([5, 5, 5, 5], [5, 5, 5, 5]),  # a point
    ],
)
def test_the_square_keeps_the_centre_and_grows_by_a_tenth(box_px, expected):
    np.testing.assert_allclose(square_box(np.array(box_px), 1.1), expected, rtol=1e-6)


def test_nobody_has_no_box():
    assert box_from_joints(np.zeros((0, 30, 3)), np.zeros((0, 30))).shape == (0, 4)
    assert square_box(clip_box(np.zeros((0, 4)), PHOTO_PX), 1.1).shape == (0, 4)
    assert crop_from_image(np.zeros((0, 4)), 256).shape == (0, 2, 3)
    joints, mask = joints_in_grid(np.zeros((0, 30, 3)), np.zeros((0, 4)), 256)
    assert (joints.shape, mask.shape) == ((0, 30, 2), (0, 30))


def test_a_person_without_valid_joints_has_no_box():
    with pytest.raises(ValueError, match="a box needs a valid joint"):
        box_from_joints(np.ones((2, 30, 2)), np.array([[True] * 30, [False] * 30]))


def test_invalid_joints_do_not_widen_the_box():
    joints_px = np.array([[0, 0], [10, 10], [9999, -9999]])
    np.testing.assert_allclose(box_from_joints(joints_px, np.array([1, 1, 0])), [-1, -1, 11, 11])


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize(
    ("cell", "confidence", "used"),
    [
        (0.0, 1.0, 1),
        (-0.001, 1.0, 0),
        (0.999, 1.0, 1),  # as a share of the grid
        (1.0, 1.0, 0),  # the end of the grid is outside
        (0.5, 0.05, 0),  # strictly above
        (0.5, 0.0501, 1),
        (0.5, 0.0, 0),
    ],
)
def test_the_mask_follows_the_border_and_the_threshold(side, cell, confidence, used):
    box_px = np.array([0, 0, 100, 100], np.float32)
    for axis in (0, 1):
        joint = np.array([50, 50, confidence], np.float32)
        joint[axis] = 100 * cell
        joints, mask = joints_in_grid(np.tile(joint, (30, 1)), box_px, side)
        assert mask.tolist() == [used] * 30
        np.testing.assert_allclose(joints[0, axis], cell * side / 4, rtol=1e-5)


@given(boxes, sides, st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=5))
def test_crop_and_back_is_the_identity(box_px, side, points):
    points_px = np.array(points)
    back = transform_px(image_from_crop(box_px, side), transform_px(crop_from_image(box_px, side), points_px))
    np.testing.assert_allclose(back, points_px, atol=1e-6)


@given(boxes, sides)
def test_the_box_fills_the_crop(box_px, side):
    corners = transform_px(crop_from_image(box_px, side), box_px.reshape(2, 2))
    np.testing.assert_allclose(corners, [[0, 0], [side, side]], atol=1e-6 * side)


@given(boxes, st.floats(0.1, 10), st.tuples(coordinate, coordinate))
def test_the_crop_follows_a_moved_and_scaled_image(box_px, scale, shift):
    points_px = np.random.default_rng(0).uniform(-500, 500, (6, 2))
    moved_box = (box_px.reshape(2, 2) * scale + shift).ravel()
    plain = transform_px(crop_from_image(box_px, 256), points_px)
    moved = transform_px(crop_from_image(moved_box, 256), points_px * scale + shift)
    np.testing.assert_allclose(moved, plain, rtol=1e-6, atol=1e-4)


@given(st.integers(1, 30), st.integers(0, 99), st.floats(0.5, 4), st.tuples(coordinate, coordinate))
def test_the_box_of_joints_follows_a_moved_and_scaled_image(count, seed, scale, shift):
    joints_px = np.random.default_rng(seed).uniform(-500, 500, (30, 2))
    valid = np.arange(30) < count
    plain = square_box(box_from_joints(joints_px, valid), 1.1).reshape(2, 2)
    moved = square_box(box_from_joints(joints_px * scale + shift, valid), 1.1).reshape(2, 2)
    np.testing.assert_allclose(moved, plain * scale + shift, atol=0.01)


def test_the_camera_of_a_box_projects_to_where_the_crop_camera_does():
    box_px = np.array([[-40.0, 25.0, 260.0, 325.0]])
    points_m = np.random.default_rng(0).uniform(-1, 1, (1, 9, 3)) + np.array([0, 0, 30])
    image_px = project_px(points_m, *camera_from_box(box_px))
    crop_px = points_m[..., :2] / points_m[..., 2:] * 5000 + 128
    np.testing.assert_allclose(transform_px(crop_from_image(box_px, 256), image_px), crop_px, atol=1e-3)
