"""Every person measured: ground truth and the predictions of networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jotr_deploy.evaluation.fit_stage import FitCounts, FitCrops, FitStage
from jotr_deploy.evaluation.measured_joints import EVALUATED_IN_SMPL30, EvaluatedJoints, by_name
from jotr_deploy.evaluation.metrics import aligned, distances_mm, mpjpe_mm
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops, make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.mesh import MAX_BATCH, MeshNetwork
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


class Collector:
    """Collector that sends people through one or several networks, batching those of several pictures.

    Args:
        networks: all with crops of the same side.
        evaluated: gives the 14 joints of people.
        fit: that follows every network.
    """

    def __init__(
        self, networks: Sequence[MeshNetwork], evaluated: EvaluatedJoints = by_name, fit: FitStage | None = None
    ) -> None:
        self._networks, self._evaluated, self._fit = networks, evaluated, fit
        self._starts: list[list[Samples]] = [[] for _ in networks]
        self._fitted: list[list[Samples]] = [[] for _ in networks]
        self._waiting: list[tuple[Crops, FitCrops | None, Detections, Truth]] = []
        self.fit_counts = FitCounts()
        """Outcome of the fit of the first network's people."""

    def add(self, image_bgr: Array, people: Detections, truth: Truth) -> None:
        """Add the people of one picture with square crop boxes; row n of both is the same person."""
        crops = make_crops(image_bgr, people, self._networks[0].crop_side)
        to_fit = self._fit.crops(image_bgr, people) if self._fit else None
        if sum(len(waiting) for _, _, waiting, _ in self._waiting) + len(people) > MAX_BATCH:
            self._call()
        self._waiting.append((crops, to_fit, people, truth))

    def finish(self) -> list[Samples]:
        """Samples of all people added, in order, for every network: after the fit, if there is one."""
        starts = self.starts()
        return [Samples.concatenate(parts) for parts in self._fitted] if self._fit else starts

    def starts(self) -> list[Samples]:
        """Samples of the networks themselves."""
        self._call()
        return [Samples.concatenate(parts) for parts in self._starts]

    def _call(self) -> None:
        if not self._waiting:
            return
        crops, to_fit, people, truth = (_joined(parts) for parts in zip(*self._waiting, strict=True))
        for number, network in enumerate(self._networks):
            start = network(crops, people)
            self._starts[number].append(Samples.of(start, truth, self._evaluated))
            if self._fit:
                fits = self._fit(to_fit, start)
                self._fitted[number].append(Samples.of(fits.people, truth, self._evaluated))
                if number == 0:
                    self.fit_counts += fits
        self._waiting = []


def _joined(parts: Sequence[Any]) -> Any:
    """One dataclass of parallel arrays from several; None from several None."""
    if parts[0] is None:
        return None
    names = [f.name for f in fields(parts[0])]
    return type(parts[0])(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
