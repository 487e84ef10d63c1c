"""`jotr-deploy train`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.aliases import Progress
from jotr_deploy.verbs.terminal import bar, console, done, errors, needs

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
) -> None:
    """Train a network from a configuration; on SIGINT or SIGTERM a checkpoint is saved first."""
    if recipe is not None:
        choice("--recipe", recipe, ("paper", "code"))
    needs("train", "torch", "accelerate", "tensorboard", "tomli_w")
    errors.print(f"[dim]preparing[/] {escape(str(config))}", highlight=False, soft_wrap=True)
    from jotr_deploy.training.loop import fit
    from jotr_deploy.training.run_config import read_config
    from jotr_deploy.training.run_directory import CHECKPOINT, WEIGHTS
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
    task, resolved = make_task(wanted)
    run = output or Path("runs") / config.stem
    with _line() as progress:
        fitted = fit(task, resolved, run, resume, progress)
    if not fitted.finished:
        console.print(
            f"stopped after step {fitted.step} of {resolved.steps}; [bold]--resume[/] continues from "
            f"{escape(str(run / CHECKPOINT))}", highlight=False, soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(130)
    done(run / WEIGHTS, f"{resolved.steps} steps", f"tensorboard --logdir {run}")


@contextmanager
def _line() -> Iterator[Progress]:
    """A progress bar in a terminal, an occasional line elsewhere."""
    with bar() as show:
        if errors.is_terminal:
            yield show
            return
        start, first, last = time.monotonic(), -1, 0.0

        def say(text: str, steps: int, total: int | None) -> None:
            nonlocal first, last
            now, of = time.monotonic(), total or steps
            first = steps - 1 if first < 0 else first  # a resumed run does not start at zero
            if now - last < _LINE_EVERY_S and steps < of:
                return
            last, left = now, (now - start) / (steps - first) * (of - steps)
            errors.print(f"step {steps} of {of}  {text}, {left / 60:.1f} min to go", highlight=False, soft_wrap=True)

        yield say
