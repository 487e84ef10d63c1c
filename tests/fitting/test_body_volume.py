"""The volume is where the skinned mesh is, and its Gaussians follow the pose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_scene import kernels, people, volume

from jotr_deploy.body.lbs import SkinnedBody, joint_transforms
from jotr_deploy.body.smpl import BodyModel, stand_in
from jotr_deploy.body.torch_rotations import matrix_from_axis_angle
from jotr_deploy.fitting.gaussian_precision import blended_precision, nearest_rotation, polar_precision
from jotr_deploy.fitting.kernel_selection import Reach, select
from jotr_deploy.fitting.kernels import decimate
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.rendering import at_slots, slot_weights, unit
from jotr_deploy.fitting.volume import BodyVolume, chained


def with_correctives() -> BodyModel:
    draw = np.random.default_rng(0)
    return replace(stand_in(), posedirs=draw.normal(0, 0.003, (6890, 3, 207)).astype(np.float32))


@pytest.mark.parametrize("body", [stand_in(), with_correctives()], ids=["plain", "with pose correctives"])
def test_centres_and_joints_are_those_of_the_mesh(body: BodyModel) -> None:
    some = decimate(body, 60)
    bodies = people(2)
    pose, betas = bodies.pose_rad.double(), bodies.betas.double()
    plain = SkinnedBody(body).double()
    mesh, joints = plain(pose, betas)
    made = BodyVolume(body, some)
    torch.testing.assert_close(made(pose, betas).centres_m, mesh[:, some.indices], atol=1e-9, rtol=0)
    torch.testing.assert_close(made.joints(pose, betas), joints, atol=1e-5, rtol=0)


def test_the_chain_by_levels_is_that_by_joints() -> None:
    draw = torch.Generator().manual_seed(1)
    rotations = matrix_from_axis_angle(torch.randn(3, 24, 3, dtype=torch.float64, generator=draw))
    rest = torch.randn(3, 24, 3, dtype=torch.float64, generator=draw)
    turns, places = chained(rotations, rest)
    expected, shift = joint_transforms(rotations, rest)
    torch.testing.assert_close(turns, expected)
    torch.testing.assert_close(places, (expected @ rest[..., None])[..., 0] + shift)


def test_limbs_point_from_the_trunk_outwards() -> None:
    """At rest, upside down before the camera: arms along x, legs down the image, which is +y."""
    bodies = people(1)
    rest = torch.zeros(1, 24, 3, dtype=torch.float64)
    rest[:, 0, 0] = torch.pi
    limbs = volume()(rest, torch.zeros_like(bodies.betas).double()).limb_directions[0]
    torch.testing.assert_close(limbs.norm(dim=-1), torch.ones(9, dtype=torch.float64))
    assert limbs[0, 1] < -0.9  # the torso, upwards
    assert (limbs[1:5, 1] > 0.9).all()
    assert (limbs[[5, 7], 0] > 0.9).all()
    assert (limbs[[6, 8], 0] < -0.9).all()


def flat(count: int) -> np.ndarray:
    """Precisions of discs: wide in two directions."""
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(count, 3, 3)))
    return turn @ np.diag([1000.0, 1500.0, 8000.0]) @ turn.transpose(0, 2, 1)


@pytest.mark.parametrize("form", [blended_precision, polar_precision])
def test_precisions_at_rest_and_under_one_rotation(form: object) -> None:
    rest, weights = torch.from_numpy(flat(len(kernels()))), volume().weights
    still = torch.eye(3, dtype=torch.float64).expand(1, 24, 3, 3)
    torch.testing.assert_close(form(rest, weights, still)[0], rest)
    turn = matrix_from_axis_angle(torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(form(rest, weights, turn.expand(1, 24, 3, 3))[0], turn @ rest @ turn.mT)


@pytest.mark.parametrize("turning", ["blended", "polar"])
def test_precisions_of_a_pose(turning: str) -> None:
    """The blend stays positive definite; the polar form keeps the widths at rest."""
    made = BodyVolume(stand_in(), kernels(), flat(len(kernels())), turning)
    bodies = people(2)
    found = torch.linalg.eigvalsh(made(bodies.pose_rad.double(), bodies.betas.double()).precision)
    assert float(found.min()) >= made.lowest_precision * (1 - 1e-9)
    kept = torch.tensor([1000.0, 1500.0, 8000.0], dtype=torch.float64).expand_as(found)
    assert torch.allclose(found, kept, rtol=1e-6) == (turning == "polar")


def test_the_nearest_rotation_is_that_of_the_singular_values() -> None:
    draw = torch.Generator().manual_seed(3)
    turns = matrix_from_axis_angle(torch.randn(20, 2, 3, dtype=torch.float64, generator=draw))
    blend = 0.7 * turns[:, 0] + 0.3 * turns[:, 1]
    u, _, v = torch.linalg.svd(blend)
    torch.testing.assert_close(nearest_rotation(blend), u @ v, atol=1e-6, rtol=0)


@pytest.mark.parametrize("turning", [None, "blended", "polar"])
def test_gradients_reach_the_pose(turning: str | None) -> None:
    """Rendered features against finite differences in pose and place; who is met is held fixed."""
    some = decimate(stand_in(), 20)
    made = (
        BodyVolume(stand_in(), some, 60.0) if turning is None else BodyVolume(stand_in(), some, flat(20) / 20, turning)
    )
    bodies = people(1)
    pose, betas, place = (value.double() for value in (bodies.pose_rad, bodies.betas, bodies.translation_m))
    rows = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    posed = made(pose, betas)
    camera = GridCamera.of_crop(12)
    found = select(posed.centres_m + place, posed.precision, made.lowest_precision, camera, Reach(12, 4.6, 6, True))
    assert len(found.cells) > 10

    def picture(moved: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        at = made(moved, betas)
        drawn = slot_weights(at.centres_m + place, at.precision, found, 1.0, "peak")
        return unit((drawn[:, None] @ at_slots(rows, found))[:, 0])

    inputs = [value.clone().requires_grad_() for value in (pose, place)]
    assert torch.autograd.gradcheck(picture, inputs, eps=1e-6, atol=1e-5, fast_mode=True)
