"""Work in several processes with results in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from jotr_deploy.errors import JotrDeployError

T = TypeVar("T")

_BATCH = 16
"""Neighbours are made by one worker, which makes what they share once. Less work is not worth starting a process."""
_AHEAD = 2
"""Batches that each worker may be ahead of their use; more would only fill memory."""


def worker_count(pieces: int, threads: int | None = None) -> int:
    """Number of worker processes: one a core, none for little work.

    Args:
        pieces: of the work.
        threads: limit set by the user; by default every core.
    """
    cores = threads or os.cpu_count() or 1
    return 0 if cores == 1 else min(cores, pieces // _BATCH)


@contextmanager
def in_order(make: Callable[[int], T], count: int, workers: int) -> Iterator[Iterator[T]]:
    """Results of `make(0)`, `make(1)`, ... from worker processes, which end with the block.

    Args:
        make: a function that can be pickled and depends on its argument alone.
        count: how many.
        workers: processes; 0 makes everything in this one.

    Raises:
        JotrDeployError: a worker was killed, as happens when memory runs out.
    """
    if workers == 0:
        yield map(make, range(count))
        return
    # A forked process could inherit locks of threads that it does not have; a spawned one starts clean.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=_LEAVE_INTERRUPTS) as pool:
        try:
            yield _results(pool, make, count, workers * _AHEAD)
        except BrokenProcessPool:
            raise JotrDeployError(
                "a process that draws scenes was killed, perhaps out of memory",
                "--threads 1 draws them one after the other in this process",
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_LEAVE_INTERRUPTS = (signal.SIGINT, signal.SIG_IGN)  # to this process, which ends the others


def _results(pool: ProcessPoolExecutor, make: Callable[[int], T], count: int, ahead: int) -> Iterator[T]:
    waiting: deque[Future[list[T]]] = deque()
    for start in range(0, count, _BATCH):
        waiting.append(pool.submit(_made, make, range(start, min(start + _BATCH, count))))
        if len(waiting) >= ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _made(make: Callable[[int], T], indices: range) -> list[T]:
    return [make(index) for index in indices]
