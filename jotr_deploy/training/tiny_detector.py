"""A small detector of people in YOLOX's format: one class, strides 8, 16 and 32."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jotr_deploy.runtime.finding.detection.letterbox import PAD
from jotr_deploy.training.onnx_files import export_network
from jotr_deploy.training.small_layers import ConvNorm, Residual

SIZE_PX = (320, 256)
"""Width and height of the input."""
STRIDES = (8, 16, 32)
_WIDTHS = (16, 32, 64, 96)  # at strides 4, 8, 16, 32
_NECK = 48
_COLOUR_SCALE = 64.0
_RARE = 0.01  # share of cells with a person, which objectness starts from


class TinyDetector(nn.Module):
    """(B, 3, H, W) BGR 0..255 -> (B, A, 6): raw x, y, log w, log h of YOLOX, then logits of objectness and person."""

    def __init__(self) -> None:
        super().__init__()
        stem, fine, middle, coarse = _WIDTHS
        self.stem = nn.Sequential(ConvNorm(3, stem, 8, stride=4), Residual(stem))
        self.fine = nn.Sequential(ConvNorm(stem, fine, stride=2), Residual(fine), Residual(fine))
        self.middle = nn.Sequential(ConvNorm(fine, middle, stride=2), Residual(middle), Residual(middle))
        self.coarse = nn.Sequential(ConvNorm(middle, coarse, stride=2), Residual(coarse))
        self.lateral = nn.ModuleList(ConvNorm(width, _NECK, 1) for width in _WIDTHS[1:])
        self.smooth = nn.ModuleList(ConvNorm(_NECK, _NECK) for _ in STRIDES)
        self.what, self.where = ConvNorm(_NECK, _NECK), ConvNorm(_NECK, _NECK)
        self.score, self.box = nn.Conv2d(_NECK, 2, 1), nn.Conv2d(_NECK, 4, 1)
        start = torch.tensor([math.log(_RARE / (1 - _RARE)), 0.0])
        self.score.bias, self.box.bias = nn.Parameter(start), nn.Parameter(torch.zeros(4))

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        fine = self.fine(self.stem((image - PAD) / _COLOUR_SCALE))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        top = self.lateral[2](coarse)
        centre = self.lateral[1](middle) + F.interpolate(top, scale_factor=2.0)
        bottom = self.lateral[0](fine) + F.interpolate(centre, scale_factor=2.0)
        rows = [self._rows(smooth(level)) for smooth, level in zip(self.smooth, (bottom, centre, top), strict=True)]
        return torch.cat(rows, 1)

    def _rows(self, level: Tensor) -> Tensor:
        values = torch.cat([self.box(self.where(level)), self.score(self.what(level))], 1)
        return values.flatten(2).transpose(1, 2)


class _Exported(nn.Module):
    def __init__(self, network: TinyDetector) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """As YOLOX exports it: objectness and class after the sigmoid."""
        rows = self.network(images)
        return torch.cat([rows[..., :4], rows[..., 4:].sigmoid()], -1)


def export_detector(weights: Path) -> onnx.ModelProto:
    """The ONNX file of what a run of the task `detector` has saved: `images` -> `output`, any batch, raw YOLOX head.

    Raises:
        TrainingError: not such a file.
    """
    width, height = SIZE_PX
    return export_network(TinyDetector(), _Exported, weights, {"images": (3, height, width)}, ("output",))
