"""Tensors of all processes as one, with gradients."""

from __future__ import annotations

import os
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, own_only: bool) -> Tensor:
        ctx.own_only = own_only
        parts = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if not ctx.own_only:
            # Every process has a loss over all rows; the gradient of a row is the sum over these losses.
            grad = grad.contiguous()
            distributed.all_reduce(grad)
        return grad.chunk(distributed.get_world_size())[distributed.get_rank()], None


def gathered(local: Tensor, own_only: bool = False) -> Tensor:
    """(B, ...) of this process -> (processes * B, ...), in the order of the processes; alone, the tensor itself.

    A loss of the gathered tensor, computed alike in every process and averaged over them as gradients are, has the
    gradient of one process with the whole batch. With `own_only`, as published, a row has the gradient of the loss of
    its own process only, which divides it by the number of processes.
    """
    if processes() == 1:
        return local
    return cast(Tensor, _Gather.apply(local, own_only))


def processes() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def launched_processes() -> int:
    """Number of processes that the launcher started, before they are connected; 1 without a launcher."""
    number = os.environ.get("WORLD_SIZE", "1")
    return int(number) if number.isdecimal() and int(number) > 0 else 1


def with_shared_statistics(model: nn.Module) -> nn.Module:
    """Model with batch norms that share statistics over all processes; weights stay the same objects.

    PyTorch supports this for GPUs only. A model that is itself a batch norm is returned as another module.
    """
    return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))
