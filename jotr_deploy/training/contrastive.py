"""The two contrastive losses on the feature volume (docs/training.md): joints against joints, joints against the rest.

Sampling and computation are separate: `draw_intra` and `draw_inter` give indices with NumPy, the losses are pure
functions of features and indices. Every logit is computed once, in one matrix product of the anchors with all
features; pairs are picked from it. So no anchor has its own copy of positives or negatives.

Joints of a batch are numbered b * J + j, voxels b * D*H*W + (d * H + h) * W + w.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.plugins.op import trilinear_sample_3d
from jotr_deploy.support.aliases import Array

TEMPERATURE = 0.07
ANCHORS = 100
INTRA_POSITIVES, INTRA_NEGATIVES = 128, 256
INTER_POSITIVES, INTER_NEGATIVES = 1024, 2048


class Intra(NamedTuple):
    """Indices of joint to joint: attract the same joint in any sample, repel the other joints of the batch."""

    anchor: Array  # (A,) joint of the batch
    positive: Array  # (A, P) sample whose true position of the anchor's label is the positive
    negative: Array  # (A, N) joint of the batch
    usable: Array  # (A,) bool, False where no sample has a true position of this label


class Inter(NamedTuple):
    """Indices of joint to non-joint: attract joints, repel voxels without a joint."""

    anchor: Array  # (A,) joint of the batch
    positive: Array  # (A, P) joint of the batch
    negative: Array  # (N,) voxel of the batch, one set for all anchors


def draw_intra(
    rng: np.random.Generator, known: Array, anchors: int = ANCHORS, positives: int = INTRA_POSITIVES,
    negatives: int = INTRA_NEGATIVES,
) -> Intra:  # fmt: skip
    """Draw indices for a batch; `known` (B, J) is true where a sample has a true position of the joint.

    Nothing is drawn twice unless the pool is smaller than the count.
    """
    samples, joints = known.shape
    anchor = _choose(rng, np.ones((1, samples * joints), bool), anchors)[0]
    label = anchor % joints
    pool = np.asarray(known, bool).T[label]  # (A, B)
    others = np.arange(samples * joints) % joints != label[:, None]
    return Intra(anchor, _choose(rng, pool, positives), _choose(rng, others, negatives), pool.any(1))


def draw_inter(
    rng: np.random.Generator, free: Array, joints: int, anchors: int = ANCHORS, positives: int = INTER_POSITIVES,
    negatives: int = INTER_NEGATIVES,
) -> Inter:  # fmt: skip
    """Draw indices for a batch; `free` (B, D, H, W) is true in voxels without a joint, see `free_voxels`."""
    count = len(free) * joints
    anchor = _choose(rng, np.ones((1, count), bool), anchors)[0]
    others = np.arange(count) != anchor[:, None]
    return Inter(anchor, _choose(rng, others, positives), _choose(rng, free.reshape(1, -1), negatives)[0])


def _choose(rng: np.random.Generator, pool: Array, count: int) -> Array:
    """`count` members of every row of a pool (A, M) of flags -> (A, count) indices.

    Without replacement if the row has enough, otherwise with; the result for an empty row is undefined.
    """
    keys = rng.random(pool.shape, np.float32) + ~pool  # members first, in random order
    order, size = np.argsort(keys, 1), pool.sum(1, keepdims=True)
    again = (rng.random((len(pool), count)) * size).astype(np.int64)
    place = np.where(size >= count, np.minimum(np.arange(count), pool.shape[1] - 1), again)
    return np.take_along_axis(order, place, 1)


def free_voxels(points: Array, grid: tuple[int, int, int], published: bool = False) -> Array:
    """Voxels (B, D, H, W) that no joint of their own sample touches; a joint touches the 8 voxels it is sampled from.

    Args:
        points: (B, J, 3) x y z in 0..1 of the volume.
        grid: (D, H, W).
        published: as in the published code, which counts n spaces between voxels where sampling has n - 1, and
            confuses x with depth and z with width.
    """
    sizes = np.array(grid[::-1])  # along x, y, z
    place = np.asarray(points, np.float64) * (sizes if published else sizes - 1)
    corners = np.clip(np.stack([np.floor(place), np.ceil(place)]), 0, sizes - 1).astype(np.int64)  # (2, B, J, 3)
    x, y, z = np.moveaxis(corners, -1, 0)
    depth, width = (x, z) if published else (z, x)
    free = np.ones((points.shape[0], *grid), bool)
    sample = np.arange(len(free))[:, None]
    for d in depth:
        for h in y:
            for w in width:
                free[sample, d, h, w] = False
    return free


def intra_loss(volume: Tensor, predicted: Tensor, true: Tensor, drawn: Intra) -> Tensor:
    """Mean Info-NCE over the pairs of usable anchors; zero when there is none.

    Args:
        volume: (B, D, H, W, C).
        predicted: (B, J, 3) x y z in 0..1, where anchors and negatives are sampled (depth without the exponent).
        true: (B, J, 3), where positives are sampled.
        drawn: indices.
    """
    found = F.normalize(trilinear_sample_3d(volume, predicted).float(), dim=-1).flatten(0, 1)
    positives = F.normalize(trilinear_sample_3d(volume, true).float(), dim=-1).flatten(0, 1)
    anchor, positive, negative, usable = (torch.from_numpy(a).to(volume.device) for a in drawn)
    joints = predicted.shape[1]
    queries = found[anchor] / TEMPERATURE
    same = (queries @ positives.T).gather(1, positive * joints + anchor[:, None] % joints)
    losses = info_nce(same, (queries @ found.T).gather(1, negative))
    return (losses * usable[:, None]).sum() / (usable.sum() * positive.shape[1]).clamp(min=1)


def inter_loss(volume: Tensor, predicted: Tensor, drawn: Inter) -> Tensor:
    """Mean Info-NCE over all pairs; arguments as in `intra_loss`."""
    found = F.normalize(trilinear_sample_3d(volume, predicted).float(), dim=-1).flatten(0, 1)
    anchor, positive, negative = (torch.from_numpy(a).to(volume.device) for a in drawn)
    voxels = F.normalize(volume.flatten(0, 3)[negative].float(), dim=-1)
    queries = found[anchor] / TEMPERATURE
    return info_nce((queries @ found.T).gather(1, positive), queries @ voxels.T).mean()


def info_nce(positive: Tensor, negative: Tensor) -> Tensor:
    """Logits (A, P) and (A, N) -> (A, P): -log(e^p / (e^p + sum of e^n)) of every pair."""
    return F.softplus(negative.logsumexp(1, keepdim=True) - positive)


def contrast(
    rng: np.random.Generator, volume: Tensor, predicted: Tensor, true: Tensor, known: Tensor, published: bool = False
) -> tuple[Tensor, Tensor]:
    """Both losses of a batch in the published counts: (intra, inter). Arguments as above, `known` (B, J)."""
    intra = draw_intra(rng, known.detach().cpu().numpy() > 0)
    depth, height, width = volume.shape[1:4]
    points = predicted.detach().float().cpu().numpy()
    inter = draw_inter(rng, free_voxels(points, (depth, height, width), published), predicted.shape[1])
    return intra_loss(volume, predicted, true, intra), inter_loss(volume, predicted, inter)
