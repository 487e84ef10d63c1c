"""The command line of training: `train`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.verbs.terminal import bar, console, done, errors, needs

_LINE_EVERY_S = 30.0


def train(
    config: Annotated[Path, typer.Argument(help="TOML file, such as those of configs/.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Run directory; runs/NAME of the configuration by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run stopped; begin if it never did.")
    ] = False,
    recipe: Annotated[
        str | None, typer.Option(help="Of the published training: paper, or code: as the published code does it.")
    ] = None,
    qat: Annotated[
        Path | None, typer.Option("--qat", help="Calibrated bundle: go on with the rounding of its int8 file.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE over the file, in dotted keys; may be repeated.")
    ] = None,
) -> None:
    """Train a network as a configuration says; SIGINT or SIGTERM keeps a checkpoint first."""
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
            raise JotrDeployError(f"{option} is of the task {owner}, {config} is of {wanted.task}", "leave it out")
        wanted = wanted.model_copy(update={"options": {**wanted.options, key: str(value)}})
    task, resolved = make_task(wanted)
    run = output or Path("runs") / config.stem
    with _line() as progress:
        fitted = fit(task, resolved, run, resume, progress)
    if not fitted.finished:
        console.print(
            f"stopped after step {fitted.step} of {resolved.steps}; {escape(str(run / CHECKPOINT))} goes on from there "
            f"with [bold]--resume[/]", highlight=False, soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(130)
    done(run / WEIGHTS, f"{resolved.steps} steps", f"tensorboard --logdir {run}")


@contextmanager
def _line() -> Iterator[Callable[[str, int, int], None]]:
    """The bar of the terminal; where there is none, a line now and then."""
    with bar() as show:
        if errors.is_terminal:
            yield show
            return
        start, first, last = time.monotonic(), -1, 0.0

        def say(text: str, steps: int, of: int) -> None:
            nonlocal first, last
            now = time.monotonic()
            first = steps - 1 if first < 0 else first  # a resumed run does not begin at zero
            if now - last < _LINE_EVERY_S and steps < of:
                return
            last, left = now, (now - start) / (steps - first) * (of - steps)
            errors.print(f"step {steps} of {of}  {text}, {left / 60:.1f} min to go", highlight=False, soft_wrap=True)

        yield say
