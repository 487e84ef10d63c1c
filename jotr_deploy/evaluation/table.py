"""An evaluation as text for a terminal 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jotr_deploy.evaluation.joints import BODY_PARTS
from jotr_deploy.evaluation.results import Drift, Errors, Evaluation, Figures, PixelResult, Protocol

NOTHING = "-"
GIVEN = "true boxes, noisy joints"
PIXELS = "pixels alone"

_WORDS = ("people from", "people", "joint", "file")


def report(result: Evaluation) -> Group:
    """Everything of a result, ready to print."""
    parts: list[RenderableType] = [_people(result), Text(), _joints(result.errors, GIVEN)]
    if result.pixels:
        parts += [Text(), _joints(result.pixels.errors, PIXELS), Text(), *_found(result.pixels)]
    if result.drift:
        parts += [Text(), _drift(result.drift), Text(), _drift_parts(result.drift), *_not_run(result.drift.not_run)]
    parts += [Text(), *_notes(result), Text(), _protocol(result.protocol)]
    return Group(*parts)


def _people(result: Evaluation) -> Table:
    title = f"{result.file} on {result.device}, millimetres"
    table = _table(title, "people from", "people", "n", "MPJPE", "PA-MPJPE", "PVE")
    groups: dict[str, Mapping[str, Figures]] = {GIVEN: result.errors.people}
    if result.pixels:
        groups[PIXELS] = result.pixels.errors.people
        groups["the same by true boxes"] = {"all": result.pixels.same_people}
    for source, rows in groups.items():
        table.add_section()
        for place, (people, row) in enumerate(rows.items()):
            figures = map(_number, (row.mpjpe_mm, row.pa_mpjpe_mm, row.pve_mm))
            table.add_row(source if place == 0 else "", people, str(row.people), *figures)
    return table


def _joints(errors: Errors, source: str) -> Table:
    columns = ("visible", "MPJPE", "PA-MPJPE", "hidden", "MPJPE", "PA-MPJPE")
    table = _table(f"Joints that are visible and joints that are hidden, millimetres: {source}", "joint", *columns)
    for name, row in errors.joints.items():
        cells = (
            *(str(row.visible), _number(row.visible_mpjpe_mm), _number(row.visible_pa_mpjpe_mm)),
            *(str(row.hidden), _number(row.hidden_mpjpe_mm), _number(row.hidden_pa_mpjpe_mm)),
        )
        table.add_row(name, *cells, end_section=name == "all")
    return table


def _found(pixels: PixelResult) -> Iterator[Text]:
    for name, share, part, whole, what in (
        ("recall", pixels.recall, pixels.found_of_wanted, pixels.wanted, "people half visible and 64 px tall, found"),
        ("precision", pixels.precision, pixels.right, pixels.detections, "detections that are somebody"),
    ):
        percent = NOTHING if share is None else f"{share:.1%}"
        yield Text.assemble((name, "bold"), f" {percent} ({part} of {whole} {what} at IoU 0.5)")


def _drift(drift: Drift) -> Table:
    title = f"Joints from those of {drift.reference}, change of MPJPE, mm, {drift.people} people"
    table = _table(title, "file", "mean", "p95", "change", "95 %")
    for file in drift.files:
        interval = NOTHING if file.interval_mm is None else f"{file.interval_mm[0]:+.2f} .. {file.interval_mm[1]:+.2f}"
        mean, p95 = _number(file.mean_mm, ".2f"), _number(file.p95_mm, ".2f")
        table.add_row(escape(file.name), mean, p95, _number(file.mpjpe_change_mm, "+.2f"), interval)
    return table


def _drift_parts(drift: Drift) -> Table:
    table = _table("The same distance by part of the body", "file", *BODY_PARTS)
    for file in drift.files:
        table.add_row(escape(file.name), *(_number(value, ".2f") for value in file.parts_mm.values()))
    return table


def _not_run(reasons: Mapping[str, str]) -> Iterator[Text]:
    for name, reason in reasons.items():
        yield Text.assemble(("not run", "yellow"), f" {name}: {reason}")


def _notes(result: Evaluation) -> Iterator[Text]:
    broken = {result.file: result.not_finite}
    if result.drift:
        broken.update({file.name: file.not_finite for file in result.drift.files})
    for name, people in broken.items():
        if people:
            yield Text.assemble(("warning", "bold red"), f" {name}: numbers of {people} people are not finite")
    for label in result.labels:
        yield Text.assemble(("note", "yellow"), f" {label}")


def _protocol(protocol: Protocol) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(style="dim")
    for name, value in asdict(protocol).items():
        if isinstance(value, str):
            grid.add_row(name.replace("_", " "), escape(value))
    return grid


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in columns:
        words = column in _WORDS
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _number(value: float | None, form: str = ".1f") -> str:
    return NOTHING if value is None else f"{value:{form}}"
