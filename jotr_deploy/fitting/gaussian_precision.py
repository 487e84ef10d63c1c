"""Widths of the Gaussians, and their rotation with a posed body (docs/fitting.md section 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PRECISION = 4000.0
"""The published precision, 1 / m^2: a density of exp(-4000 r^2), a standard deviation of 11.18 mm."""
_POLAR_STEPS = 8


def auto_precision(edge_m: float, overlap: float = 0.5) -> float:
    """Precision at which neighbours, `edge_m` apart, have both fallen to `overlap` halfway between them."""
    return 4 * math.log(1 / overlap) / (edge_m * edge_m)


def blended_precision(rest: Tensor, weights: Tensor, turns: Tensor) -> Tensor:
    """Paper's form: the precisions under each joint's rotation, blended like the vertices.

    Args:
        rest: (K, 3, 3) at rest.
        weights: (K, 24) skinning weights.
        turns: (B, 24, 3, 3) rotation of every joint from the root down.

    Returns:
        (B, K, 3, 3), positive definite if `rest` is, but in general not a rotation of it.
    """
    turned = torch.einsum("bjrc,kcd->bkjrd", turns, rest)
    return torch.einsum("kj,bkjrd,bjsd->bkrs", weights, turned, turns)


def polar_precision(rest: Tensor, weights: Tensor, turns: Tensor) -> Tensor:
    """Precisions rotated by the rotation nearest to the blend: (B, K, 3, 3), each a rotation of `rest`."""
    turn = nearest_rotation(torch.einsum("kj,bjrc->bkrc", weights, turns))
    return turn @ rest @ turn.mT


def nearest_rotation(matrix: Tensor) -> Tensor:
    """Rotation of the polar decomposition, (..., 3, 3), by Newton's method.

    Their gradient is finite where that of a singular value decomposition is not: for a rotation all three values are
    equal.
    """
    for _ in range(_POLAR_STEPS):
        matrix = (matrix + torch.linalg.inv(matrix).mT) / 2
    return matrix
