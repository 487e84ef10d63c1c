"""The feature extractor: a ResNet whose maps are joined again from the coarsest to a quarter of the resolution."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from jotr_deploy.model.backbone import STAGES, BasicBlock, Bottleneck

STRIDE = 4
"""Pixels of the crop in a cell of the feature map."""
MEAN_RGB, DEVIATION_RGB = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_SMALLEST = 1e-6


class ExtractorConfig(BaseModel):
    """The architecture of an extractor; the defaults are the published one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: Annotated[int, Field(ge=32, le=2048, multiple_of=32)] = 320
    """Side of the crop, pixels."""
    depth: Literal[10, 18, 34, 50, 101, 152] = 50
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the ResNet's stem and of its first stage."""
    bottom: Annotated[int, Field(ge=1, le=8192)] = 1024
    """Channels of the coarsest map before it is joined with the next."""
    ups: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((1024, 512), (512, 256), (256, 256))
    """Channels after each of both convolutions of the three up-blocks, at strides 16, 8 and 4."""
    channels: Annotated[int, Field(ge=2, le=2048)] = 128
    """Length of a feature."""

    @property
    def cells(self) -> int:
        """Cells a side of the feature map."""
        return self.side // STRIDE


class Extractor(nn.Module):
    """(B, 3, S, S) RGB in 0..1 -> (B, C, S / 4, S / 4) unit vectors."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ExtractorConfig) -> None:
        super().__init__()
        self.config = config
        for name, values in (("mean", MEAN_RGB), ("deviation", DEVIATION_RGB)):
            self.register_buffer(name, torch.tensor(values)[:, None, None] / 255, persistent=False)
        self.backbone = ResNet(config.depth, config.width)
        fine, middle, coarse, coarsest = self.backbone.channels
        self.bottom = _twice(coarsest, config.bottom, config.bottom)
        ups, below = [], config.bottom
        for skip, (first, second) in zip((coarse, middle, fine), config.ups, strict=True):
            ups.append(_twice(below + skip, first, second))
            below = second
        self.ups = nn.ModuleList(ups)
        self.last = nn.Conv2d(below, config.channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Feature map of crops, as the class says."""
        fine, middle, coarse, coarsest = self.backbone((image - self.mean) / self.deviation)
        joined = self.bottom(coarsest)
        for skip, up in zip((coarse, middle, fine), self.ups, strict=True):
            enlarged = F.interpolate(joined, scale_factor=2.0, mode="bilinear", align_corners=True)
            joined = up(torch.cat([enlarged, skip], 1))
        features: Tensor = self.last(joined).float()
        return features / (features * features).sum(1, keepdim=True).sqrt().clamp(min=_SMALLEST)


class ResNet(nn.Module):
    """Crop to the maps at strides 4, 8, 16 and 32, under torchvision's names."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        block = Bottleneck if depth >= 50 else BasicBlock
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels, channels = [], width
        for stage, count in enumerate(STAGES[depth], 1):
            blocks = []
            for index in range(count):
                blocks.append(block(channels, width * 2 ** (stage - 1), 2 if stage > 1 and index == 0 else 1))
                channels = width * 2 ** (stage - 1) * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            self.channels.append(channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, S, S) normalised -> four maps, the finest first."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(image))))
        maps = []
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
            maps.append(x)
        return maps


def _twice(inputs: int, first: int, second: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with a batch norm and a ReLU."""
    layers: list[nn.Module] = []
    for before, after in ((inputs, first), (first, second)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
