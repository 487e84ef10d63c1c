"""The training loop: any task, any number of processes, resumed to the bit."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from jotr_deploy.errors import MissingDependency, install
from jotr_deploy.support.aliases import Progress
from jotr_deploy.support.processor import multiplies_bfloat16
from jotr_deploy.support.writing import output_errors
from jotr_deploy.training.data_loading import batches
from jotr_deploy.training.optimizers import optimizers, schedule
from jotr_deploy.training.parallel import with_shared_statistics
from jotr_deploy.training.run_config import TrainConfig, TrainingError
from jotr_deploy.training.run_directory import EVENTS, WEIGHTS, begin_run, read_checkpoint, write_checkpoint
from jotr_deploy.training.tasks import Task

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG_EVERY = 20  # steps between two rows of TensorBoard


@dataclass(frozen=True)
class Fitted:
    """State of a run when `fit` returns."""

    step: int  # steps done
    finished: bool  # False: a signal ended it, to be resumed from here


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

    The run directory gets the configuration, the state of the code, TensorBoard events, a checkpoint every
    `checkpoint_minutes` and at the end of this call, and with the last step the task's weights.

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
    accelerator = _accelerator(config)
    stored = read_checkpoint(run_directory, config, accelerator.num_processes) if resume else None
    if stored is None and accelerator.is_main_process:
        begin_run(run_directory, config)
    accelerator.wait_for_everyone()
    run = _Run(task, config, run_directory, accelerator)
    if stored is not None:
        run.restore(stored)
    with _stop_requests() as stop:
        run.train(stop, progress)
    finished = run.step == config.steps
    if finished and accelerator.is_main_process:
        task.model.eval()
        task.save(run_directory / WEIGHTS)
    accelerator.wait_for_everyone()
    return Fitted(run.step, finished)


class _Run:
    """State of a run: wrapped task, optimiser, number of steps done."""

    def __init__(self, task: Task, config: TrainConfig, directory: Path, accelerator: Accelerator) -> None:
        self.task, self.config, self.directory, self.accelerator = task, config, directory, accelerator
        task.model.to(accelerator.device)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            task.model = with_shared_statistics(task.model)
        task.model.train()
        self.module = accelerator.prepare(_Step(task))
        self.optimizers = {name: accelerator.prepare(made) for name, made in optimizers(task.model, config).items()}
        self.step = 0

    def restore(self, stored: dict[str, Any]) -> None:
        self.task.model.load_state_dict(stored["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(stored[name])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(stored["scaler"])
        self.step = stored["step"]

    def checkpoint(self) -> None:
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "model": self.task.model.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        write_checkpoint(self.directory, self.config, self.accelerator.num_processes, state)

    def train(self, stop: threading.Event, progress: Progress) -> None:
        """Train until the last step or a request to stop in any process, with checkpoints on time and at the end."""
        config, accelerator = self.config, self.accelerator
        log, saved_at = _Log(self, progress), time.monotonic()
        data = batches(self.task, range(self.step, config.steps), config.batch, accelerator.process_index,
                       accelerator.num_processes, config.workers)  # fmt: skip
        with log:
            for batch in data:
                log.add(*self.one_step(batch))
                due = time.monotonic() - saved_at > 60 * config.checkpoint_minutes
                stopping, due = _any_process(accelerator, stop.is_set(), due)
                if stopping:
                    break
                if due:
                    log.write()
                    self.checkpoint()
                    saved_at = time.monotonic()
            log.write()
            self.checkpoint()

    def one_step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
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


@dataclass
class _Log:
    """Means of the loss and its parts over `LOG_EVERY` steps and all processes, for TensorBoard and the progress."""

    run: _Run
    progress: Progress
    text: str = "starting"
    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def __enter__(self) -> _Log:
        from torch.utils.tensorboard import SummaryWriter  # after `_accelerator`, which reports a missing installation

        run, self.writer = self.run, None
        if run.accelerator.is_main_process:
            with output_errors(run.directory):
                self.writer = SummaryWriter(str(run.directory / EVENTS), purge_step=run.step + 1 if run.step else None)
        self.start, self.samples = time.perf_counter(), run.config.batch * run.accelerator.num_processes
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def add(self, loss: Tensor, parts: dict[str, Tensor]) -> None:
        for name, value in {"loss": loss, **parts}.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.count += 1
        if self.run.step % LOG_EVERY == 0:
            self.write()
        if self.run.accelerator.is_main_process:
            self.progress(self.text, self.run.step, self.run.config.steps)

    def write(self) -> None:
        """Close the window; called by all processes at the same step, and before every checkpoint.

        So a checkpoint is never replaced by one with non-finite numbers.
        """
        if not self.count:
            return
        run, rate = self.run, self.count * self.samples / (time.perf_counter() - self.start)
        sums = torch.stack([value.float() for value in self.sums.values()])
        means = (run.accelerator.reduce(sums, "mean") / self.count).tolist()
        values = dict(zip(self.sums, means, strict=True))
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"{run.directory}: the loss is NaN or infinite before step {run.step}",
                'lower lr, lengthen warmup, or set precision = "fp32"; --resume continues from the newest checkpoint',
            )
        if self.writer is not None:
            values |= {"lr": run.config.lr * schedule(run.config, run.step - 1), "samples/s": rate}
            for name, value in values.items():
                self.writer.add_scalar(name, value, run.step)
        self.text = f"loss {values['loss']:.4g}, {rate:.3g} samples/s"
        self.sums, self.count, self.start = {}, 0, time.perf_counter()


def _accelerator(config: TrainConfig) -> Accelerator:
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
