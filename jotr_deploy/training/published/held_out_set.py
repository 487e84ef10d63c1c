"""People of a data set that is not trained on, given to the network as the published evaluation gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from jotr_deploy.config import ModelConfig
from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.datasets.published.pictures import read_picture
from jotr_deploy.evaluation.measured_joints import H36MRegressor
from jotr_deploy.evaluation.published.set_people import read_everybody
from jotr_deploy.evaluation.published.true_bodies import TrueBodies
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.choices import SPLITS, listed
from jotr_deploy.training.run_config import TrainingError


@dataclass(frozen=True)
class HeldOutSet:
    """People of a set with a true body, by number."""

    people: tuple[Annotation, ...]
    given: Detections  # row n is `people[n]`
    bodies: TrueBodies
    regressor: H36MRegressor
    crop_side: int  # pixels

    def __len__(self) -> int:
        return len(self.people)

    def __call__(self, indices: Sequence[int]) -> dict[str, Array]:
        """People of these numbers.

        Returns:
            image (N, 3, S, S) RGB 0..1, joints (N, 30, 2) and joints_mask (N, 30) as the network takes them; true_m
            (N, 14, 3) metres relative to the H36M pelvis. float32.

        Raises:
            DatasetError: a picture cannot be read.
        """
        samples = [self._sample(index) for index in indices]
        return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}

    def _sample(self, index: int) -> dict[str, Array]:
        person, row = self.people[index], np.array([index])
        crops = make_crops(read_picture(person), self.given[row], self.crop_side)
        truth = self.bodies.truth([person])
        return {**crops.feeds, "true_m": self.regressor(truth.joints_m, truth.vertices_m).astype(np.float32)}


def held_out_set(
    name: str, split: str, root: Path, smpl: Path, regressor: H36MRegressor, model: ModelConfig, count: int | None
) -> HeldOutSet:
    """People of a set, or `count` of them evenly over it.

    Args:
        name: a key of `SPLITS`.
        split: of the set.
        root: folder that contains the folders of the sets.
        smpl: folder with SMPL's files.
        regressor: of the evaluated joints.
        model: whose crops are cut.
        count: None for everybody.

    Raises:
        TrainingError: a set that people are not evaluated on, or nobody in it.
        DatasetError: a file or a picture of the set is missing or not as its layout says.
        BodyFileError: a body is missing.
    """
    if name not in SPLITS:
        raise TrainingError(f"evaluation.set: {name!r} is not evaluated on", f"give {listed(tuple(SPLITS))}")
    everybody = read_everybody(name, root, model.crop_factor, split)
    if not everybody.people:
        raise TrainingError(f"evaluation: nobody in {name} ({split}) has a true body", "check that its files are whole")
    number = len(everybody.people)
    chosen = np.arange(number) if count is None else np.unique(np.linspace(0, number - 1, min(count, number)).round())
    people = tuple(everybody.people[int(index)] for index in chosen)
    parts = [picture.given for picture in everybody.pictures]
    every = Detections(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Detections)))
    given = every[chosen.astype(np.int64)]
    bodies = TrueBodies(smpl, {person.fit.gender for person in people if person.fit})
    return HeldOutSet(people, given, bodies, regressor, model.crop_side)
