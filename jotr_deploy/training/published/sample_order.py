"""Order of samples by seed: as many people with measured depth as without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jotr_deploy.datasets.joint_errors import OVERLAPPING_IOU
from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.geometry.boxes import iou
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.published.augmented_crops import usable_box
from jotr_deploy.training.run_config import TrainingError


class AnnotatedPeople:
    """People of some sets by sample number.

    People with and without measured depth form two kinds. An epoch is twice the longer kind, or all people if there is
    only one. It has everybody of the longer kind once, and repeats the shorter kind, each time in a new order.
    """

    def __init__(self, sets: Sequence[Sequence[Annotation]], seed: int) -> None:
        """Index people.

        Args:
            sets: long ones should make each person on access; people without a usable box are left out.
            seed: of the order.

        Raises:
            TrainingError: nobody is left.
        """
        self._sets, self._seed = list(sets), seed
        kinds: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self._in_picture: list[Array] = []  # of each set: numbers of its people, those of one picture together
        self._picture: list[tuple[Array, Array]] = []  # of each set: where each person's picture begins and ends in it
        for number, people in enumerate(self._sets):
            names: dict[Any, int] = {}
            picture = np.zeros(len(people), np.int64)
            for person in range(len(people)):
                someone = people[person]
                picture[person] = names.setdefault(someone.image, len(names))
                if usable_box(someone.box_px, someone.size_px):
                    kinds[not someone.is_3d].append((number, person))
            order = np.argsort(picture, kind="stable")
            edges = np.searchsorted(picture[order], np.arange(len(names) + 1))
            self._in_picture.append(order)
            self._picture.append((edges[picture], edges[picture + 1]))
        self._kinds = [np.array(kind, np.int32) for kind in kinds if kind]
        if not self._kinds:
            raise TrainingError("the data sets hold nobody to train on", "check that the files are whole")
        self.epoch = len(self._kinds) * max(map(len, self._kinds))
        self._shuffled: tuple[int, Array] | None = None

    def __call__(self, sample: int) -> tuple[Annotation, list[Annotation]]:
        """Person of a sample, and the people of the same picture whose boxes overlap."""
        epoch, place = divmod(sample, self.epoch)
        number, person = (int(value) for value in self._order(epoch)[place])
        people = self._sets[number]
        begin, end = (int(edges[person]) for edges in self._picture[number])
        chosen = people[person]
        others = [people[int(other)] for other in self._in_picture[number][begin:end] if other != person]
        if others:
            overlap = iou(chosen.box_px[None], np.stack([other.box_px for other in others]))[0] >= OVERLAPPING_IOU
            others = [other for other, near in zip(others, overlap, strict=True) if near]
        return chosen, others

    def _order(self, epoch: int) -> Array:
        """(epoch, 2) set and person of every sample of an epoch."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            rng = np.random.default_rng((self._seed, epoch, 6))
            longest = max(map(len, self._kinds))
            # Whole repetitions plus a part, drawn anew in every epoch, so that nobody is preferred.
            kinds = [kind[np.resize(rng.permutation(len(kind)), longest)] for kind in self._kinds]
            self._shuffled = epoch, rng.permutation(np.concatenate(kinds))
        return self._shuffled[1]

    def __getstate__(self) -> dict[str, object]:
        """State for a worker process, without the order, which it makes again."""
        return {**self.__dict__, "_shuffled": None}
