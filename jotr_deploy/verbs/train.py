"""`jotr-deploy train`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from jotr_deploy.errors import BodyFileError, DatasetError, JotrDeployError, choice
from jotr_deploy.support.aliases import Progress
from jotr_deploy.verbs.terminal import bar, console, count, done, errors, needs, print_json

if TYPE_CHECKING:
    from jotr_deploy.training.dry_run import Rehearsal
    from jotr_deploy.training.run_config import TrainConfig

_LINE_EVERY_S = 30.0


def train(
    config: Annotated[Path, typer.Argument(help="TOML file, such as those in configs/.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Run directory; by default runs/ and the name of the configuration."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run from its last checkpoint; start it if there is none.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(help="Variant of the published training: as in the paper, or as in the published code (code)."),
    ] = None,
    qat: Annotated[
        Path | None,
        typer.Option("--qat", help="Calibrated bundle for quantisation-aware training: simulates its int8 rounding."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE that overrides the file; nested keys are dotted.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Do one step of everything, write nothing, and estimate memory, disk and time."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result of --dry-run as JSON.")] = False,
) -> None:
    """Train a network from a configuration; on SIGINT or SIGTERM a checkpoint is saved first."""
    if recipe is not None:
        choice("--recipe", recipe, ("paper", "code"))
    if as_json and not dry_run:
        raise JotrDeployError("--json is for --dry-run", "leave it out; a run writes curves.jsonl")
    needs("train", "torch", "accelerate", "tensorboard", "tomli_w")
    errors.print(f"[dim]preparing[/] {escape(str(config))}", highlight=False, soft_wrap=True)
    from jotr_deploy.training.loop import fit
    from jotr_deploy.training.run_config import read_config
    from jotr_deploy.training.run_directory import BEST, CHECKPOINT, WEIGHTS
    from jotr_deploy.training.tasks import make_task

    wanted = read_config(config, settings or ())
    for option, owner, key, value in (("--recipe", "jotr", "recipe", recipe), ("--qat", "qat", "bundle", qat)):
        if value is None:
            continue
        if wanted.task != owner:
            raise JotrDeployError(
                f"{option} is for the task {owner}, {config} is for {wanted.task}", f"leave {option} out"
            )
        wanted = wanted.model_copy(update={"options": {**wanted.options, key: str(value)}})
    run = output or Path("runs") / config.stem
    if dry_run:
        _rehearse(wanted, run, resume, as_json)
        return
    task, resolved = make_task(wanted)
    with _line() as progress:
        fitted = fit(task, resolved, run, resume, progress)
    if not fitted.finished:
        console.print(
            f"stopped after step {fitted.step} of {resolved.last_step}; [bold]--resume[/] continues from "
            f"{escape(str(run / CHECKPOINT))}", highlight=False, soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(130)
    length = f"{fitted.step} steps"
    if fitted.step < resolved.last_step:
        length += f" of {resolved.last_step}, ended early because nothing better followed"
    if fitted.best is not None:
        console.print(f"best: {escape(str(run / BEST))}, {fitted.best}", highlight=False, soft_wrap=True)
    done(run / WEIGHTS, length, f"tensorboard --logdir {run}")


def _rehearse(wanted: TrainConfig, run: Path, resume: bool, as_json: bool) -> None:
    from jotr_deploy.training.dry_run import rehearse
    from jotr_deploy.training.published.set_sizes import length_by_papers
    from jotr_deploy.training.tasks import make_task

    try:
        task, resolved = make_task(wanted)
    except (DatasetError, BodyFileError):
        if estimate := length_by_papers(wanted):
            errors.print(estimate, highlight=False, soft_wrap=True, markup=False)
        raise
    found = rehearse(task, resolved, run, resume)
    if int(os.environ.get("RANK", "0")):
        return
    if as_json:
        print_json(asdict(found))
    else:
        for name, text in rehearsal_rows(found):
            console.print(f"[bold]{name:<12}[/]{escape(text)}", highlight=False, soft_wrap=True)
        console.print(f"nothing was written to {escape(str(run))}", highlight=False, soft_wrap=True)


def rehearsal_rows(found: Rehearsal) -> list[tuple[str, str]]:
    """Names and values that a dry run prints."""
    steps = f"{count(found.steps, 'step')} of {found.batch} samples in {count(found.processes, 'process', 'processes')}"
    if found.done:
        steps += f", {found.done} of them done"
    if found.epoch is not None:
        epochs = found.steps * found.batch * found.processes / found.epoch
        steps += f": {epochs:.3g} epochs of {found.epoch} people"
    loading, each = found.loading, found.batch
    samples = f"{loading.again_s / each * 1000:.3g} ms each"
    if loading.pictures:
        drawn_ms = max(0.0, loading.first_s - loading.again_s) / each * 1000
        samples += f", and {drawn_ms:.3g} ms for each of {loading.pictures} pictures to draw"
    made = f", by {count(found.workers, 'worker')} of each process" if found.workers else ", between the steps"
    memory = f"{_size(found.memory_bytes)} at the peak of a process"
    if found.gpu_bytes is not None:
        memory += f", {_size(found.gpu_bytes)} of the GPU"
    if found.worker_bytes is not None:
        memory += f", {_size(found.worker_bytes)} of a worker"
    if loading.pictures_bytes:
        whose = "a worker" if found.workers else "a process"
        memory += f"; later {_size(loading.pictures_bytes)} more of {whose} for drawn pictures"
    rows = [
        ("task", f"{found.task}, {found.parameters / 1e6:.3g} M parameters to train, on {found.device}"),
        ("length", steps),
        ("samples", samples + made),
        ("step", f"{found.step_s * 1000:.3g} ms; loss of the first {found.loss:.4g}"),
        ("memory", memory),
        ("disk", f"{_size(found.disk_bytes)} at most; {_size(found.free_bytes)} are free"),
        ("speed", f"about {found.samples_per_s:.3g} samples/s"),
        ("time", f"about {_duration(found.total_s)} to finish"),
    ]
    if (evaluations := found.evaluations) is not None:
        figures = ", ".join(evaluations.figures)
        text = (
            f"{count(evaluations.times, 'time')} over {evaluations.samples} samples ({figures}): "
            f"{_duration(evaluations.first_s)} the first time, then {_duration(evaluations.later_s)}"
        )
        rows.insert(4, ("evaluation", text))
    return rows


def _size(number: int) -> str:
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.1f} days"


@contextmanager
def _line() -> Iterator[Progress]:
    """A progress bar in a terminal, an occasional line elsewhere."""
    with bar() as show:
        if errors.is_terminal:
            yield show
            return
        began: tuple[float, int] | None = None
        last = 0.0

        def say(text: str, steps: int, total: int | None) -> None:
            nonlocal began, last
            now, of = time.monotonic(), total or steps
            began = began or (now, steps)  # a resumed run does not start at zero
            if now - last < _LINE_EVERY_S and steps < of:
                return
            last, (start, first) = now, began
            if steps > first:
                text += f", {(now - start) / (steps - first) * (of - steps) / 60:.1f} min to go"
            errors.print(f"step {steps} of {of}  {text}", highlight=False, soft_wrap=True, markup=False)

        yield say
