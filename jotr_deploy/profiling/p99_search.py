"""`bench --target-p99 20ms`: the file, engine and batch with the most people a second under a limit on the p99."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from jotr_deploy.bundle import Bundle, FileEntry
from jotr_deploy.errors import JotrDeployError, MissingDependency, SessionError
from jotr_deploy.profiling.bench_result import Timing
from jotr_deploy.profiling.choose import AGREE, BACKENDS, agree, open_to_all
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.interleave import timed
from jotr_deploy.profiling.networks import engine_of
from jotr_deploy.profiling.p99_search_result import TargetResult, Tried
from jotr_deploy.profiling.quiet_samples import Judge, settle
from jotr_deploy.profiling.timed_picture import open_scene
from jotr_deploy.runtime.sessions import Session, open_session
from jotr_deploy.runtime.sessions.choice import remember
from jotr_deploy.support.aliases import Array, Progress

BATCHES = (1, 2, 4, 8, 16)
PROBES = 5
"""Calls of a probe, which decides whether a configuration is worth `SAMPLES` calls."""
SAMPLES = 100
"""Calls for a p99."""
MOST_BEYOND = 2
"""Most calls beyond the limit, among at most `2 * SAMPLES`, with which the p99 may still be within it."""
_KEY = ("target", 0)


@dataclass(frozen=True)
class _Configuration:
    entry: FileEntry
    backend: str
    session: Session
    batch: int
    call: Callable[[], object]


def find(
    bundle: Bundle,
    p99_ms: float,
    *,
    batches: Sequence[int] = BATCHES,
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
    seconds: float = 60.0,
    progress: Progress = lambda step, done, total: None,
) -> TargetResult:
    """Search the mesh files of a bundle, the engines that take them, and batches.

    Everything is probed, larger batches only while they may meet the limit. Then the most promising candidates are
    measured with `SAMPLES` calls in a row, until none that remains promises more than the best one.

    Args:
        bundle: opened.
        p99_ms: the limit on a call of the network, crops in memory to all outputs in memory.
        batches: people in one call.
        device: "auto", "cpu" or "cuda".
        threads: width of the engines.
        tf32: let ONNX Runtime round float32 products to TF32 on CUDA.
        seconds: about how long to measure after the probes; at least one candidate is measured.
        progress: called with each step.

    Raises:
        BundleError: a file is missing or changed.
        SessionError, MissingDependency: no file can be opened.
    """
    load, notes = load_average(), list[str]()
    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(None, None, bundle.manifest.model))
        opened = list(stack.enter_context(_opened(bundle, device, threads, tf32, scene.batch(1), notes)))
        probed: list[tuple[_Configuration, Tried]] = []
        for done, (entry, backend, session) in enumerate(opened):
            progress("probing", done, len(opened))
            probed += _probe(entry, backend, session, scene.batch, sorted(set(batches)), p99_ms, notes)
        tried = _measure(probed, p99_ms, seconds, progress)
    measured = [each for each in tried if each.measured]
    chosen = max((e for e in measured if e.fits(p99_ms)), key=lambda each: each.people_per_s, default=None)
    nearest = None if chosen else min(measured, key=lambda each: each.timing.p99_ms, default=None)
    return TargetResult(
        bundle=str(bundle.path),
        p99_ms=p99_ms,
        device=device,
        tried=tuple(sorted(tried, key=lambda each: -each.people_per_s)),
        chosen=chosen,
        nearest=nearest,
        notes=tuple(notes),
        warnings=tuple(_warnings(tried, chosen, nearest, p99_ms)),
        environment=environment(threads, any(each.device == "cuda" for each in tried), load, tf32),
    )


@contextmanager
def _opened(
    bundle: Bundle, device: str, threads: int | None, tf32: bool, feeds: Mapping[str, Array], notes: list[str]
) -> Iterator[list[tuple[FileEntry, str, Session]]]:
    """Every mesh file, opened in every engine that accepts it and agrees with the first that does."""
    with ExitStack() as stack:
        found: list[tuple[FileEntry, str, Session]] = []
        failure: JotrDeployError | None = None
        for entry in bundle.manifest.files:
            if entry.role != "mesh" or entry.only_parsed:
                continue
            path, expected = bundle.file("mesh", entry.name), None
            for backend in BACKENDS if open_to_all(entry) else ("auto",):
                try:
                    session = stack.enter_context(open_session(path, backend, device, threads, tf32))
                    results = session(feeds)
                except (SessionError, MissingDependency) as error:
                    failure = failure or error
                    notes.append(f"{entry.name}{'' if backend == 'auto' else f' in {backend}'} left out: {error.cause}")
                    continue
                expected = expected or results
                if agree(expected, results):
                    found.append((entry, backend, session))
                else:
                    notes.append(f"{entry.name} in {backend} left out: its results differ by more than {AGREE:g}")
        if not found:
            bundle.entry("mesh")  # raises: there is none
        if not found and failure is not None:
            raise failure
        yield found


def _probe(
    entry: FileEntry,
    backend: str,
    session: Session,
    feeds: Callable[[int], Mapping[str, Array]],
    batches: Sequence[int],
    p99_ms: float,
    notes: list[str],
) -> Iterator[tuple[_Configuration, Tried]]:
    """Probe a few calls at each batch, up to the first batch whose fastest calls are beyond the limit."""
    for batch in batches:
        configuration = _Configuration(entry, backend, session, batch, partial(session, feeds(batch)))
        try:
            configuration.call()  # compiles what this batch needs
        except SessionError as error:
            notes.append(f"{entry.name} left out at batch {batch}: {error.cause}")
            return
        settle()
        job = timed(_KEY, configuration.call)
        tried = _tried(configuration, Timing.of([job.run()[_KEY] for _ in range(PROBES)]), measured=False)
        yield configuration, tried
        if tried.timing.p10_ms > p99_ms:
            return


def _measure(
    probed: Sequence[tuple[_Configuration, Tried]], p99_ms: float, seconds: float, progress: Progress
) -> list[Tried]:
    """Measure candidates in the order that the probes promise; if none may fit, only the one with the fastest call."""
    able = [pair for pair in probed if pair[1].timing.p10_ms <= p99_ms]
    order = sorted(able, key=lambda pair: (pair[1].timing.p50_ms > p99_ms, -pair[1].promise_per_s))
    order = order or sorted(probed, key=lambda pair: pair[1].timing.p10_ms)[:1]
    end_s, best, measured = time.perf_counter() + seconds, 0.0, dict[int, Tried]()
    for done, (configuration, probe) in enumerate(order):
        progress("measuring", done, len(order))
        left_s = end_s - time.perf_counter()
        if probe.promise_per_s <= best or (done and left_s <= 0):
            continue
        # Half of the remaining time for each: a slow one leaves time for others.
        timing = _timing(configuration, p99_ms, end_s - left_s / 2)
        found = _tried(configuration, timing, measured=True)
        measured[id(probe)] = found
        if found.fits(p99_ms):
            best = max(best, found.people_per_s)
    return [measured.get(id(probe), probe) for _, probe in probed]


def _timing(configuration: _Configuration, p99_ms: float, end_s: float) -> Timing:
    """Timing of undisturbed calls in a row; of all calls if too few were undisturbed."""
    judge, job = Judge(), timed(_KEY, configuration.call)
    settle()
    judge.restart()
    samples = judge.samples[_KEY]
    for done in range(1, 2 * SAMPLES + 1):
        judge.add(job.run())
        decided = sum(1000 * quiet_s > p99_ms for quiet_s in samples.quiet_s) > MOST_BEYOND
        late = done >= PROBES and time.perf_counter() > end_s
        if decided or late or len(samples.quiet_s) >= SAMPLES:
            break
    judge.close()
    if len(samples.quiet_s) < min(SAMPLES, len(samples.all_s)) and not decided:
        return Timing.of(samples.all_s, busy=True)
    return Timing.of(samples.quiet_s, len(samples.busy_s))


def _tried(configuration: _Configuration, timing: Timing, measured: bool) -> Tried:
    session, entry = configuration.session, configuration.entry
    return Tried(
        file=entry.name,
        precision=entry.precision or "",
        backend=configuration.backend,
        engine=engine_of(session),
        device=getattr(session, "device", "cpu"),
        batch=configuration.batch,
        timing=timing,
        people_per_s=round(1000 * configuration.batch / timing.p50_ms, 2) if timing.p50_ms else 0.0,
        measured=measured,
    )


def _warnings(tried: Sequence[Tried], chosen: Tried | None, nearest: Tried | None, p99_ms: float) -> Iterator[str]:
    best = chosen or nearest
    if best is not None and best.timing.busy:
        yield "the rest of the machine was busy: these figures are upper bounds; search again when it is quiet"
    if chosen is not None and chosen.timing.kept < SAMPLES:
        yield f"the p99 of what is chosen is one of {chosen.timing.kept} calls: give more --seconds"
    best_per_s = chosen.people_per_s if chosen else 0.0
    left = [each for each in tried if not each.measured and each.timing.p10_ms <= p99_ms]
    promising = [each for each in left if each.promise_per_s > best_per_s]
    if promising:
        yield f"time was up before {len(promising)} more that may be better were measured: give more --seconds"


def remember_chosen(bundle: Bundle, chosen: Tried) -> None:
    """Open the chosen file with its engine from now on, as `bench --choose` does.

    Raises:
        OutputError: the user's cache cannot be written.
    """
    if chosen.backend != "auto" and chosen.device == "cpu":  # the choice is remembered for the processor
        remember(bundle.file("mesh", chosen.file), chosen.backend)
