"""Attempts at the units of a batch, as files: each is a count, a claim and a sign of life at once.

`KEY.1.attempt` is created by whoever begins a unit, so that of several only one succeeds. `KEY.2.attempt` may follow
once the owner of the first is dead: at once on the machine where it ran, and elsewhere when its file has not been
touched for `SILENT_S`. Nothing is deleted while a batch runs, so no claim can be taken for another one.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from jotr_deploy.support.writing import output_errors

BEAT_S = 2.0
SILENT_S = 180.0
"""A machine that has given no sign for so long is taken for dead; network file systems show files a minute late."""
_BYTES = 512


@dataclass(frozen=True)
class Seen:
    """An attempt as another process reads it."""

    number: int
    told: dict[str, Any]  # "host", "pid", "born", "frames"; "ended" once it has: "done", "failed" or "stopped"
    mtime_ns: int


def owner() -> dict[str, Any]:
    """The process itself, as attempts name it."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": psutil.Process().create_time()}


def last_attempt(folder: Path, key: str) -> tuple[int, Seen | None]:
    """Number of attempts at a unit whose process has died or still lives, and the last attempt of all."""
    lost, seen = 0, None
    number = 1
    while (found := read_attempt(folder, key, number)) is not None:
        seen = found
        lost += "ended" not in found.told
        number += 1
    return lost, seen


def read_attempt(folder: Path, key: str, number: int) -> Seen | None:
    """An attempt; None if there is none of this number."""
    path = folder / f"{key}.{number}.attempt"
    try:
        text, mtime_ns = path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        told = json.loads(text)
    except ValueError:  # read while it was written
        told = {}
    return Seen(number, told if isinstance(told, dict) else {}, mtime_ns)


@dataclass
class Watch:
    """Tells the living from the dead, as far as this process has seen."""

    _since: dict[str, tuple[int, float]] = field(default_factory=dict)  # by unit: time of the file, and when first seen

    def alive(self, key: str, seen: Seen) -> bool:
        """True unless the owner of an attempt is known to be dead, or has been silent for too long."""
        told = seen.told
        if "ended" in told:
            return False
        if told.get("host") == socket.gethostname():
            try:
                process = psutil.Process(told["pid"])
                return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - told["born"]) < 1
            except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
                return False
            except psutil.Error:
                return True
        mtime_ns, first_s = self._since.get(key, (0, 0.0))
        if mtime_ns != seen.mtime_ns:
            self._since[key] = seen.mtime_ns, time.monotonic()
            return True
        return time.monotonic() - first_s < SILENT_S


class Attempt:
    """An attempt of this process: a context manager, which shows that it lives, and says how it ended."""

    def __init__(self, folder: Path, key: str, number: int) -> None:
        self._path, self.number = folder / f"{key}.{number}.attempt", number
        self._told = {**owner(), "frames": 0}
        self._over = threading.Event()
        self._ended = False
        handle, name = tempfile.mkstemp(prefix=".attempt.", dir=folder)
        aside = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(self._bytes())
        try:
            self._path.hardlink_to(aside)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with self._path.open("xb") as file:
                file.write(self._bytes())
        finally:
            aside.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._beat, name="beat", daemon=True)

    def frames(self, done: int, total: int | None = None) -> None:
        """Tell how many frames are done."""
        self._told["frames"] = done

    def end(self, how: str) -> None:
        """Tell how it ended: "done" or "failed"."""
        self._ended = True
        self._over.set()
        self._thread.join()
        self._told["ended"] = how
        self._write()

    def __enter__(self) -> Attempt:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended:
            self.end("stopped")

    def _bytes(self) -> bytes:
        return json.dumps(self._told).encode().ljust(_BYTES)

    def _write(self) -> None:
        """Overwrite in place: if another has replaced the file, it is that one's."""
        try:
            with self._path.open("r+b") as file:
                file.write(self._bytes())
        except OSError:  # a full disk: the next beat may succeed
            return

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            self._write()


def begun(folder: Path, key: str, number: int) -> Attempt | None:
    """Begin an attempt of this number; None if another process was faster."""
    with output_errors(folder):
        try:
            return Attempt(folder, key, number)
        except FileExistsError:
            return None
