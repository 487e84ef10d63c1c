"""Joints that are evaluated, and how they are regressed from a person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from jotr_deploy.body.smpl import read_array
from jotr_deploy.errors import BodyFileError
from jotr_deploy.skeletons import H36M14_IN_H36M17, H36M17, SMPL30, SMPL30_INDEX
from jotr_deploy.support.aliases import Array


class EvaluatedJoints(Protocol):
    """Function of joints (N, 30, 3) and vertices (N, 6890, 3) of people, metres -> (N, 14, 3) evaluated joints."""

    def __call__(self, joints_m: Array, vertices_m: Array) -> Array:
        """Joints relative to their pelvis."""

    def placed(self, joints_m: Array, vertices_m: Array) -> Array:
        """Joints in the frame of what is given."""


# The 14 joints of the published evaluation, found by name in the 30-joint set.
EVALUATED: tuple[str, ...] = tuple(H36M17[index] for index in H36M14_IN_H36M17)
EVALUATED_IN_SMPL30: tuple[int, ...] = tuple(SMPL30_INDEX[name] for name in EVALUATED)

_PART_OF = {
    **dict.fromkeys(("Neck", "Head", "Nose", "Eye", "Ear", "Head_top"), "head"),
    **dict.fromkeys(("Pelvis", "Torso", "Spine", "Chest", "Thorax"), "torso"),
    **dict.fromkeys(("Shoulder", "Elbow", "Wrist"), "arms"),
    "Hand": "hands",
    **dict.fromkeys(("Hip", "Knee", "Ankle", "Toe"), "legs"),
}
_PARTS = [_PART_OF[name.removeprefix("L_").removeprefix("R_")] for name in SMPL30]
# Indices into the 30-joint set by body part; every joint is in one.
BODY_PARTS: dict[str, tuple[int, ...]] = {
    part: tuple(index for index, own in enumerate(_PARTS) if own == part) for part in dict.fromkeys(_PART_OF.values())
}


class ByName:
    """Evaluated joints by name from the 30-joint set, of people relative to its pelvis."""

    def __call__(self, joints_m: Array, vertices_m: Array) -> Array:
        """(N, 14, 3)."""
        return joints_m[:, list(EVALUATED_IN_SMPL30)]

    placed = __call__


by_name = ByName()


@dataclass(frozen=True)
class H36MRegressor:
    """Regressor of the evaluated joints from the vertices, as in the published evaluation."""

    rows: Array  # (17, 6890) joints H36M17 from vertices

    def __call__(self, joints_m: Array, vertices_m: Array) -> Array:
        """(N, 14, 3) relative to the H36M pelvis; `joints_m` is ignored."""
        joints = self.rows @ vertices_m
        return np.asarray((joints - joints[:, :1])[:, list(H36M14_IN_H36M17)])

    def placed(self, joints_m: Array, vertices_m: Array) -> Array:
        """(N, 14, 3) in the frame of the vertices; `joints_m` is ignored."""
        return np.asarray(self.rows_14 @ vertices_m)

    @property
    def rows_14(self) -> Array:
        """(14, 6890) the evaluated joints from vertices."""
        return self.rows[list(H36M14_IN_H36M17)]


_SUMS_WITHIN = 0.01
"""Tolerance of the sum of a joint's weights about 1; with another sum a joint would drift as the person moves."""


def load_h36m_regressor(path: Path) -> H36MRegressor:
    """Read `J_regressor_h36m_correct.npy`; nothing in the file is run.

    Raises:
        BodyFileError: no such file, not a NumPy array, of another shape, or not weights of joints.
    """
    remedy = f"give the published J_regressor_h36m_correct.npy, ({len(H36M17)}, 6890)"
    rows = read_array(path, remedy)
    if rows.shape != (len(H36M17), 6890) or rows.dtype.kind not in "fiu":
        found = f"{rows.dtype} {rows.shape}"
        raise BodyFileError(f"{path}: the regressor is {found}, expected floats ({len(H36M17)}, 6890)", remedy)
    sums = rows.sum(1, dtype=np.float64)
    wrong = np.flatnonzero(~(np.abs(sums - 1) <= _SUMS_WITHIN))
    if len(wrong):
        joint = H36M17[wrong[0]]
        raise BodyFileError(f"{path}: the weights of {joint} add up to {sums[wrong[0]]:g}, not to 1", remedy)
    return H36MRegressor(rows.astype(np.float64))
