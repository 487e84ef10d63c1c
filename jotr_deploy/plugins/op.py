"""The sampling operator in PyTorch: `torch.ops.jotr.trilinear_sample_3d`, with gradients, one node when exported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _hats(points: Tensor, sizes: tuple[int, int, int]) -> tuple[list[Tensor], list[Tensor]]:
    """Signed distances to the voxel centres and hat weights along x, y and z: each (B, P, n) float32."""
    distances = [
        points[..., axis : axis + 1].float() * (n - 1) - torch.arange(n, dtype=torch.float32, device=points.device)
        for axis, n in enumerate(sizes)
    ]
    return distances, [torch.relu(1 - d.abs()) for d in distances]


def _outer(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """(B, P, W), (B, P, H), (B, P, D) -> (B, P, D*H*W)."""
    return torch.einsum("bpz,bpy,bpx->bpzyx", z, y, x).flatten(2)


@torch.library.custom_op("jotr::trilinear_sample_3d", mutates_args=())
def trilinear_sample_3d(features: Tensor, points: Tensor) -> Tensor:
    """Sample (B, D, H, W, C) at (B, P, 3) points, x y z in 0..1 -> (B, P, C) of the features' type.

    The trilinear weights are products of three hats, so the sample is one matrix product; without a clamp the hats
    give zero padding. Weights and sums are float32. Same numbers as `plugins.reference`.
    """
    _, D, H, W, _ = features.shape
    _, (x, y, z) = _hats(points, (W, H, D))
    return (_outer(x, y, z) @ features.flatten(1, 3).float()).to(features.dtype)


@trilinear_sample_3d.register_fake
def _(features: Tensor, points: Tensor) -> Tensor:
    return features.new_empty(features.shape[0], points.shape[1], features.shape[4])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    features, points = ctx.saved_tensors
    _, D, H, W, _ = features.shape
    distances, (x, y, z) = _hats(points, (W, H, D))
    grad = grad.float()
    grad_features = grad_points = None
    if ctx.needs_input_grad[0]:
        grad_features = (_outer(x, y, z).transpose(1, 2) @ grad).view(features.shape).to(features.dtype)
    if ctx.needs_input_grad[1]:
        along = grad @ features.flatten(1, 3).float().transpose(1, 2)  # (B, P, D*H*W): gradient of every weight
        dx, dy, dz = (-torch.sign(d) * (d.abs() < 1) * (n - 1) for d, n in zip(distances, (W, H, D), strict=True))
        slopes = [_outer(dx, y, z), _outer(x, dy, z), _outer(x, y, dz)]
        grad_points = torch.stack([(along * slope).sum(-1) for slope in slopes], -1).to(points.dtype)
    return grad_features, grad_points


trilinear_sample_3d.register_autograd(_backward, setup_context=_save)
