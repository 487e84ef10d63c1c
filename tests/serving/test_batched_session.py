"""Batches across threads: which calls share one, who fails, who is dropped, and what is left when a network ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from canned import Canned
from session_contract import check_session, pair

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.serving.batched_session import SIZES, BatchedSession
from jotr_deploy.serving.request_context import ClientLeft, DeadlineExceeded, RequestContext

WAIT_S = 30


class Gated:
    """A network that doubles its feeds, and works only while its gate is open."""

    def __init__(self, answer: Callable[[np.ndarray], np.ndarray] = lambda rows: 2 * rows, batch: str | int = "n"):
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.inner = Canned({"x": (batch, 2)}, {"y": (batch, 2)}, self.work)
        self.answer = answer

    def work(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        self.entered.set()
        assert self.gate.wait(WAIT_S)
        return {"y": self.answer(rows)}

    @property
    def sizes(self) -> list[int]:
        return [len(rows) for rows in self.inner.seen]


@contextmanager
def opened(network: Gated, warm: bool = True) -> Iterator[BatchedSession]:
    with BatchedSession(lambda: network.inner) as session:
        if warm:
            session.warm()
        network.inner.seen.clear()
        network.entered.clear()
        yield session


@contextmanager
def busy(network: Gated, session: BatchedSession, pool: ThreadPoolExecutor) -> Iterator[None]:
    """The network works on a call of its own inside the block."""
    network.gate.clear()
    network.entered.clear()
    first = pool.submit(session, feed(0))
    assert network.entered.wait(WAIT_S)
    try:
        yield
    finally:
        network.gate.set()
        first.result(WAIT_S)


def feed(value: float, rows: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.full((rows, 2), value, np.float32)}


def until_waiting(session: BatchedSession, count: int) -> None:
    end_s = time.monotonic() + WAIT_S
    while len(session._queue) < count:
        assert time.monotonic() < end_s
        time.sleep(0.001)


def test_it_keeps_the_contract_of_a_session(tmp_path: Path) -> None:
    path = pair(tmp_path / "pair.onnx")
    check_session(BatchedSession(lambda: open_session(path, device="cpu")))
    warmed = BatchedSession(lambda: open_session(path, device="cpu"))
    warmed.warm()
    assert warmed.most == SIZES[-1]
    check_session(warmed)


def test_a_network_that_cannot_be_opened_is_reported_to_who_opens_it(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="no such network file"):
        BatchedSession(lambda: open_session(tmp_path / "missing.onnx"))


def test_what_waits_goes_through_together_and_everybody_gets_their_own_rows() -> None:
    network = Gated()
    seen: list[tuple[int, int]] = []
    with BatchedSession(lambda: network.inner, lambda waits_s, _, rows: seen.append((len(waits_s), rows))) as session:
        session.warm()
        network.inner.seen.clear()
        seen.clear()
        with ThreadPoolExecutor(9) as pool:
            with busy(network, session, pool):
                calls = [pool.submit(session, feed(value, rows)) for value, rows in ((1, 1), (2, 3), (3, 2))]
                until_waiting(session, 3)
            for call, (value, rows) in zip(calls, ((1, 1), (2, 3), (3, 2)), strict=True):
                np.testing.assert_array_equal(call.result(WAIT_S)["y"], np.full((rows, 2), 2 * value))
        assert network.sizes == [1, 6]
        assert seen == [(1, 1), (3, 6)]


def test_a_batch_is_no_larger_than_the_largest_size_and_no_call_is_cut() -> None:
    network = Gated()
    with opened(network) as session, ThreadPoolExecutor(9) as pool:
        with busy(network, session, pool):
            calls = []
            for rows in (10, 10, 6, 20, 1):  # in this order
                calls.append(pool.submit(session, feed(rows, rows)))
                until_waiting(session, len(calls))
        assert [len(call.result(WAIT_S)["y"]) for call in calls] == [10, 10, 6, 20, 1]
    assert network.sizes == [1, 16, 11, 20]


@pytest.mark.parametrize(
    ("network", "most"),
    [
        (Gated(), 16),
        (Gated(batch=1), 1),
        (Gated(lambda rows: rows - rows.mean(0)), 1),  # rows that depend on one another
        (Gated(lambda rows: rows[:1]), 1),  # as if it were the found people of a picture
    ],
    ids=["independent", "fixed", "dependent", "of another number"],
)
def test_calls_share_a_batch_only_where_rows_are_independent(network: Gated, most: int) -> None:
    with opened(network) as session:
        assert session.most == most
        with ThreadPoolExecutor(9) as pool:
            with busy(network, session, pool):
                calls = [pool.submit(session, feed(value)) for value in (1, 2)]
                until_waiting(session, 2)
            for call in calls:
                call.result(WAIT_S)
        assert len(network.sizes) == (2 if most > 1 else 3)


def test_every_size_is_warmed_and_one_that_fails_ends_them() -> None:
    network = Gated()
    with opened(network, warm=False) as session:
        session.warm()
        assert [size for size in network.sizes if size > 1] == list(SIZES[1:])

    def too_large(rows: np.ndarray) -> np.ndarray:
        if len(rows) > 4:
            raise RuntimeError("out of memory")
        return rows

    with opened(Gated(too_large)) as session:
        assert session.most == 4


def test_who_is_at_fault_fails_alone() -> None:
    def refuse(rows: np.ndarray) -> np.ndarray:
        if (rows < 0).any():
            raise RuntimeError("negative")
        return 2 * rows

    network = Gated(refuse)
    with opened(network) as session, ThreadPoolExecutor(9) as pool:
        with busy(network, session, pool):
            good, bad, fine = (pool.submit(session, feed(value)) for value in (1, -1, 3))
            until_waiting(session, 3)
        assert good.result(WAIT_S)["y"][0, 0] == 2
        assert fine.result(WAIT_S)["y"][0, 0] == 6
        with pytest.raises(RuntimeError, match="negative"):
            bad.result(WAIT_S)
        assert session.alive


def test_a_wrong_feed_fails_before_it_joins_a_batch() -> None:
    network = Gated()
    with opened(network) as session:
        with pytest.raises(SessionError, match="wrong input"):
            session({"x": np.zeros((1, 3), np.float32)})
        assert network.sizes == []


def called_in(context: RequestContext, session: BatchedSession, value: float) -> np.ndarray:
    with context.entered():
        return session(feed(value))["y"]


def test_who_has_left_is_dropped_from_the_queue_at_once() -> None:
    network = Gated()
    with opened(network) as session, ThreadPoolExecutor(9) as pool:
        with busy(network, session, pool):
            context = RequestContext(WAIT_S)
            left, stays = pool.submit(called_in, context, session, 1), None
            until_waiting(session, 1)
            stays = pool.submit(session, feed(2))
            until_waiting(session, 2)
            context.cancel()
            with pytest.raises(ClientLeft):
                left.result(WAIT_S)
        assert stays.result(WAIT_S)["y"][0, 0] == 4
        with pytest.raises(ClientLeft):
            called_in(context, session, 3)
    assert network.sizes == [1, 1]


def test_a_deadline_ends_the_wait_while_the_network_hangs() -> None:
    network = Gated()
    with opened(network) as session, ThreadPoolExecutor(9) as pool:
        with busy(network, session, pool):
            with pytest.raises(DeadlineExceeded):
                called_in(RequestContext(0.01), session, 1)
            with pytest.raises(DeadlineExceeded):
                called_in(RequestContext(-1), session, 1)
            assert session.busy_s > 0
            assert session.alive
        assert session(feed(1))["y"][0, 0] == 2
        assert session.busy_s == 0
    assert network.sizes == [1, 1]  # those who gave up were not computed


def test_nobody_waits_for_a_network_whose_thread_has_died() -> None:
    def die(rows: np.ndarray) -> np.ndarray:
        if (rows < 0).any():
            raise SystemExit
        return rows

    network = Gated(die)
    with opened(network) as session, ThreadPoolExecutor(9) as pool:
        with busy(network, session, pool):
            calls = [pool.submit(session, feed(-1)), pool.submit(session, feed(1))]
            until_waiting(session, 2)
        for call in calls:
            with pytest.raises(SessionError, match="the network has stopped"):
                call.result(WAIT_S)
        assert not session.alive
        with pytest.raises(SessionError, match="the network has stopped"):
            session(feed(1))


def test_batches_of_a_gpu_have_few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size is captured as a graph the second time it appears; others are padded to the next, and cut again."""
    monkeypatch.setattr("jotr_deploy.serving.batched_session.CudaSession", Canned)
    network = Gated()
    with opened(network, warm=False) as session:
        session.warm()
        assert session.on_gpu
        assert [network.sizes.count(size) for size in SIZES[1:]] == [2] * 4
        network.inner.seen.clear()
        for rows in (1, 3, 5, 16, 17):
            found = session({"x": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)})["y"]
            np.testing.assert_array_equal(found, 2 * np.arange(2 * rows).reshape(rows, 2))
    assert network.sizes == [1, 4, 8, 16, 17]
