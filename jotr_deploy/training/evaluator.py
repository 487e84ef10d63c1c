"""Evaluation during a run: figures of held-out samples, the best weights, and the decision to stop early."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from jotr_deploy.training.data_loading import batches
from jotr_deploy.training.held_out import Figure, HeldOut
from jotr_deploy.training.run_config import TrainConfig, TrainingError
from jotr_deploy.training.run_directory import BEST
from jotr_deploy.training.tasks import Task

if TYPE_CHECKING:
    from accelerate import Accelerator

KEPT_BYTES = 1 << 30
"""Held-out samples that take more memory than this are made again for every evaluation."""


@dataclass(frozen=True)
class Best:
    """Best evaluation so far."""

    step: int
    value: float
    figure: Figure

    def __str__(self) -> str:
        return f"{self.figure.text(self.value)} at step {self.step}"


def held_out_of(task: Task, config: TrainConfig) -> HeldOut | None:
    """Held-out samples of a configuration; None without the table `[evaluation]`.

    Raises:
        TrainingError: a figure that the task does not have, or options that do not fit.
        JotrDeployError: a data set that is not there.
    """
    wanted = config.evaluation
    if wanted is None:
        return None
    held_out = task.held_out(wanted)
    if wanted.figure is not None and wanted.figure not in held_out.figures:
        raise TrainingError(
            f"evaluation.figure: the task {config.task} has no {wanted.figure!r}",
            f"give one of {', '.join(held_out.figures)}",
        )
    return held_out


class Evaluator:
    """Evaluations of a run. They draw no random numbers and leave the network as it is, so training does not change."""

    def __init__(
        self, task: Task, held_out: HeldOut, config: TrainConfig, accelerator: Accelerator, directory: Path
    ) -> None:
        assert config.evaluation is not None
        self.held_out, self.options = held_out, config.evaluation
        self.deciding = config.evaluation.figure or next(iter(held_out.figures))
        self.best: Best | None = None
        self.evaluated: int | None = None
        """Step of the last evaluation."""
        self.waited = 0
        """Evaluations since the best one."""
        self._task, self._config, self._accelerator, self._directory = task, config, accelerator, directory
        self._kept: list[dict[str, Tensor]] | None = None
        self._newest: float | None = None

    def state(self) -> dict[str, Any]:
        """State of the evaluations, for a checkpoint."""
        best = None if self.best is None else {"step": self.best.step, "value": self.best.value}
        return {"best": best, "evaluated": self.evaluated, "waited": self.waited}

    def restore(self, stored: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.evaluated, self.waited = stored["evaluated"], stored["waited"]
        if stored["best"] is not None:
            self.best = Best(stored["best"]["step"], stored["best"]["value"], self.held_out.figures[self.deciding])

    def due(self, step: int) -> bool:
        """True if an evaluation belongs after this many steps and has not been made."""
        wanted = step % self.options.every == 0 or step == self._config.last_step
        return wanted and self.evaluated != step and not self.exhausted

    @property
    def exhausted(self) -> bool:
        """True if patience has run out."""
        return self.options.patience is not None and self.waited >= self.options.patience

    def evaluate(self, step: int) -> tuple[dict[str, float], bool]:
        """Figures now, and whether they are the best; if so, the weights are kept. Called by all processes.

        Raises:
            TrainingError: the deciding figure is not a number.
        """
        figures = self.figures()
        value, figure = figures[self.deciding], self.held_out.figures[self.deciding]
        if not math.isfinite(value):
            raise TrainingError(
                f"evaluation at step {step}: {figure.title} is not a number over {self.held_out.count} samples",
                "raise evaluation.samples, or look whether the weights are finite",
            )
        better = self.best is None or (value > self.best.value if figure.higher else value < self.best.value)
        self.evaluated, self.waited, self._newest = step, 0 if better else self.waited + 1, value
        if better:
            self.best = Best(step, value, figure)
            if self._accelerator.is_main_process:
                self._task.model.eval()
                self._task.save(self._directory / BEST)
                self._task.model.train()
        return figures, better

    def figures(self, most: int | None = None) -> dict[str, float]:
        """Figures of the network as it is, over all samples or the first `most` batches of each process."""
        from accelerate.utils import gather_object

        own: list[tuple[int, dict[str, np.ndarray]]] = []
        self._task.model.eval()
        try:
            # Without autocast: float32, as the network is exported.
            with torch.no_grad():
                for number, batch in enumerate(self._batches()):
                    if number == most:
                        break
                    place = number * self._accelerator.num_processes + self._accelerator.process_index
                    if len(next(iter(batch.values()))):
                        own.append((place, self.rows(batch)))
        finally:
            self._task.model.train()
        everything = [rows for _, rows in sorted(gather_object(own), key=lambda entry: entry[0])]
        if not everything:
            return dict.fromkeys(self.held_out.figures, math.nan)
        return self.held_out.summary({name: np.concatenate([r[name] for r in everything]) for name in everything[0]})

    def rows(self, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Rows of one batch, for a network in evaluation mode."""
        rows = self.held_out.measure({name: value.to(self._accelerator.device) for name, value in batch.items()})
        return {name: value.cpu().numpy() for name, value in rows.items()}

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """Batches of this process. They are the same for any number of processes, and so are the figures."""
        if self._kept is not None:
            yield from self._kept
            return
        config, accelerator, kept, size = self._config, self._accelerator, [], 0
        steps = range(-(-self.held_out.count // (config.batch * accelerator.num_processes)))
        for batch in batches(self.held_out.samples, steps, config.batch, accelerator.process_index,
                             accelerator.num_processes, config.workers, self.held_out.count):  # fmt: skip
            size += sum(value.nbytes for value in batch.values())
            if size <= KEPT_BYTES:
                kept.append(batch)
            yield batch
        if size <= KEPT_BYTES:
            self._kept = kept

    def text(self) -> str:
        """Newest and best figure for the progress line; empty before the first evaluation."""
        if self.best is None or self._newest is None:
            return ""
        text = f"held-out {self.best.figure.text(self._newest)}"
        return text if self.best.step == self.evaluated else f"{text} (best {self.best.value:.4g} at {self.best.step})"
