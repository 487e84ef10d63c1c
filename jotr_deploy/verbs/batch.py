"""`jotr-deploy batch`."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.choices import DEVICES, TF32, choose_fit
from jotr_deploy.verbs.recovery_options import (
    Align,
    Camera,
    Coco,
    Device,
    Every,
    File,
    Fit,
    Focal,
    Fov,
    Glb,
    KeepGoing,
    MaxPeople,
    Obj,
    OverlayScale,
    Roi,
    Save2d,
    SaveFit,
    Smooth,
    Vertices,
    region,
    require_fit_alone,
    require_overlay_scale,
)
from jotr_deploy.verbs.terminal import bar, console, count, errors, exclusive, needs, print_json, refuse_tf32_on_cpu

if TYPE_CHECKING:
    from jotr_deploy.serving.batch.batch_plan import Unit
    from jotr_deploy.serving.batch.batch_state import Counts, State
    from jotr_deploy.serving.batch.batch_worker import WorkerSettings

NOT_ALL_DONE = 3
SHOWN_FAILURES = 10
LINE_S = 30.0
"""Pause between lines about the progress where there is no terminal."""


def batch(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Films, pictures, folders of them, or globs in quotes."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Results directory: a folder for each source, and the plan.")
    ],
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine; each loads the networks.")] = 1,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Do only shards I, I + N ... of the plan, with I from 0: for array jobs."),
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Have a Ray cluster do it: auto, or its address.")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say how far the batch is.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what has failed.")] = False,
    shard_minutes: Annotated[
        float, typer.Option(min=0.01, help="Films are cut into shards of about this length.")
    ] = 10.0,
    attempts: Annotated[
        int, typer.Option(min=1, help="A shard whose process has died this often counts as failed.")
    ] = 2,
    people: Annotated[
        str,
        typer.Option(help="How people are found: auto, blazepose, detector, hog, or frame (the whole frame)."),
    ] = "auto",
    every: Every = 1,
    max_people: MaxPeople = None,
    roi: Roi = None,
    smooth: Smooth = None,
    align: Align = None,
    fit: Fit = None,
    camera: Camera = None,
    fov: Fov = None,
    focal: Focal = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also draw overlays; films that were cut are decoded again for them.")
    ] = False,
    overlay_scale: OverlayScale = None,
    save_2d: Save2d = False,
    vertices: Vertices = False,
    obj: Obj = False,
    glb: Glb = False,
    coco: Coco = False,
    save_fit: SaveFit = False,
    keep_going: KeepGoing = False,
    file: File = None,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU cores for each process; all of them shared out by default.")
    ] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help=TF32)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Recover the people in many films and pictures, on any number of processes and machines."""
    choice("--device", device, DEVICES)
    refuse_tf32_on_cpu(tf32, device)
    exclusive("--ray", ray is not None, {"--workers": workers if workers != 1 else None, "--shard": shard})
    choose_fit(fit, None)
    require_fit_alone(fit, align, save_fit)
    require_overlay_scale(overlay_scale, overlay, "no --overlay")
    part = _slice(shard)
    needs("batch", "onnxruntime", *(["ray"] if ray is not None else []))
    errors.print(f"[dim]planning[/] {count(len(sources), 'source')}", highlight=False, soft_wrap=True)
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.runtime.finding.people_source import PeopleBy
    from jotr_deploy.runtime.motion.smoothing import Mode
    from jotr_deploy.runtime.sources.scene_camera import PUBLISHED, choose_camera
    from jotr_deploy.serving.batch.batch_options import BatchOptions
    from jotr_deploy.serving.batch.batch_plan import PLAN, planned
    from jotr_deploy.serving.batch.batch_state import State
    from jotr_deploy.serving.batch.batch_worker import WorkerSettings

    choice("--people", people, get_args(PeopleBy))
    if smooth is not None:
        choice("--smooth", smooth, get_args(Mode))
    choose_camera(camera, fov, focal)
    options = BatchOptions(
        people=cast(PeopleBy, people), every=every, max_people=max_people, roi_px=region(roi),
        smooth=cast(Mode, smooth), align=align, fit=fit,
        camera=camera if camera in (None, PUBLISHED) else str(Path(camera).absolute()), fov=fov, focal=focal,
        overlay=overlay, overlay_scale=overlay_scale or 1.0, save_2d=save_2d, vertices=vertices, obj=obj, glb=glb,
        coco=coco, save_fit=save_fit, keep_going=keep_going, file=file, device=device, tf32=tf32,
        shard_minutes=shard_minutes,
    )  # fmt: skip
    if status and not (output / PLAN).exists():
        raise JotrDeployError(f"{output}: no batch has been started there", "leave --status out to start one")
    with bar() as tell:
        plan = planned(
            open_bundle(bundle), sources, output, options, lambda n, total: tell("sources", n, total), ray is not None
        )
    state = State(plan, output)
    if retry_failed:
        errors.print(f"[dim]trying again[/] {count(state.retry_failed(), 'shard')} that failed", highlight=False)
    logs: list[Path] = []
    if not status:
        settings = WorkerSettings(str(output.absolute()), attempts, threads or _share_of_cores(workers, ray), part)
        logs = _work(state, settings, workers, ray)
    _finish(state, part if not status else None, logs, as_json)


def _slice(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise JotrDeployError(
            f"--shard {text}: not I/N with I from 0 to N - 1", "give for example --shard $SLURM_ARRAY_TASK_ID/16"
        )
    return int(found[1]), int(found[2])


def _share_of_cores(workers: int, ray: str | None) -> int | None:
    """Cores for each process; None is all of them."""
    if ray is not None:
        return 1
    if workers == 1:
        return None
    from jotr_deploy.support.processor import usable_cores

    return max(1, usable_cores() // workers)


def _work(state: State, settings: WorkerSettings, workers: int, ray: str | None) -> list[Path]:
    """Have the batch worked on, with a bar or lines about it; returns the logs of processes that died."""
    from jotr_deploy.serving.batch.batch_worker import units_of_slice
    from jotr_deploy.serving.batch.local_workers import LocalWorkers
    from jotr_deploy.serving.batch.ray_workers import run_by_ray

    units = None if settings.slice is None else units_of_slice(state.plan, settings.slice)
    if not (left := state.left(units)):
        return []
    where = f"Ray at {ray}" if ray is not None else count(workers, "worker")
    sources, shards = count(len(state.plan.sources), "source"), count(len(state.plan.units), "unit")
    errors.print(f"[dim]working[/] {sources} in {shards}, by {escape(where)}", highlight=False, soft_wrap=True)
    with bar() as tell, _interrupts() as asked:
        told = _Told(state, units, tell)
        if ray is not None:
            gave_up = run_by_ray(state, settings, ray, told, asked)
            if gave_up is not None and state.left(units):
                errors.print(f"[yellow]warning[/] Ray gave up: {escape(gave_up)}", highlight=False, soft_wrap=True)
            return []
        with LocalWorkers(state, settings, min(workers, left)) as local:
            local.run(told, asked)
            return local.logs


class _Told:
    """Tells how far a batch is, at most once a second, by the bar or, where there is no terminal, by lines."""

    def __init__(self, state: State, units: list[Unit] | None, tell: Callable[[str, int, int], None]) -> None:
        self._state, self._units, self._tell = state, units, tell
        self._looked_s = self._line_s = time.monotonic()

    def __call__(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < 1:
            return
        self._looked_s = now_s
        counts = self._state.counts(self._units, people=False)
        failed = f", {len(counts.failed)} failed" if counts.failed else ""
        said = f"{counts.done} of {count(counts.planned, 'source')} done{failed}"
        self._tell(f"{said}, frames", counts.frames_done, max(counts.frames, counts.frames_done))
        if not errors.is_terminal and now_s - self._line_s >= LINE_S:
            self._line_s = now_s
            errors.print(f"[dim]{said}, {counts.frames_done} of about {counts.frames} frames[/]", highlight=False)


@contextmanager
def _interrupts() -> Iterator[Callable[[], int]]:
    """Count of Ctrl-C, and of requests to end, within the block."""
    asked = 0

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            errors.print("[yellow]stopping[/] after the shards in hand; Ctrl-C again stops at once", highlight=False)

    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(state: State, part: tuple[int, int] | None, logs: list[Path], as_json: bool) -> None:
    """Say how the batch, or the slice of it, stands, and end with 3 unless all of it is done."""
    from jotr_deploy.serving.batch.batch_worker import units_of_slice

    units = None if part is None else [*units_of_slice(state.plan, part), *state.failed_joins()]
    counts = state.counts(units)
    whole = counts if part is None else state.counts()
    complete = counts.done == counts.planned
    if as_json:
        print_json(
            {**counts.as_dict(), "complete": complete, "output": str(state.output), "logs": list(map(str, logs))}
        )
    else:
        _report(state, counts, whole, part, logs)
    if not complete:
        raise typer.Exit(NOT_ALL_DONE)


def _report(state: State, counts: Counts, whole: Counts, part: tuple[int, int] | None, logs: list[Path]) -> None:
    for failure in counts.failed[:SHOWN_FAILURES]:
        console.print(
            f"[red]failed[/] {escape(failure.path)}: {escape(failure.cause)}", highlight=False, soft_wrap=True
        )
        console.print(f"       {escape(failure.remedy)}", highlight=False, soft_wrap=True)
    if len(counts.failed) > SHOWN_FAILURES:
        console.print(f"[red]failed[/] {len(counts.failed) - SHOWN_FAILURES} more: see --json", highlight=False)
    for log in logs[:1]:
        more = f" and {len(logs) - 1} more" if len(logs) > 1 else ""
        console.print(
            f"[yellow]note[/] a worker died: its log is {escape(str(log))}{more}", highlight=False, soft_wrap=True
        )
    in_hand = f", {count(whole.in_hand, 'shard')} in hand" if whole.in_hand else ""
    said = f"{whole.done} of {count(whole.planned, 'source')} done, {len(whole.failed)} failed, {whole.missing} missing"
    colour = "bold green" if whole.done == whole.planned else "yellow"
    console.print(f"[{colour}]batch[/] {said}{in_hand}; results in {escape(str(state.output))}", highlight=False,
                  soft_wrap=True)  # fmt: skip
    if part is not None:
        own = f"{counts.units_done} of {count(counts.units, 'shard')} of slice {part[0]}/{part[1]} done"
        console.print(f"[dim]{own}[/]", highlight=False)
    console.print(f"Next: [bold]{escape(_following(state, whole))}[/]", highlight=False, soft_wrap=True)


def _following(state: State, counts: Counts) -> str:
    """The next step for the user, in words or as a command."""
    if counts.done == counts.planned:
        folder = state.plan.sources[0].folder
        result = next(iter(sorted((state.output / folder).glob("*.npz"))), state.output / folder)
        return f"jotr-deploy view {quote(str(result))}"
    if counts.failed and counts.done + len(counts.failed) == counts.planned:
        return "remove the causes, then give the same command with --retry-failed"
    if counts.in_hand:
        return "others are at work: the same command with --status says how far they are"
    return "give the same command again: it goes on where it stopped"
