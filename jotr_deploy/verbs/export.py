"""`jotr-deploy export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.choices import SAMPLINGS, explained
from jotr_deploy.verbs.terminal import console, difference_table, done, exclusive, needs, print_json, steps


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Bundle directory to create.")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Published JOTR .pth.tar, or a checkpoint trained with this package.")
    ] = None,
    sampling: Annotated[
        str,
        typer.Option(help=f"Form of the sampling operator. {explained(SAMPLINGS)}."),
    ] = "function",
    body: Annotated[
        Path | None, typer.Option(help="SMPL file or folder, or 'stand-in'; overrides the checkpoint's body.")
    ] = None,
    extra_regressor: Annotated[
        Path | None, typer.Option(help="Published J_regressor_extra.npy, for the head-top joint.")
    ] = None,
    vposer: Annotated[Path | None, typer.Option(help="VPoser v1.0 folder; overrides the checkpoint's.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="weights.pt of a run of the task features, for the fit.")
    ] = None,
    no_body: Annotated[
        bool, typer.Option("--no-body", help="Export without the body: pose, shape and camera only.")
    ] = False,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Use random weights and the stand-in body; no checkpoint needed.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a checkpoint into a verified ONNX bundle."""
    if checkpoint is None and not stand_in:
        raise JotrDeployError("no checkpoint is given", "give one, or --stand-in for random weights")
    assets = {"--body": body, "--extra-regressor": extra_regressor}
    exclusive("--stand-in", stand_in, {"CHECKPOINT": checkpoint, **assets, "--vposer": vposer})
    exclusive("--no-body", no_body, {**assets, "--features": features})
    choice("--sampling", sampling, tuple(SAMPLINGS))
    needs("export", "torch", "onnxscript", "onnxruntime")
    from jotr_deploy.api import export_bundle

    with steps() as say:
        exported = export_bundle(
            checkpoint, output, body=body, extra_regressor=extra_regressor, vposer=vposer, with_body=not no_body,
            features=features, sampling=sampling, replace=force, say=say,  # type: ignore[arg-type]
        )  # fmt: skip
    if as_json:
        print_json({
            "bundle": str(exported.path), "size_bytes": exported.size_bytes, "labels": exported.labels,
            "notes": exported.notes, "differences": [asdict(row) for row in exported.differences],
        })  # fmt: skip
        return
    console.print(difference_table(exported.differences))
    for note in (*exported.notes, *(f"label: {label}" for label in exported.labels)):
        console.print(f"[yellow]note[/] {escape(note)}", highlight=False, soft_wrap=True)
    for licence in exported.licences:
        console.print(f"[dim]licence[/] {licence.asset}: {licence.terms}", highlight=False, soft_wrap=True)
    following = f"run {exported.path} IMAGE -o DIR" if exported.has_body else f"doctor {exported.path}"
    done(exported.path, f"{exported.size_bytes / 1e6:.0f} MB", f"jotr-deploy {following}")
