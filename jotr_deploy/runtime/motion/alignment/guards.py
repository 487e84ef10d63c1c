"""Safeguards of the alignment: joints that a fit may follow, and fits that may be kept."""

from __future__ import annotations

import numpy as np

from jotr_deploy.runtime.motion.alignment.gauss_newton import Fit
from jotr_deploy.skeletons import MEASURED_IN_SMPL30, SMPL30, SMPL30_INDEX, mirrored_order
from jotr_deploy.support.aliases import Array

CONFIDENT = 0.3
"""Least confidence of a joint that decisions are based on."""
SWAPPED, SWAPPED_SIDE = 0.6, 0.03
"""Left and right count as swapped if the error for the mirrored joints is smaller by this factor, and the error for the
given ones exceeds this fraction of the crop's side."""
LEAST_JOINTS, LEAST_INLIERS = 6, 0.75
MOST_ROOT_RAD, MOST_RAD, MOST_MOVED_M = np.radians(20.0), np.radians(40.0), 0.15

_MIRROR = list(mirrored_order(SMPL30))
_MEASURED = list(MEASURED_IN_SMPL30)


def _group(*names: str) -> list[int]:
    return [SMPL30_INDEX[f"{side}_{name}"] for name in names for side in "LR"]


_GROUPS = (_group("Shoulder", "Elbow", "Wrist"), _group("Hip", "Knee", "Ankle"), _group("Eye", "Ear"))


def without_swapped(joints_px: Array, body_px: Array, side_px: Array) -> Array:
    """Joints (N, 30, 3) with confidence 0 for arms, legs or a face whose left and right are swapped.

    Args:
        joints_px: (N, 30, 3) as given: x, y, confidence.
        body_px: (N, 30, 2) joints of the estimated body.
        side_px: (N,) of the crop.
    """
    out, mirrored = joints_px.copy(), joints_px[:, _MIRROR]
    for group in _GROUPS:
        both = (joints_px[:, group, 2] >= CONFIDENT) & (mirrored[:, group, 2] >= CONFIDENT)
        given = _rms(body_px[:, group] - joints_px[:, group, :2], both) / side_px
        other = _rms(body_px[:, group] - mirrored[:, group, :2], both) / side_px
        swapped = (both.sum(1) >= 2) & (given > SWAPPED_SIDE) & (other < SWAPPED * given)
        out[np.flatnonzero(swapped)[:, None], group, 2] = 0
    return out


def _rms(gaps_px: Array, counted: Array) -> Array:
    squares = (counted * (gaps_px**2).sum(-1)).sum(1)
    return np.asarray(np.sqrt(squares / np.maximum(counted.sum(1), 1)))


def joint_error(joints_px: Array, body_px: Array, side_px: Array) -> Array:
    """(N,) mean distance between the body's joints and the given ones, as a fraction of the crop's side.

    Only measured joints with at least `CONFIDENT` count; 0 without any. Arguments as in `without_swapped`.
    """
    counted = joints_px[:, _MEASURED, 2] >= CONFIDENT
    gaps_px = np.linalg.norm(body_px[:, _MEASURED] - joints_px[:, _MEASURED, :2], axis=-1)
    return np.asarray((counted * gaps_px).sum(1) / np.maximum(counted.sum(1), 1) / side_px)


def acceptable(fit: Fit) -> Array:
    """(N,) bool: enough joints, most of which agree, and a change no larger than a network's error may be."""
    sure = fit.confidence >= CONFIDENT
    inliers = (sure & (fit.trust > 0.5)).sum(1) >= LEAST_INLIERS * sure.sum(1)
    small = (fit.turned_rad[:, 0] < MOST_ROOT_RAD) & (fit.turned_rad < MOST_RAD).all(1)
    small &= (np.abs(fit.moved_m[:, :2]) < MOST_MOVED_M).all(1)
    finite = (
        np.isfinite(fit.translation_m).all(1) & np.isfinite(fit.betas).all(1) & np.isfinite(fit.pose_rad).all((1, 2))
    )
    return np.asarray((sure.sum(1) >= LEAST_JOINTS) & inliers & small & (fit.cost <= fit.start_cost) & finite)
