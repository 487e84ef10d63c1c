"""What moves the parameters, and how fast: AdamW, and Muon where a configuration has a rate for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from jotr_deploy.training.config import TrainConfig

MATRIX = 64
"""Fewest rows and columns of a matrix that Muon moves: layers between layers, not queries or heads."""


def optimizers(model: nn.Module, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """AdamW, and Muon for what the configuration has a rate for, under their names in a checkpoint.

    Matrices and kernels are decayed, everything of fewer dimensions is not. Muon takes kernels of more than one pixel:
    those of one are heads as a rule, and a run whose head it moved as well diverged. Its steps are as long as AdamW's.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    by_muon: dict[str, torch.optim.Optimizer] = {}
    taken: set[int] = set()
    for name, kind, rate, chosen in (
        (
            "matrices",
            torch.optim.Muon,
            config.matrix_lr,
            [p for p in trained if p.ndim == 2 and min(p.shape) >= MATRIX],
        ),
        ("kernels", KernelMuon, config.kernel_lr, [p for p in trained if p.ndim > 2 and p[0, 0].numel() > 1]),
    ):
        if rate is not None and chosen:
            by_muon[name] = kind(chosen, lr=rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
            taken.update(map(id, chosen))
    groups = [
        {"params": [p for p in trained if p.ndim >= 2 and id(p) not in taken], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)
    made: dict[str, torch.optim.Optimizer] = {"optimizer": adamw, **by_muon}
    for optimizer in made.values():
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return made


class KernelMuon(torch.optim.Muon):
    """Muon for kernels of convolutions, each as the matrix of its outputs by all that reaches them."""

    def __init__(self, kernels: Iterable[nn.Parameter], **options: Any) -> None:
        self._kernels = list(kernels)
        super().__init__([nn.Parameter(_as_matrix(kernel, kernel.detach())) for kernel in self._kernels], **options)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step with the gradients of the kernels."""
        for kernel, matrix in zip(self._kernels, self.param_groups[0]["params"], strict=True):
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel, kernel.grad)
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Also forgets the gradients of the kernels."""
        super().zero_grad(set_to_none)
        for kernel in self._kernels:
            kernel.grad = None


def _as_matrix(kernel: Tensor, values: Tensor) -> Tensor:
    """Values of a kernel's shape as a matrix, its columns in the order in which the kernel lies in memory.

    Of the kernel itself it is a view: what moves one moves the other.
    """
    if not kernel.is_contiguous():
        values = values.movedim(1, -1)
    return values.flatten(1)


def schedule(config: TrainConfig, step: int) -> float:
    """The share of the full rates at a step (from 0): linear warm-up, then 1 or half a cosine to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return (1 + math.cos(math.pi * share)) / 2
