"""The published joint set: 14 joints regressed from vertices, and the file that they are regressed by."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_case import load, standin
from numpy.testing import assert_allclose

from jotr_deploy.errors import BodyFileError
from jotr_deploy.evaluation.error_statistics import Figures
from jotr_deploy.evaluation.measured_joints import EVALUATED, H36MRegressor, by_name, load_h36m_regressor
from jotr_deploy.evaluation.measured_people import Samples, Truth
from jotr_deploy.people import LAYOUT, People
from jotr_deploy.skeletons import H36M17, SMPL30
from jotr_deploy.support.aliases import Array

SEED = "jotr-golden-A/"


def one_vertex_a_joint() -> Array:
    """A regressor that takes joint n of 17 to be vertex 10 n."""
    rows = np.zeros((17, 6890))
    rows[np.arange(17), 10 * np.arange(17)] = 1
    return rows


def people(vertices_m: Array) -> People:
    """People of whom nothing but the mesh is known."""
    count = len(vertices_m)
    rest = {name: np.zeros((count, *shape), dtype) for name, (shape, dtype) in LAYOUT.items()}
    return People(**{**rest, "vertices_m": vertices_m})


def test_by_hand(rng: np.random.Generator) -> None:
    vertices_m = rng.normal(size=(2, 6890, 3))
    found = H36MRegressor(one_vertex_a_joint())(np.zeros((2, 30, 3)), vertices_m)
    assert found.shape == (2, 14, 3)
    for place, name in enumerate(EVALUATED):
        assert_allclose(found[:, place], vertices_m[:, 10 * H36M17.index(name)] - vertices_m[:, 0])


def test_names_are_those_of_the_synthetic_protocol(rng: np.random.Generator) -> None:
    joints_m = rng.normal(size=(2, 30, 3))
    found = by_name(joints_m, np.zeros((2, 6890, 3)))
    assert_allclose(found, joints_m[:, [SMPL30.index(name) for name in EVALUATED]])


def test_nobody() -> None:
    assert H36MRegressor(one_vertex_a_joint())(np.zeros((0, 30, 3)), np.zeros((0, 6890, 3))).shape == (0, 14, 3)


def test_the_recorded_metrics_through_the_evaluation(tmp_path: Path) -> None:
    """The recorded mesh pairs, the regressor through a file, and the figures that `eval` prints."""
    body = standin.standin_body(SEED)
    template = body["v_template"].reshape(6890, 3)

    def normal(name: str, *shape: int) -> Array:
        return standin.normal(SEED, name, shape)

    true_m = (template + 0.02 * normal("met.gt", 5, 6890, 3) + normal("met.off", 5, 1, 3)).astype(np.float32)
    maps = np.eye(3) + 0.25 * normal("met.rot", 5, 3, 3)
    maps[1] = maps[1] @ np.diag([1, 1, -1])
    found_m = np.einsum("nij,nvj->nvi", maps, template + 0.05 * normal("met.pr", 5, 6890, 3)).astype(np.float32)
    found_m, true_m = (mesh - body["J_regressor"][:1] @ mesh for mesh in (found_m, true_m))
    np.save(tmp_path / "J_regressor_h36m_correct.npy", body["J_regressor_h36m"])
    evaluated = load_h36m_regressor(tmp_path / "J_regressor_h36m_correct.npy")
    truth = Truth(np.zeros((5, 30, 3)), true_m, np.ones((5, 30), bool), np.ones(5))
    samples = Samples.of(people(found_m), truth, evaluated)
    recorded = load("metrics")
    assert_allclose(samples.joints_mm.mean(1), recorded["mpjpe"], atol=1e-3)
    assert_allclose(samples.aligned_mm.mean(1), recorded["pa_mpjpe"], atol=1e-3)
    assert_allclose(samples.vertices_mm, recorded["mpvpe"], atol=1e-3)
    figures = Figures.of(samples)
    assert figures.mpjpe_mm == pytest.approx(recorded["mpjpe"].mean(), abs=1e-3)
    assert figures.pa_mpjpe_mm == pytest.approx(recorded["pa_mpjpe"].mean(), abs=1e-3)


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        (np.zeros((17, 6889)), "the regressor is float64 (17, 6889), expected floats (17, 6890)"),
        (np.zeros((6890, 17), np.float32), "the regressor is float32 (6890, 17), expected floats (17, 6890)"),
        (np.zeros((0,)), "the regressor is float64 (0,), expected floats (17, 6890)"),
        (np.zeros((17, 6890), "U1"), "the regressor is <U1 (17, 6890), expected floats (17, 6890)"),
        (one_vertex_a_joint() * 2, "the weights of Pelvis add up to 2, not to 1"),
        (one_vertex_a_joint() * np.nan, "the weights of Pelvis add up to nan, not to 1"),
        (np.concatenate([one_vertex_a_joint()[:16], np.zeros((1, 6890))]),
         "the weights of R_Wrist add up to 0, not to 1"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_regressor(tmp_path: Path, rows: Array, cause: str) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, rows)
    with pytest.raises(BodyFileError) as refused:
        load_h36m_regressor(path)
    assert refused.value.cause == f"{path}: {cause}"
    assert refused.value.remedy == "give the published J_regressor_h36m_correct.npy, (17, 6890)"


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_files_that_are_no_array(tmp_path: Path) -> None:
    whole, touched = tmp_path / "whole.npy", tmp_path / "touched"
    np.save(whole, one_vertex_a_joint())
    np.savez(tmp_path / "rows.npz", rows=one_vertex_a_joint())
    contents = {
        "empty.npy": b"", "text.npy": b"rows", "cut.npy": whole.read_bytes()[:5000],
        "pickle.npy": pickle.dumps(Hostile(touched)),
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BodyFileError, match=f"{name}: .*not a NumPy array file"):
            load_h36m_regressor(tmp_path / name)
    np.save(tmp_path / "objects.npy", np.array([Hostile(touched)], object), allow_pickle=True)
    with pytest.raises(
        BodyFileError, match=r"objects\.npy: a NumPy array \(\.npy\), but damaged or not a NumPy array file"
    ):
        load_h36m_regressor(tmp_path / "objects.npy")
    assert not touched.exists()
    for name, cause in (
        ("rows.npz", "not a NumPy array file: it is a NumPy archive (.npz)"),
        ("absent.npy", "no such file"),
    ):
        with pytest.raises(BodyFileError) as refused:
            load_h36m_regressor(tmp_path / name)
        assert refused.value.cause == f"{tmp_path / name}: {cause}"
    assert load_h36m_regressor(whole).rows.dtype == np.float64
