"""Kernel features that depend on how a limb points: the weights of its orientation bins (docs/fitting.md section 5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHARPNESS = 10.0
THRESHOLD = 0.3
_INSIDE = 1 - 1e-6  # arccos has no finite slope at its ends


def window_weights(directions: Tensor, bins: int) -> Tensor:
    """Release's form: (..., 3) unit vectors of the camera frame -> (..., bins), which sum to 1.

    By the depth z of the direction: three bins are parallel to the image, distal end farther, distal end nearer; two
    are farther and nearer; more are equal parts of arccos(z) in 0..pi; one does not depend on the pose.
    """
    z = directions[..., 2]
    if bins == 1:
        return torch.ones_like(z)[..., None]
    if bins == 2:
        return torch.stack([torch.sigmoid(SHARPNESS * z), torch.sigmoid(-SHARPNESS * z)], -1)
    if bins == 3:
        above, below = torch.sigmoid(SHARPNESS * (z - THRESHOLD)), torch.sigmoid(-SHARPNESS * (z + THRESHOLD))
        return torch.stack([1 - above - below, above, below], -1)
    angle = torch.acos(z.clamp(-_INSIDE, _INSIDE))
    edges = torch.arange(1, bins, dtype=z.dtype, device=z.device) * (math.pi / bins)
    passed = torch.sigmoid(SHARPNESS * (angle[..., None] - edges))
    ends = torch.ones_like(z)[..., None]
    return torch.cat([ends, passed], -1) - torch.cat([passed, 0 * ends], -1)


def bins_of(directions: Tensor, bins: int) -> Tensor:
    """(..., 3) -> (...) the bin that has the most weight: the label of a training sample."""
    return window_weights(directions, bins).argmax(-1)


def von_mises_weights(directions: Tensor, means: Tensor, concentration: float) -> Tensor:
    """Paper's form: (..., 3), (bins, 3) mean directions -> (..., bins), von Mises-Fisher posteriors of equal prior.

    With one concentration for all bins the normalising factor of the density cancels.
    """
    return torch.softmax(concentration * (directions[..., None, :] * means).sum(-1), -1)


def yz_means(bins: int) -> Tensor:
    """(bins, 3) directions, evenly spread over the yz-plane, the first parallel to the image and downwards.

    These are a guess: all that is known of the paper's directions is "in the yz-plane".
    """
    angle = torch.arange(bins, dtype=torch.float64) * (2 * math.pi / bins)
    return torch.stack([torch.zeros_like(angle), angle.cos(), angle.sin()], -1)
