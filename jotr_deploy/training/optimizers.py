"""Optimisers and learning rates: AdamW, and Muon where a configuration has a rate for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from jotr_deploy.support.processor import multiplies_bfloat16
from jotr_deploy.training.run_config import TrainConfig

MATRIX = 64
"""Fewest rows and columns of a matrix that Muon updates: inner layers, not queries or heads."""
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
"""Factors of a quintic that lifts small singular values fast; they end near 1, not at it."""
_ITERATIONS = 5
_SMALL = 1e-7


def optimizers(model: nn.Module, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """AdamW, and Muon for parameters with a rate in the configuration, under their names in a checkpoint.

    Matrices and kernels are decayed, parameters of fewer dimensions are not. Muon takes kernels larger than 1 x 1:
    those of 1 x 1 are usually heads, and a run in which it updated the head diverged. Its steps are as long as AdamW's.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    by_muon: dict[str, torch.optim.Optimizer] = {}
    taken: set[int] = set()
    for name, rate, chosen in (
        (
            "matrices",
            config.matrix_lr,
            [p for p in trained if p.ndim == 2 and min(p.shape) >= MATRIX],
        ),
        ("kernels", config.kernel_lr, [p for p in trained if p.ndim > 2 and p[0, 0].numel() > 1]),
    ):
        if rate is not None and chosen:
            by_muon[name] = Muon(chosen, rate, config.weight_decay)
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


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for matrices, and for kernels as the matrix of their outputs by all that reaches them.

    PyTorch's own takes only matrices and always orthogonalises in bfloat16; on a CPU without such instructions that
    took as long as the rest of a step of the small detector. Here it is float32 there.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along the orthogonalised momentum, as long as AdamW's."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], group["weight_decay"])
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalised(gradient.lerp(momentum, MOMENTUM).flatten(1))
        length = 0.2 * math.sqrt(max(update.shape))
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(update.view(parameter.shape), alpha=-lr * length)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Matrix with all singular values brought near 1, by the Newton-Schulz iteration with Muon's factors."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide.bfloat16() if matrix.is_cuda or _bfloat16_is_fast() else wide
    wide = wide / wide.norm().clamp(min=_SMALL)
    for _ in range(_ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return (wide if matrix.shape[0] <= matrix.shape[1] else wide.T).to(matrix.dtype)


@cache
def _bfloat16_is_fast() -> bool:
    return multiplies_bfloat16()


def schedule(config: TrainConfig, step: int) -> float:
    """Factor on the learning rates at a step (from 0): linear warm-up, then 1 or half a cosine to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    share = (step - config.warmup) / max(1, config.last_step - config.warmup)
    return (1 + math.cos(math.pi * share)) / 2
