"""Tensors of all processes as one, with gradients."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, distributed


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every process has a loss of everybody's rows; the gradient of a row is the sum over those losses.
        grad = grad.contiguous()
        distributed.all_reduce(grad)
        return grad.chunk(distributed.get_world_size())[distributed.get_rank()]


def gathered(local: Tensor) -> Tensor:
    """(B, ...) of this process -> (processes * B, ...), in the order of the processes; alone, the tensor itself.

    A loss of what is gathered, computed alike in every process and averaged over them as gradients are, has the
    gradient of one process with the whole batch.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return local
    return cast(Tensor, _Gather.apply(local))
