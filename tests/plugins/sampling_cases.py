"""Cases of the sampling operator and their exact result; NumPy only, as `benchmarks/gpu` needs it."""

from __future__ import annotations

import numpy as np

# dtype -> largest difference of values around one
TOLERANCE = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}

EDGE = np.nextafter(np.float32(1), np.float32(2))
CASES = {
    "one voxel": ((1, 1, 1, 1, 4), [[0, 0, 0], [0.5, 0.5, 0.5], [-0.1, 0, 0]]),
    "corners": ((1, 2, 3, 4, 8), [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "on the border": ((1, 8, 8, 8, 16), [[1, 0.3, 0.7], [0, 0.3, 0.7], [0.2, 1, 0], [0.2, 0.6, 1]]),
    "just outside": ((1, 8, 8, 8, 16), [[EDGE, 0.5, 0.5], [-1e-7, 0.5, 0.5], [0.5, 1.05, 0.5], [0.5, 0.5, -0.1]]),
    "far outside": ((1, 4, 4, 4, 8), [[5, 5, 5], [-3, 0.5, 0.5], [1e6, 0.5, 0.5], [0.5, -1e9, 0.5]]),
    "on voxel centres": ((1, 5, 5, 5, 3), [[0.25, 0.5, 0.75], [0.5, 0.25, 1], [0, 0.75, 0.25]]),
    "no points": ((2, 4, 4, 4, 8), np.zeros((2, 0, 3))),
    "one channel": ((1, 3, 4, 5, 1), [[0.1, 0.2, 0.3]]),
    "odd channels": ((1, 3, 4, 5, 13), [[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]]),
    "batch, random in and out": ((4, 8, 8, 8, 256), np.random.default_rng(0).uniform(-0.3, 1.3, (4, 15, 3))),
    "unequal sides": ((2, 2, 5, 9, 8), np.random.default_rng(1).uniform(0, 1, (2, 40, 3))),
}


def case(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (B, D, H, W, C) float64 around one and points (B, P, 3) float32."""
    shape, points = CASES[name]
    points = np.asarray(points, np.float32)
    points = points if points.ndim == 3 else np.broadcast_to(points, (shape[0], *points.shape))
    return np.random.default_rng(2).normal(size=shape), points.copy()


def exact(features: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The operator in float64: products of three hats."""
    _, D, H, W, _ = features.shape
    x, y, z = (
        np.maximum(0, 1 - np.abs(points[..., axis, None].astype(np.float64) * (n - 1) - np.arange(n)))
        for axis, n in enumerate((W, H, D))
    )
    return np.einsum("bpz,bpy,bpx,bzyxc->bpc", z, y, x, features.astype(np.float64), optimize=True)
