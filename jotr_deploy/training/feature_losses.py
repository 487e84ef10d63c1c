"""The losses of the feature extractor: one cross-entropy against the bank, and how like a body the background is."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.fitting.kernel_selection import Selection
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.rendering import unit

TEMPERATURE = 0.07
LOG_CLUTTER = math.log(0.005)
"""Added to the logits of clutter: there are so many of them."""
REMOVED = -1e5
"""Logit of what does not count."""
_FEWEST_JOINTS = 6
_BEHIND_M = -1.0


def placed_kernels(
    centres_m: Tensor, joints_m: Tensor, joints: Tensor, known: Tensor, focal: Tensor, camera: GridCamera
) -> Tensor:
    """(B, K, 3) kernels of the bodies before JOTR's crop camera, where they are seen in the crops.

    A body is placed before a camera of its own focal length by least squares on its joints; what that camera sees is
    then laid, at equal depths, before the crop camera, in whose picture every kernel falls where it is. Bodies with
    fewer than six known joints come to lie behind the camera, where nothing is drawn.

    Args:
        centres_m: (B, K, 3) kernels, metres, in the axes of the camera, without a translation.
        joints_m: (B, J, 3) joints likewise.
        joints: (B, J, 2) where they are seen, in fractions of the crop.
        known: (B, J) 1 where that is known.
        focal: (B,) of the camera that has seen them, sides of the crop.
        camera: of the feature grid.
    """
    translation = placed(joints_m, joints - 0.5, known, focal)
    there = (known.sum(1) >= _FEWEST_JOINTS) & (translation[:, 2] > 0) & torch.isfinite(translation).all(1)
    seen = centres_m + translation[:, None]
    plane = seen[..., :2] / seen[..., 2:] * focal[:, None, None]
    common = camera.focal_cells / camera.width
    depth = centres_m[..., 2] + (translation[:, 2] * common / focal)[:, None]
    there &= (seen[..., 2] > 0).all(1) & (depth > 0).all(1)
    moved = torch.cat([plane * (depth / common)[..., None], depth[..., None]], -1)
    behind = torch.zeros_like(moved)
    behind[..., 2] = _BEHIND_M
    return torch.where(there[:, None, None], moved, behind)


def placed(points_m: Tensor, plane: Tensor, weight: Tensor, focal: Tensor) -> Tensor:
    """(B, 3) translations that bring points (B, J, 3) to (B, J, 2) of the image plane, by linear least squares.

    Args:
        points_m: metres.
        plane: from the principal point, in any unit.
        weight: (B, J).
        focal: (B,) in that unit.
    """
    f = focal[:, None].expand(plane.shape[:2])
    nothing = torch.zeros_like(f)
    rows = torch.stack(
        [torch.stack([f, nothing, -plane[..., 0]], -1), torch.stack([nothing, f, -plane[..., 1]], -1)], 2
    )
    right = plane * points_m[..., 2:] - f[..., None] * points_m[..., :2]
    rows, right = rows * weight[..., None, None], right * weight[..., None]
    rows, right = rows.flatten(1, 2), right.flatten(1)
    normal = rows.mT @ rows + 1e-9 * torch.eye(3, dtype=rows.dtype, device=rows.device)
    return torch.linalg.solve(normal, (rows.mT @ right[..., None])[..., 0])


def kernel_features(features: Tensor, drawn: Tensor, selection: Selection, count: int) -> tuple[Tensor, Tensor]:
    """The feature of every kernel that is seen: the weighted mean over the cells whose nearest kernel it is.

    Args:
        features: (B, C, H, W).
        drawn: (n, 1) weights of a selection of one kernel a cell, 0 where a cell shows something else.
        selection: of that.
        count: K, kernels of a person.

    Returns:
        (B, K, C) unit vectors, and (B, K) bool, which of them are seen.
    """
    people, _, height, width = features.shape
    by_cell = features.flatten(2).transpose(1, 2).flatten(0, 1)
    rows = drawn * by_cell[selection.people * (height * width) + selection.cells]
    both = torch.cat([rows, drawn], 1)[selection.slots]
    # In one order: the same sums every time.
    summed = torch.segment_reduce(both, "sum", lengths=selection.per_kernel, unsafe=True)
    summed = summed.unflatten(0, (people, count))
    return unit(summed[..., :-1] / summed[..., -1:].clamp(min=1e-12)), summed[..., -1] > 0


def contrast(
    samples: Tensor, kernels: Tensor, bins: Tensor, foreground: Tensor, clutter: Tensor, neighbours: Tensor
) -> Tensor:
    """Mean cross-entropy of features against the bank; zero without any.

    Args:
        samples: (S, C) unit vectors.
        kernels: (S,) whose they are.
        bins: (S,) in which orientation.
        foreground: (O, K, C) the bank's rows.
        clutter: (N, C) its rows of clutter.
        neighbours: (K, K) bool; a kernel's neighbours count neither for nor against it, in any orientation.
    """
    if not len(samples):
        return 0 * samples.sum()
    count = len(neighbours)
    known = samples @ foreground.flatten(0, 1).T / TEMPERATURE
    left_out = neighbours[kernels].repeat(1, len(foreground))
    unknown = samples @ clutter.T / TEMPERATURE + LOG_CLUTTER
    logits = torch.cat([known.masked_fill(left_out, REMOVED), unknown], 1)
    return F.cross_entropy(logits, bins * count + kernels)


def background_likeness(samples: Tensor, counted: Tensor, foreground: Tensor) -> Tensor:
    """Mean cosine of features of the background (S, C), those `counted` (S,), and all rows (O, K, C) of the bank."""
    cosine = samples @ foreground.flatten(0, 1).mean(0)
    return (cosine * counted).sum() / counted.sum().clamp(min=1)


def background_cells(allowed: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Random cells of each person: (B, P) bool -> (B, count) cells, and whether they are among those allowed."""
    order = torch.rand(allowed.shape, device=allowed.device).masked_fill(~allowed, -1)
    value, cells = order.topk(count, dim=1)
    return cells, value >= 0
