"""Calls made behind by a thread: all of them, in order, and the first error where it is noticed."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from jotr_deploy.runtime.prefetch import Behind


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def fail() -> None:
    raise KeyError("broken")


@pytest.mark.parametrize("depth", [0, 1, 2, 50])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_every_call_is_made_in_order(count: int, depth: int) -> None:
    made: list[int] = []
    with Behind("order", depth) as behind:
        for number in range(count):
            behind(partial(made.append, number))
    assert made == list(range(count))
    assert threads("order") == 0


def test_calls_are_made_by_its_thread_and_no_more_wait_than_may() -> None:
    go, reached = threading.Event(), threading.Event()
    names: list[str] = []

    def call() -> None:
        assert go.wait(10)
        names.append(threading.current_thread().name)

    def give() -> None:
        for _ in range(4):  # one being made, two that wait, and one too many
            behind(call)
        reached.set()

    with Behind("own", 2) as behind:
        giver = threading.Thread(target=give)
        giver.start()
        assert not reached.wait(0.05)
        go.set()
        giver.join()
    assert names == ["own"] * 4


def test_without_depth_a_call_is_made_at_once_and_here() -> None:
    names: list[str] = []
    with Behind("none", 0) as behind:
        behind(lambda: names.append(threading.current_thread().name))
        assert names == [threading.current_thread().name]
        with pytest.raises(KeyError, match="broken"):
            behind(fail)


def test_the_first_error_ends_the_calls_and_is_raised_at_the_end() -> None:
    made: list[int] = []

    def work() -> None:
        with Behind("end", 5) as behind:
            for call in (partial(made.append, 1), fail, partial(made.append, 2), partial(made.append, 3)):
                behind(call)

    with pytest.raises(KeyError, match="broken"):
        work()
    assert made == [1]
    assert threads("end") == 0


def test_a_later_call_raises_the_error() -> None:
    def work() -> None:
        with Behind("later", 1) as behind:
            behind(fail)
            while True:
                behind(lambda: None)

    with pytest.raises(KeyError, match="broken"):
        work()
    assert threads("later") == 0


def test_an_error_of_the_block_drops_what_waits() -> None:
    begun, go = threading.Event(), threading.Event()
    made: list[int] = []

    def first() -> None:
        begun.set()
        assert go.wait(10)
        made.append(1)

    def raise_in_the_block() -> None:
        with Behind("dropped", 5) as behind:
            behind(first)
            behind(partial(made.append, 2))
            assert begun.wait(10)
            threading.Timer(0.05, go.set).start()
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        raise_in_the_block()
    assert made == [1]
    assert threads("dropped") == 0
