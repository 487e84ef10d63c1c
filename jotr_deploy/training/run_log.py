"""Means of the loss over some steps, for TensorBoard, the curves and the progress line."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jotr_deploy.support.aliases import Progress
from jotr_deploy.support.writing import output_errors
from jotr_deploy.training.curves import HELD_OUT, TRAINING, Curves
from jotr_deploy.training.optimizers import schedule
from jotr_deploy.training.run_config import TrainConfig, TrainingError
from jotr_deploy.training.run_directory import EVENTS

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG_EVERY = 20  # steps between two rows of TensorBoard


class RunLog:
    """Log of a run; the loop calls it in all processes, the main one writes.

    Args:
        config: of the run.
        directory: of the run.
        accelerator: of the process.
        resumed_at: steps done before; None for a new run.
        curves: of the main process.
        progress: called with the text, the steps done and all steps.
    """

    def __init__(
        self, config: TrainConfig, directory: Path, accelerator: Accelerator, resumed_at: int | None,
        curves: Curves | None, progress: Progress,
    ) -> None:  # fmt: skip
        self._config, self._directory, self._accelerator, self._curves = config, directory, accelerator, curves
        self._progress, self._purge_from = progress, None if resumed_at is None else resumed_at + 1
        self._step, self._text, self._held_out = resumed_at or 0, "starting", ""
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def __enter__(self) -> RunLog:
        from torch.utils.tensorboard import SummaryWriter  # after `_accelerator`, which reports a missing installation

        self._writer = None
        if self._accelerator.is_main_process:
            with output_errors(self._directory):
                self._writer = SummaryWriter(str(self._directory / EVENTS), purge_step=self._purge_from)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, step: int, loss: Tensor, parts: dict[str, Tensor]) -> None:
        """Count a step."""
        self._step = step
        for name, value in {"loss": loss, **parts}.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1
        if step % LOG_EVERY == 0:
            self.write()
        self.show()

    def show(self, doing: str = "") -> None:
        """Report progress; `doing` names what takes time beside training."""
        if self._accelerator.is_main_process:
            text = ", ".join(filter(None, (doing or self._text, self._held_out)))
            self._progress(text, self._step, self._config.last_step)

    def write(self) -> None:
        """Close the window; called by all processes at the same step, and before every checkpoint.

        So a checkpoint is never replaced by one with non-finite numbers.
        """
        if not self._count:
            return
        config, samples = self._config, self._config.batch * self._accelerator.num_processes
        rate = self._count * samples / (time.perf_counter() - self._start)
        sums = torch.stack([value.float() for value in self._sums.values()])
        means = (self._accelerator.reduce(sums, "mean") / self._count).tolist()
        values = dict(zip(self._sums, means, strict=True))
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"{self._directory}: the loss is NaN or infinite before step {self._step}",
                'lower lr, lengthen warmup, or set precision = "fp32"; --resume continues from the newest checkpoint',
            )
        self._text = f"loss {values['loss']:.4g}, {rate:.3g} samples/s"
        values |= {"lr": config.lr * schedule(config, self._step - 1), "samples/s": rate}
        self._write_row(TRAINING, values, "")
        self._sums, self._count, self._start = {}, 0, time.perf_counter()

    def evaluated(self, figures: Mapping[str, float], best: bool, text: str) -> None:
        """Log an evaluation; its time is not counted as training."""
        self._write_row(HELD_OUT, figures, f"{HELD_OUT}/", best=best)
        self._held_out, self._start = text, time.perf_counter()

    def _write_row(self, kind: str, values: Mapping[str, float], prefix: str, **more: Any) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(prefix + name, value, self._step)
        if self._curves is not None:
            self._curves.add(self._step, kind, values, **more)
