"""Read-ahead and write-behind: stages of a stream overlap when each runs in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from jotr_deploy.support.writing import uninterrupted

Item = TypeVar("Item")


class _Closes(Protocol):
    def close(self) -> None: ...


Closable = TypeVar("Closable", bound=_Closes)

DEPTH = 2
"""Items waiting between two stages: enough to even out frames of different duration, at little memory."""
_STOPPING_S = 0.02


def ahead(items: Iterator[Item], name: str, depth: int = DEPTH) -> Generator[Item, None, None]:
    """The same items in the same order, drawn from `items` by a thread while the caller works on earlier ones.

    The thread starts when the first item is requested. Exceptions from `items` are raised here, after all items before
    them. Closing the result ends the thread, once it has its current item, and closes `items` if it can be closed.

    Args:
        items: belongs to the thread from now on.
        name: of the thread.
        depth: maximum number of items waiting.
    """
    waiting: Queue[tuple[str, Any]] = Queue(depth)
    stop = Event()

    def draw() -> None:
        last: tuple[str, Any] = ("end", None)
        try:
            for item in items:
                waiting.put(("item", item))
                if stop.is_set():
                    break
        except BaseException as error:  # passed on to the caller
            last = ("error", error)
        finally:
            if isinstance(items, Generator):
                items.close()
        waiting.put(last)

    thread = Thread(target=draw, name=name, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        with uninterrupted():  # closing `items` while the thread still draws from it breaks both
            stop.set()
            while thread.is_alive():  # make room for an item it still has to put
                try:
                    waiting.get(timeout=_STOPPING_S)
                except Empty:
                    continue
            thread.join()


class Begun(Generic[Closable]):
    """Something that a thread opens while the caller goes on: a context manager, whose end closes it."""

    def __init__(self, open_it: Callable[[], Closable], name: str) -> None:
        """Begin to open it, in a thread of this name."""
        self._opened: Closable | None = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, args=(open_it,), name=name, daemon=True)
        self._thread.start()

    def __call__(self) -> Closable:
        """The opened thing, as soon as it is there; an error of opening it is raised here, and only here."""
        self._thread.join()
        if self._opened is None:
            raise self._error or RuntimeError("nothing was opened")
        return self._opened

    def _work(self, open_it: Callable[[], Closable]) -> None:
        try:
            self._opened = open_it()
        except BaseException as error:  # passed on to the caller
            self._error = error

    def __enter__(self) -> Begun[Closable]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join()
        if self._opened is not None:
            self._opened.close()


class Behind:
    """Calls made by a thread, in order, while the caller goes on: a context manager, whose end waits for all of them.

    The first error ends them: it is raised here by the next call, or else at the end, and what waits is dropped. So it
    is when the block raises.
    """

    def __init__(self, name: str, depth: int = DEPTH) -> None:
        """Prepare a thread of this name for at most `depth` waiting calls; with 0 they are made at once, without it."""
        self._waiting: Queue[Callable[[], None] | None] = Queue(depth)
        self._thread = Thread(target=self._work, name=name, daemon=True) if depth else None
        self._error: BaseException | None = None
        self._dropping = False

    def __call__(self, call: Callable[[], None]) -> None:
        """Have this called after all that came before; waits while too many wait."""
        if self._thread is None:
            call()
            return
        if self._error is not None:
            raise self._error
        self._waiting.put(call)

    def __enter__(self) -> Behind:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        with uninterrupted():  # what the calls use is about to be closed
            self._dropping = self._dropping or kind is not None
            self._waiting.put(None)
            self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (call := self._waiting.get()) is not None:
            if self._dropping:
                continue
            try:
                call()
            except BaseException as error:  # passed on to the caller
                self._error, self._dropping = error, True
