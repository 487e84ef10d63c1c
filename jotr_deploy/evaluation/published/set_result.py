"""Results of the evaluation of a set, as values; lengths in millimetres."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jotr_deploy.evaluation.error_statistics import Figures, mean
from jotr_deploy.evaluation.evaluation_result import Drift
from jotr_deploy.evaluation.fit_stage import FitCounts
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.evaluation.occlusion import Occlusion
from jotr_deploy.evaluation.published.paper_rows import Published
from jotr_deploy.evaluation.visible_joints import VisibleJoints
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class SetProtocol:
    """Meaning of the figures, in words."""

    protocol: str
    data_set: str
    people: str
    joint_set: str
    regressor: str
    alignment: str
    truth: str
    box: str
    joints_given: str
    confidence: str
    pictures: str
    acceleration: str
    published: str
    fit: str | None
    visible_joints: str | None


@dataclass(frozen=True)
class MotionFigures(Figures):
    """Mean errors of some people, with the error of their motion."""

    acceleration_mm: float | None  # mm/frame^2
    accelerations: int  # number of acceleration errors, over people and frames

    @classmethod
    def of_people(cls, samples: Samples, accelerations_mm: Array) -> MotionFigures:
        """Each person's mean, then the mean over people; `accelerations_mm` (K,) are of some of them."""
        return cls(
            **asdict(Figures.of(samples)), acceleration_mm=mean(accelerations_mm), accelerations=len(accelerations_mm)
        )


@dataclass(frozen=True)
class SetBeforeFit:
    """The start of the fit: the network's own output for the same people."""

    everybody: MotionFigures
    sequences: Mapping[str, MotionFigures]
    not_finite: int
    drift: Drift | None
    visible_joints: VisibleJoints | None


@dataclass(frozen=True)
class SetEvaluation:
    """Everything `eval` prints of a data set."""

    bundle: str
    file: str
    precision: str
    device: str
    labels: tuple[str, ...]
    protocol: SetProtocol
    everybody: MotionFigures
    sequences: Mapping[str, MotionFigures]  # none in a set without sequences
    published: Published | None  # None where the paper has no row for the set
    left_out: Mapping[str, tuple[str, ...]]  # reason -> keys of people who were not evaluated
    not_finite: int
    warnings: tuple[str, ...]
    drift: Drift | None
    occlusion: Occlusion | None = None
    fit: FitCounts | None = None  # of everybody, where a fit follows the network
    before_fit: SetBeforeFit | None = None
    visible_joints: VisibleJoints | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def by_sequence(
    samples: Samples, sequences: Array, measured: Array, accelerations_mm: Array
) -> tuple[MotionFigures, dict[str, MotionFigures]]:
    """Figures of all people and of each sequence.

    Args:
        samples: N people.
        sequences: (N,) their names.
        measured: (K,) indices of people whose acceleration is known.
        accelerations_mm: (K,).
    """
    everybody = MotionFigures.of_people(samples, accelerations_mm)
    rows = {}
    for name in sorted({str(name) for name in sequences if name}):
        own = sequences == name
        rows[name] = MotionFigures.of_people(samples[np.flatnonzero(own)], accelerations_mm[own[measured]])
    return everybody, rows
