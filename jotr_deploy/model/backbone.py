"""ResNet with the 2-D joint heat maps fused after the stem (docs/network.md sections 3 and 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jotr_deploy.config import ModelConfig

HEATMAPS = 30
SIGMA_CELLS = 2.5

STAGES = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Blocks of each stage, by depth."""


def draw_heatmaps(joints: Tensor, mask: Tensor, side: int) -> Tensor:
    """Gaussians of peak 1 at the joints: (B, J, 2) x y in cells, (B, J) 0 or 1 -> (B, J, side, side) rows y.

    Separable; joints may lie outside the grid.
    """
    cells = torch.arange(side, dtype=joints.dtype, device=joints.device)
    along = torch.exp(-(((cells - joints[..., None]) / SIGMA_CELLS) ** 2) / 2)  # (B, J, 2, side)
    return (mask[..., None] * along[:, :, 1])[..., :, None] * along[:, :, 0, None, :]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-10, -18, -34)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with the stride on the 3x3 (ResNet v1.5)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        return torch.relu(self.bn3(self.conv3(out)) + self.downsample(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class Backbone(nn.Module):
    """Crop and heat maps to the last feature map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.backbone_width
        block = Bottleneck if config.backbone_depth >= 50 else BasicBlock
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.heatmap_fusion = nn.Sequential(
            nn.Conv2d(width + HEATMAPS, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()
        )
        # The stem divides by 4 and stages 2 and 3 by 4 more; the last stage makes up the rest.
        strides = (1, 2, 2, config.crop_side // (16 * config.voxel_grid))
        channels = width
        for stage, (count, stride) in enumerate(zip(STAGES[config.backbone_depth], strides, strict=True), 1):
            blocks = []
            for index in range(count):
                blocks.append(block(channels, width * 2 ** (stage - 1), stride if index == 0 else 1))
                channels = width * 2 ** (stage - 1) * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.channels = channels

    def stem(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) RGB 0..1 -> (B, width, S/4, S/4)."""
        out: Tensor = self.maxpool(torch.relu(self.bn1(self.conv1(image))))
        return out

    def forward(self, image: Tensor, heatmaps: Tensor) -> Tensor:
        """(B, 3, S, S) RGB 0..1 and (B, 30, S/4, S/4) -> (B, channels, G, G)."""
        x = self.heatmap_fusion(torch.cat([self.stem(image), heatmaps], 1))
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        return x
