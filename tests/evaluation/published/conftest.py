"""SMPL's files and the regressor as a user has them, of no one's data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jotr_deploy.body.smpl import JOINTS, PARENTS, stand_in

SIZES = {"neutral": 1.0, "male": 1.1, "female": 0.9}
"""How tall the bodies of these tests are, against the stand-in body."""


@pytest.fixture(scope="session")
def smpl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three bodies that do not say they are stand-ins: of other sizes, and the pose moves their skin.

    The pelvis of the male one is not that of the neutral one.
    """
    folder, body = tmp_path_factory.mktemp("smpl"), stand_in()
    bumps = np.random.default_rng(0).normal(0, 0.001, (6890, 3, 207)).astype(np.float16)
    for gender, size in SIZES.items():
        regressor = body.J_regressor.copy()
        if gender == "male":
            regressor[0] = regressor[3]
        np.savez(
            folder / f"SMPL_{gender.upper()}.npz",
            v_template=body.v_template * size, shapedirs=body.shapedirs, posedirs=bumps, J_regressor=regressor,
            weights=body.weights, f=body.faces, kintree_table=np.array([[-1, *PARENTS[1:]], range(JOINTS)]),
        )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def h36m_regressor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Joint n of 17 is vertex 10 n."""
    rows = np.zeros((17, 6890))
    rows[np.arange(17), 10 * np.arange(17)] = 1
    path = tmp_path_factory.mktemp("regressor") / "J_regressor_h36m_correct.npy"
    np.save(path, rows)
    return path
