"""Rehearsal of a run: one step of everything, with its memory, time and disk; nothing of it is left."""

from __future__ import annotations

import math
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from jotr_deploy.errors import OutputError
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.data_loading import batches, indices_of
from jotr_deploy.training.evaluator import KEPT_BYTES, Evaluator, held_out_of
from jotr_deploy.training.held_out import HeldOut
from jotr_deploy.training.loop import Run, accelerator_of
from jotr_deploy.training.reuse import Reused
from jotr_deploy.training.run_config import TrainConfig, TrainingError
from jotr_deploy.training.run_directory import (
    BEST,
    CHECKPOINT,
    WEIGHTS,
    begin_run,
    read_checkpoint,
    require_unused,
)
from jotr_deploy.training.run_log import LOG_EVERY
from jotr_deploy.training.tasks import Task

Result = TypeVar("Result")

_TIMED_S, _FEWEST, _MOST = 1.0, 2, 20  # time and steps that are timed after the first, which allocates
_MOST_BATCHES = 8
_ROW_BYTES = 120  # of one scalar in `events` and `curves.jsonl` together


@dataclass(frozen=True)
class Loading:
    """Time of making samples in one process."""

    first_s: float  # a batch none of whose pictures is there
    again_s: float  # the same batch with its pictures kept
    pictures: int  # to be drawn in the rest of the run by one process; 0 where samples do not share pictures
    pictures_bytes: int  # kept by every process that makes samples

    def total_s(self, steps: int, batch: int) -> float:
        """Time for all steps, pictures included; every sample has its own where none are shared."""
        return steps * self.again_s + self.pictures * max(0.0, self.first_s - self.again_s) / batch


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of the rest of a run."""

    times: int
    samples: int
    first_s: float
    later_s: float
    figures: tuple[str, ...]


@dataclass(frozen=True)
class Rehearsal:
    """Result of a dry run. Times are estimates from a few steps."""

    task: str
    device: str
    processes: int
    workers: int
    steps: int
    done: int  # before
    batch: int
    parameters: int  # that are trained
    epoch: int | None  # people, on data sets
    loss: float
    loading: Loading
    step_s: float
    samples_per_s: float  # of all processes, once pictures are reused
    evaluations: Evaluations | None
    memory_bytes: int  # peak of this process
    worker_bytes: int | None  # peak of one that makes samples
    gpu_bytes: int | None  # peak that PyTorch has reserved
    disk_bytes: int
    free_bytes: int
    steps_s: float
    total_s: float


def rehearse(task: Task, config: TrainConfig, output: Path, resume: bool = False) -> Rehearsal:
    """Do one step of everything that `fit` would do, in a folder that is removed again; the task is used up.

    Args:
        task: see `fit`.
        config: see `fit`.
        output: run directory of the real run; it is only looked at.
        resume: rehearse the continuation of the run there.

    Raises:
        TrainingError: what `fit` would refuse, a loss that is not finite, too little memory on the GPU, or too little
            space on the disk.
        OutputError: `output` could not be written.
    """
    accelerator = accelerator_of(config)
    held_out = held_out_of(task, config)
    stored = read_checkpoint(output, config, accelerator.num_processes) if resume else None
    if stored is None:
        require_unused(output)
    free = _free_bytes(output)
    with tempfile.TemporaryDirectory(prefix="jotr-deploy-dry-run-") as folder, _memory_errors(config):
        if accelerator.is_main_process:
            begin_run(Path(folder), config)
        run = Run(task, config, Path(folder), accelerator, held_out)
        if stored is not None:
            run.restore(stored)
        return _rehearsed(run, held_out, free, output)


def _rehearsed(run: Run, held_out: HeldOut | None, free: int, output: Path) -> Rehearsal:
    config, accelerator, done = run.config, run.accelerator, run.step
    left, processes = config.last_step - done, accelerator.num_processes
    worker_bytes = _worker_bytes(run) if config.workers else None
    batch, loading = _loading(run, left)
    loss, step_s, parts = _steps(run, batch)
    evaluations = None if held_out is None else _evaluations(run, held_out, done)
    disk = _saved_bytes(run, left, parts)
    if disk > free:
        raise TrainingError(
            f"{output}: the run needs {disk / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free",
            "give an -o on another disk, or make room",
        )
    load_s, trained_s = loading.total_s(left, config.batch), left * step_s
    threads = torch.get_num_threads() if accelerator.device.type == "cpu" else 1
    steps_s = together_s(load_s, trained_s, config.workers, threads, _cores())
    evaluated_s = 0.0
    if evaluations is not None and evaluations.times:
        evaluated_s = evaluations.first_s + (evaluations.times - 1) * evaluations.later_s
    return Rehearsal(
        task=config.task,
        device=torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type,
        processes=processes,
        workers=config.workers,
        steps=config.last_step,
        done=done,
        batch=config.batch,
        parameters=sum(p.numel() for p in run.task.model.parameters() if p.requires_grad),
        epoch=getattr(run.task, "epoch", None),
        loss=loss,
        loading=loading,
        step_s=step_s,
        samples_per_s=left * config.batch * processes / steps_s if left else 0.0,
        evaluations=evaluations,
        memory_bytes=_peak_bytes(children=False),
        worker_bytes=worker_bytes,
        gpu_bytes=torch.cuda.max_memory_reserved() if accelerator.device.type == "cuda" else None,
        disk_bytes=disk,
        free_bytes=free,
        steps_s=steps_s,
        total_s=steps_s + evaluated_s,
    )


def together_s(load_s: float, trained_s: float, workers: int, threads: int, cores: int) -> float:
    """Estimated time of making samples and training on them.

    Without workers one waits for the other. With workers they go on at once, and the slowest limits: training, the
    workers, or the cores that both share.

    Args:
        load_s: time of making all samples in one process.
        trained_s: time of all steps.
        workers: processes that make samples.
        threads: busy while training.
        cores: of the machine.
    """
    if not workers:
        return load_s + trained_s
    return max(trained_s, load_s / workers, (load_s + threads * trained_s) / cores)


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _loading(run: Run, left: int) -> tuple[dict[str, Tensor], Loading]:
    first_s, batch = _timed(lambda: _one_batch(run, 0))
    reused = reuse_of(run.task)
    if reused is None:
        seconds = [first_s]
        while sum(seconds) < _TIMED_S and len(seconds) < _MOST_BATCHES:
            seconds.append(_timed(lambda: _one_batch(run, 0, ahead=len(seconds)))[0])
        mean_s = sum(seconds) / len(seconds)
        return batch, Loading(mean_s, mean_s, 0, 0)
    again_s, _ = _timed(lambda: _one_batch(run, 0))
    index = indices_of(run.step, run.config.batch, 0, 1)[0]
    kept = min(reused.uses * reused.lag, pictures := reused.drawn_for(left * run.config.batch))
    return batch, Loading(first_s, again_s, pictures, kept * len(pickle.dumps(reused(index)[0])))


def _one_batch(run: Run, workers: int, ahead: int = 0) -> dict[str, Tensor]:
    config, accelerator, step = run.config, run.accelerator, run.step + ahead
    return next(batches(run.task.samples, range(step, step + 1), config.batch, accelerator.process_index,
                        accelerator.num_processes, workers))  # fmt: skip


def _worker_bytes(run: Run) -> int | None:
    """Peak memory of a process that makes one batch, which also shows that the samples can be made by one."""
    _one_batch(run, 1)
    return _peak_bytes(children=True) or None


def reuse_of(task: Task) -> Reused[Any] | None:
    """Pictures that the samples of a task share; None where each has its own."""
    owners = (task, getattr(task, "draw", None))
    found = (value for owner in owners for value in getattr(owner, "__dict__", {}).values())
    return next((value for value in found if isinstance(value, Reused)), None)


def _steps(run: Run, batch: dict[str, Tensor]) -> tuple[float, float, int]:
    """Loss of the first step, time of the later ones, and number of scalars that are logged."""
    first, parts = run.one_step(batch)
    loss = float(first)
    if not math.isfinite(loss):
        raise TrainingError(
            "the loss of the first step is NaN or infinite",
            'lower lr, set precision = "fp32", or look for what is not finite in the weights to start from',
        )
    seconds, steps = 0.0, 0
    # Of several processes each would end at another step, and they wait for each other in every one.
    while steps < _FEWEST or (run.accelerator.num_processes == 1 and seconds < _TIMED_S and steps < _MOST):
        seconds += _timed(lambda: run.one_step(batch))[0]
        steps += 1
    return loss, seconds / steps, len(parts) + 3


def _evaluations(run: Run, held_out: HeldOut, done: int) -> Evaluations:
    config, evaluator = run.config, run.evaluator
    assert evaluator is not None
    first = range(min(config.batch, held_out.count))
    drawn_s, made = _timed(lambda: held_out.samples(first))
    figures = evaluator.figures(most=1)
    once_s = _measured_s(run, evaluator, made)
    number = -(-held_out.count // (config.batch * run.accelerator.num_processes))
    kept = number * sum(value.nbytes for value in made.values()) <= KEPT_BYTES
    every = range(done + (0 if evaluator.evaluated is None else 1), config.last_step + 1)
    times = sum(1 for step in every if step % evaluator.options.every == 0 or step == config.last_step)
    measured_s = number * once_s
    first_s = number * drawn_s / max(1, min(config.workers, _cores())) + measured_s
    return Evaluations(times, held_out.count, first_s, measured_s if kept else first_s, tuple(figures))


def _measured_s(run: Run, evaluator: Evaluator, made: Mapping[str, Array]) -> float:
    """Time of measuring a batch that has been made; none if nobody in it counts."""
    batch = {name: torch.from_numpy(values) for name, values in made.items()}
    if not len(next(iter(batch.values()))):
        return 0.0
    run.task.model.eval()
    with torch.no_grad():
        seconds, _ = _timed(lambda: evaluator.rows(batch))
    run.task.model.train()
    return seconds


def _saved_bytes(run: Run, left: int, scalars: int) -> int:
    """Most space that the run takes at once: a file is written beside the one that it replaces."""
    run.checkpoint()
    run.accelerator.wait_for_everyone()
    if not run.accelerator.is_main_process:
        return 0
    run.task.model.eval()
    run.task.save(run.directory / WEIGHTS)
    sizes = {name: (run.directory / name).stat().st_size for name in (CHECKPOINT, WEIGHTS)}
    sizes[BEST] = 2 * sizes[WEIGHTS] if run.evaluator else 0
    return 2 * sizes[CHECKPOINT] + sizes[WEIGHTS] + sizes[BEST] + left // LOG_EVERY * scalars * _ROW_BYTES


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────


def _timed(do: Callable[[], Result]) -> tuple[float, Result]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = do()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _peak_bytes(children: bool) -> int:
    """Peak memory of this process, or of the largest one that it started and that has ended; 0 where unknown."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        import psutil

        return 0 if children else int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def _free_bytes(output: Path) -> int:
    """Free space where a run directory would be made.

    Raises:
        OutputError: it could not be.
    """
    nearest = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        what = "Permission denied" if nearest.is_dir() else "Not a directory"
        raise OutputError(f"{output}: cannot be written ({what})", "choose a writable folder that exists")
    return shutil.disk_usage(nearest).free


@contextmanager
def _memory_errors(config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        raise TrainingError(
            f"batch: {config.batch} samples do not fit into the {total / 1e9:.0f} GB of the GPU",
            'lower batch and lr with it, start more processes, or set precision = "bf16"',
        ) from None
    except MemoryError:
        raise TrainingError(f"batch: {config.batch} samples do not fit into the memory", "lower batch") from None
