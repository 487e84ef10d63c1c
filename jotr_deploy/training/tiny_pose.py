"""A small 2-D pose network in RTMPose's format: two distributions a joint of COCO-17."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jotr_deploy.skeletons import SKELETONS
from jotr_deploy.training.onnx_files import export_network
from jotr_deploy.training.small_layers import ConvNorm, Residual

SIZE_PX = (96, 128)
"""Width and height of the input."""
SPLIT_RATIO = 2
"""Bins a pixel."""
SPREAD_BINS = 3.0
"""Deviation of the distributions it is trained towards."""
THRESHOLD = 0.1
"""A joint that is found has a confidence above it."""
SKELETON = "coco17"
JOINTS = len(SKELETONS[SKELETON])
_STRIDE = 4
_BINS_A_CELL = _STRIDE * SPLIT_RATIO
_VOTES = 2 + 2 * _BINS_A_CELL
_WIDTHS = (32, 64, 96)  # at strides 4, 8, 16
_HEAD = 48


class TinyPose(nn.Module):
    """(B, 3, H, W) normalised RGB -> logits of x (B, 17, 2 W), of y (B, 17, 2 H), and of being seen (B, 17).

    A joint is in one cell of a map at a quarter of the resolution, and there in one column and one row of bins; both
    distributions are sums over the cells.
    """

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = _WIDTHS
        self.fine = nn.Sequential(ConvNorm(3, fine, 8, stride=_STRIDE), Residual(fine))
        self.middle = nn.Sequential(ConvNorm(fine, middle, stride=2), Residual(middle), Residual(middle))
        self.coarse = nn.Sequential(ConvNorm(middle, coarse, stride=2), Residual(coarse), Residual(coarse))
        self.from_coarse, self.join_middle = ConvNorm(coarse, middle, 1), ConvNorm(middle, middle)
        self.from_middle, self.join_fine = ConvNorm(middle, _HEAD, 1), ConvNorm(_HEAD, _HEAD)
        self.from_fine = ConvNorm(fine, _HEAD, 1)
        self.votes = nn.Conv2d(_HEAD, JOINTS * _VOTES, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        fine = self.fine(image)
        middle = self.middle(fine)
        coarse = self.from_coarse(self.coarse(middle))
        middle = self.join_middle(middle + F.interpolate(coarse, scale_factor=2.0))
        fine = self.join_fine(self.from_fine(fine) + F.interpolate(self.from_middle(middle), scale_factor=2.0))
        # In float32: a shift of all cells changes nothing, so its gradient is rounding alone, which AdamW scales up. In
        # bfloat16 that made the votes grow until a long run diverged.
        with torch.autocast(fine.device.type, enabled=False):
            votes = self.votes(fine.float()).unflatten(1, (JOINTS, _VOTES))
        cell, seen, columns, rows = votes.split((1, 1, _BINS_A_CELL, _BINS_A_CELL), 2)  # (B, J, votes, h, w)
        x = (cell + columns.log_softmax(2)).logsumexp(3).transpose(2, 3).flatten(2)
        y = (cell + rows.log_softmax(2)).logsumexp(4).transpose(2, 3).flatten(2)
        return x, y, self._seen(seen[:, :, 0], cell[:, :, 0].detach())

    def _seen(self, seen: Tensor, cell: Tensor) -> Tensor:
        """What the cells (B, J, h, w) say of their joints being seen, weighted by where the joints are."""
        return (seen.flatten(2) * cell.flatten(2).softmax(-1)).sum(-1)


class Heights(nn.Module):
    """(B, 3, H, W) normalised RGB -> what the file gives: heights of x (B, 17, 2 W) and of y (B, 17, 2 H)."""

    def __init__(self, network: TinyPose) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Heights of which the highest is 1 for a joint that is surely seen and as sharp as what it learned from."""
        x, y, seen = self.network(image)
        scale = seen.sigmoid()[..., None] * math.sqrt(2 * math.pi) * SPREAD_BINS
        return x.softmax(-1) * scale, y.softmax(-1) * scale


def export_pose(weights: Path) -> onnx.ModelProto:
    """The ONNX file of what a run of the task `pose` has saved: `input` -> `simcc_x`, `simcc_y`, any batch.

    Raises:
        TrainingError: not such a file.
    """
    width, height = SIZE_PX
    return export_network(TinyPose(), Heights, weights, {"input": (3, height, width)}, ("simcc_x", "simcc_y"))


def soft_cross_entropy(logits: Tensor, centre_bins: Tensor) -> Tensor:
    """Of distributions (..., bins) against normal ones of `SPREAD_BINS` about `centre_bins` (...); (...)."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    target = (-((bins - centre_bins[..., None]) / SPREAD_BINS).square() / 2).softmax(-1)
    return -(target * logits.log_softmax(-1)).sum(-1)
