"""Terminal output shared by all verbs: steps, bars, tables, closing lines, refused options."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jotr_deploy.errors import JotrDeployError, MissingDependency, install
from jotr_deploy.support.precisions import Precision

if TYPE_CHECKING:
    from jotr_deploy.engines.verify import Difference

console, errors = Console(emoji=False), Console(stderr=True, emoji=False)  # ":x:" in a path is not an emoji


@contextmanager
def steps() -> Iterator[Any]:
    """Announce each step as it starts, and its duration when the next one begins."""
    start = time.perf_counter()
    with errors.status("starting") as status:

        def say(step: str) -> None:
            status.update(escape(step))
            if not errors.is_terminal:
                errors.print(
                    f"[dim]{time.perf_counter() - start:6.1f} s[/]  {escape(step)}", highlight=False, soft_wrap=True
                )

        yield say


@contextmanager
def bar() -> Iterator[Any]:
    """A progress bar for `progress(step, done, total)`; a step of unknown length shows a count."""
    if not errors.is_terminal:  # the bar would leave an empty line
        yield lambda step, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda step, done, total: bar.update(task, description=step, completed=done, total=total)


def difference_table(
    rows: list[Difference],
    precision: Precision = Precision.FP32,
    title: str = "ONNX Runtime against PyTorch, max (mean) on random crops",
) -> Table:
    """A table of every compared output at every batch size, with its limit."""
    from jotr_deploy.engines.verify import UNITS

    batches = sorted({row.batch for row in rows})
    table = Table(title=title, title_justify="left")
    table.add_column("output")
    for batch in batches:
        table.add_column(f"batch {batch}", justify="right")
    limits = precision.limits  # int8 has none on random crops: see require_as_good
    if limits:
        table.add_column("limit", justify="right")
    table.add_column("unit")
    for output in dict.fromkeys(row.output for row in rows):
        cells = [f"{_short(r.max)} ({_short(r.mean)})" for r in rows if r.output == output]
        kind, most = (limits or {}).get(output, ("", None))
        allowed = [] if not limits else ["" if most is None else f"{most:g} {kind}"]
        table.add_row(output, *cells, *allowed, UNITS[output])
    return table


def _short(value: float) -> str:
    """A difference in few characters: 7e-07, or 12.3."""
    return f"{value:.0e}" if value < 0.1 else f"{value:.3g}"


def exclusive(option: str, given: bool, others: Mapping[str, object]) -> None:
    """Refuse an option that would be silently ignored."""
    for other, value in others.items():
        if given and value is not None:
            raise JotrDeployError(f"{option} and {other} are both given", "leave one of them out")


def refuse_tf32_on_cpu(tf32: bool, device: str) -> None:
    """Refuse `--tf32`, which is for CUDA, with `--device cpu`."""
    if tf32 and device == "cpu":
        raise JotrDeployError("--tf32 is for CUDA, and --device is cpu", "leave one of them out")


def needs(verb: str, *modules: str) -> None:
    """Report the packages that a verb lacks before any of its work starts."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        extras = {
            "export": ["export", "cpu"],
            "train": ["train"],
            "view": ["viewer"],
            "serve": ["serve", "cpu"],
        }.get(verb, ["cpu"])
        extras += ["ray"] if "ray" in missing else []
        extras += ["openvino"] if "openvino" in missing else []
        raise MissingDependency(f"{verb} needs {', '.join(missing)}", install(*extras))


def count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def done(path: Path | str, what: str, following: str) -> None:
    console.print(
        f"[bold green]done[/] {escape(str(path))} ({what}). Next: [bold]{escape(following)}[/]",
        highlight=False,
        soft_wrap=True,
    )
