"""Rotations in PyTorch, as the network speaks them: six numbers, matrices, axis-angle (docs/network.md section 9)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_ATAN_RATIO = (
    -0.0017539291852, 0.0107269397761, -0.0308045892633, 0.0575520942863, -0.0837731500855, 0.1094203051836,
    -0.1426193307772, 0.1999826603881, -0.3333328364159, 0.9999999976306,
)  # fmt: skip
"""Minimax polynomial for the smallest relative error, highest power first."""


def matrix_from_6d(six: Tensor) -> Tensor:
    """(..., 6), a 3x2 matrix row-major, -> (..., 3, 3): Gram-Schmidt, the results are the columns.

    The cross product names its axis: the published code does not, and is wrong for batches of exactly three.
    """
    pairs = six.unflatten(-1, (3, 2))
    b1 = F.normalize(pairs[..., 0], dim=-1, eps=1e-12)
    a2 = pairs[..., 1]
    b2 = F.normalize(a2 - (b1 * a2).sum(-1, keepdim=True) * b1, dim=-1, eps=1e-12)
    return torch.stack([b1, b2, torch.linalg.cross(b1, b2, dim=-1)], -1)


def axis_angle_from_matrix(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3) radians, angle in 0..pi, through the quaternion branch that is far from 0/0.

    The branch is chosen before the division and the norm is guarded before the root, so that gradients stay finite at
    the identity, where the published code's are not.
    """
    (r00, r01, r02), (r10, r11, r12), (r20, r21, r22) = (row.unbind(-1) for row in matrix.unbind(-2))
    x, y, z = r21 - r12, r02 - r20, r10 - r01
    t = (1 + r00 - r11 - r22, 1 - r00 + r11 - r22, 1 - r00 - r11 + r22, 1 + r00 + r11 + r22)
    cases = (
        torch.stack([x, t[0], r01 + r10, r02 + r20], -1),
        torch.stack([y, r01 + r10, t[1], r12 + r21], -1),
        torch.stack([z, r02 + r20, r12 + r21, t[2]], -1),
        torch.stack([t[3], x, y, z], -1),
    )
    low, first, second = r22 < 1e-6, r00 > r11, r00 < -r11
    trace = torch.where(low, torch.where(first, t[0], t[1]), torch.where(second, t[2], t[3]))
    low, first, second = low[..., None], first[..., None], second[..., None]
    case = torch.where(low, torch.where(first, cases[0], cases[1]), torch.where(second, cases[2], cases[3]))
    return axis_angle_from_quaternion(0.5 * case / trace.sqrt()[..., None])


def axis_angle_from_quaternion(quaternion: Tensor) -> Tensor:
    """(..., 4) w x y z, near unit length and not zero -> (..., 3) radians.

    2 atan2(s, w) is 4 atan(t), t = s / (r + w) in 0..1, and atan(t) / t a polynomial of t^2: neither a branch at zero
    rotation nor an arc tangent, of which ONNX Runtime has no kernel for CUDA.
    """
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    flip = torch.where(w < 0, -1.0, 1.0).to(quaternion.dtype)
    w, xyz = w * flip, xyz * flip
    squared = (xyz * xyz).sum(-1, keepdim=True)
    reach = (squared + w * w).sqrt() + w
    return xyz * (4 * _atan_ratio(squared / (reach * reach)) / reach)


def _atan_ratio(square: Tensor) -> Tensor:
    """atan(t) / t of t^2 in 0..1, within 3e-9 of it before rounding."""
    first, second, *others = _ATAN_RATIO
    ratio = square * first + second
    for coefficient in others:
        ratio = ratio * square + coefficient
    return ratio


def matrix_from_axis_angle(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 3, 3), Rodrigues.

    The angle is clamped, not shifted: the exporter's optimiser deletes additions of 1e-8, and the two hands are zero.
    """
    angle = (axis_angle * axis_angle).sum(-1, keepdim=True).clamp(min=1e-16).sqrt()
    x, y, z = (axis_angle / angle).unbind(-1)
    cos, sin = angle.cos()[..., 0], angle.sin()[..., 0]
    rest = 1 - cos
    entries = [
        cos + rest * x * x, rest * x * y - sin * z, rest * x * z + sin * y,
        rest * x * y + sin * z, cos + rest * y * y, rest * y * z - sin * x,
        rest * x * z - sin * y, rest * y * z + sin * x, cos + rest * z * z,
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))
