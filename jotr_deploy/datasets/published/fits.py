"""Acceptance of fits for training, by their distance from the measured joints."""

from __future__ import annotations

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.skeletons import H36M17, SMPL30_INDEX
from jotr_deploy.support.aliases import Array

FARTHEST_FIT_M = 0.025
"""A fit that is farther from the measured joints, on average, is rejected (JOTR code)."""


def fit_error_m(person: Annotation, fitted_m: Array, names: tuple[str, ...] = H36M17) -> float | None:
    """Mean distance of the joints of a fit from the measured ones.

    Both sets of compared joints are centred on their means first: training is relative to the
    pelvis, so the position does not count.

    Args:
        person: with `joints_m`.
        fitted_m: (J, 3) joints of the fitted body in the camera's frame, see `Fit.in_camera`.
        names: of these joints; those that were also measured are compared. The joints of Human3.6M's regressor are
            closest to those measured in it and in MuCo-3DHP.

    Returns:
        Metres, or None where nothing was measured.
    """
    if person.joints_m is None or person.joints_m_known is None:
        return None
    places = np.array([SMPL30_INDEX.get(name, -1) for name in names])
    both = (places >= 0) & person.joints_m_known[places]
    if not both.any():
        return None
    gap = np.asarray(fitted_m, np.float64)[both] - person.joints_m[places[both]]
    return float(np.linalg.norm(gap - gap.mean(0), axis=-1).mean())


def fit_counts(person: Annotation, fitted_m: Array, names: tuple[str, ...] = H36M17) -> bool:
    """True if the error is at most 25 mm; a fit that cannot be compared counts. Arguments: see `fit_error_m`."""
    error_m = fit_error_m(person, fitted_m, names)
    return error_m is None or error_m <= FARTHEST_FIT_M
