"""The configuration of a JOTR network; the defaults are the published one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


def first_fault(error: ValidationError, whole: str = "") -> str:
    """`where: what` of the first invalid value; `whole` names the object if the fault concerns all of it."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or whole
    return f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")


class ModelConfig(BaseModel):
    """The architecture of a JOTR network; the defaults are the published network (`main_train.yml`).

    The limits are far beyond any practical network; anything within them can be built.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone_depth: Literal[10, 18, 34, 50, 101, 152] = 50
    backbone_width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the stem and of the first stage."""
    d_model: Annotated[int, Field(ge=4, le=8192)] = 256
    heads: Annotated[int, Field(ge=1, le=256)] = 8
    ffn_fusion: Annotated[int, Field(ge=1, le=65536)] = 2048
    ffn_voxel: Annotated[int, Field(ge=1, le=65536)] = 1024
    encoder_layers: Annotated[int, Field(ge=1, le=64)] = 2
    """Layers of the 2-D encoder and, separately, of the voxel encoder."""
    decoder_layers: Annotated[int, Field(ge=1, le=64)] = 4
    crop_side: Annotated[int, Field(ge=16, le=2048)] = 256
    """Side of the input crop, pixels."""
    crop_factor: Annotated[float, Field(ge=1, le=4)] = 1.1
    """Ratio of the square crop box's side to the longer side of the person's box."""
    voxel_grid: Annotated[int, Field(ge=1, le=64)] = 8
    """Cells per side of the feature volume, and of the last feature map."""
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.d_model % self.heads or self.d_model % 4:
            raise ValueError(f"d_model {self.d_model} must be a multiple of heads ({self.heads}) and of 4")
        if self.crop_side not in (16 * self.voxel_grid, 32 * self.voxel_grid):
            raise ValueError(
                f"crop_side {self.crop_side} must be 16 or 32 times voxel_grid ({self.voxel_grid}): "
                "the last stage keeps or halves the resolution"
            )
        return self

    @property
    def heatmap_side(self) -> int:
        """Side of the heat-map grid: joints are given in cells of it."""
        return self.crop_side // 4
