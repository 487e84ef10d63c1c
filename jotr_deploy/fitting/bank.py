"""Features of a volume, unit vectors by kernel and orientation bin, and those of clutter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jotr_deploy.errors import FitError
from jotr_deploy.fitting.rendering import unit

MOMENTUM = 0.9
CLUTTER = 2160
"""Rows of clutter that the release keeps: 10 an image of 216 images."""


@dataclass(frozen=True, eq=False)
class Features:
    """Appearance of a body and of clutter, for a fit."""

    kernels: Tensor  # (K, O, C) unit vectors by kernel and orientation bin
    clutter: Tensor  # (N, C) unit vectors, N >= 1; the nearest to a cell counts

    def checked(self, kernels: int, channels: int) -> Features:
        """Self; FitError if the number of kernels or channels differs, or a number is not finite."""
        remedy = "give the bank that was trained with these kernels and this extractor"
        if self.kernels.ndim != 3 or len(self.kernels) != kernels:
            raise FitError(f"the feature bank is {tuple(self.kernels.shape)} for {kernels} kernels", remedy)
        if self.kernels.shape[1] < 1 or self.clutter.ndim != 2 or len(self.clutter) < 1:
            raise FitError("the feature bank has no orientation bin or no clutter", remedy)
        if self.kernels.shape[2] != channels or self.clutter.shape[1] != channels:
            found = f"{self.kernels.shape[2]} and {self.clutter.shape[1]}"
            raise FitError(f"the feature bank has {found} channels, the feature map {channels}", remedy)
        if not (torch.isfinite(self.kernels).all() and torch.isfinite(self.clutter).all()):
            raise FitError("the feature bank holds NaN or infinity", remedy)
        return self


class MemoryBank(nn.Module):
    """The table that training fills: a moving average of each kernel's features, and a queue of clutter.

    Rows are ordered as published: all kernels of the first orientation bin, of the second, ..., then clutter.
    """

    rows: Tensor
    oldest: Tensor

    def __init__(self, kernels: int, bins: int, channels: int, clutter: int = CLUTTER, seed: int = 0) -> None:
        super().__init__()
        self.kernels, self.bins, self.clutter = kernels, bins, clutter
        draw = torch.Generator().manual_seed(seed)
        self.register_buffer("rows", unit(torch.rand(kernels * bins + clutter, channels, generator=draw)))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, features: Tensor, kernels: Tensor, bins: Tensor) -> None:
        """Move the rows of (S,) kernels in (S,) bins towards the mean of their samples (S, C), of all processes.

        Rows without a sample stay as they are.
        """
        row = bins * self.kernels + kernels
        count = torch.bincount(row, minlength=self.kernels * self.bins)
        order = row.argsort(stable=True)
        total = torch.segment_reduce(unit(features)[order], "sum", lengths=count, unsafe=True)
        seen = (count > 0).nonzero()[:, 0]
        mean = total[seen] / count[seen, None]
        self.rows[seen] = unit(MOMENTUM * self.rows[seen] + (1 - MOMENTUM) * mean)

    @torch.no_grad()
    def push_clutter(self, features: Tensor) -> None:
        """Replace the oldest rows of clutter by these (S, C); if there are too many, the last ones are kept."""
        features = unit(features[-self.clutter :])
        places = (self.oldest + torch.arange(len(features), device=features.device)) % self.clutter
        self.rows[self.kernels * self.bins + places] = features
        self.oldest.copy_((self.oldest + len(features)) % self.clutter)

    def features(self) -> Features:
        """Features for a fit: the kernels' rows, and the mean direction of the clutter, as published."""
        known, clutter = self.rows.split([self.kernels * self.bins, self.clutter])
        by_kernel = known.unflatten(0, (self.bins, self.kernels)).transpose(0, 1).contiguous()
        return Features(by_kernel, unit(clutter.mean(0, keepdim=True)))
