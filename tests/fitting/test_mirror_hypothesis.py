"""The second start is the first, mirrored in depth about the root."""

from __future__ import annotations

import pytest
import torch
from toy_scene import people, volume

from jotr_deploy.body.torch_rotations import matrix_from_axis_angle
from jotr_deploy.fitting.hypotheses import mirrored_in_depth
from jotr_deploy.fitting.volume import chained
from jotr_deploy.skeletons import SMPL30, mirrored_order

OTHER = list(mirrored_order(SMPL30[:24]))
FLIP = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)


def places(pose_rad: torch.Tensor) -> torch.Tensor:
    """(B, 24, 3) joints from the root, of the stand-in's skeleton made symmetric to the last bit."""
    rest = volume().rest_joints
    rest = (rest + rest[OTHER] * FLIP) / 2
    _, found = chained(matrix_from_axis_angle(pose_rad), rest.expand(len(pose_rad), 24, 3))
    return found - found[:, :1]


def random_poses(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_joints_are_reflected_for_any_pose_and_root() -> None:
    pose = random_poses(50, 1)
    expected = places(pose)[:, OTHER] * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(places(mirrored_in_depth(pose)), expected, atol=1e-6, rtol=0)


def test_twice_is_the_same_person() -> None:
    pose = random_poses(50, 2)
    torch.testing.assert_close(places(mirrored_in_depth(mirrored_in_depth(pose))), places(pose), atol=1e-6, rtol=0)


def test_the_releases_composition_differs_once_the_torso_pitches() -> None:
    """S R Z instead of Z R S: equal upright at any yaw, another rotation at a pitch of 0.4 rad."""
    sides, depths = torch.diag(FLIP), torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    for pitch, same in ((0.0, True), (0.4, False)):
        yaw = matrix_from_axis_angle(torch.tensor([0.0, 0.9, 0.0], dtype=torch.float64))
        tilt = matrix_from_axis_angle(torch.tensor([pitch, 0.0, 0.0], dtype=torch.float64))
        root = yaw @ tilt
        assert torch.allclose(sides @ root @ depths, depths @ root @ sides, atol=1e-9) == same


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_picture_hardly_changes(count: int) -> None:
    """At 45 m the mirrored person stands in front of the same cells, half a cell or less away."""
    bodies = people(count)
    pose = bodies.pose_rad.double()
    joints = [volume().joints(p, bodies.betas.double() * 0)[:, :24] for p in (pose, mirrored_in_depth(pose))]
    apart = (joints[0] - joints[1][:, OTHER])[..., :2].norm(dim=-1)
    assert mirrored_in_depth(pose).shape == (count, 24, 3)
    assert (apart < 0.02).all()
