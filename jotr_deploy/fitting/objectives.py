"""Mismatch of the rendered features of a cell and those of the picture (docs/fitting.md section 6)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Objective = Literal["masked", "softmax", "hardmax", "mixture"]
CONCENTRATION = 10.0
TEMPERATURE = 0.1


def cell_loss(objective: Objective, body: Tensor, clutter: Tensor, mask: Tensor) -> Tensor:
    """Contribution of a cell to the energy of the features; lower is better.

    Args:
        objective: "masked" and "softmax" are the release's, "hardmax" the paper's, "mixture" sums over both causes.
        body: cosine of the rendered and the seen feature; 0 where nothing is rendered.
        clutter: the largest cosine of the seen feature and one of clutter.
        mask: bool, the cell is body.
    """
    if objective == "softmax":
        s, c = ((1 + body) / 2).clamp(1e-8, 1), (1 + clutter) / 2
        return 1 - (torch.softmax(torch.stack([s, c]) / TEMPERATURE, 0) * torch.stack([s, c])).sum(0)
    if objective == "mixture":
        both = torch.logaddexp(CONCENTRATION * body, CONCENTRATION * clutter) - torch.log(2 * torch.ones_like(body))
        return torch.where(mask, -both / CONCENTRATION, -clutter)
    explained = body if objective == "masked" else torch.maximum(body, clutter)
    return 1 - torch.where(mask, explained, clutter)


def hidden(body: Tensor, clutter: Tensor, mask: Tensor) -> Tensor:
    """Cells of the body that clutter explains better, so that it is occluded there."""
    return mask & (clutter > body)
