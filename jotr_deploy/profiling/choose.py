"""`bench --choose`: finds the engine that runs each file of a bundle fastest here, and remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.bundle import Bundle, FileEntry
from jotr_deploy.errors import SessionError
from jotr_deploy.profiling.bench_result import Timing, timings
from jotr_deploy.profiling.interleave import Job, collect, plan_rounds, timed, warm_up
from jotr_deploy.profiling.quiet_samples import Judge
from jotr_deploy.runtime.sessions import OPENVINO_FILE, Session, open_session
from jotr_deploy.runtime.sessions.choice import remember
from jotr_deploy.support.aliases import Progress

BACKENDS = ("onnxruntime", "openvino")
"""The first is the reference: another one must agree with it."""
AGREE = 1e-3
"""Largest difference of two engines, of the largest number of an output; rounding in float32 is a hundredth of it."""


@dataclass(frozen=True)
class Choice:
    """Times of one file in every engine that accepts it."""

    file: str
    timings: Mapping[str, Timing]  # by engine; one call with one person
    chosen: str
    left_out: Mapping[str, str]  # engine -> why


def choose(
    bundle: Bundle,
    threads: int | None = None,
    seconds: float = 10.0,
    progress: Progress = lambda step, done, total: None,
) -> list[Choice]:
    """Measure every ONNX file that more than one engine can run on the CPU, and remember the faster one.

    Args:
        bundle: opened.
        threads: width of the engines.
        seconds: about how long to measure, all files together.
        progress: called with each step.

    Raises:
        BundleError: a file is missing or changed.
        SessionError: a file that no engine accepts.
        MissingDependency: an engine is not installed.
        OutputError: the user's cache cannot be written.
    """
    paths = {entry.name: bundle.file(entry.role, entry.name) for entry in bundle.manifest.files if open_to_all(entry)}
    left_out: dict[str, dict[str, str]] = {}
    with ExitStack() as stack:
        groups = {}
        for name, path in paths.items():
            groups[name], left_out[name] = _jobs(stack, path, threads)
        judge = Judge()
        plan = plan_rounds(warm_up(groups, seconds, progress), seconds)
        collect(groups, plan, judge, "measuring", progress, at_most_s=2 * seconds)
        found = {name: timings(jobs, plan[name], judge) for name, jobs in groups.items()}
    choices = []
    for name, rows in found.items():
        by_engine = {str(key[1]): timing for key, timing in rows.items()}
        chosen = min(by_engine, key=lambda engine: by_engine[engine].p50_ms)
        remember(paths[name], chosen)
        choices.append(Choice(name, by_engine, chosen, left_out[name]))
    return choices


def open_to_all(entry: FileEntry) -> bool:
    """True for an ONNX file that was not made for a particular engine."""
    made_for_one = entry.only_parsed or entry.name.endswith((OPENVINO_FILE, ".onnxruntime.onnx"))
    return entry.name.endswith(".onnx") and not made_for_one


def _jobs(stack: ExitStack, path: Path, threads: int | None) -> tuple[list[Job], dict[str, str]]:
    """Jobs of the file in every engine that accepts it and agrees with the first; and the others, with reasons."""
    jobs: list[Job] = []
    left_out: dict[str, str] = {}
    expected: Mapping[str, NDArray[Any]] = {}
    for backend in BACKENDS:
        try:
            session = stack.enter_context(open_session(path, backend, "cpu", threads))
            feeds = _feeds(session)
            results = session(feeds)
        except SessionError as error:
            left_out[backend] = error.cause
            continue
        expected = expected or results
        if not agree(expected, results):
            left_out[backend] = f"its results differ from those of {BACKENDS[0]}"
            continue
        jobs.append(timed((path.name, backend), partial(session, feeds)))
    if not jobs:
        raise SessionError(f"{path}: {'; '.join(left_out.values())}", "check the file; export it again")
    return jobs, left_out


def agree(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> bool:
    """True if two engines agree up to rounding."""
    for name, value in expected.items():
        if found[name].shape != value.shape:
            return False
        wanted = value.astype(np.float64)
        allowed = AGREE * max(1.0, float(np.abs(wanted).max(initial=0)))
        if not np.all(np.abs(found[name] - wanted) <= allowed):
            return False
    return True


def _feeds(session: Session) -> dict[str, NDArray[Any]]:
    """Feeds of numbers between 0 and 1; open dimensions have size one."""
    rng = np.random.default_rng(0)
    return {
        name: rng.random([size if isinstance(size, int) else 1 for size in spec.shape]).astype(spec.dtype)
        for name, spec in session.inputs.items()
    }
