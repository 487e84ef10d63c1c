"""One small configuration describes any JOTR, the published one being the default."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator


class ModelConfig(BaseModel):
    """The architecture of a JOTR network; the defaults are the published network (`main_train.yml`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone_depth: Literal[10, 18, 34, 50, 101, 152] = 50
    backbone_width: int = 64
    """Channels of the stem and of the first stage."""
    d_model: int = 256
    heads: int = 8
    ffn_fusion: int = 2048
    ffn_voxel: int = 1024
    encoder_layers: int = 2
    """Layers of the 2-D encoder and, separately, of the voxel encoder."""
    decoder_layers: int = 4
    crop_side: int = 256
    """Side of the input crop, pixels."""
    voxel_grid: int = 8
    """Cells a side of the feature volume, and of the last feature map."""
    dropout: float = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.d_model % self.heads or self.d_model % 4:
            raise ValueError(f"d_model {self.d_model} must be a multiple of heads ({self.heads}) and of 4")
        if self.crop_side not in (16 * self.voxel_grid, 32 * self.voxel_grid):
            raise ValueError(
                f"crop_side {self.crop_side} must be 16 or 32 times voxel_grid ({self.voxel_grid}): "
                "the last stage keeps or halves the resolution"
            )
        if min(self.encoder_layers, self.decoder_layers, self.backbone_width) < 1:
            raise ValueError("layers and widths start at 1")
        return self

    @property
    def heatmap_side(self) -> int:
        """Side of the heat-map grid: joints are given in its cells."""
        return self.crop_side // 4
