"""Parts of the network against recorded vectors: positions, anchors, heat maps, cameras, rotations, skinning."""

from __future__ import annotations

import numpy as np
import torch
from golden_case import load, network

from jotr_deploy.body.torch_rotations import (
    axis_angle_from_matrix,
    axis_angle_from_quaternion,
    matrix_from_6d,
    matrix_from_axis_angle,
)
from jotr_deploy.model.backbone import draw_heatmaps
from jotr_deploy.model.fusion import inverse_sigmoid, sine_positions_2d
from jotr_deploy.model.jotr import camera_translation, project_cells, render_translation
from jotr_deploy.model.lifting import anchors, sine_table

SEED = "jotr-golden-A/"
G = {name: torch.from_numpy(value) for name, value in load("geometry").items() if value.dtype.kind == "f"}


def close(found: torch.Tensor, expected: torch.Tensor, atol: float) -> None:
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=atol)


def test_rotation_from_six_numbers() -> None:
    close(axis_angle_from_matrix(matrix_from_6d(G["rot6d/in"])), G["rot6d/axis_angle"], 1e-4)


def test_rows_that_the_published_code_gets_wrong_in_a_batch_of_three() -> None:
    three = axis_angle_from_matrix(matrix_from_6d(G["rot6d/in"][10:13]))
    close(three, G["rot6d/axis_angle"][10:13], 1e-4)
    assert (three - G["rot6d/batch3_quirk_axis_angle"]).abs().max() > 0.5


def test_axis_angle_and_matrix_are_inverse() -> None:
    vectors = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    vectors = vectors / vectors.norm(dim=1, keepdim=True) * torch.linspace(0, 3.1, 500)[:, None]
    close(axis_angle_from_matrix(matrix_from_axis_angle(vectors)), vectors, 1e-4)


def test_the_angle_is_as_exact_as_an_arc_tangent() -> None:
    angles = torch.cat([torch.zeros(1), torch.logspace(-12, 0, 200), torch.linspace(0, 3.1415, 2000)])[:, None]
    axes = torch.nn.functional.normalize(torch.randn(len(angles), 3, generator=torch.Generator().manual_seed(0)))
    quaternions = torch.cat([(angles / 2).cos(), (angles / 2).sin() * axes], -1)
    w, sine = quaternions[:, :1].double(), quaternions[:, 1:].double().norm(dim=-1, keepdim=True)
    expected = torch.where(sine > 0, 2 * torch.atan2(sine, w) / sine, 2.0) * quaternions[:, 1:]
    found = axis_angle_from_quaternion(quaternions)
    close(found, expected.float(), 1e-6)  # 4 units of float32 at pi
    close(axis_angle_from_quaternion(-quaternions), found, 0)
    assert not found[0].any()


def test_gradients_are_finite_at_the_identity() -> None:
    six = torch.tensor([[1.0, 0, 0, 1, 0, 0]], requires_grad=True)
    axis_angle_from_matrix(matrix_from_6d(six)).sum().backward()
    assert torch.isfinite(six.grad).all()


def test_pose_prior() -> None:
    with torch.inference_mode():
        found = network(SEED).vposer(G["vposer/in"]).flatten(1)
    close(torch.cat([found, torch.zeros(8, 6)], 1), G["vposer/out69"], 1e-4)


def test_cameras() -> None:
    close(camera_translation(G["camera/param"]), G["camera/trans"], 1e-4)
    close(render_translation(G["camera/param"], G["camera/bbox"]), G["camera/trans_render"], 1e-4)


def test_heatmaps() -> None:
    joints = G["heatmap/joints"]
    close(draw_heatmaps(joints, torch.ones(joints.shape[:2]), 64)[:, :, ::4, ::4], G["heatmap/out_slice"], 1e-6)


def test_masked_joints_leave_no_trace() -> None:
    joints = G["heatmap/joints"]
    assert not draw_heatmaps(joints, torch.zeros(joints.shape[:2]), 64).any()


def test_anchors() -> None:
    found = torch.stack([anchors(8, exponent) for exponent in G["anchor/exponents"]])
    close(found.float(), G["anchor/out"], 1e-6)


def test_positions() -> None:
    close(sine_table(512, 256)[::16, ::4], G["pos1d/slice"], 1e-6)
    table = sine_positions_2d(8, 256).T.unflatten(1, (8, 8))
    close(table[::4], G["pos2d/slice"], 1e-5)


def test_inverse_sigmoid() -> None:
    close(inverse_sigmoid(G["inv_sigmoid/in"].clamp(0, 1)), G["inv_sigmoid/out"], 1e-4)


def test_projection_and_pelvis() -> None:
    body = network(SEED).body
    with torch.inference_mode():
        vertices, joints = body(G["smpl/pose"].unflatten(1, (24, 3)), G["smpl/beta"])
    joints = joints + G["smpl/trans"][:, None]
    close(joints - joints[:, :1], G["coord/joint_cam30"], 1e-4)
    close(project_cells(joints, 256), G["coord/joint_proj"], 5e-4)
    assert torch.isfinite(vertices).all()
