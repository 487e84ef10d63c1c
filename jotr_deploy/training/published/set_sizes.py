"""Sizes of the published sets by their papers, for an estimate of a training without the sets at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from jotr_deploy.datasets.published.sets import SETS
from jotr_deploy.training.parallel import launched_processes
from jotr_deploy.training.run_config import TrainConfig


class SetSize(NamedTuple):
    """People that a training set gives, as far as its papers say."""

    people: int
    source: str


BY_PAPERS: Mapping[str, SetSize] = {
    "h36m": SetSize(312_000, "1 559 752 pictures of subjects 1, 5, 6, 7 and 8, of which every fifth is read"),
    "muco": SetSize(400_000, "400 000 composed pictures, of which one person each is read"),
    "mscoco": SetSize(150_000, "150 000 people in the 57 000 pictures of train2017 with keypoints"),
    "crowdpose": SetSize(40_000, "80 000 people, half of them in the training split"),
}
"""Rounded; the readers of this package count the people of the files that are there."""


def epoch_by_papers(sets: tuple[str, ...]) -> int | None:
    """Samples of an epoch as `sample_order.AnnotatedPeople` counts them; None for a set that has no size here."""
    if not sets or not all(name in BY_PAPERS for name in sets):
        return None
    kinds = [sum(BY_PAPERS[name].people for name in sets if SETS[name].is_3d is deep) for deep in (True, False)]
    return sum(map(bool, kinds)) * max(kinds)


def length_by_papers(config: TrainConfig) -> str | None:
    """Length of a training of the task `jotr` by the papers, as a sentence; None where it cannot be said."""
    if config.task != "jotr":
        return None
    epoch = epoch_by_papers(tuple(config.options.get("sets", BY_PAPERS)))
    if epoch is None:
        return None
    processes = launched_processes()
    samples = config.batch * processes
    known = f"by the papers of the sets an epoch is about {epoch} people, {epoch / samples:.0f} steps of {samples}"
    if config.epochs is not None:
        return f"{known}; {config.epochs:g} epochs are about {math.ceil(config.epochs * epoch / samples)} steps"
    return f"{known}; {config.last_step} steps are about {config.last_step * samples / epoch:.2g} epochs"
