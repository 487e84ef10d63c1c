"""Statistics of people's errors in millimetres: means over people and joints, and the bootstrap interval of a mean.

Rounded to a thousandth, so that the last bits of a run do not print.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jotr_deploy.evaluation.measured_joints import EVALUATED
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.support.aliases import Array

MOSTLY_VISIBLE = 0.9
"""Visible fraction of the silhouette from which a person counts as mostly visible."""

RESAMPLES = 2000
"""Draws of `bootstrap_interval`."""
_CHUNK = 100  # resamples at a time, so that thousands of people fit into memory


@dataclass(frozen=True)
class Figures:
    """Mean errors of some people; None if there are none, or if a network's numbers are not finite."""

    people: int
    mpjpe_mm: float | None
    pa_mpjpe_mm: float | None
    pve_mm: float | None

    @classmethod
    def of(cls, samples: Samples) -> Figures:
        """Each person's mean, then the mean over people."""
        errors = (samples.joints_mm.mean(1), samples.aligned_mm.mean(1), samples.vertices_mm)
        return cls(len(samples), *(mean(error) for error in errors))


@dataclass(frozen=True)
class JointFigures:
    """Mean errors of one joint, or of all: over people for whom it is visible, and over those for whom it is hidden."""

    visible: int
    visible_mpjpe_mm: float | None
    visible_pa_mpjpe_mm: float | None
    hidden: int
    hidden_mpjpe_mm: float | None
    hidden_pa_mpjpe_mm: float | None

    @classmethod
    def of(cls, joints_mm: Array, aligned_mm: Array, visible: Array) -> JointFigures:
        """Figures from parallel arrays of any shape; `aligned_mm` uses the alignment of whole people."""
        parts: list[Any] = []
        for chosen in (visible, ~visible):
            parts += [int(chosen.sum()), mean(joints_mm[chosen]), mean(aligned_mm[chosen])]
        return cls(*parts)


@dataclass(frozen=True)
class Errors:
    """Errors of one network on one set of people."""

    people: Mapping[str, Figures]
    joints: Mapping[str, JointFigures]

    @classmethod
    def of(cls, samples: Samples) -> Errors:
        """All statistics of a set of people."""
        free = samples.visible_fraction >= MOSTLY_VISIBLE
        people = {"all": samples, "mostly visible": samples[free], "occluded": samples[~free]}
        joints = {"all": JointFigures.of(samples.joints_mm, samples.aligned_mm, samples.visible)}
        for place, name in enumerate(EVALUATED):
            one = (array[:, place] for array in (samples.joints_mm, samples.aligned_mm, samples.visible))
            joints[name] = JointFigures.of(*one)
        return cls({name: Figures.of(chosen) for name, chosen in people.items()}, joints)


def mean(values: Array) -> float | None:
    """Mean, rounded; None of no values, and of values that are not finite."""
    return rounded(float(np.mean(values, dtype=np.float64))) if np.size(values) else None


def rounded(value: float) -> float | None:
    """Value rounded to a thousandth; None if it is not finite."""
    return round(value, 3) + 0.0 if np.isfinite(value) else None


def bootstrap_interval(differences: Array, seed: int) -> tuple[float, float] | None:
    """95 % interval of the mean of paired differences, by the percentile bootstrap over people.

    Args:
        differences: (N,) one a person; None is returned for nobody.
        seed: of the draws.
    """
    if not len(differences):
        return None
    means = np.concatenate(list(_resampled_means(np.asarray(differences, np.float64), seed)))
    low, high = np.percentile(means, (2.5, 97.5))
    return round(float(low), 3), round(float(high), 3)


def _resampled_means(values: Array, seed: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES // _CHUNK):
        yield values[rng.integers(0, len(values), (_CHUNK, len(values)))].mean(1)
