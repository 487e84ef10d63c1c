"""`jotr-deploy doctor`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from jotr_deploy.errors import one_line
from jotr_deploy.verbs.terminal import console, needs, print_json, steps

if TYPE_CHECKING:
    from jotr_deploy.doctor.selftest import SelfTest


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Also check this bundle.")] = None,
    selftest: Annotated[
        bool,
        typer.Option("--selftest", help="Test every installed engine, up to the full network; takes minutes."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check the installation, its licences, and whether a bundle is intact and works."""
    if selftest:
        _selftest(bundle, as_json)
        return
    from jotr_deploy.doctor.installation import examine, healthy

    findings = examine(bundle)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        marks = {
            "ok": "[green]ok[/]",
            "missing": "[yellow]missing[/]",
            "problem": "[bold red]problem[/]",
            "note": "[blue]note[/]",
        }
        group = None
        for finding in findings:
            if finding.group != group:
                group = finding.group
                console.print(f"\n[bold]{group}[/]", highlight=False)
            subject, detail, remedy = (
                escape(one_line(said)) for said in (finding.subject, finding.detail, finding.remedy)
            )
            remedy = f"  [dim]-> {remedy}[/]" if remedy else ""
            console.print(
                f"  {marks[finding.state]} {subject}: {detail}{remedy}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
        verdict = "[bold green]nothing is wrong[/]" if healthy(findings) else "[bold red]see the problems above[/]"
        console.print(f"\n{verdict}")
    if not healthy(findings):
        raise typer.Exit(2)


def _selftest(bundle: Path | None, as_json: bool) -> None:
    needs("doctor --selftest", "onnxruntime")
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.doctor.selftest import selftest

    with steps() as say:
        found = selftest(None if bundle is None else open_bundle(bundle), say)
    if as_json:
        print_json(asdict(found))
    else:
        _print_selftest(found)
    if not found.passed:
        raise typer.Exit(2)


def _print_selftest(found: SelfTest) -> None:
    machine, colours = found.machine, {"ok": "green", "failed": "bold red", "not run": "yellow"}
    place = f"{machine['cpu']}; {machine['gpu'] or 'no GPU'}; {machine['os']}, Python {machine['python']}"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    for line in (place, versions):
        console.print(line, highlight=False, soft_wrap=True)
    table = Table()
    for column in ("network", "engine", "precision", "result", "largest difference, of limit", "s"):
        table.add_column(column, no_wrap=not column.startswith("largest"), justify="right" if column == "s" else "left")
    for row in found.rows:
        result, said = f"[{colours[row.result]}]{row.result}[/]", escape(row.difference or row.detail)
        table.add_row(row.network, row.engine, row.precision, result, said, f"{row.seconds:.1f}")
    console.print(table)
    counts = Counter[str](row.result for row in found.rows)
    summary = ", ".join(f"{counts[word]} {word}" for word in colours)
    console.print(f"{summary}. Paste all of this into a bug report.", highlight=False, soft_wrap=True)
