"""The whole network, from a crop and its 2-D joints to a mesh (docs/network.md sections 3 to 10)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import BodyModel
from jotr_deploy.body.torch_rotations import axis_angle_from_matrix, matrix_from_6d
from jotr_deploy.body.vposer import VPoserDecoder
from jotr_deploy.config import ModelConfig
from jotr_deploy.geometry.camera import crop_camera
from jotr_deploy.model.backbone import Backbone, draw_heatmaps
from jotr_deploy.model.fusion import Fusion
from jotr_deploy.model.heads import Heads
from jotr_deploy.model.lifting import Lifting

CAMERA_BOX_M = 2.5
INPUTS = ("image", "joints", "joints_mask")


class PoseOutput(NamedTuple):
    """Outputs of the network without a body; names and shapes are the contract of the exported file."""

    joints_img: Tensor  # (B, 15, 3) x y z in 0..1 of the crop volume
    pose: Tensor  # (B, 24, 3) axis-angle, radians, root first
    betas: Tensor  # (B, 10)
    cam: Tensor  # (B, 3) raw


class MeshOutput(NamedTuple):
    """`PoseOutput` and what the body makes of it."""

    joints_img: Tensor  # (B, 15, 3)
    pose: Tensor  # (B, 24, 3)
    betas: Tensor  # (B, 10)
    cam: Tensor  # (B, 3)
    translation: Tensor  # (B, 3) pelvis in the crop camera, metres
    joints3d: Tensor  # (B, 30, 3) metres, relative to the pelvis
    joints_proj: Tensor  # (B, 30, 2) projection, heat-map cells
    vertices: Tensor  # (B, 6890, 3) metres, relative to the pelvis


class JOTR(nn.Module):
    """JOTR with a pose prior and, unless `body` is None, a body.

    Evaluation mode reproduces the published network; see `tests/golden`.
    """

    def __init__(self, config: ModelConfig, body: BodyModel | None) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.lifting = Lifting(config, self.backbone.channels)
        self.fusion = Fusion(config, self.backbone.channels)
        self.heads = Heads(config)
        self.vposer = VPoserDecoder()
        self.body = None if body is None else SkinnedBody(body)

    def forward(self, image: Tensor, joints: Tensor, joints_mask: Tensor) -> PoseOutput | MeshOutput:
        """Recover one person a crop.

        Args:
            image: (B, 3, S, S) RGB in 0..1.
            joints: (B, 30, 2) x y of the 30-joint set, heat-map cells.
            joints_mask: (B, 30) 1 = use the joint.
        """
        features = self.features(image, joints, joints_mask)
        found = self.read(features, self.lifting(features))
        if self.body is None:
            return found
        vertices, joints_30 = self.body(found.pose, found.betas)
        placed = place_joints(joints_30, found.cam, self.config.crop_side)
        return MeshOutput(*found, *placed, vertices - joints_30[:, :1])

    def features(self, image: Tensor, joints: Tensor, joints_mask: Tensor) -> Tensor:
        """The inputs of `forward` -> (B, channels, G, G), the last feature map."""
        heatmaps = draw_heatmaps(joints, joints_mask, self.config.heatmap_side)
        features: Tensor = self.backbone(image, heatmaps)
        return features

    def read(self, features: Tensor, volume: Tensor) -> PoseOutput:
        """(B, channels, G, G) and its lifted volume (B, D, H, W, C) -> what is found without a body."""
        decoded = self.fusion(features, volume, self.lifting.depth_exponent())
        root_6d, latent, betas, cam = self.heads(decoded.tokens)
        return PoseOutput(decoded.joints[-1], self.full_pose(root_6d, latent), betas, cam)

    def full_pose(self, root_6d: Tensor, latent: Tensor) -> Tensor:
        """(B, 6), (B, 32) -> (B, 24, 3): root, 21 joints of the prior, two hands at rest."""
        six = torch.cat([root_6d[:, None], self.vposer.rotations_6d(latent)], 1)
        pose = axis_angle_from_matrix(matrix_from_6d(six))
        return torch.cat([pose, torch.zeros_like(pose[:, :2])], 1)


def place_joints(joints_30: Tensor, cam: Tensor, crop_side: int) -> tuple[Tensor, Tensor, Tensor]:
    """The body's joints (B, 30, 3), raw camera (B, 3) -> `translation`, `joints3d`, `joints_proj` of `MeshOutput`."""
    pelvis = joints_30[:, :1]
    translation = pelvis[:, 0] + camera_translation(cam)
    joints3d = joints_30 - pelvis
    return translation, joints3d, project_cells(joints3d + translation[:, None], crop_side)


def camera_translation(cam: Tensor) -> Tensor:
    """(B, 3) raw camera -> (B, 3) translation of the body in the crop camera, metres; depth below 48.83."""
    focal, _ = crop_camera(256)
    farthest = math.sqrt(focal * focal * CAMERA_BOX_M * CAMERA_BOX_M / (256 * 256))
    return torch.cat([cam[:, :2], farthest * torch.sigmoid(cam[:, 2:])], 1)


def render_translation(cam: Tensor, boxes: Tensor) -> Tensor:
    """The published render camera, kept for parity only: `boxes` (B, 4) x y w h of the square crop, image px.

    Depth is scaled by 256 / sqrt(w h). Use the exact camera of `geometry.camera` for everything else.
    """
    translation = camera_translation(cam)
    scale = 256 / (boxes[:, 2:3] * boxes[:, 3:4]).sqrt()
    return torch.cat([translation[:, :2], translation[:, 2:] * scale], 1)


def project_cells(points_m: Tensor, crop_side: int) -> Tensor:
    """(B, P, 3) crop-camera metres -> (B, P, 2) heat-map cells; the 1e-4 is the published guard."""
    focal, principal = crop_camera(crop_side)
    pixels = points_m[..., :2] / (points_m[..., 2:] + 1e-4) * focal + principal
    return pixels / 4
