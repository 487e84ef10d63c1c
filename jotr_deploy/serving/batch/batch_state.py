"""State of a batch, read from its files: done, failed and why, in hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jotr_deploy.serving.batch.batch_plan import Plan, Unit
from jotr_deploy.serving.batch.claims import Seen, Watch, last_attempt
from jotr_deploy.support.writing import output_errors, written_aside

FOLDER = ".batch"
"""Folder, in the results directory, of everything that is not a result."""


def folder_of(output: Path) -> Path:
    """That folder, made if it is missing."""
    folder = output / FOLDER
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Failure:
    """A source that cannot be finished, and why."""

    path: str
    cause: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"source": self.path, "cause": self.cause, "remedy": self.remedy}


@dataclass
class Counts:
    """State of a batch, or of a slice of it."""

    planned: int = 0  # sources
    done: int = 0
    failed: list[Failure] = field(default_factory=list)
    in_hand: int = 0  # units
    units: int = 0
    units_done: int = 0
    frames: int = 0  # about
    frames_done: int = 0
    people: int = 0  # in frames, of sources that are done

    @property
    def missing(self) -> int:
        """Sources neither done nor failed."""
        return self.planned - self.done - len(self.failed)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = {name: value for name, value in vars(self).items() if name != "failed"}
        return {**values, "missing": self.missing, "failed": [each.as_dict() for each in self.failed]}


class State:
    """The files of a batch beside its results."""

    def __init__(self, plan: Plan, output: Path) -> None:
        self.plan, self.output, self.folder = plan, output, folder_of(output)
        self.watch = Watch()

    def rows(self, unit: Unit) -> Path:
        """File of the people of a part."""
        return self.folder / f"{unit.key}.npz"

    def marker(self, unit: Unit, how: str) -> Path:
        """File that says a unit is "done" or has "failed"."""
        return self.folder / f"{unit.key}.{how}"

    def mark(self, unit: Unit, how: str, told: dict[str, Any]) -> None:
        """Say that a unit is done, or has failed."""
        with written_aside(self.marker(unit, how)) as aside:
            aside.write_text(json.dumps(told) + "\n", encoding="utf-8")

    def told(self, unit: Unit, how: str) -> dict[str, Any]:
        """Content of a marker; empty where there is none."""
        try:
            told = json.loads(self.marker(unit, how).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def names(self) -> set[str]:
        """Names of all files there are now."""
        return {path.name for path in self.folder.iterdir()}

    def ready(self, unit: Unit, names: set[str]) -> bool:
        """True for a unit that is not finished, needs no other, and belongs to a source that has not failed."""
        of_source = self.plan.units_of(unit.source)
        if f"{unit.key}.done" in names or any(f"{each.key}.failed" in names for each in of_source):
            return False
        return unit.kind != "join" or all(f"{each.key}.done" in names for each in of_source[:-1])

    def counted_from_start(self, number: int) -> Path:
        """File that says that a source must not be sought in: its parts did not meet."""
        return self.folder / f"{self.plan.units_of(number)[-1].key}.counted"

    def in_hand(self, unit: Unit, names: set[str]) -> Seen | None:
        """The attempt of a living process at a unit that is not finished."""
        if f"{unit.key}.1.attempt" not in names:
            return None
        _, seen = last_attempt(self.folder, unit.key)
        return seen if seen is not None and self.watch.alive(unit.key, seen) else None

    def counts(self, units: list[Unit] | None = None, people: bool = True) -> Counts:
        """Counts of these units, or of all; those of a source in a slice need not be all it has."""
        names, counts = self.names(), Counts()
        by_source: dict[int, list[Unit]] = {}
        for unit in self.plan.units if units is None else units:
            by_source.setdefault(unit.source, []).append(unit)
        for number, of_source in by_source.items():
            last = self.plan.units_of(number)[-1]
            finished = f"{last.key}.done" in names
            done = [unit for unit in of_source if finished or f"{unit.key}.done" in names]
            counts.planned, counts.units, counts.units_done = (
                counts.planned + 1, counts.units + len(of_source), counts.units_done + len(done),
            )  # fmt: skip
            counts.frames += sum(unit.frames for unit in of_source)
            counts.frames_done += sum(unit.frames for unit in done)
            if len(done) == len(of_source):
                counts.done += 1
                counts.people += self.told(last, "done").get("people", 0) if people else 0
                continue
            counts.failed += list(self._failures(number, of_source, names))[:1]
            for unit in of_source:
                if f"{unit.key}.done" not in names and (seen := self.in_hand(unit, names)) is not None:
                    counts.in_hand += 1
                    counts.frames_done += min(int(seen.told.get("frames", 0)), unit.frames)
        return counts

    def _failures(self, number: int, units: list[Unit], names: set[str]) -> Iterator[Failure]:
        for unit in units:
            if f"{unit.key}.failed" in names:
                told = self.told(unit, "failed")
                remedy = told.get("remedy", "see the log beside it")
                yield Failure(self.plan.sources[number].path, told.get("cause", "unknown"), remedy)

    def left(self, units: list[Unit] | None = None) -> int:
        """Number of units of a batch, or of a slice and what it may join, that are not finished."""
        names = self.names()
        joins = [unit for unit in self.plan.units if unit.kind == "join"]
        chosen = self.plan.units if units is None else [*units, *(unit for unit in joins if self.ready(unit, names))]
        return sum(not {f"{unit.key}.done", f"{unit.key}.failed"} & names for unit in chosen)

    def failed_joins(self) -> list[Unit]:
        """Units that failed to join what slices had done."""
        return [unit for unit in self.plan.units if unit.kind == "join" and self.marker(unit, "failed").exists()]

    def retry_failed(self) -> int:
        """Forget all failures and the attempts that led to them; returns how many there were."""
        failed = [unit for unit in self.plan.units if self.marker(unit, "failed").exists()]
        for unit in failed:
            for path in self.folder.glob(f"{unit.key}.*.attempt"):
                path.unlink(missing_ok=True)
            self.marker(unit, "failed").unlink(missing_ok=True)
        return len(failed)
