"""Points moved onto others by rotation, scale and translation."""

from __future__ import annotations

import numpy as np

from jotr_deploy.support.aliases import Array


def aligned(found_m: Array, truth_m: Array, counted: Array | None = None) -> Array:
    """Move points onto others by the similarity (rotation, one scale, translation) with the least squared distance.

    Mirror images are not allowed: where the best orthogonal map is one, its weakest axis is turned round. Points that
    are all one point, which have no scale, are moved to the centre of the others.

    Args:
        found_m: (..., P, 3) what is moved.
        truth_m: (..., P, 3) where to.
        counted: (..., P) bool, the points that the similarity is found by, at least one of each set; by default all.
            The others are moved with them.

    Returns:
        (..., P, 3) float64; NaN for a set with a number that is not finite.
    """
    found, truth = np.asarray(found_m, np.float64), np.asarray(truth_m, np.float64)
    found, truth = np.broadcast_arrays(found, truth)
    finite = np.asarray((np.isfinite(found) & np.isfinite(truth)).all((-1, -2), keepdims=True))
    use = np.ones((1, 1), bool) if counted is None else np.asarray(counted, bool)[..., None]
    centre, goal = (points.mean(-2, keepdims=True, where=use) for points in (found, truth))
    source, target = np.where(finite & use, found - centre, 0), np.where(finite & use, truth - goal, 0)
    left, strength, right = np.linalg.svd(np.swapaxes(source, -1, -2) @ target)
    mirrored = np.linalg.det(left) * np.linalg.det(right) < 0
    right[..., 2, :] = np.where(mirrored[..., None], -right[..., 2, :], right[..., 2, :])
    strength[..., 2] = np.where(mirrored, -strength[..., 2], strength[..., 2])
    spread = (source**2).sum((-1, -2))
    scale = np.divide(strength.sum(-1), spread, out=np.zeros_like(spread), where=spread > 0)
    moved: Array = scale[..., None, None] * (np.where(finite, found - centre, 0) @ left @ right) + goal
    return np.where(finite, moved, np.nan)
