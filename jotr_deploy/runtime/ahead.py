"""Work ahead: the stages of a stream overlap when each one is drawn by a thread of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, TypeVar

from jotr_deploy.support.writing import uninterrupted

Item = TypeVar("Item")

DEPTH = 2
"""Items that wait between two stages: enough to level out frames of different length, and little memory."""
_STOPPING_S = 0.02


def ahead(items: Iterator[Item], name: str, depth: int = DEPTH) -> Generator[Item, None, None]:
    """The same items in the same order, drawn from `items` by a thread while the caller is busy with earlier ones.

    The thread starts at the first item that is asked for. What `items` raises is raised here, after all items before
    it. Closing the result ends the thread, once it has the item it is at, and closes `items` if it can be closed.

    Args:
        items: from now on belongs to the thread.
        name: of the thread.
        depth: most items that wait.
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
        except BaseException as error:  # belongs to the caller
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
        with uninterrupted():  # who closes what a thread still draws from breaks both
            stop.set()
            while thread.is_alive():  # make room for what it still wants to put
                try:
                    waiting.get(timeout=_STOPPING_S)
                except Empty:
                    continue
            thread.join()
