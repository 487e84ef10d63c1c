from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.datasets.synthetic.anatomy import LIMBS, TRUNK, joints_m, pose_matrices
from jotr_deploy.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from jotr_deploy.skeletons import SMPL30_FLIP_PAIRS, SMPL30_INDEX

SIDES = np.ones((1, 2))


def joints_of(trunk: dict[str, float], limbs: dict[str, float]) -> dict[str, np.ndarray]:
    angles = {"toe": 0.0, **limbs}
    rotations = pose_matrices(
        {name: np.array([value]) for name, value in trunk.items()},
        {name: value * SIDES for name, value in angles.items()},
    )
    joints = joints_m(rotations)[1][0]
    return {name: joints[index] for name, index in SMPL30_INDEX.items() if index < 24}


@pytest.mark.parametrize(
    ("name", "degrees", "joint", "axis", "sign"),
    [
        ("bend", 40, "Neck", 2, 1),
        ("side", 25, "Neck", 0, 1),
        ("twist", 40, "L_Shoulder", 2, -1),
        ("tilt", 40, "Neck", 2, 1),
        ("lean", 40, "Neck", 0, 1),
        ("nod", 40, "Head", 2, 1),
        ("tip", 25, "Head", 0, 1),
        ("shrug", 20, "L_Shoulder", 1, 1),
        ("protract", 20, "L_Shoulder", 2, 1),
        ("arm_flex", 90, "L_Elbow", 2, 1),
        ("arm_abd", 90, "L_Elbow", 0, 1),
        ("arm_abd", 90, "L_Elbow", 1, 1),
        ("elbow", 90, "L_Wrist", 2, 1),
        ("hip_flex", 60, "L_Knee", 2, 1),
        ("hip_abd", 40, "L_Knee", 0, 1),
        ("hip_rot", 40, "L_Toe", 0, 1),
        ("knee", 90, "L_Ankle", 2, -1),
        ("dorsi", 30, "L_Toe", 1, 1),
    ],
)
def test_a_movement_leads_where_its_name_says(name: str, degrees: float, joint: str, axis: int, sign: int) -> None:
    trunk, limbs = ({name: degrees}, {}) if name in TRUNK else ({}, {name: degrees})
    before, after = joints_of({}, {}), joints_of(trunk, limbs)
    assert sign * (after[joint] - before[joint])[axis] > 0.01
    if name in LIMBS:  # and on the right side to its mirror image
        other = "R" + joint[1:]
        np.testing.assert_allclose(after[other] * [-1, 1, 1], after[joint], atol=2e-3)


def test_an_arm_rolls_inwards() -> None:
    bent = joints_of({}, {"elbow": 90})
    rolled = joints_of({}, {"elbow": 90, "arm_roll": 60})
    assert rolled["L_Wrist"][0] < bent["L_Wrist"][0] - 0.1
    assert rolled["R_Wrist"][0] > bent["R_Wrist"][0] + 0.1


def test_arms_hang_at_zero_and_rise_over_the_head_either_way() -> None:
    hanging = joints_of({}, {})
    np.testing.assert_allclose(hanging["L_Elbow"][0], hanging["L_Shoulder"][0], atol=0.02)
    assert hanging["L_Wrist"][1] < hanging["L_Elbow"][1] < hanging["L_Shoulder"][1]
    for limbs in ({"arm_flex": 170}, {"arm_abd": 130}):
        raised = joints_of({}, limbs)
        assert raised["L_Wrist"][1] > raised["L_Shoulder"][1] + 0.2


@pytest.mark.parametrize("name", [*TRUNK, *LIMBS])
def test_a_movement_stops_at_its_limits(name: str) -> None:
    movement = {**TRUNK, **LIMBS}[name]

    def rotations(degrees: float) -> np.ndarray:
        angle = np.array([degrees])
        return pose_matrices({name: angle}, {"toe": 0 * SIDES}) if name in TRUNK else pose_matrices(
            {}, {name: degrees * SIDES}
        )  # fmt: skip

    np.testing.assert_array_equal(rotations(movement.high_deg), rotations(movement.high_deg + 40))
    np.testing.assert_array_equal(rotations(movement.low_deg), rotations(movement.low_deg - 40))
    assert not np.allclose(rotations(movement.low_deg), rotations(movement.high_deg), atol=0.1)


def test_exchanged_sides_give_the_mirror_image() -> None:
    rng = np.random.default_rng(0)
    trunk = {name: rng.uniform(m.low_deg, m.high_deg, 20) for name, m in TRUNK.items()}
    limbs = {name: rng.uniform(m.low_deg, m.high_deg, (20, 2)) for name, m in LIMBS.items()}
    turned = {name: angle if TRUNK[name].axis == 0 else -angle for name, angle in trunk.items()}
    one = joints_m(pose_matrices(trunk, limbs))[1]
    other = joints_m(pose_matrices(turned, {name: angle[:, ::-1] for name, angle in limbs.items()}))[1]
    swap = np.arange(24)
    for left, right in SMPL30_FLIP_PAIRS:
        if right < 24:
            swap[[left, right]] = right, left
    np.testing.assert_allclose(other, one[:, swap] * [-1, 1, 1], atol=1e-3)


@pytest.mark.parametrize("shape", [(0, 24), (50, 24), (7,)])
def test_axis_angles_undo_matrices(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    vector = rng.standard_normal((*shape, 3))
    vector *= rng.uniform(0, 3.1, (*shape, 1)) / np.linalg.norm(vector, axis=-1, keepdims=True)
    np.testing.assert_allclose(axis_angle_from_matrix(matrix_from_axis_angle(vector)), vector, atol=1e-9)
    assert not axis_angle_from_matrix(np.eye(3)).any()
