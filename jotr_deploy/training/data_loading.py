"""Samples by number: assignment to steps, and the worker processes that make them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.support.aliases import Array

Samples = Callable[[Sequence[int]], dict[str, Array]]
"""Samples of some numbers as one batch; runs in worker processes, so it can be pickled."""


def indices_of(step: int, batch: int, process: int, processes: int) -> range:
    """Sample numbers of one step in one process: each is used once, for any number of processes."""
    first = (step * processes + process) * batch
    return range(first, first + batch)


class _Failed(NamedTuple):
    """A user-fixable error in place of a batch."""

    kind: type[JotrDeployError]
    cause: str
    remedy: str


class _Dataset(Dataset[Any]):
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Array] | _Failed:
        try:
            return self.samples(indices)
        except JotrDeployError as error:  # the loader would turn it into a traceback on its way from a worker
            return _Failed(type(error), error.cause, error.remedy)


class _Steps(Sampler[list[int]]):
    def __init__(self, steps: range, batch: int, process: int, processes: int, count: int | None) -> None:
        self.steps, self.share, self.count = steps, (batch, process, processes), count

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            indices = indices_of(step, *self.share)
            if self.count is not None:
                indices = range(min(indices.start, self.count), min(indices.stop, self.count))
            if indices:
                yield list(indices)


def batches(
    samples: Samples, steps: range, batch: int, process: int = 0, processes: int = 1, workers: int = 0,
    count: int | None = None,
) -> Iterator[dict[str, Tensor]]:  # fmt: skip
    """Batches of all steps in order, prepared by `workers` processes; with `count`, of samples below it only.

    Raises:
        JotrDeployError: raised by the samples.
    """
    loader = DataLoader(
        _Dataset(samples),
        batch_sampler=_Steps(steps, batch, process, processes, count),
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
