"""The command line of measures against the truth: `eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from jotr_deploy.terminal import bar, choice, console, done, errors, needs, print_json


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    protocol: Annotated[str, typer.Option(help="What is measured on what: synthetic.")] = "synthetic",
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes; training uses those below 1000.")] = 1000,
    scenes: Annotated[int, typer.Option(min=1, help="How many to draw.")] = 256,
    file: Annotated[str | None, typer.Option(help="Network file of the bundle; mesh.onnx by default.")] = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="Also compare every file of the bundle with the fp32 one.")
    ] = False,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Also find the people with the bundle's own detector and pose network.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Cores for scenes and network; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure a bundle against the truth of held-out scenes."""
    choice("--device", device, ("auto", "cpu", "cuda"))
    choice("--protocol", protocol, ("synthetic",))
    needs("eval", "onnxruntime")
    errors.print(f"[dim]measuring[/] {escape(str(bundle))}", highlight=False, soft_wrap=True)
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.evaluation.protocols import SyntheticOptions, evaluate_synthetic
    from jotr_deploy.evaluation.table import report

    options = SyntheticOptions(seed, scenes, file, drift, pixels, device, threads)
    with bar() as progress:
        result = evaluate_synthetic(open_bundle(bundle), options, progress)
    if as_json:
        print_json(result.as_dict())
        return
    console.print(report(result))
    same = f"jotr-deploy eval {bundle} --seed {seed} --scenes {scenes}"
    done(bundle, "measured; nothing was written", f"{same} --json > eval.json")
