"""Iterators drawn by a thread: the same items, errors in their place, an end that is an end."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing

import pytest

from jotr_deploy.runtime.prefetch import DEPTH, ahead


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


@pytest.mark.parametrize("items", [[], [1], list(range(100)), [None, None]])
@pytest.mark.parametrize("depth", [1, 2, 50])
def test_the_same_items_in_the_same_order(items: list[int], depth: int) -> None:
    assert list(ahead(iter(items), "same", depth)) == items
    assert threads("same") == 0


def test_several_one_after_the_other() -> None:
    first = ahead(iter(range(50)), "several")
    second = ahead((2 * item for item in first), "several")
    assert list(ahead((item + 1 for item in second), "several")) == [2 * item + 1 for item in range(50)]
    assert threads("several") == 0


def test_it_works_in_its_own_thread_and_no_further_ahead_than_it_may() -> None:
    drawn: list[str] = []
    more = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in range(10):
            drawn.append(threading.current_thread().name)
            more.release()
            yield number

    with closing(ahead(items(), "own", 3)) as given:
        assert next(given) == 0
        for _ in range(5):  # the one given, three that wait, and one that waits to wait
            assert more.acquire(timeout=10)
        assert not more.acquire(timeout=0.05)
    assert set(drawn) == {"own"}


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    given = ahead(ahead(items(), "error"), "error")
    assert [next(given), next(given)] == [1, 2]
    with pytest.raises(KeyError, match="three"):
        next(given)
    assert threads("error") == 0


@pytest.mark.parametrize("taken", [0, 1, DEPTH + 3])
def test_closing_ends_the_threads_and_what_they_draw_from(taken: int) -> None:
    closed = threading.Event()

    def endless() -> Generator[int, None, None]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    given = ahead(ahead(endless(), "closing"), "closing")
    assert [next(given) for _ in range(taken)] == list(range(taken))
    given.close()
    assert threads("closing") == 0
    assert closed.is_set() == (taken > 0)  # what was never asked for never began
