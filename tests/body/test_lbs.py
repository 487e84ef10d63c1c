"""Skinning: recorded oracle, the smplx package where it is installed, laws, and the planar form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_case import body, load, standin

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.planar import PlanarBody
from jotr_deploy.body.smpl import BodyModel, stand_in
from jotr_deploy.body.torch_rotations import matrix_from_axis_angle

SEED = "jotr-golden-A/"


def random_pose(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 24, 3, generator=random) * 0.6, torch.randn(batch, 10, generator=random)


def test_equals_the_recorded_skinning() -> None:
    g = {k: torch.from_numpy(v) for k, v in load("geometry").items() if k.startswith("smpl/")}
    with torch.inference_mode():
        vertices, joints = SkinnedBody(body(SEED))(g["smpl/pose"].unflatten(1, (24, 3)), g["smpl/beta"])
    vertices = vertices + g["smpl/trans"][:, None]
    np.testing.assert_allclose(vertices[:, standin.MESH_IDS], g["smpl/verts_512"], rtol=0, atol=1e-5)
    assert joints.shape == (4, 30, 3)


def test_equals_smplx() -> None:
    smplx = pytest.importorskip("smplx", reason="pip install '.[smplx]' (non-commercial) for the comparison")
    arrays = standin.standin_body(SEED)
    tree = np.array([arrays["kintree_parents"], np.arange(24)])
    struct = smplx.utils.Struct(**{**arrays, "f": arrays["faces"], "kintree_table": tree})
    oracle = smplx.SMPL("unused.pkl", data_struct=struct, create_transl=False)
    pose, betas = random_pose(3)
    expected = oracle(betas=betas, body_pose=pose[:, 1:].flatten(1), global_orient=pose[:, 0]).vertices
    vertices, _ = SkinnedBody(body(SEED))(pose, betas)
    np.testing.assert_allclose(vertices.detach(), expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", [body(SEED), stand_in()], ids=["with pose directions", "stand-in"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_planar_form_is_equal(model: BodyModel, batch: int) -> None:
    plain = SkinnedBody(model)
    planar = PlanarBody(plain)
    with torch.inference_mode():
        for found, expected in zip(planar(*random_pose(batch)), plain(*random_pose(batch)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_zero_pose_directions_are_left_out() -> None:
    assert len(PlanarBody(SkinnedBody(stand_in())).directions) == 10
    assert len(PlanarBody(SkinnedBody(body(SEED))).directions) == 10 + 207


def test_rest_pose_is_the_template() -> None:
    model = stand_in()
    vertices, joints = SkinnedBody(model)(torch.zeros(1, 24, 3), torch.zeros(1, 10))
    np.testing.assert_allclose(vertices[0], model.v_template, atol=1e-6)
    np.testing.assert_allclose(joints[0], model.regressor_30() @ model.v_template, atol=1e-5)


def test_turning_the_root_turns_everything() -> None:
    skinned = SkinnedBody(stand_in())
    pose, betas = random_pose(2)
    turned = pose.clone()
    pose[:, 0], turned[:, 0] = 0, torch.tensor([0.3, -1.1, 0.4])
    (still, still_joints), (moved, moved_joints) = skinned(pose, betas), skinned(turned, betas)
    rotation = matrix_from_axis_angle(turned[:1, 0])[0]
    pelvis = still_joints[:, :1]
    # The root turns about the skinning pelvis, which the regressed pelvis follows.
    np.testing.assert_allclose(moved - moved_joints[:, :1], (still - pelvis) @ rotation.T, atol=1e-5)
