"""Lifting of the last feature map to a volume of voxel features (docs/network.md section 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jotr_deploy.config import ModelConfig
from jotr_deploy.model.attention import Encoder


def sine_table(tokens: int, width: int) -> Tensor:
    """(tokens, width) float32 sine positions of the flattened voxels, computed in float64."""
    index = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] / 10000 ** (2 * (index // 2) / width)
    return torch.where(index % 2 == 0, angle.sin(), angle.cos()).float()


def anchors(grid: int, exponent: Tensor) -> Tensor:
    """(3, D, H, W) coordinates of the voxels, order z y x: z^k, y, x with values i / grid."""
    steps = torch.arange(grid, dtype=exponent.dtype, device=exponent.device) / grid
    return torch.stack(torch.meshgrid(steps**exponent, steps, steps, indexing="ij"))


class Lifting(nn.Module):
    """Image features to a refined voxel volume."""

    position: Tensor

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.grid, width = config.voxel_grid, config.d_model
        self.to_3d = nn.Conv2d(channels, width * self.grid, 1)
        self.mix = nn.Conv3d(width + 3, width, 1)
        self.exponent = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("position", sine_table(self.grid**3, width))
        self.encoder = Encoder(
            config.encoder_layers, width, config.heads, config.ffn_voxel, config.dropout, final_norm=True
        )

    def depth_exponent(self) -> Tensor:
        """The exponent of the depth axis, within 1..20; used for the anchors and where joints are sampled."""
        return self.exponent.clamp(1.0, 20.0)

    def voxels(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) -> unrefined (B, D*H*W, C); channel c*D + d becomes voxel channel c at depth d."""
        volume = self.to_3d(features).unflatten(1, (-1, self.grid))
        where = anchors(self.grid, self.depth_exponent()).expand(volume.shape[0], -1, -1, -1, -1)
        return self.mix(torch.cat([volume, where], 1)).flatten(2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) -> volume (B, D, H, W, C), channels last."""
        tokens: Tensor = self.encoder(self.voxels(features), self.position)
        return tokens.unflatten(1, (self.grid, self.grid, self.grid))
