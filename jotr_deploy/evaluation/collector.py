"""People of many pictures through networks, and through a fit, to their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jotr_deploy.evaluation.fit_stage import FitCounts, FitCrops, FitStage
from jotr_deploy.evaluation.measured_joints import EvaluatedJoints, by_name
from jotr_deploy.evaluation.measured_people import Samples, Truth
from jotr_deploy.evaluation.visible_joints import JointErrors, TruePlaces
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops, make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.mesh import MAX_BATCH, MeshNetwork
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class Measured:
    """All people as one network recovers them, after the fit if there is one."""

    samples: Samples
    joints: JointErrors  # of nobody where places in the picture were not given
    before_fit: Measured | None = None  # the start of the fit


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
        self._starts: list[list[Measured]] = [[] for _ in networks]
        self._fitted: list[list[Measured]] = [[] for _ in networks]
        self._waiting: list[tuple[Crops, FitCrops | None, Detections, Truth, TruePlaces | None]] = []
        self.fit_counts = FitCounts()
        """Outcome of the fit of the first network's people."""

    def add(self, image_bgr: Array, people: Detections, truth: Truth, places: TruePlaces | None = None) -> None:
        """Add the people of one picture with square crop boxes; row n of all is the same person.

        `places` is for errors of the visible joints; if given, then for every picture.
        """
        crops = make_crops(image_bgr, people, self._networks[0].crop_side)
        to_fit = self._fit.crops(image_bgr, people) if self._fit else None
        if sum(len(waiting) for _, _, waiting, *_ in self._waiting) + len(people) > MAX_BATCH:
            self._call()
        self._waiting.append((crops, to_fit, people, truth, places))

    def finish(self) -> list[Measured]:
        """All people added, in order, for every network."""
        self._call()
        starts = [_all_of(parts) for parts in self._starts]
        if not self._fit:
            return starts
        return [_all_of(parts, start) for parts, start in zip(self._fitted, starts, strict=True)]

    def _call(self) -> None:
        if not self._waiting:
            return
        crops, to_fit, people, truth, places = (_joined(parts) for parts in zip(*self._waiting, strict=True))
        for number, network in enumerate(self._networks):
            start = network(crops, people)
            self._starts[number].append(self._measured(start, truth, places))
            if self._fit:
                fits = self._fit(to_fit, start)
                self._fitted[number].append(self._measured(fits.people, truth, places))
                if number == 0:
                    self.fit_counts += fits
        self._waiting = []

    def _measured(self, people: People, truth: Truth, places: TruePlaces | None) -> Measured:
        joints = JointErrors.of(people, truth, places, self._evaluated) if places else JointErrors.concatenate([])
        return Measured(Samples.of(people, truth, self._evaluated), joints)


def _all_of(parts: Sequence[Measured], before_fit: Measured | None = None) -> Measured:
    samples = Samples.concatenate([part.samples for part in parts])
    return Measured(samples, JointErrors.concatenate([part.joints for part in parts]), before_fit)


def _joined(parts: Sequence[Any]) -> Any:
    """One dataclass of parallel arrays from several; None of several None."""
    if parts[0] is None:
        return None
    names = [f.name for f in fields(parts[0])]
    return type(parts[0])(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
