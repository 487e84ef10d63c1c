"""Volume rendering in closed form: the weight of each kernel on a ray (docs/fitting.md section 4)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.fitting.kernel_selection import Selection
from jotr_deploy.fitting.rays import RayHit, ray_gaussian

SelfTerm = Literal["peak", "exact"]
_SMALLEST = 1e-6


def weights(hit: RayHit, absorptivity: float = 1.0, self_term: SelfTerm = "peak") -> Tensor:
    """(..., M) kernels of a ray, in any order -> (..., M) their weights.

    Transmittance is evaluated at each kernel's own peak, and a lone kernel hit dead-centre has weight 1. Empty slots
    have an infinite q.

    Args:
        hit: of the rays.
        absorptivity: tau of the transmittance.
        self_term: "peak" dims a kernel by half of itself, as published; "exact" integrates it over itself, which is
            right for kernels far from others, and leaves out the division by e^(-1/2).
    """
    opacity = (-hit.q).exp()
    apart = hit.depth_m[..., :, None] - hit.depth_m[..., None, :]
    passed = torch.erf(hit.along.sqrt()[..., None, :] * apart) * opacity[..., None, :]
    dimmed = (opacity.sum(-1, keepdim=True) + passed.sum(-1)) / 2
    if self_term == "peak":
        return (-absorptivity * dimmed).exp() * opacity * math.exp(0.5)
    others = dimmed - opacity / 2
    return (-absorptivity * others).exp() * -torch.expm1(-absorptivity * opacity)


def slot_weights(
    centres_m: Tensor, precision: Tensor, selection: Selection, absorptivity: float, self_term: SelfTerm
) -> Tensor:
    """(B, K, 3) centres, () or (B, K, 3, 3) precision -> (n, M) weights at the slots of a selection; empty ones 0."""
    centres = at_slots(centres_m.flatten(0, 1), selection)
    some = precision if precision.ndim == 0 else at_slots(precision.flatten(0, 1).flatten(1), selection)
    some = some if some.ndim == 0 else some.unflatten(-1, (3, 3))
    hit = ray_gaussian(centres, selection.directions[:, None], some)
    hit = hit._replace(q=torch.where(selection.filled, hit.q, math.inf))
    return weights(hit, absorptivity, self_term)


def at_slots(rows: Tensor, selection: Selection) -> Tensor:
    """(B * K, D) rows of kernels -> (n, M, D) at the slots of a selection; anything in empty ones."""
    found: Tensor = _Gathered.apply(rows, selection.kernels.flatten(), selection.slots, selection.per_kernel)
    return found.unflatten(0, selection.kernels.shape)


class _Gathered(torch.autograd.Function):
    """Rows by index, with the gradient summed in a fixed order, so that it repeats to the bit, on a GPU as well."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, slots: Tensor, per_kernel: Tensor) -> Tensor:
        ctx.save_for_backward(slots, per_kernel)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        slots, per_kernel = ctx.saved_tensors
        by_kernel = gradients[0].index_select(0, slots)
        summed = torch.segment_reduce(by_kernel, "sum", lengths=per_kernel, unsafe=True)
        return summed, None, None, None


def unit(vectors: Tensor) -> Tensor:
    """(..., C) over their lengths; near zero they stay near zero."""
    return F.normalize(vectors, dim=-1, eps=_SMALLEST)
