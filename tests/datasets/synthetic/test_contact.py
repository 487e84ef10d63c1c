from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.datasets.synthetic.anatomy import pose_matrices
from jotr_deploy.datasets.synthetic.contact import overlap_m


def overlap_of(limbs: dict[str, float | tuple[float, float]]) -> float:
    return float(overlap_m(pose_matrices({}, {name: np.broadcast_to(v, (1, 2)) for name, v in limbs.items()}))[0])


@pytest.mark.parametrize(
    "limbs",
    [
        {"arm_abd": 90},
        {"arm_abd": 12, "hip_abd": 4},
        {"arm_flex": 90, "hip_flex": 90, "knee": 90, "hip_abd": 6},
        {"arm_abd": 15, "hip_flex": (30, -20), "hip_abd": 3},
    ],
)
def test_ordinary_poses_are_free(limbs: dict[str, float | tuple[float, float]]) -> None:
    assert overlap_of(limbs) < 0.02


@pytest.mark.parametrize(
    ("limbs", "what"),
    [
        ({"arm_abd": -30, "hip_abd": 5}, "arms in the trunk"),
        ({"arm_flex": 30, "arm_roll": 75, "elbow": 130, "hip_abd": 5}, "forearms in the chest"),
        ({"arm_abd": 90, "hip_abd": -15}, "legs in each other"),
        ({"arm_abd": 90, "hip_flex": 90, "hip_rot": 40, "knee": 110}, "shins in each other"),
        (
            {"arm_flex": 20, "arm_abd": 4, "arm_roll": 15, "elbow": 30, "hip_flex": 90, "hip_abd": 8},
            "hands in the thighs",
        ),
    ],
)
def test_gross_overlaps_are_found(limbs: dict[str, float | tuple[float, float]], what: str) -> None:
    assert overlap_of(limbs) > 0.02, what


def test_nobody_overlaps_nothing() -> None:
    assert overlap_m(np.zeros((0, 24, 3, 3))).shape == (0,)
