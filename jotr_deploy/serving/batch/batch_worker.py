"""A process that works on a batch: it takes units until none is left that it can take.

`python -m jotr_deploy.serving.batch.batch_worker SETTINGS` is one of `--workers`; it stops after the unit in hand when
its standard input ends, as it does when the process that started it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from jotr_deploy.bundle import open_bundle
from jotr_deploy.errors import JotrDeployError, SourceError, first_line
from jotr_deploy.runtime.loaded_model import Model
from jotr_deploy.runtime.run import open_model, run
from jotr_deploy.runtime.run_parts import joined, recover_part, seams
from jotr_deploy.serving.batch.batch_plan import Plan, Unit, require_same
from jotr_deploy.serving.batch.batch_sources import state_of
from jotr_deploy.serving.batch.batch_state import State
from jotr_deploy.serving.batch.claims import Attempt, begun, last_attempt

WAIT_S = 0.5
"""Pause before looking again for a unit, while others work on what it needs."""


@dataclass(frozen=True)
class WorkerSettings:
    """Arguments of a worker."""

    output: str
    attempts: int = 2  # at one unit, before it counts as failed
    threads: int | None = None
    slice: tuple[int, int] | None = None  # units I, I + N ... of the plan, and joining what they complete

    @classmethod
    def from_text(cls, text: str) -> WorkerSettings:
        """Reverse of `as_text`."""
        values = json.loads(text)
        return cls(**{**values, "slice": values["slice"] and tuple(values["slice"])})

    def as_text(self) -> str:
        """For the command line of a process."""
        return json.dumps(asdict(self))


def units_of_slice(plan: Plan, part: tuple[int, int] | None) -> list[Unit]:
    """The units of a slice that need no others; all of them without one."""
    units = [unit for unit in plan.units if unit.kind != "join"]
    return units if part is None else units[part[0] :: part[1]]


class Worker:
    """Works on the units of a plan, with one loaded model; `traceback_in` says where its standard error goes."""

    def __init__(self, settings: WorkerSettings, traceback_in: str = "a log in .batch/logs") -> None:
        self.settings, self.output = settings, Path(settings.output)
        self._traceback_in = traceback_in
        self.plan = Plan.read(self.output)
        self.state = State(self.plan, self.output)
        self.options = self.plan.options.for_run(settings.threads)
        self._joins = [unit for unit in self.plan.units if unit.kind == "join"]
        self._own = units_of_slice(self.plan, settings.slice)

    @cached_property
    def model(self) -> Model:
        """The model, opened once.

        Raises:
            JotrDeployError: the bundle cannot be used here, or people would be found by other networks than planned.
        """
        bundle = open_bundle(Path(self.plan.bundle))
        model = open_model(bundle, self.options, self.plan.options.fitter(bundle, self.settings.threads))
        model.people_source()
        networks = [file["sha256"] for file in model.files_used if file["role"] in ("detector", "pose")]
        require_same(self.plan, bundle, networks)
        return model

    def work(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Take units until none is left to take, or told to stop."""
        while not stop():
            taken, waiting = self.step()
            if not taken:
                if not waiting:
                    return
                self.pause()

    @staticmethod
    def pause() -> None:
        """Wait a moment before looking again."""
        time.sleep(WAIT_S)

    def step(self) -> tuple[bool, bool]:
        """Work on the first unit that can be taken; returns whether there was one, and whether to look again later."""
        names, waiting = self.state.names(), False
        for unit in (*self._joins, *self._own):  # joining frees disk space
            if not self.state.ready(unit, names):
                continue
            if self.state.in_hand(unit, names) is not None:
                waiting = True
            elif self.do(unit) is not None:
                return True, True
        # A slice leaves what others have in hand to them.
        return False, waiting and self.settings.slice is None

    def held_elsewhere(self, unit: Unit) -> bool:
        """True while another living process works on a unit."""
        names = self.state.names()
        return self.state.ready(unit, names) and self.state.in_hand(unit, names) is not None

    def do(self, unit: Unit) -> str | None:
        """Work on a unit: "done" or "failed"; None if another process has it, or has finished it."""
        model = self.model  # before the attempt counts: a machine that cannot load it harms no unit
        lost, seen = last_attempt(self.state.folder, unit.key)
        if seen is not None and self.state.watch.alive(unit.key, seen):
            return None
        if seen is not None and lost >= self.settings.attempts:
            host = seen.told.get("host", "an unknown machine")
            return self._failed(
                unit,
                f"the process working on it died {lost} times, the last time on {host}",
                "try it alone with jotr-deploy run; --retry-failed tries again here",
            )
        attempt = begun(self.state.folder, unit.key, 1 if seen is None else seen.number + 1)
        if attempt is None:
            return None
        with attempt:
            if not self.state.ready(unit, self.state.names()):  # by another process, just now
                attempt.end("done")
                return None
            how = self._attempted(unit, model, attempt)
            attempt.end(how)
        return how

    def _attempted(self, unit: Unit, model: Model, attempt: Attempt) -> str:
        source = self.plan.sources[unit.source]
        try:
            if state_of(source.path) != source.state:
                raise SourceError(
                    f"{source.path}: has changed since the plan was made", "use another -o for the new one"
                )
            told = getattr(self, f"_{unit.kind}")(unit, model, attempt)
        except JotrDeployError as error:
            return self._failed(unit, error.cause, error.remedy)
        except Exception as error:
            traceback.print_exc()
            return self._failed(
                unit,
                f"{type(error).__name__}: {first_line(error)}",
                f"this is a bug; {self._traceback_in} has the traceback",
            )
        self._sweep(unit)
        if told is not None:
            self.state.mark(unit, "done", told)
        return "done"

    def _sweep(self, unit: Unit) -> None:
        """Remove what processes that died at this unit had half written."""
        left = [*self.state.folder.glob(f".{unit.key}.*")]
        if unit.kind != "part":
            left += (self.output / self.plan.sources[unit.source].folder).glob(".run.*")
        for path in left:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _failed(self, unit: Unit, cause: str, remedy: str) -> str:
        self.state.mark(unit, "failed", {"cause": cause, "remedy": remedy})
        return "failed"

    def _whole(self, unit: Unit, model: Model, attempt: Attempt) -> dict[str, Any]:
        source = self.plan.sources[unit.source]
        output = self.output / source.folder
        summary = run(model.bundle, source.path, output, self.options, attempt.frames, model=model)
        return {"frames": summary.frames, "people": summary.people}

    def _part(self, unit: Unit, model: Model, attempt: Attempt) -> dict[str, Any]:
        source, part = self.plan.sources[unit.source], unit.part
        if self.state.counted_from_start(unit.source).exists():
            part = type(part)(part.first, part.end, even=False)
        rows = self.state.rows(unit)
        frames = recover_part(model, source.path, part, self.options, rows, attempt.frames)
        return {"frames": frames, "even": part.even}

    def _join(self, unit: Unit, model: Model, attempt: Attempt) -> dict[str, Any] | None:
        """Join the parts of a source; None where some do not meet, and have to be read again."""
        source, units = self.plan.sources[unit.source], self.plan.units_of(unit.source)[:-1]
        rows = [self.state.rows(each) for each in units]
        if not self._meet(unit, units, rows):
            return None
        output = self.output / source.folder
        summary = joined(model, source.path, rows, self.options, output, attempt.frames)
        for each in rows:
            each.unlink(missing_ok=True)
        return {"frames": summary.frames, "people": summary.people}

    def _meet(self, unit: Unit, units: list[Unit], rows: list[Path]) -> bool:
        """True if each part begins with the frame that follows the part before; else later ones are to be read again.

        They are then counted from the start of the film, so that nothing more can be wrong.
        """
        found = [seams(path) for path in rows]
        for number, ((_, following), (seam, _)) in enumerate(pairwise(found), 1):
            if following == seam:
                continue
            path = self.plan.sources[unit.source].path
            sought = [later for later in units[number:] if self.state.told(later, "done").get("even")]
            if not sought:
                raise SourceError(f"{path}: has other frames when it is read again", "re-encode it with ffmpeg")
            logging.getLogger("jotr_deploy").warning(
                "%s: parts do not meet at frame %d; frames are counted from the start", path, units[number].part.first
            )
            self.state.counted_from_start(unit.source).touch()
            for later in sought:
                self.state.marker(later, "done").unlink(missing_ok=True)
            return False
        return True


def main() -> None:
    """One of several local processes."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes on what is meant
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    gone = threading.Event()

    def listen() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock would be in the way at exit
            pass
        gone.set()

    threading.Thread(target=listen, name="parent", daemon=True).start()
    try:
        Worker(WorkerSettings.from_text(sys.argv[1])).work(gone.is_set)
    except JotrDeployError as error:
        sys.stderr.write(f"{error.cause}\n{error.remedy}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
