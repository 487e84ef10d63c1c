"""The metrics: equal to the recorded ones, and their laws."""

from __future__ import annotations

import numpy as np
import pytest
from golden_case import load, standin
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from jotr_deploy.evaluation.metrics import aligned, distances_mm, mpjpe_mm, pa_mpjpe_mm
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.skeletons import H36M14_IN_H36M17
from jotr_deploy.support.aliases import Array

SEED = "jotr-golden-A/"


@pytest.fixture(scope="module")
def pairs() -> tuple[Array, Array, dict[str, Array]]:
    """The recorded mesh pairs, found and true, and the body they are made of."""
    body = standin.standin_body(SEED)
    template = body["v_template"].reshape(6890, 3)

    def normal(name: str, *shape: int) -> Array:
        return standin.normal(SEED, name, shape)

    truth = template + 0.02 * normal("met.gt", 5, 6890, 3) + normal("met.off", 5, 1, 3)
    maps = np.eye(3) + 0.25 * normal("met.rot", 5, 3, 3)
    maps[1] = maps[1] @ np.diag([1, 1, -1])
    found = np.einsum("nij,nvj->nvi", maps, template + 0.05 * normal("met.pr", 5, 6890, 3))
    return found.astype(np.float32), truth.astype(np.float32), body


def test_the_recorded_metrics(pairs: tuple[Array, Array, dict[str, Array]]) -> None:
    found, truth, body = pairs
    recorded = load("metrics")
    assert_allclose(truth.sum((1, 2), dtype=np.float64), recorded["gt_sum"], rtol=1e-6)
    assert_allclose(found.sum((1, 2), dtype=np.float64), recorded["pred_sum"], rtol=1e-6)

    def evaluated(mesh: Array) -> Array:
        joints = body["J_regressor_h36m"] @ mesh
        return (joints - joints[:, :1])[:, list(H36M14_IN_H36M17)]

    def relative(mesh: Array) -> Array:
        return mesh - (body["J_regressor"][:1] @ mesh)

    assert_allclose(mpjpe_mm(evaluated(found), evaluated(truth)), recorded["mpjpe"], atol=1e-3)
    assert_allclose(pa_mpjpe_mm(evaluated(found), evaluated(truth)), recorded["pa_mpjpe"], atol=1e-3)
    assert_allclose(mpjpe_mm(relative(found), relative(truth)), recorded["mpvpe"], atol=1e-3)


def test_the_recorded_alignment() -> None:
    recorded = load("metrics")
    assert_allclose(aligned(recorded["rigid/A"], recorded["rigid/B"]), recorded["rigid/aligned"], atol=1e-9)


SEEDS = st.integers(0, 2**32 - 1)


def point_sets(seed: int, people: int = 3, mirrored: bool = False) -> tuple[Array, Array, np.random.Generator]:
    """Found and true joints; the found ones may be near the mirror image of the true ones."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(people, 14, 3))
    found = truth * (1, 1, -1 if mirrored else 1) + rng.uniform(0, 1) * rng.normal(size=truth.shape)
    return found, truth, rng


@given(SEEDS, st.booleans())
def test_aligned_error_ignores_a_similarity(seed: int, mirrored: bool) -> None:
    found, truth, rng = point_sets(seed, mirrored=mirrored)
    rotation = matrix_from_axis_angle(rng.normal(size=(3, 3)))
    scale, shift = rng.uniform(0.1, 10, (3, 1, 1)), rng.normal(size=(3, 1, 3))
    moved = scale * (found @ np.swapaxes(rotation, -1, -2)) + shift
    assert_allclose(pa_mpjpe_mm(moved, truth), pa_mpjpe_mm(found, truth), atol=1e-6)


@given(SEEDS, st.booleans())
def test_no_similarity_is_nearer(seed: int, mirrored: bool) -> None:
    found, truth, _ = point_sets(seed, mirrored=mirrored)
    squared_mm2 = (distances_mm(aligned(found, truth), truth) ** 2).mean(-1)
    assert (squared_mm2 <= (distances_mm(found, truth) ** 2).mean(-1) * (1 + 1e-9)).all()


@pytest.mark.slow
@given(SEEDS)
def test_what_is_right_has_no_error(seed: int) -> None:
    _, truth, _ = point_sets(seed)
    assert (mpjpe_mm(truth, truth) == 0).all()
    assert_allclose(pa_mpjpe_mm(truth, truth), 0, atol=1e-9)


@given(SEEDS)
def test_a_mirror_image_is_not_aligned_away(seed: int) -> None:
    _, truth, _ = point_sets(seed)
    assert (pa_mpjpe_mm(truth * (1, 1, -1), truth) > 10).all()


@given(SEEDS)
def test_many_people_are_each_by_themselves(seed: int) -> None:
    found, truth, _ = point_sets(seed, people=4)
    assert_allclose(pa_mpjpe_mm(found, truth), [pa_mpjpe_mm(a, b) for a, b in zip(found, truth, strict=True)])
    grid = (2, 2, 14, 3)
    assert_allclose(aligned(found.reshape(grid), truth.reshape(grid)).reshape(4, 14, 3), aligned(found, truth))


@given(SEEDS)
def test_points_that_do_not_count_are_only_moved_along(seed: int) -> None:
    found, truth, rng = point_sets(seed)
    counted = rng.random(truth.shape[:2]) < 0.5
    counted[:, :4] = True
    spoilt = np.where(counted[..., None], found, found + rng.normal(size=found.shape))
    for moved, who, use in zip(aligned(spoilt, truth, counted), range(3), counted, strict=True):
        assert_allclose(moved[use], aligned(found[who][use], truth[who][use]), atol=1e-9)
    rotation, shift = matrix_from_axis_angle(rng.normal(size=3)), rng.normal(size=3)
    assert_allclose(aligned(truth @ rotation + shift, truth, counted), truth, atol=1e-9)
    assert (aligned(found, truth, np.ones((3, 14), bool)) == aligned(found, truth)).all()


def test_one_truth_for_many() -> None:
    found, truth, _ = point_sets(0)
    assert_allclose(aligned(found, truth[:1]), aligned(found, np.repeat(truth[:1], 3, 0)))


def test_units() -> None:
    found, truth = np.zeros((1, 2, 3)), np.array([[[0.003, 0.004, 0], [0, 0, 0.001]]])
    assert_allclose(distances_mm(found, truth), [[5, 1]])
    assert_allclose(mpjpe_mm(found, truth), [3])


def test_nobody() -> None:
    nobody = np.zeros((0, 14, 3), np.float32)
    assert distances_mm(nobody, nobody).shape == (0, 14)
    assert mpjpe_mm(nobody, nobody).shape == pa_mpjpe_mm(nobody, nobody).shape == (0,)
    assert aligned(nobody, nobody).shape == (0, 14, 3)


def test_degenerate_points() -> None:
    found, truth, _ = point_sets(0, people=2)
    point = np.broadcast_to(found[:, :1], found.shape)
    assert_allclose(aligned(point, truth), np.broadcast_to(truth.mean(1, keepdims=True), truth.shape))
    found[1, 3] = np.nan
    assert np.isfinite(aligned(found, truth)[0]).all()
    assert np.isnan(aligned(found, truth)[1]).all()
