"""Captures run alone; what may allocate overlaps freely otherwise, and never waits for its own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from jotr_deploy.runtime.sessions.capture_lock import Captures


def in_a_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_capture_waits_for_all_that_allocates() -> None:
    captures, done, both, go = Captures(), list[str](), threading.Barrier(3), threading.Event()

    def allocate() -> None:
        with captures.allocating(), captures.allocating():
            both.wait(60)  # the other thread is inside as well
            go.wait(60)
            done.append("allocated")

    def capture() -> None:
        with captures.alone(), captures.allocating():
            done.append("captured")

    threads = [in_a_thread(allocate), in_a_thread(allocate)]
    both.wait(60)
    threads.append(in_a_thread(capture))
    go.set()
    for thread in threads:
        thread.join(60)
    assert done == ["allocated", "allocated", "captured"]


def test_memory_is_freed_at_once_unless_something_is_captured() -> None:
    captures, freed = Captures(), list[str]()
    captures.free(lambda: freed.append("before"))
    with captures.alone():
        captures.free(lambda: freed.append("its own"))
        in_a_thread(lambda: captures.free(lambda: freed.append("of another"))).join(60)
        assert freed == ["before"]
    assert freed == ["before", "its own", "of another"]
    with captures.allocating():
        captures.free(lambda: freed.append("inside"))
    assert freed[-1] == "inside"


def test_a_capture_that_fails_lets_others_go_on() -> None:
    captures = Captures()
    with pytest.raises(ValueError, match="failed"), captures.alone():
        raise ValueError("failed")
    thread = in_a_thread(lambda: captures.allocating().__enter__())
    thread.join(60)
    assert not thread.is_alive()


def test_a_capture_inside_a_block_that_allocates_is_a_mistake() -> None:
    captures = Captures()
    with captures.allocating(), pytest.raises(RuntimeError, match="must not begin"), captures.alone():
        pass
    with captures.alone():
        pass
