"""Adversarial protocol: an opaque patch at every place of a grid, and the place with a person's largest error.

For every person, every network sees the same crops: the clean one, and one for every place with its own texture.
This module does not depend on the source of people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from jotr_deploy.evaluation.fit_stage import FitCrops, FitStage, paste
from jotr_deploy.evaluation.measured_joints import EVALUATED_IN_SMPL30, EvaluatedJoints, by_name
from jotr_deploy.evaluation.measured_people import Truth
from jotr_deploy.evaluation.metrics import aligned, distances_mm, mpjpe_mm
from jotr_deploy.evaluation.patches import PatchGrid, covered
from jotr_deploy.evaluation.textures import Textures, Window
from jotr_deploy.evaluation.visible_joints import JointErrors, TruePlaces
from jotr_deploy.geometry.crop import PX_PER_CELL, crop_from_image, transform_px
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops, make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.mesh import MAX_BATCH
from jotr_deploy.support.aliases import Array

SomeCrops = TypeVar("SomeCrops", bound=Crops)
Network = Callable[[Crops, Detections], People]

METRICS = ("MPJPE", "PA-MPJPE", "PVE")
MPJPE = 0


def person_errors_mm(found: People, truth: Truth, counted: Array, evaluated: EvaluatedJoints = by_name) -> Array:
    """Errors of N predictions for one person.

    Args:
        found: N people, all of them the same person.
        truth: of that person, N = 1.
        counted: (N, 14) bool, the evaluated joints that count in each prediction.
        evaluated: gives the 14 joints of people.

    Returns:
        (N, 3) `METRICS`: MPJPE and PA-MPJPE over the joints that count, which alone decide the alignment; PVE over the
        whole mesh. NaN where no joint counts, infinity where a prediction is not finite.
    """
    some, finite = np.asarray(counted.any(1)), _finite(found)
    use = counted | ~some[:, None]
    joints_m, vertices_m = (np.where(finite[:, None, None], each, 0) for each in (found.joints_m, found.vertices_m))
    found_m, true_m = evaluated(joints_m, vertices_m), evaluated(truth.joints_m, truth.vertices_m)
    errors = np.stack([
        distances_mm(found_m, true_m).mean(1, where=use),
        distances_mm(aligned(found_m, true_m, use), true_m).mean(1, where=use),
        mpjpe_mm(vertices_m, truth.vertices_m),
    ], -1)  # fmt: skip
    errors[~some] = np.nan
    errors[~finite] = np.inf
    return errors


def _finite(found: People) -> Array:
    return np.asarray(np.isfinite(found.joints_m).all((1, 2)) & np.isfinite(found.vertices_m).all((1, 2)))


@dataclass(frozen=True)
class Attacked:
    """Errors of one network on N people, millimetres; see `person_errors_mm`."""

    clean_mm: Array  # (N, 3) without a patch
    patched_mm: tuple[Array, ...]  # for every grid (N, places, 3)
    before_fit: Attacked | None = None  # the start of the fit, where there is one
    joints: tuple[JointErrors, ...] = ()  # without a patch, then for every grid where the visible joints fare worst


class _Answers:
    """Errors of the answers of one network, or of the fit behind it, for everybody so far."""

    def __init__(self, grids: Sequence[PatchGrid]) -> None:
        self._ends = np.cumsum([1, *(len(grid) for grid in grids)])
        self._errors: list[Array] = [np.zeros((0, self._ends[-1], len(METRICS)))]
        self._joints: list[JointErrors] = []
        self._waiting: list[tuple[Array, JointErrors]] = []

    def add(self, errors: Array, joints: JointErrors) -> None:
        """Errors of some crops of a person, in order."""
        self._waiting.append((errors, joints))

    def end_of_person(self) -> None:
        """Finish a person, all of whose crops have been added."""
        errors, joints = zip(*self._waiting, strict=True)
        self._errors.append(np.concatenate(errors)[None])
        everywhere = JointErrors.concatenate(joints)
        if len(everywhere):
            # Where no joint is visible there is no error, so that place is the worst only where there is no other.
            ranks = np.nan_to_num(everywhere.mpjpe_mm, nan=-1.0, posinf=np.inf)
            by_grid = zip(self._ends[:-1], np.split(ranks, self._ends)[1:-1], strict=True)
            worst = [start + int(of.argmax()) for start, of in by_grid]
            self._joints.append(everywhere[np.array([0, *worst])])
        self._waiting = []

    def attacked(self, before_fit: Attacked | None = None) -> Attacked:
        """Errors of everybody."""
        clean, *patched = np.split(np.concatenate(self._errors), self._ends[:-1], axis=1)
        joints = JointErrors.concatenate(self._joints)
        sets = tuple(joints[np.arange(place, len(joints), len(self._ends))] for place in range(len(self._ends)))
        return Attacked(clean[:, 0], tuple(patched), before_fit, sets)


@dataclass(frozen=True)
class _Person:
    """Person under attack: parallel arrays over the one crop without a patch."""

    crops: Crops
    fit_crops: FitCrops | None
    given: Detections
    truth: Truth
    joints_px: Array  # (30, 2) in the crop
    evaluated_px: Array | None  # (1, 14, 2) in the picture


class Attack:
    """Runner that sends every person through one or several networks, clean and with every patch.

    Args:
        networks: called with up to `MAX_BATCH` crops of `crop_side`, all with the same ones.
        crop_side: pixels.
        grids: one for each size of patch.
        textures: that patches are cut from.
        seed: with the number of the person, the size and the place it determines a texture.
        keep_joints: joints under a patch are still given to the network; by default they are withheld.
        evaluated: gives the 14 joints of people.
        fit: that follows every network.
        tick: called with the number of crops done so far, over all people, and the number expected.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        crop_side: int,
        grids: Sequence[PatchGrid],
        textures: Textures,
        seed: int,
        keep_joints: bool = False,
        evaluated: EvaluatedJoints = by_name,
        tick: Callable[[int, int], None] = lambda crops, all_crops: None,
        fit: FitStage | None = None,
    ) -> None:
        self.grids, self.textures, self.crop_side = tuple(grids), textures, crop_side
        self._networks, self._seed = networks, seed
        self._keep_joints, self._evaluated, self._tick, self._fit = keep_joints, evaluated, tick, fit
        # Crop 0 of a person is the clean one: a patch without area.
        self._boxes_px = np.concatenate([np.zeros((1, 4), np.int64), *(grid.boxes_px for grid in self.grids)])
        self._starts = [_Answers(self.grids) for _ in networks]
        self._fitted = [_Answers(self.grids) for _ in networks] if fit else []
        self._joints_px: list[Array] = []
        self.keys: list[str] = []
        self.expected = 0
        """People in the end, for the progress."""

    @property
    def crops_each(self) -> int:
        """Crops of one person, the clean one among them."""
        return len(self._boxes_px)

    @property
    def fitted(self) -> bool:
        """True if a fit follows every network."""
        return self._fit is not None

    @property
    def joints_px(self) -> Array:
        """(N, 30, 2) true joints of everybody in crop pixels."""
        return np.concatenate([np.zeros((0, 30, 2)), *self._joints_px])

    def window(self, person: int, grid: PatchGrid, index: int) -> Window:
        """Window of the texture for a person's patch."""
        return self.textures.window((self._seed, person, grid.size, *grid.place(index)), grid.side_px)

    def add(
        self,
        image_bgr: Array,
        people: Detections,
        truth: Truth,
        joints_px: Array,
        keys: Sequence[str],
        evaluated_px: Array | None = None,
    ) -> None:
        """Attack the people of one picture.

        Args:
            image_bgr: (H, W, 3) uint8.
            people: N people with square crop boxes and the joints that the networks are given.
            truth: of the same people, in the same order.
            joints_px: (N, 30, 2) true joints in the picture; NaN where one is not known, which then never counts.
            keys: name of each person in the manifest.
            evaluated_px: (N, 14, 2) true evaluated joints in the picture, for errors of the visible joints; if given,
                then for every picture.
        """
        crops = make_crops(image_bgr, people, self.crop_side)
        fit_crops = self._fit.crops(image_bgr, people) if self._fit else None
        in_crop_px = transform_px(crop_from_image(crops.boxes_px, self.crop_side), joints_px)
        for number, key in enumerate(keys):
            one = np.array([number])
            to_fit = None if fit_crops is None else _chosen(fit_crops, one)
            true_px = None if evaluated_px is None else evaluated_px[one]
            who = _Person(_chosen(crops, one), to_fit, people[one], truth[one], in_crop_px[number], true_px)
            self._attack(who)
            self.keys.append(key)
        self._joints_px.append(in_crop_px)

    def finish(self) -> list[Attacked]:
        """Results of all people added, in order, for every network."""
        starts = [answers.attacked() for answers in self._starts]
        if not self._fit:
            return starts
        return [answers.attacked(start) for answers, start in zip(self._fitted, starts, strict=True)]

    def _attack(self, who: _Person) -> None:
        inside = covered(who.joints_px, np.array([[0, 0, self.crop_side, self.crop_side]]))
        counted = (inside & ~covered(who.joints_px, self._boxes_px))[:, list(EVALUATED_IN_SMPL30)]
        given = who.crops.joints_mask
        if not self._keep_joints:
            given = given * ~covered(who.crops.joints[0] * PX_PER_CELL, self._boxes_px)
        given = np.broadcast_to(given, (self.crops_each, given.shape[1])).astype(np.float32)
        windows = list(self._windows(len(self.keys)))
        for start in range(0, self.crops_each, MAX_BATCH):
            batch = np.arange(start, min(start + MAX_BATCH, self.crops_each))
            crops = self._patched(who.crops, batch, windows, given)
            to_fit = None if who.fit_crops is None else self._patched(who.fit_crops, batch, windows, given)
            people = who.given[np.zeros(len(batch), np.int64)]
            for number, network in enumerate(self._networks):
                answer = network(crops, people)
                self._starts[number].add(*self._errors(answer, who, counted[batch]))
                if self._fit and to_fit is not None:
                    fitted = self._fit(to_fit, answer).people
                    self._fitted[number].add(*self._errors(fitted, who, counted[batch]))
            expected = max(self.expected, len(self.keys) + 1)
            self._tick(len(self.keys) * self.crops_each + int(batch[-1]) + 1, expected * self.crops_each)
        for answers in (*self._starts, *self._fitted):
            answers.end_of_person()

    def _errors(self, found: People, who: _Person, counted: Array) -> tuple[Array, JointErrors]:
        errors = person_errors_mm(found, who.truth, counted, self._evaluated)
        if who.evaluated_px is None:
            return errors, JointErrors.concatenate([])
        visible = counted & np.asarray(who.truth.joints_visible, bool)[:, list(EVALUATED_IN_SMPL30)]
        places = TruePlaces(np.repeat(who.evaluated_px, len(found), 0), visible)
        return errors, JointErrors.of(found, who.truth, places, self._evaluated)

    def _patched(self, crop: SomeCrops, batch: Array, windows: Sequence[Window | None], given: Array) -> SomeCrops:
        """One person's crop with each patch of a batch, and the joints that are given beside it."""
        many = _chosen(crop, np.zeros(len(batch), np.int64))
        for image, index in zip(np.asarray(many.image), batch, strict=True):
            window = windows[index]
            if window is not None:
                x0, y0, x1, y1 = box = self._boxes_px[index]
                paste(image, self.textures.patch(window, x1 - x0, y1 - y0), box, self.crop_side)
        return replace(many, joints_mask=given[batch])

    def _windows(self, person: int) -> Iterator[Window | None]:
        yield None
        for grid in self.grids:
            for index in range(len(grid)):
                yield self.window(person, grid, index)


def _chosen(crops: SomeCrops, index: Array) -> SomeCrops:
    return type(crops)(*(np.asarray(getattr(crops, field.name))[index] for field in fields(crops)))
