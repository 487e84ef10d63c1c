"""Rows of a first contact: written one by one, so that what was found outlives the process that found it."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from jotr_deploy.errors import MissingDependency

State = Literal["measured", "ok", "failed", "left out"]


class LeftOut(Exception):
    """A part that cannot run here; the message says why."""


class Report:
    """Takes the rows of one part."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._end = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Time until the part is stopped."""
        return self._end - time.monotonic()

    def value(self, what: str, value: float, unit: str, limit: float | None = None, note: str = "") -> None:
        """A figure; above its limit, or not finite, it has failed."""
        finite = math.isfinite(value)
        state: State = "measured" if limit is None else "ok" if value <= limit else "failed"
        self._add(
            what=what,
            state=state if finite else "failed",
            value=float(value) if finite else None,  # JSON has no NaN
            unit=unit,
            limit=limit,
            note=note if finite else f"{value} {note}".strip(),
        )

    def check(self, what: str, passed: bool, note: str = "") -> None:
        """Something that is right or wrong."""
        self._add(what=what, state="ok" if passed else "failed", note=note)

    def fact(self, what: str, text: str) -> None:
        """Something that is only to be known."""
        self._add(what=what, state="measured", note=text)

    def left_out(self, what: str, why: str) -> None:
        """Something that could not be done here."""
        self._add(what=what, state="left out", note=why)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """A block whose failure is a row, and ends nothing else."""
        try:
            yield
        except LeftOut as reason:
            self.left_out(what, str(reason))
        except MissingDependency as error:
            self.left_out(what, error.cause)
        except Exception as error:
            package = (getattr(error, "name", None) or "").partition(".")[0]
            if isinstance(error, ModuleNotFoundError) and package not in ("", "jotr_deploy", "measuring"):
                self.left_out(what, f"not installed: {package}")
                return
            note = " / ".join(f"{type(error).__name__}: {error}".splitlines())
            self._add(what=what, state="failed", note=note, traceback=traceback.format_exc())

    def _add(self, **row: Any) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def needs(*packages: str) -> None:
    """Leave the part out where a package is not installed."""
    absent = [package for package in packages if not _is_installed(package)]
    if absent:
        raise LeftOut(f"not installed: {', '.join(absent)}")


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # its parent is not there
        return False
