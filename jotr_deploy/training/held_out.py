"""Held-out samples of a task and the figures that are computed from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from jotr_deploy.support.aliases import Array
from jotr_deploy.training.data_loading import Samples
from jotr_deploy.training.run_config import Evaluation, TrainingError

DRAWN = 256
"""Drawn samples that are measured by default."""


@dataclass(frozen=True)
class Figure:
    """Figure of merit: its name and unit for people, and its better direction."""

    title: str
    unit: str
    higher: bool = False  # is better

    def text(self, value: float) -> str:
        """`MPJPE 101.9 mm`."""
        return f"{self.title} {value:.4g} {self.unit}".rstrip()


@dataclass(frozen=True)
class HeldOut:
    """Held-out samples, and the way from them to figures."""

    figures: Mapping[str, Figure]
    """By name; the first decides unless the configuration names another."""
    count: int
    """Samples are numbered from 0 to below it."""
    samples: Samples
    measure: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    """A batch on the device, the model in evaluation mode -> rows, one a person or picture, whatever the batch."""
    summary: Callable[[dict[str, Array]], dict[str, float]]
    """All rows -> the figures."""


def drawn_count(wanted: Evaluation, training_seed: int) -> int:
    """Number of drawn samples of an evaluation.

    Raises:
        TrainingError: they would be those of the training, or a data set is named.
    """
    if wanted.seed == training_seed:
        raise TrainingError(
            f"evaluation.seed: {wanted.seed} is the seed of the training, so the samples would not be held out",
            "give another seed",
        )
    if wanted.set is not None or wanted.split is not None:
        raise TrainingError(
            "evaluation.set: this task is evaluated on drawn samples", "leave set and split out of [evaluation]"
        )
    return DRAWN if wanted.samples is None else wanted.samples
