"""MPJPE, PA-MPJPE and PVE as the published evaluation defines them, for any number of people at once.

MPJPE and PVE are the mean `distances_mm` of joints and of vertices, both relative to their pelvis;
PA-MPJPE is the same for `aligned` joints. Everything takes leading axes and computes in float64.
"""

from __future__ import annotations

import numpy as np

from jotr_deploy.geometry.similarity import aligned as aligned
from jotr_deploy.support.aliases import Array


def distances_mm(found_m: Array, truth_m: Array) -> Array:
    """Euclidean distance point by point: (..., P, 3) twice, metres, to (..., P) millimetres."""
    gap_m = np.asarray(found_m, np.float64) - np.asarray(truth_m, np.float64)
    return np.linalg.norm(gap_m, axis=-1) * 1000


def mpjpe_mm(found_m: Array, truth_m: Array) -> Array:
    """Mean distance of the points: MPJPE for joints, PVE for vertices; (..., P, 3) twice to (...)."""
    return distances_mm(found_m, truth_m).mean(-1)


def pa_mpjpe_mm(found_m: Array, truth_m: Array) -> Array:
    """Mean distance of the points after `aligned`; (..., P, 3) twice to (...)."""
    return mpjpe_mm(aligned(found_m, truth_m), truth_m)
