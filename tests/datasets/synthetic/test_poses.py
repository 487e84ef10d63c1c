from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.datasets.synthetic.anatomy import LIMBS, joints_m
from jotr_deploy.datasets.synthetic.contact import overlap_m
from jotr_deploy.datasets.synthetic.poses import TOUCH_M, sample_poses, sample_stances
from jotr_deploy.geometry.rotations import matrix_from_axis_angle

KNEES, ELBOWS = (4, 5), (18, 19)


@pytest.fixture(scope="module")
def stances() -> np.ndarray:
    return sample_stances(np.random.default_rng(0), 2000)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_shape_type_and_repeats(count: int) -> None:
    poses = sample_poses(np.random.default_rng(5), count)
    assert poses.shape == (count, 23, 3)
    assert poses.dtype == np.float32
    assert np.isfinite(poses).all()
    np.testing.assert_array_equal(poses, sample_poses(np.random.default_rng(5), count))
    np.testing.assert_array_equal(poses, sample_stances(np.random.default_rng(5), count)[:, 1:])
    if count:
        assert not np.array_equal(poses, sample_poses(np.random.default_rng(6), count))


def test_hands_are_straight(stances: np.ndarray) -> None:
    assert not stances[:, 22:].any()


def test_knees_are_hinges_that_bend_backwards(stances: np.ndarray) -> None:
    knees = stances[:, KNEES]
    np.testing.assert_allclose(knees[..., 1:], 0, atol=1e-6)
    assert knees[..., 0].min() >= -1e-6
    assert knees[..., 0].max() <= np.radians(LIMBS["knee"].high_deg) + 1e-6


def test_elbows_are_hinges_that_bend_forwards(stances: np.ndarray) -> None:
    for joint, outwards in zip(ELBOWS, (1, -1), strict=True):
        forearm = matrix_from_axis_angle(stances[:, joint]) @ np.array([outwards, 0.0, 0.0])
        np.testing.assert_allclose(forearm[:, 1], 0, atol=1e-6)
        assert forearm[:, 2].min() >= -1e-6
        bend = np.arctan2(forearm[:, 2], outwards * forearm[:, 0])
        assert bend.max() <= np.radians(LIMBS["elbow"].high_deg) + 1e-6


def test_no_limb_is_in_another(stances: np.ndarray) -> None:
    overlap = overlap_m(matrix_from_axis_angle(stances))
    assert np.mean(overlap > TOUCH_M) < 0.01
    assert overlap.max() < 0.1


def test_people_are_upright_and_as_often_left_as_right_handed(stances: np.ndarray) -> None:
    joints = joints_m(matrix_from_axis_angle(stances))[1]
    height = joints[..., 1]
    assert (height[:, 12] > height[:, [7, 8]].min(1) + 0.4).all()  # neck over the lower foot
    assert np.mean(height[:, 15] > height[:, 0] + 0.25) > 0.9  # head over the pelvis, but for who bends down
    higher_left = np.mean(height[:, 20] > height[:, 21])
    assert 0.45 < higher_left < 0.55


def test_feet_are_below_the_mass(stances: np.ndarray) -> None:
    joints = joints_m(matrix_from_axis_angle(stances))[1]
    standing = (stances[:, KNEES, 0] < 0.3).all(1)
    assert standing.sum() > 400
    over = joints[standing].mean(1) - joints[standing][:, [7, 8, 10, 11]].mean(1)
    assert np.median(np.hypot(over[:, 0], over[:, 2])) < 0.08


def test_poses_are_varied(stances: np.ndarray) -> None:
    joints = joints_m(matrix_from_axis_angle(stances))[1]
    relative = joints - joints[:, :1]
    assert (relative[:, [20, 21]].std(0).max(1) > 0.2).all()  # wrists
    assert (relative[:, [7, 8]].std(0).max(1) > 0.15).all()  # ankles
    seated = np.median(-stances[:, [1, 2], 0], axis=1) > 1.2
    assert 0.08 < seated.mean() < 0.4
    raised = (joints[:, [20, 21], 1] > joints[:, 15:16, 1]).any(1)
    assert 0.08 < raised.mean() < 0.5


def test_wide_poses_bend_and_sit_lower(stances: np.ndarray) -> None:
    wide = sample_stances(np.random.default_rng(0), 2000, wide=True)
    assert np.isfinite(wide).all()
    assert np.mean(overlap_m(matrix_from_axis_angle(wide)) > TOUCH_M) < 0.05
    heads = [joints_m(matrix_from_axis_angle(each))[1][:, [15, 0], 1] for each in (stances, wide)]
    bent = [np.mean(head < pelvis + 0.25) for head, pelvis in (each.T for each in heads)]
    assert bent[1] > 1.5 * bent[0]
    knees = [np.mean(each[:, KNEES, 0] > np.radians(110)) for each in (stances, wide)]
    assert knees[1] > 1.5 * knees[0]
