"""Samples by number: assignment to steps, and the worker processes that make them."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.tasks import Task


def indices_of(step: int, batch: int, process: int, processes: int) -> range:
    """Sample numbers of one step in one process: each is used once, for any number of processes."""
    first = (step * processes + process) * batch
    return range(first, first + batch)


class _Failed(NamedTuple):
    """A user-fixable error in place of a batch."""

    kind: type[JotrDeployError]
    cause: str
    remedy: str


class _Samples(Dataset[Any]):
    def __init__(self, task: Task) -> None:
        self.task = task

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Array] | _Failed:
        try:
            return self.task.samples(indices)
        except JotrDeployError as error:  # the loader would turn it into a traceback on its way from a worker
            return _Failed(type(error), error.cause, error.remedy)


class _Steps(Sampler[list[int]]):
    def __init__(self, steps: range, batch: int, process: int, processes: int) -> None:
        self.steps, self.share = steps, (batch, process, processes)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield list(indices_of(step, *self.share))


def batches(
    task: Task, steps: range, batch: int, process: int = 0, processes: int = 1, workers: int = 0
) -> Iterator[dict[str, Tensor]]:
    """Batches of all steps in order, prepared by `workers` processes.

    Raises:
        JotrDeployError: raised by the task's samples.
    """
    loader = DataLoader(
        _Samples(task),
        batch_sampler=_Steps(steps, batch, process, processes),
        num_workers=workers,
        # A forked worker inherits locks of threads that it does not have, and may wait for them for ever.
        multiprocessing_context="spawn" if workers else None,
        collate_fn=_tensors,
        worker_init_fn=_quiet_worker,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # the loader would draw from the global one
    )
    for made in loader:
        if isinstance(made, _Failed):
            raise made.kind(made.cause, made.remedy)
        yield made


def _tensors(arrays: Any) -> Any:
    if isinstance(arrays, _Failed):
        return arrays
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _quiet_worker(worker: int) -> None:
    """Limit a worker to one core, and leave signals that end a run to the training process, which ends its workers."""
    cv2.setNumThreads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
