"""Worker processes: order, errors, and who is asked to work."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import pytest

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.evaluation.workers import in_order, worker_count


def slow_first(index: int) -> tuple[int, int]:
    time.sleep(0.1 if index == 0 else 0)
    return index, os.getpid()


def fails_at(bad: int, index: int) -> int:
    if index == bad:
        raise ValueError("number twenty")
    return index


def dies(index: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return index


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order(workers: int) -> None:
    with in_order(slow_first, 40, workers) as results:
        made = list(results)
    assert [index for index, _ in made] == list(range(40))
    assert (os.getpid() in {process for _, process in made}) == (workers == 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_comes_back_at_its_place(workers: int) -> None:
    seen = []
    with (
        pytest.raises(ValueError, match="number twenty"),
        in_order(partial(fails_at, 20), 100, workers) as results,
    ):
        seen.extend(results)
    assert seen[:16] == list(range(16))
    assert len(seen) <= 20


def test_a_killed_process_is_told() -> None:
    with pytest.raises(JotrDeployError) as error, in_order(dies, 3, 1) as results:
        list(results)
    assert error.value.cause == "a process that draws scenes was killed, perhaps out of memory"
    assert error.value.remedy == "--threads 1 draws them one after the other in this process"


@pytest.mark.parametrize(
    ("pieces", "threads", "count"), [(400, 1, 0), (15, 8, 0), (16, 8, 1), (400, 8, 8), (50, 8, 3), (0, None, 0)]
)
def test_how_many(pieces: int, threads: int | None, count: int) -> None:
    assert worker_count(pieces, threads) == count
