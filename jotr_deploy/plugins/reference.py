"""The definition of the sampling operator, in NumPy: eight corners, written to be read, not to be fast."""

from __future__ import annotations

from itertools import product

import numpy as np

from jotr_deploy.support.aliases import Array


def trilinear_sample_3d(features: Array, points: Array) -> Array:
    """Sample a feature volume at continuous points.

    Args:
        features: (B, D, H, W, C), float32, float16 or bfloat16.
        points: (B, P, 3) float32, x y z in 0..1 along W, H, D; any finite value is allowed.

    Returns:
        (B, P, C) of the features' type; weights and sums are float32.
    """
    batch, depth, height, width, channels = features.shape
    sizes = np.array([width, height, depth])
    cells = points.astype(np.float32) * (sizes - 1).astype(np.float32)
    # Far outside every corner is padding; the clip only keeps the integers in range.
    corner = np.floor(np.clip(cells, -2, sizes + 1)).astype(np.int64)
    fraction = cells - corner

    rows = np.arange(batch)[:, None]
    samples = np.zeros((batch, points.shape[1], channels), np.float32)
    for offset in product((0, 1), repeat=3):
        x, y, z = np.moveaxis(corner + offset, -1, 0)
        weight = np.where(offset, fraction, 1 - fraction).prod(-1, dtype=np.float32)
        inside = ((corner + offset >= 0) & (corner + offset < sizes)).all(-1)
        weight = np.where(inside, weight, 0)
        x, y, z = (np.where(inside, index, 0) for index in (x, y, z))
        samples += weight[..., None] * features[rows, z, y, x].astype(np.float32)
    return samples.astype(features.dtype)
