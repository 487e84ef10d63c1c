"""Text of the evaluation of a set for a terminal 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jotr_deploy.evaluation.evaluation_table import (
    NOTHING,
    columns_table,
    drift_tables,
    fit_title,
    notes,
    number_text,
    said,
    side_by_side,
    visible_table,
)
from jotr_deploy.evaluation.published.paper_rows import PAPER
from jotr_deploy.evaluation.published.set_result import MotionFigures, SetEvaluation

KEYS_SHOWN = 5
_FIGURES = ("MPJPE", "PA-MPJPE", "PVE", "accel.")


def set_report(result: SetEvaluation) -> Group:
    """Everything of a result, ready to print."""
    parts: list[RenderableType] = [_result(result)]
    before = result.before_fit
    if result.fit and before:
        rows = [((), _cells(result.everybody)[1:], _cells(before.everybody)[1:])]
        parts += [Text(), side_by_side(fit_title(result.fit), (), _FIGURES, rows)]
    if result.visible_joints:
        parts += [Text(), visible_table(result.visible_joints, before.visible_joints if before else None)]
    if result.sequences:
        parts += [Text(), _sequences(result)]
    if result.drift:
        parts += drift_tables(result.drift)
    parts += [Text(), *_said_beside(result), Text(), said(result.protocol)]
    return Group(*parts)


def _result(result: SetEvaluation) -> Table:
    """Table of the measured file above the rows of the paper, if any."""
    after = ", after the fit" if result.fit else ""
    title = f"{result.file} on {result.device}, {result.protocol.protocol}{after}, mm; accel. in mm/frame^2"
    table = columns_table(title, "network", "n", *_FIGURES)
    table.add_row(f"[bold]{escape(result.file)}[/]", *_cells(result.everybody))
    if result.published is None:
        return table
    table.add_section()
    paper = "the paper" if result.published.paper == PAPER else result.published.paper.partition(",")[0]
    table.add_row(f"[dim]{paper}, {result.published.table}:[/]")
    for row in result.published.rows:
        figures = map(number_text, (row.mpjpe_mm, row.pa_mpjpe_mm, row.pve_mm))
        table.add_row(row.method, NOTHING, *figures, NOTHING)
    return table


def _sequences(result: SetEvaluation) -> Table:
    table = columns_table("By sequence", "sequence", "n", *_FIGURES)
    for name, row in result.sequences.items():
        table.add_row(escape(name), *_cells(row))
    return table


def _cells(row: MotionFigures) -> tuple[str, ...]:
    figures = (row.mpjpe_mm, row.pa_mpjpe_mm, row.pve_mm, row.acceleration_mm)
    return str(row.people), *map(number_text, figures)


def _said_beside(result: SetEvaluation) -> Iterator[Text]:
    for warning in result.warnings:
        yield Text.assemble(("warning", "bold red"), f" {warning}")
    for reason, keys in result.left_out.items():
        shown = ", ".join(keys[:KEYS_SHOWN]) + (f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else "")
        yield Text.assemble(("not evaluated", "yellow"), f" {len(keys)} of the set, {reason}: {shown}")
    yield from notes(result.file, result.not_finite, result.drift, result.labels)
