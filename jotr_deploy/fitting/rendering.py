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
    dimmed: Tensor = _Dimmed.apply(hit.depth_m, hit.along, opacity)
    if self_term == "peak":
        return (-absorptivity * dimmed).exp() * opacity * math.exp(0.5)
    others = dimmed - opacity / 2
    return (-absorptivity * others).exp() * -torch.expm1(-absorptivity * opacity)


class _Dimmed(torch.autograd.Function):
    """Absorption up to the peak of every kernel m of a ray, sum_n e^-q_n Phi(sqrt(s_n) (x_m - x_n)).

    The gradient is written out: autograd would keep, and go through, five tensors of the size (..., M, M) more.
    """

    @staticmethod
    def forward(ctx: Any, depth_m: Tensor, along: Tensor, opacity: Tensor) -> Tensor:
        scaled = (depth_m[..., :, None] - depth_m[..., None, :]).mul_(along.sqrt()[..., None, :])
        passed = torch.erf(scaled).add_(1)  # twice Phi
        ctx.save_for_backward(along, opacity, scaled, passed)
        return (passed * opacity[..., None, :]).sum(-1) / 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        along, opacity, scaled, passed = ctx.saved_tensors
        upper = gradients[0][..., :, None]
        of_scaled = (scaled * scaled).neg_().exp_().mul_(opacity[..., None, :]).mul_(upper / math.sqrt(math.pi))
        of_along = (of_scaled * scaled).sum(-2) / (2 * along) if ctx.needs_input_grad[1] else None
        of_apart = of_scaled.mul_(along.sqrt()[..., None, :])
        return of_apart.sum(-1) - of_apart.sum(-2), of_along, (passed * upper).sum(-2) / 2


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


def blended(drawn: Tensor, rows: Tensor, selection: Selection) -> Tensor:
    """(n, M) weights at the slots of a selection, (B * K, D) rows of kernels -> (n, D) their sums.

    As `(drawn[..., None] * at_slots(rows, selection)).sum(1)`, but nothing of the size of (n, M, D) is ever made.
    """
    summed = F.embedding_bag(selection.kernels, rows.detach(), mode="sum", per_sample_weights=drawn)
    blend: Tensor = _Blended.apply(summed, rows, drawn.detach(), selection)
    return blend


class _Blended(torch.autograd.Function):
    """The sums as they are, with the gradient of the rows, each summed over its slots in a fixed order."""

    @staticmethod
    def forward(ctx: Any, summed: Tensor, rows: Tensor, drawn: Tensor, selection: Selection) -> Tensor:
        ctx.save_for_backward(drawn)
        ctx.selection = selection
        return summed.view_as(summed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (drawn,), selection = ctx.saved_tensors, ctx.selection
        ends = selection.per_kernel.cumsum(0)
        of_rows = F.embedding_bag(
            selection.slots // drawn.shape[1],
            gradients[0].contiguous(),
            ends - selection.per_kernel,
            mode="sum",
            per_sample_weights=drawn.flatten()[selection.slots],
        )
        return gradients[0], of_rows, None, None


def unit(vectors: Tensor) -> Tensor:
    """(..., C) over their lengths; near zero they stay near zero."""
    return F.normalize(vectors, dim=-1, eps=_SMALLEST)
