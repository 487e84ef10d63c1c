"""Text of an evaluation for a terminal 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jotr_deploy.evaluation.error_statistics import Errors, Figures
from jotr_deploy.evaluation.evaluation_result import BeforeFit, Drift, Evaluation, PixelResult
from jotr_deploy.evaluation.fit_stage import FitCounts
from jotr_deploy.evaluation.measured_joints import BODY_PARTS
from jotr_deploy.evaluation.visible_joints import JointSetFigures, VisibleJoints

NOTHING = "-"
GIVEN = "true boxes, noisy joints"
PIXELS = "pixels alone"

_WORDS = ("people from", "people", "joint", "file", "network", "sequence", "joints")


def report(result: Evaluation) -> Group:
    """Everything of a result, ready to print."""
    parts: list[RenderableType] = [_people(result), Text()]
    before = result.before_fit
    if result.fit and before:
        parts += [_fitted(result, result.fit, before), Text()]
    if result.visible_joints:
        parts += [visible_table(result.visible_joints, before.visible_joints if before else None), Text()]
    parts.append(_joints(result.errors, GIVEN))
    if result.pixels:
        parts += [Text(), _joints(result.pixels.errors, PIXELS), Text(), _found(result.pixels)]
    if result.drift:
        parts += drift_tables(result.drift)
    parts += [Text(), *notes(result.file, result.not_finite, result.drift, result.labels), Text()]
    parts.append(said(result.protocol))
    return Group(*parts)


def _people(result: Evaluation) -> Table:
    title = f"{result.file} on {result.device}, {'after the fit, ' if result.fit else ''}millimetres"
    table = columns_table(title, "people from", "people", "n", "MPJPE", "PA-MPJPE", "PVE")
    groups: dict[str, Mapping[str, Figures]] = {GIVEN: result.errors.people}
    if result.pixels:
        groups[PIXELS] = result.pixels.errors.people
        groups["the same by true boxes"] = {"all": result.pixels.same_people}
    for source, rows in groups.items():
        table.add_section()
        for place, (people, row) in enumerate(rows.items()):
            table.add_row(source if place == 0 else "", people, str(row.people), *_cells(row))
    return table


def _fitted(result: Evaluation, counts: FitCounts, before: BeforeFit) -> Table:
    groups = [(name, result.errors.people[name], row) for name, row in before.errors.people.items()]
    if result.pixels and before.pixels:
        groups.append((PIXELS, result.pixels.errors.people["all"], before.pixels.errors.people["all"]))
    rows = [((name,), _cells(after), _cells(start)) for name, after, start in groups]
    return side_by_side(fit_title(counts), ("people",), ("MPJPE", "PA-MPJPE", "PVE"), rows)


def _cells(row: Figures) -> tuple[str, ...]:
    return tuple(map(number_text, (row.mpjpe_mm, row.pa_mpjpe_mm, row.pve_mm)))


def fit_title(counts: FitCounts) -> str:
    """Title of a table of figures before and after a fit."""
    return f"Before and after the fit, mm; it changed {counts.accepted} of {counts.people} people"


def visible_table(found: VisibleJoints, before: VisibleJoints | None) -> Table:
    """Errors over all joints and over those that are visible."""
    rows = []
    for name in ("all", "visible"):
        row: JointSetFigures = getattr(found, name)
        start: JointSetFigures | None = getattr(before, name) if before else None
        rows.append(
            ((name, str(row.people), str(row.joints)), joint_set_cells(row), joint_set_cells(start) if start else None)
        )
    title = "Means over joints, millimetres; PCKh in percent"
    return side_by_side(title, ("joints", "n", "in all"), ("MPJPE", "PA-MPJPE", "PCKh"), rows)


def joint_set_cells(row: JointSetFigures) -> tuple[str, ...]:
    """MPJPE, PA-MPJPE, and PCKh in percent."""
    pckh = NOTHING if row.pckh is None else f"{row.pckh:.1%}".removesuffix("%")
    return number_text(row.mpjpe_mm), number_text(row.pa_mpjpe_mm), pckh


def side_by_side(
    title: str,
    labels: Sequence[str],
    names: Sequence[str],
    rows: Sequence[tuple[Sequence[str], Sequence[str], Sequence[str] | None]],
) -> Table:
    """Table of figures, each beside what it was before the fit where there is one.

    Args:
        title: of the table.
        labels: first columns.
        names: of the figures.
        rows: labels, figures, and figures before the fit or None, which is then so in all rows.
    """
    fitted = any(before is not None for _, _, before in rows)
    table = columns_table(
        title, *labels, *(name for each in names for name in ((each, "fitted") if fitted else (each,)))
    )
    for words, after, before in rows:
        pairs = zip(before, after, strict=True) if before else ((cell,) for cell in after)
        table.add_row(*map(escape, words), *(cell for pair in pairs for cell in pair))
    return table


def _joints(errors: Errors, source: str) -> Table:
    columns = ("visible", "MPJPE", "PA-MPJPE", "hidden", "MPJPE", "PA-MPJPE")
    table = columns_table(
        f"Joints that are visible and joints that are hidden, millimetres: {source}", "joint", *columns
    )
    for name, row in errors.joints.items():
        cells = (
            *(str(row.visible), number_text(row.visible_mpjpe_mm), number_text(row.visible_pa_mpjpe_mm)),
            *(str(row.hidden), number_text(row.hidden_mpjpe_mm), number_text(row.hidden_pa_mpjpe_mm)),
        )
        table.add_row(name, *cells, end_section=name == "all")
    return table


def _found(pixels: PixelResult) -> Table:
    title = "Found at an IoU of 0.5: recall of people half visible and 64 px tall, precision of all"
    table = columns_table(title, "people", "recall", "found", "precision", "somebody")
    for who, found in (("in the end", pixels.people), ("detector alone", pixels.detector)):
        if found is None:
            continue
        recall, precision = (NOTHING if share is None else f"{share:.1%}" for share in (found.recall, found.precision))
        counts = f"{found.found_of_wanted} of {found.wanted}", f"{found.right} of {found.detections}"
        table.add_row(who, recall, counts[0], precision, counts[1])
    return table


def drift_tables(drift: Drift) -> list[RenderableType]:
    """Drift of the files of a bundle from its fp32 file, as a part of a report."""
    return [Text(), _drift(drift), Text(), _drift_parts(drift), *_not_run(drift.not_run)]


def _drift(drift: Drift) -> Table:
    title = f"Joints from those of {drift.reference}, change of MPJPE, mm, {drift.people} people"
    table = columns_table(title, "file", "mean", "p95", "change", "95 %")
    for file in drift.files:
        interval = NOTHING if file.interval_mm is None else f"{file.interval_mm[0]:+.2f} .. {file.interval_mm[1]:+.2f}"
        mean, p95 = number_text(file.mean_mm, ".2f"), number_text(file.p95_mm, ".2f")
        table.add_row(escape(file.name), mean, p95, number_text(file.mpjpe_change_mm, "+.2f"), interval)
    return table


def _drift_parts(drift: Drift) -> Table:
    table = columns_table("The same distance by part of the body", "file", *BODY_PARTS)
    for file in drift.files:
        table.add_row(escape(file.name), *(number_text(value, ".2f") for value in file.parts_mm.values()))
    return table


def _not_run(reasons: Mapping[str, str]) -> Iterator[Text]:
    for name, reason in reasons.items():
        yield Text.assemble(("not run", "yellow"), f" {name}: {reason}")


def notes(file: str, not_finite: int, drift: Drift | None, labels: Sequence[str]) -> Iterator[Text]:
    """Notes that accompany the figures of a file: non-finite numbers, and the labels of the bundle."""
    broken = {file: not_finite}
    if drift:
        broken.update({file.name: file.not_finite for file in drift.files})
    for name, people in broken.items():
        if people:
            yield Text.assemble(("warning", "bold red"), f" {name}: numbers of {people} people are not finite")
    for label in labels:
        yield Text.assemble(("note", "yellow"), f" {label}")


def said(protocol: Any) -> Table:
    """Sentences of a protocol, by the names of its fields."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(style="dim")
    for name, value in asdict(protocol).items():
        if isinstance(value, str):
            grid.add_row(name.replace("_", " "), escape(value))
    return grid


def columns_table(title: str, *columns: str) -> Table:
    """Empty table; columns of words are left-aligned and may wrap, those of numbers are right-aligned."""
    table = Table(
        title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in columns:
        words = column in _WORDS
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def number_text(value: float | None, form: str = ".1f") -> str:
    """A number, or `NOTHING`."""
    return NOTHING if value is None else f"{value:{form}}"
