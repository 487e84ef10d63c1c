"""Features of a volume, unit vectors by kernel and orientation bin, and those of clutter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jotr_deploy.errors import FitError
from jotr_deploy.fitting.kernels import LIMBS
from jotr_deploy.fitting.rendering import unit
from jotr_deploy.support.read_errors import read_errors
from jotr_deploy.support.writing import written_aside

_WAVE, _SHARE = 8.0, 0.3  # radians a metre; beside the wave, of a limb and of a bin
VERSION = 1
"""Version of the file of a bank."""
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


def save_bank(features: Features, precision: float, path: Path) -> None:
    """Write features, and the precision in 1 / m^2 of the kernels that they were trained with; float16."""
    arrays = {name: getattr(features, name).half().numpy() for name in ("kernels", "clutter")}
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, version=VERSION, precision=precision, **arrays)


def load_bank(path: Path) -> tuple[Features, float]:
    """Read what `save_bank` wrote: features, again of length one, and the precision of the kernels.

    Raises:
        FitError: no such file, or another kind of file or version.
    """
    remedy = "put trained features in again"
    with (
        read_errors(path, FitError, "a feature bank", remedy, ("a NumPy archive (.npz)",)),
        np.load(path, allow_pickle=False) as archive,
    ):
        version = int(archive["version"])
        if version != VERSION:
            raise FitError(f"{path}: a feature bank of version {version}, this program reads {VERSION}", remedy)
        kernels, clutter = (torch.from_numpy(archive[name].astype(np.float32)) for name in ("kernels", "clutter"))
        return Features(unit(kernels), unit(clutter)), float(archive["precision"])


class MemoryBank(nn.Module):
    """The table that training fills: a moving average of each kernel's features, and a queue of clutter.

    Rows are ordered as published: all kernels of the first orientation bin, of the second, ..., then clutter.
    """

    rows: Tensor
    oldest: Tensor

    def __init__(self, kernels: int, bins: int, channels: int, clutter: int = CLUTTER, seed: int = 0) -> None:
        """A bank of random rows, all of positive numbers as published; `spread` gives others."""
        super().__init__()
        self.kernels, self.bins, self.clutter = kernels, bins, clutter
        draw = torch.Generator().manual_seed(seed)
        self.register_buffer("rows", unit(torch.rand(kernels * bins + clutter, channels, generator=draw)))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def spread(self, rest_m: Tensor, limbs: Tensor, seed: int = 0) -> None:
        """Start from rows that are like each other where the kernels are near each other (own).

        A kernel's row is a wave over the body at rest, to which its limb and the orientation bin add a direction each.
        In the published start every row is nearly the same.

        Args:
            rest_m: (K, 3) kernels on the body at rest.
            limbs: (K,) the limb of each.
            seed: of the waves.
        """
        draw, channels = torch.Generator().manual_seed(seed), self.rows.shape[1]
        waves, phase = torch.randn(3, channels, generator=draw) * _WAVE, torch.rand(channels, generator=draw) * math.tau
        smooth = torch.sin(rest_m.float() @ waves + phase)
        limb = torch.randn(len(LIMBS), channels, generator=draw)[limbs]
        turn = torch.randn(self.bins, 1, channels, generator=draw)
        self.rows[: self.kernels * self.bins] = unit(smooth + _SHARE * (limb + turn)).flatten(0, 1)
        self.rows[self.kernels * self.bins :] = unit(torch.randn(self.clutter, channels, generator=draw))

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
