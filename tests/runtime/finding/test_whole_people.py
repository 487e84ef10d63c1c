"""Who is only a part of somebody else."""

from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.runtime.finding.box_selection import explained, whole_people
from jotr_deploy.skeletons import SMPL30_INDEX

BOX = np.array([0.0, 0, 100, 200])
PLACES = {
    "Nose": (50, 10), "L_Shoulder": (70, 40), "R_Shoulder": (30, 40), "L_Elbow": (85, 75), "R_Elbow": (15, 75),
    "L_Wrist": (95, 110), "R_Wrist": (5, 110), "L_Hip": (62, 105), "R_Hip": (38, 105), "L_Knee": (64, 150),
    "R_Knee": (36, 150), "L_Ankle": (66, 195), "R_Ankle": (34, 195),
}  # fmt: skip


def pose(*names: str, shift: tuple[float, float] = (0, 0), scale: float = 1.0) -> np.ndarray:
    """Joints of a person who stands in BOX, or some of them, moved and shrunk."""
    joints = np.zeros((30, 3))
    for name in names or PLACES:
        joints[SMPL30_INDEX[name]] = *(np.array(PLACES[name]) * scale + shift), 0.8
    return joints


def kept(people: list[tuple[np.ndarray, np.ndarray]], strength: list[float], most: float = 0.8) -> list[int]:
    joints = np.array([each[0] for each in people]).reshape(-1, 30, 3)
    boxes = np.array([each[1] for each in people]).reshape(-1, 4)
    return whole_people(joints, boxes, np.array(strength), most).tolist()


WHOLE = pose(), BOX
LEGS = pose("L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle"), np.array([20.0, 100, 80, 200])
REACHING = pose(), np.array([0.0, 0, 300, 200])
SMALL = pose(shift=(200, 100), scale=0.4), np.array([200.0, 100, 240, 180])
BESIDE = pose(shift=(150, 0)), np.array([150.0, 0, 250, 200])


@pytest.mark.parametrize(
    ("people", "strength", "expected"),
    [
        ([], [], []),
        ([WHOLE], [0.5], [0]),
        ([WHOLE, LEGS], [0.5, 0.2], [0]),
        ([LEGS, WHOLE], [0.2, 0.5], [1]),
        ([WHOLE, LEGS, BESIDE], [0.2, 0.5, 0.1], [0, 1, 2]),  # the whole body is not inside the box of the legs
        ([WHOLE, BESIDE], [0.5, 0.2], [0, 1]),
        ([REACHING, SMALL], [0.5, 0.2], [0, 1]),  # inside the box, but on no limb
        ([WHOLE, (pose() * 0, LEGS[1])], [0.5, 0.2], [0, 1]),  # no joint is known
        ([(pose("Nose"), BOX), LEGS], [0.5, 0.2], [0, 1]),  # no limb is known
    ],
)
def test_who_stays(people, strength, expected):
    assert kept(people, strength) == expected


def test_nobody_is_a_part_from_a_share_of_one_on():
    assert kept([WHOLE, LEGS], [0.5, 0.2], most=1.0) == [0, 1]


def test_a_part_of_somebody_dropped_may_stay():
    other = pose("L_Knee", "L_Ankle"), np.array([55.0, 140, 75, 200])
    assert kept([WHOLE, LEGS, other], [0.5, 0.3, 0.2]) == [0]
    assert kept([LEGS, other], [0.3, 0.2]) == [0]


def test_shares_of_joints_on_limbs():
    joints = np.stack([pose(), pose("L_Knee", "R_Knee", shift=(60, 0))])  # one knee beyond the box, one beside a shin
    shares = explained(joints, np.stack([BOX, BOX]))
    np.testing.assert_allclose(np.diag(shares), [1, 0])
    assert shares[0, 1] == 0
