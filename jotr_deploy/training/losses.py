"""The six losses of the mesh network and their learned weights, as published (docs/training.md).

Each is an elementwise L1, masked, then averaged over all elements, masked ones included.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

NAMES = ("body_joint_cam", "body_joint_img", "body_joint_proj", "smpl_joint_img", "smpl_pose", "smpl_shape")
"""The losses in the order of their learned weights, which is alphabetical."""
_CAM_GAIN, _PROJ_GAIN = 5.0, 8.0  # published: 5; 1/8 of a cell of 64 a crop


class Found(NamedTuple):
    """Predictions of the network for the person of every crop."""

    joints_img: Tensor  # (B, 15, 3) x y as fractions of the crop, z 0..1 of the depth box
    pose: Tensor  # (B, 24, 3) axis-angle, radians
    betas: Tensor  # (B, 10)
    joints_proj: Tensor  # (B, 30, 2) fractions of the crop
    joints_cam: Tensor  # (B, 30, 3) metres, relative to the pelvis


class Truth(NamedTuple):
    """Ground truth, with flags for the known parts: 0 or 1, floating point."""

    joints_img: Tensor  # (B, 15, 3) measured joints, as in `Found`
    joints_img_known: Tensor  # (B, 15)
    fit_img: Tensor  # (B, 15, 3) joints of the fitted body
    fit_img_known: Tensor  # (B, 15)
    pose: Tensor  # (B, 24, 3)
    pose_known: Tensor  # (B, 24)
    betas: Tensor  # (B, 10)
    joints_proj: Tensor  # (B, 30, 2) measured joints, fractions of the crop
    joints_proj_known: Tensor  # (B, 30)
    joints_cam: Tensor  # (B, 30, 3) measured joints, metres, relative to the pelvis
    joints_cam_known: Tensor  # (B, 30)
    is_fit: Tensor  # (B,) flag of a fitted body
    is_3d: Tensor  # (B,) flag of measured depths


def masked_l1(found: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """Elementwise |found - true| * known; `known` is broadcast."""
    return (found - true).abs() * known


def mesh_losses(found: Found, truth: Truth) -> dict[str, Tensor]:
    """The six mean losses by name, unweighted scalars."""
    is_3d, is_fit = truth.is_3d[:, None, None], truth.is_fit[:, None, None]
    depth = torch.cat([torch.ones_like(is_3d).expand(-1, -1, 2), is_3d], 2)  # x and y always, z where it is measured
    elements = {
        "body_joint_cam": _CAM_GAIN
        * masked_l1(found.joints_cam, truth.joints_cam, truth.joints_cam_known[..., None] * is_3d),
        "body_joint_img": masked_l1(found.joints_img, truth.joints_img, truth.joints_img_known[..., None] * depth),
        "body_joint_proj": _PROJ_GAIN
        * masked_l1(found.joints_proj, truth.joints_proj, truth.joints_proj_known[..., None]),
        "smpl_joint_img": masked_l1(found.joints_img, truth.fit_img, truth.fit_img_known[..., None] * is_fit),
        "smpl_pose": masked_l1(found.pose, truth.pose, truth.pose_known[..., None] * is_fit),
        "smpl_shape": masked_l1(found.betas, truth.betas, is_fit[..., 0]),
    }
    return {name: value.mean() for name, value in elements.items()}


def nearer_turn(true: Tensor, found: Tensor) -> Tensor:
    """Nearer one to `found` of the two axis-angle vectors of a rotation within one turn, theta and theta - 2 pi.

    The root of a person upright in the camera's frame is half a turn from the body's own frame, where the two swap:
    there the plain difference of similar rotations is a full turn. Both (..., 3), radians.
    """
    angle = true.norm(dim=-1, keepdim=True)
    other = true * (1 - 2 * math.pi / angle.clamp(min=1e-6))
    nearer = (found - other).abs().sum(-1, keepdim=True) < (found - true).abs().sum(-1, keepdim=True)
    return torch.where(nearer.detach(), other, true)


class AutomaticWeighting(nn.Module):
    """Weighting by a learned p for each loss: the sum of 0.5 / p^2 * loss + ln(1 + p^2)."""

    def __init__(self) -> None:
        super().__init__()
        self.params = nn.Parameter(torch.ones(len(NAMES)))

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        """The mean losses by name -> the scalar to minimise."""
        squared = self.params**2
        return (0.5 / squared * torch.stack([losses[name] for name in NAMES]) + torch.log1p(squared)).sum()
