"""Skinning in NumPy is that of PyTorch; the coarse mesh is a closed mesh on some of the same vertices."""

from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.datasets.synthetic.skinning import (
    body,
    coarse_mesh,
    full_mesh,
    joint_mesh,
    joint_motions,
    normals,
    regressor_30,
    skin,
)
from jotr_deploy.geometry.raster import vertex_normals


def people(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    return rng.normal(0, 0.5, (count, 24, 3)).astype(np.float32), rng.normal(0, 1, (count, 10)).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_equal_to_the_network_s_skinning(count: int) -> None:
    torch = pytest.importorskip("torch", reason="needs the export extra (PyTorch)")
    from jotr_deploy.body.lbs import SkinnedBody

    pose, betas = people(count)
    vertices, joints = SkinnedBody(body())(torch.from_numpy(pose), torch.from_numpy(betas))
    motions = joint_motions(pose, betas)
    found = skin(full_mesh(), motions, betas)
    assert found.shape == (count, 6890, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vertices.numpy(), atol=1e-5)
    mesh, regressor = joint_mesh()
    np.testing.assert_allclose(np.matmul(regressor, skin(mesh, motions, betas)), joints.numpy(), atol=1e-5)


def test_parts_of_the_mesh_move_as_the_whole() -> None:
    pose, betas = people(2)
    motions = joint_motions(pose, betas)
    whole = skin(full_mesh(), motions, betas)
    for mesh in (coarse_mesh(), joint_mesh()[0]):
        np.testing.assert_allclose(skin(mesh, motions, betas), whole[:, mesh.vertex], atol=1e-6)


@pytest.mark.parametrize("mesh", [full_mesh(), coarse_mesh()], ids=["full", "coarse"])
def test_meshes_are_closed(mesh: object) -> None:
    faces = mesh.faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    there = {tuple(edge) for edge in edges.tolist()}
    assert len(there) == len(edges)  # in each direction at most once
    assert there == {(b, a) for a, b in there}
    assert len(mesh.vertex) - len(edges) // 2 + len(faces) == 2  # of genus 0


def test_the_coarse_mesh_is_smaller_and_of_almost_the_same_volume() -> None:
    def volume(mesh: object) -> float:
        a, b, c = (mesh.template_m.astype(np.float64)[mesh.faces[:, k]] for k in range(3))
        return float((a * np.cross(b, c)).sum() / 6)

    assert len(coarse_mesh().vertex) < 2000
    assert 0.95 < volume(coarse_mesh()) / volume(full_mesh()) < 1.0


def test_normals_are_those_of_the_rasteriser() -> None:
    mesh = coarse_mesh()
    expected = vertex_normals(mesh.template_m, mesh.faces)
    np.testing.assert_allclose(normals(mesh, mesh.template_m), expected, atol=1e-4)


def test_the_joint_mesh_leaves_nothing_out() -> None:
    mesh, regressor = joint_mesh()
    assert regressor.any(0).all()
    np.testing.assert_allclose(regressor @ mesh.template_m, regressor_30() @ body().v_template, atol=1e-6)
