"""Text of an attack for a terminal 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jotr_deploy.evaluation.evaluation_table import (
    NOTHING,
    columns_table,
    joint_set_cells,
    number_text,
    said,
    side_by_side,
)
from jotr_deploy.evaluation.occlusion import FileUnderAttack, Occlusion
from jotr_deploy.evaluation.patches import REFERENCE_SIDE


def occlusion_report(found: Occlusion) -> Group:
    """Everything of an attack, ready to print."""
    parts: list[RenderableType] = [_attacked(found)]
    files = [(size.size, file) for size in found.sizes for file in size.files]
    if any(file.before_fit for _, file in files):
        parts += [Text(), _fitted(files)]
    if any(file.visible_joints for _, file in files):
        parts += [Text(), _visible(files)]
    if found.reference:
        parts += [Text(), _against(found, found.reference)]
    return Group(*parts, *_notes(found), Text(), said(found.protocol))


def _attacked(found: Occlusion) -> Table:
    fitted = any(file.before_fit for size in found.sizes for file in size.files)
    title = f"Under a patch of so many px of a crop of {REFERENCE_SIDE}, {found.people} people, millimetres"
    title += ", after the fit" if fitted else ""
    columns = ("clean", "mean", "worst", "worse", "PA-MPJPE", "PVE")
    table = columns_table(title, "file", "patch", *columns)
    for size in found.sizes:
        table.add_section()
        for file in size.files:
            figures = (file.clean.mpjpe_mm, file.grid_mean.mpjpe_mm, file.worst.mpjpe_mm)
            at_worst = (file.worst.pa_mpjpe_mm, file.worst.pve_mm)
            worse_by = number_text(file.worse_by, "+.0%")
            cells = (*map(number_text, figures), worse_by, *map(number_text, at_worst))
            table.add_row(escape(file.name), str(size.size), *cells)
    return table


def _fitted(files: Sequence[tuple[int, FileUnderAttack]]) -> Table:
    def cells(file: FileUnderAttack) -> tuple[str, ...]:
        figures = file.clean.mpjpe_mm, file.worst.mpjpe_mm, file.worst.pa_mpjpe_mm
        return tuple(map(number_text, figures))

    rows = [
        ((file.name, str(size)), cells(file), cells(file.before_fit) if file.before_fit else None)
        for size, file in files
    ]
    title = "Before and after the fit, each at its own worst places, millimetres"
    return side_by_side(title, ("file", "patch"), ("clean", "worst", "PA-MPJPE"), rows)


def _visible(files: Sequence[tuple[int, FileUnderAttack]]) -> Table:
    rows = []
    for size, file in files:
        if not file.visible_joints:
            continue
        start = file.before_fit.visible_joints if file.before_fit else None
        for name in ("all", "visible"):
            own = joint_set_cells(getattr(file.visible_joints.worst, name))
            before = joint_set_cells(getattr(start.worst, name)) if start else None
            rows.append(((file.name, str(size), name), own, before))
    title = "Means over joints at the worst place for the visible ones, mm; PCKh in percent"
    return side_by_side(title, ("file", "patch", "joints"), ("worst", "PA-MPJPE", "PCKh"), rows)


def _against(found: Occlusion, reference: str) -> Table:
    title = f"Worst MPJPE: at the worst places of {reference}, at one's own, and the change from {reference}"
    table = columns_table(title, "file", "patch", "at those", "own", "change", "95 %")
    for size in found.sizes:
        table.add_section()
        for file in size.files:
            if file.name == reference:
                continue
            there = file.at_reference_worst.mpjpe_mm if file.at_reference_worst else None
            low_high = NOTHING if file.interval_mm is None else "{:+.1f} .. {:+.1f}".format(*file.interval_mm)
            change = number_text(file.worst_change_mm, "+.1f")
            own = (number_text(there), number_text(file.worst.mpjpe_mm))
            table.add_row(escape(file.name), str(size.size), *own, change, low_high)
    return table


def _notes(found: Occlusion) -> Iterator[Text]:
    for size in found.sizes:
        for file in size.files:
            for people, why in (
                (file.not_finite, "numbers of {} people are not finite, they are left out"),
                (file.nothing_counted, "no joint of {} people counts, they are left out"),
            ):
                if people:
                    said_of = f" {file.name}, patch {size.size}: {why.format(people)}"
                    yield Text.assemble(("warning", "bold red"), said_of)
    for cause in found.skipped_textures:
        yield Text.assemble(("skipped", "yellow"), f" {cause}")
