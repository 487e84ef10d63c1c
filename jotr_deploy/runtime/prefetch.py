"""Read-ahead: stages of a stream overlap when each runs in a thread of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, TypeVar

from jotr_deploy.support.writing import uninterrupted

Item = TypeVar("Item")

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
