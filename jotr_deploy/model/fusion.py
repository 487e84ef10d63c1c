"""The fusion transformer: image tokens, queries, 3-D tokens sampled at the joints (docs/network.md sections 6, 7)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jotr_deploy.config import ModelConfig
from jotr_deploy.model.attention import DecoderLayer, Encoder
from jotr_deploy.plugins.op import trilinear_sample_3d

SMPL_QUERIES, JOINT_QUERIES = 3, 15


def sine_positions_2d(side: int, width: int) -> Tensor:
    """(side*side, width) positions of the image tokens, row-major; first half of the channels y, second half x."""
    half = width // 2
    place = torch.arange(1, side + 1, dtype=torch.float32) / (side + 1e-6) * (2 * math.pi)
    index = torch.arange(half, dtype=torch.float32)
    angle = place[:, None] / 10000 ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
    axis = torch.where(index % 2 == 0, angle.sin(), angle.cos())
    rows = axis[:, None].expand(side, side, half)
    columns = axis[None].expand(side, side, half)
    return torch.cat([rows, columns], -1).flatten(0, 1)


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logit with both sides kept above 1e-5; one clamp a side, the form that survives export."""
    return torch.log(x.clamp(1e-5, 1.0) / (1 - x).clamp(1e-5, 1.0))


class Decoded(NamedTuple):
    """Outputs of the decoder, one row per layer."""

    tokens: Tensor  # (L, B, 18, C) after the shared norm; rows 0..2 pose, shape, camera
    joints: Tensor  # (L, B, 15, 3) x y z in 0..1


class JointRefiner(nn.Module):
    """Update of the joints between decoder layers, and sampling of the volume at them."""

    def __init__(self, joint_img_regress: nn.ModuleList, fc_pos_3d: nn.Sequential) -> None:
        super().__init__()
        self.joint_img_regress, self.fc_pos_3d = joint_img_regress, fc_pos_3d

    def refine_joints(self, layer: int, tokens: Tensor, joints: Tensor | None) -> Tensor:
        """(B, 18, C) and the joints so far -> (B, 15, 3) in 0..1."""
        tokens = tokens[:, SMPL_QUERIES:]
        if joints is None:
            return torch.sigmoid(self.joint_img_regress[layer](tokens))
        logits = inverse_sigmoid(joints)
        return torch.sigmoid(logits + self.joint_img_regress[layer](torch.cat([tokens, logits], -1)))

    def sample(self, volume: Tensor, joints: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 15, C) of the volume at the joints, depth raised to the exponent, and their positions."""
        points = torch.cat([joints[..., :2], joints[..., 2:] ** exponent], -1)
        return trilinear_sample_3d(volume, points), self.fc_pos_3d(inverse_sigmoid(joints))


class Decoder(JointRefiner):
    """Layers that refine tokens and joints in turn; the 3-D tokens of a layer replace those of the one before."""

    def __init__(self, config: ModelConfig) -> None:
        width, layers = config.d_model, config.decoder_layers
        super().__init__(
            nn.ModuleList(nn.Linear(width + (3 if layer else 0), 3) for layer in range(layers)),
            nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width)),
        )
        self.layers = nn.ModuleList(
            DecoderLayer(width, config.heads, config.ffn_fusion, config.dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, t: Tensor, query_position: Tensor, memory: Tensor, position: Tensor, volume: Tensor, exponent: Tensor
    ) -> Decoded:
        """Targets (B, 18, C), (18, C); memory (B, M, C), (M, C); volume (B, D, H, W, C) -> every layer's results."""
        key, value, joints = memory + position, memory, None
        tokens_by_layer, joints_by_layer = [], []
        for index, layer in enumerate(self.layers):
            t = self.norm(layer(t, query_position, key, value))
            joints = self.refine_joints(index, t, joints)
            sampled, sampled_position = self.sample(volume, joints, exponent)
            key = torch.cat([memory + position, sampled + sampled_position], 1)
            value = torch.cat([memory, sampled], 1)
            tokens_by_layer.append(t)
            joints_by_layer.append(joints)
        return Decoded(torch.stack(tokens_by_layer), torch.stack(joints_by_layer))


class Fusion(nn.Module):
    """Image features and voxel volume to SMPL tokens and joints."""

    position: Tensor

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        width = config.d_model
        self.down = nn.Conv2d(channels, width, 1)
        self.register_buffer("position", sine_positions_2d(config.voxel_grid, width), persistent=False)
        self.smpl_query = nn.Parameter(torch.randn(SMPL_QUERIES, width))
        self.joint_query = nn.Parameter(torch.randn(JOINT_QUERIES, width))
        self.smpl_target = nn.Parameter(torch.zeros(width))
        self.joint_target = nn.Parameter(torch.zeros(width))
        self.encoder = Encoder(
            config.encoder_layers, width, config.heads, config.ffn_fusion, config.dropout, final_norm=False
        )
        self.decoder = Decoder(config)

    def targets(self) -> Tensor:
        """(18, C) start of the decoder's tokens."""
        return torch.cat([self.smpl_target.expand(SMPL_QUERIES, -1), self.joint_target.expand(JOINT_QUERIES, -1)])

    def queries(self) -> Tensor:
        """(18, C) positions of the decoder's tokens: pose, shape, camera, 15 joints."""
        return torch.cat([self.smpl_query, self.joint_query])

    def forward(self, features: Tensor, volume: Tensor, exponent: Tensor) -> Decoded:
        """(B, channels, H, W), (B, D, H, W, C), () -> tokens and joints of every decoder layer."""
        memory = self.encoder(self.down(features).flatten(2).transpose(1, 2), self.position)
        targets = self.targets().expand(features.shape[0], -1, -1)
        decoded: Decoded = self.decoder(targets, self.queries(), memory, self.position, volume, exponent)
        return decoded
