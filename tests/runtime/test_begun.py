import threading

import pytest

from jotr_deploy.errors import BundleError
from jotr_deploy.runtime.prefetch import Begun


class Thing:
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_opened_in_a_thread_of_its_own_and_closed_once() -> None:
    threads, thing = [], Thing()

    def open_it() -> Thing:
        threads.append(threading.current_thread().name)
        return thing

    with Begun(open_it, "body") as opening:
        assert opening() is thing
        assert opening() is thing
        assert thing.closed == 0
    assert (threads, thing.closed) == (["body"], 1)


def test_an_error_is_raised_where_it_is_asked_for_and_nowhere_else() -> None:
    def broken() -> Thing:
        raise BundleError("no body", "export again")

    with Begun(broken, "body") as opening, pytest.raises(BundleError, match="no body"):
        opening()
    with Begun(broken, "body"):
        pass


def test_a_slow_one_is_closed_although_nobody_asked_for_it() -> None:
    go, thing = threading.Event(), Thing()

    def slow() -> Thing:
        go.wait(10)
        return thing

    with Begun(slow, "body"):
        go.set()
    assert thing.closed == 1
