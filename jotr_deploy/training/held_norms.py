"""Batch norms that training leaves as they are."""

from __future__ import annotations

from torch import nn


def hold_norms(model: nn.Module) -> None:
    """Put every batch norm of a model into evaluation mode: it uses its running statistics and does not move them."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
