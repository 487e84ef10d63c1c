"""The training loop: any task, any number of processes, resumed to the bit."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from jotr_deploy.errors import MissingDependency, install
from jotr_deploy.support.aliases import Progress
from jotr_deploy.support.processor import multiplies_bfloat16
from jotr_deploy.training.curves import Curves
from jotr_deploy.training.data_loading import batches
from jotr_deploy.training.evaluator import Best, Evaluator, held_out_of
from jotr_deploy.training.held_out import HeldOut
from jotr_deploy.training.optimizers import optimizers, schedule
from jotr_deploy.training.parallel import with_shared_statistics
from jotr_deploy.training.run_config import TrainConfig, TrainingError
from jotr_deploy.training.run_directory import WEIGHTS, begin_run, read_checkpoint, write_checkpoint
from jotr_deploy.training.run_log import RunLog
from jotr_deploy.training.tasks import Task

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Fitted:
    """State of a run when `fit` returns."""

    step: int  # steps done
    finished: bool  # False: a signal ended it, to be resumed from here
    best: Best | None = None  # best evaluation, if there were any


class _Step(nn.Module):
    """Module wrapped for several processes and for autocast: the loss, not the network."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model, self._loss = task.model, task.loss

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(batch, step)


def fit(
    task: Task,
    config: TrainConfig,
    run_directory: Path,
    resume: bool = False,
    progress: Progress = lambda text, done, total: None,
) -> Fitted:
    """Train a task to the end, or until SIGINT or SIGTERM.

    The run directory gets the configuration, the state of the code, TensorBoard events, learning curves, a checkpoint
    every `checkpoint_minutes` and at the end of this call, and with the last step the task's weights. With the table
    `[evaluation]` it also has the weights of the best evaluation, and the run may end early.

    Args:
        task: see `Task`.
        config: with the task's options filled in, see `make_task`.
        run_directory: made where it is missing.
        resume: continue from its checkpoint, to the bit as without interruption; start anew if there is none.
        progress: called with (text, steps done, steps in all).

    Raises:
        TrainingError: a run directory in use or of another configuration, a non-finite loss, fp16 without a GPU.
        OutputError: not writable.
    """
    accelerator = accelerator_of(config)
    held_out = held_out_of(task, config)
    stored = read_checkpoint(run_directory, config, accelerator.num_processes) if resume else None
    if stored is None and accelerator.is_main_process:
        begin_run(run_directory, config)
    accelerator.wait_for_everyone()
    run = Run(task, config, run_directory, accelerator, held_out)
    if stored is not None:
        run.restore(stored)
    with _stop_requests() as stop:
        run.train(stop, progress)
    finished = run.step == run.last_step
    if finished and accelerator.is_main_process:
        task.model.eval()
        task.save(run_directory / WEIGHTS)
    accelerator.wait_for_everyone()
    return Fitted(run.step, finished, run.evaluator.best if run.evaluator else None)


class Run:
    """State of a run: wrapped task, optimiser, evaluations, number of steps done."""

    def __init__(
        self, task: Task, config: TrainConfig, directory: Path, accelerator: Accelerator, held_out: HeldOut | None
    ) -> None:
        self.task, self.config, self.directory, self.accelerator = task, config, directory, accelerator
        task.model.to(accelerator.device)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            task.model = with_shared_statistics(task.model)
        task.model.train()
        self.module = accelerator.prepare(_Step(task))
        self.optimizers = {name: accelerator.prepare(made) for name, made in optimizers(task.model, config).items()}
        self.evaluator = None if held_out is None else Evaluator(task, held_out, config, accelerator, directory)
        self.step = 0
        self._resumed_at: int | None = None
        self._curves: Curves | None = None

    def restore(self, stored: dict[str, Any]) -> None:
        """Continue from what `checkpoint` wrote."""
        self.task.model.load_state_dict(stored["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(stored[name])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(stored["scaler"])
        if self.evaluator is not None:
            self.evaluator.restore(stored["evaluation"])
        self.step = self._resumed_at = stored["step"]

    @property
    def last_step(self) -> int:
        """Number of steps after which the run ends, as far as it is known now."""
        return self.step if self.evaluator is not None and self.evaluator.exhausted else self.config.last_step

    def checkpoint(self) -> None:
        """Replace checkpoint and picture of the curves."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "model": self.task.model.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            **({} if self.evaluator is None else {"evaluation": self.evaluator.state()}),
            **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        write_checkpoint(self.directory, self.config, self.accelerator.num_processes, state)
        if self._curves is not None:
            self._curves.draw()

    def train(self, stop: threading.Event, progress: Progress) -> None:
        """Train until the last step or a request to stop in any process, with checkpoints on time and at the end.

        A checkpoint follows every evaluation, so the best weights never belong to steps that a resumed run repeats.
        """
        accelerator = self.accelerator
        with self._log(progress) as log:
            self._evaluate_if_due(log)  # the start, or what a stopped run still owes
            saved_at = time.monotonic()
            for batch in self._data():
                loss = self.one_step(batch)
                log.add(self.step, *loss)
                due = time.monotonic() - saved_at > 60 * self.config.checkpoint_minutes
                stopping, due = _any_process(accelerator, stop.is_set(), due)
                if stopping:
                    break
                if self._evaluate_if_due(log):
                    saved_at = time.monotonic()
                elif due:
                    log.write()
                    self.checkpoint()
                    saved_at = time.monotonic()
                if self.step == self.last_step:
                    break
            if self.step == self.last_step:
                self._evaluate_if_due(log)  # a request to stop in the last step comes too late
            log.write()
            self.checkpoint()

    def _log(self, progress: Progress) -> RunLog:
        evaluator = self.evaluator
        if self.accelerator.is_main_process:
            figures, deciding = (evaluator.held_out.figures, evaluator.deciding) if evaluator else ({}, None)
            self._curves = Curves(self.directory, self._resumed_at, figures, deciding)
        return RunLog(self.config, self.directory, self.accelerator, self._resumed_at, self._curves, progress)

    def _data(self) -> Iterator[dict[str, Tensor]]:
        config, accelerator = self.config, self.accelerator
        return batches(self.task.samples, range(self.step, self.last_step), config.batch, accelerator.process_index,
                       accelerator.num_processes, config.workers)  # fmt: skip

    def _evaluate_if_due(self, log: RunLog) -> bool:
        evaluator = self.evaluator
        if evaluator is None or not evaluator.due(self.step):
            return False
        log.write()
        log.show("evaluating")
        figures, best = evaluator.evaluate(self.step)
        log.evaluated(figures, best, evaluator.text())
        log.show()
        self.checkpoint()
        return True

    def one_step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward, backward and update on the samples of this process; the loss and its parts."""
        config, accelerator = self.config, self.accelerator
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(config, self.step)
        # Random draws of a step depend on its number alone, so they are the same after a resume.
        key = np.random.SeedSequence((config.seed, self.step, accelerator.process_index))
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
        loss, parts = self.module(batch, self.step)
        accelerator.backward(loss)
        if config.clip_norm is not None:
            accelerator.clip_grad_norm_(self.module.parameters(), config.clip_norm)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return loss.detach(), {name: value.detach() for name, value in parts.items()}


def accelerator_of(config: TrainConfig) -> Accelerator:
    """Processes, device and precision of a run.

    Raises:
        MissingDependency: a package of the extra `train`.
        TrainingError: fp16 without a GPU.
    """
    try:
        import tensorboard  # noqa: F401
        import tomli_w  # noqa: F401
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ModuleNotFoundError as error:
        raise MissingDependency(f"train needs {error.name}", install("train")) from None
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise TrainingError('precision: "fp16" needs a GPU', 'take "bf16" or "fp32"')
    if config.precision == "bf16" and not torch.cuda.is_available() and not multiplies_bfloat16():
        logging.getLogger("jotr_deploy").warning(
            'precision: "bf16" is emulated on this processor, many times slower than fp32; try --set precision=fp32'
        )
    # fp32 means float32: PyTorch's convolutions would round to TF32, and who wants speed takes bf16.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    mixed = "no" if config.precision == "fp32" else config.precision
    return Accelerator(
        mixed_precision=mixed, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
    )


def _any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """Flags that are true if true in any process, so that all processes take the same branch."""
    if accelerator.num_processes == 1:
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.float32, device=accelerator.device)
    return [bool(value) for value in accelerator.reduce(raised, "sum") > 0]


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second acts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def request(number: int, frame: object) -> None:
        restore()
        stop.set()

    for number in usual:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
