"""Every person measured: ground truth, and the errors of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from jotr_deploy.evaluation.measured_joints import EVALUATED_IN_SMPL30, EvaluatedJoints, by_name
from jotr_deploy.evaluation.metrics import aligned, distances_mm, mpjpe_mm
from jotr_deploy.people import People
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class Truth:
    """Ground truth of N people: parallel arrays; joints and meshes relative to the pelvis of the 30-joint set."""

    joints_m: Array  # (N, 30, 3)
    vertices_m: Array  # (N, 6890, 3)
    joints_visible: Array  # (N, 30) bool, all True where it is not known
    visible_fraction: Array  # (N,) of the person's own silhouette, 1 where it is not known

    @classmethod
    def none(cls) -> Truth:
        """Empty truth: every array at its rank with N = 0."""
        return cls(np.zeros((0, 30, 3)), np.zeros((0, 6890, 3)), np.zeros((0, 30), bool), np.zeros(0))

    def __getitem__(self, index: Array) -> Truth:
        return Truth(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Samples:
    """Predictions of one network for N people, and their errors: parallel arrays."""

    joints_m: Array  # (N, 30, 3) found, relative to the pelvis
    joints_mm: Array  # (N, 14) error of the evaluated joints
    aligned_mm: Array  # (N, 14) the same after the similarity alignment of the person
    vertices_mm: Array  # (N,) mean error of the vertices
    visible: Array  # (N, 14) bool
    visible_fraction: Array  # (N,)
    gap_m: Array  # (N, 14, 3) the evaluated joints, found minus true, both relative to their pelvis

    @classmethod
    def of(cls, people: People, truth: Truth, evaluated: EvaluatedJoints = by_name) -> Samples:
        """Compare predictions with the truth; both are already relative to the pelvis."""
        found_m, true_m = (evaluated(each.joints_m, each.vertices_m) for each in (people, truth))
        return cls(
            people.joints_m,
            distances_mm(found_m, true_m),
            distances_mm(aligned(found_m, true_m), true_m),
            mpjpe_mm(people.vertices_m, truth.vertices_m),
            np.asarray(truth.joints_visible, bool)[:, list(EVALUATED_IN_SMPL30)],
            np.asarray(truth.visible_fraction, np.float64),
            np.asarray(found_m - true_m, np.float64),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Samples]) -> Samples:
        """People of several parts, concatenated in order; empty without parts."""
        if not parts:
            parts = [cls.of(People.none(), Truth.none())]
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def __len__(self) -> int:
        return len(self.joints_m)

    def __getitem__(self, index: Array) -> Samples:
        return Samples(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def finite(self) -> Array:
        """(N,) bool: every number of the joints and of the mesh is finite."""
        return np.isfinite(self.joints_m).all((1, 2)) & np.isfinite(self.vertices_mm)
