"""Figures of people and joints, as values. Millimetres, rounded so that the last bits of a run do not print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.evaluation.measured_joints import EVALUATED
from jotr_deploy.evaluation.measured_people import Samples

Array = NDArray[Any]

HARDLY_OCCLUDED = 0.9
"""From this visible fraction of the silhouette on a person counts as hardly occluded."""


@dataclass(frozen=True)
class Figures:
    """Of some people; None where there is nobody, or where a network's numbers are not finite."""

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
    """Of one joint, or of all: over people who show it, and over people of whom it is hidden."""

    visible: int
    visible_mpjpe_mm: float | None
    visible_pa_mpjpe_mm: float | None
    hidden: int
    hidden_mpjpe_mm: float | None
    hidden_pa_mpjpe_mm: float | None

    @classmethod
    def of(cls, joints_mm: Array, aligned_mm: Array, visible: Array) -> JointFigures:
        """Parallel arrays of any shape; `aligned_mm` is of the alignment of whole people."""
        parts: list[Any] = []
        for chosen in (visible, ~visible):
            parts += [int(chosen.sum()), mean(joints_mm[chosen]), mean(aligned_mm[chosen])]
        return cls(*parts)


@dataclass(frozen=True)
class Errors:
    """Of one network on one set of people."""

    people: Mapping[str, Figures]
    joints: Mapping[str, JointFigures]

    @classmethod
    def of(cls, samples: Samples) -> Errors:
        """All that is said of a set of people."""
        free = samples.visible_fraction >= HARDLY_OCCLUDED
        people = {"all": samples, "hardly occluded": samples[free], "occluded": samples[~free]}
        joints = {"all": JointFigures.of(samples.joints_mm, samples.aligned_mm, samples.visible)}
        for place, name in enumerate(EVALUATED):
            one = (array[:, place] for array in (samples.joints_mm, samples.aligned_mm, samples.visible))
            joints[name] = JointFigures.of(*one)
        return cls({name: Figures.of(chosen) for name, chosen in people.items()}, joints)


def mean(values: Array) -> float | None:
    """None of nothing, and of what is not finite."""
    return rounded(float(np.mean(values, dtype=np.float64))) if np.size(values) else None


def rounded(value: float) -> float | None:
    """To a thousandth; None for what is not finite."""
    return round(value, 3) + 0.0 if np.isfinite(value) else None
