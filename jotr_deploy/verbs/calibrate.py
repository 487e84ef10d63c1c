"""The `calibrate` command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.choices import CALIBRATION_METHODS
from jotr_deploy.support.precisions import Precision
from jotr_deploy.support.processor import sums_saturate
from jotr_deploy.verbs.terminal import bar, console, count, done, errors, exclusive, needs, print_json

if TYPE_CHECKING:
    from jotr_deploy.calibration.eight_bit_copy import Calibrated

PRECISIONS = tuple(precision for precision in Precision if precision.calibrated)
_BAR = 30  # characters in the longest bar


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    images: Annotated[Path | None, typer.Option(help="Image, folder, glob or video to calibrate on.")] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option(help="2-D joints of the people in --images, which defaults to the folder of this file."),
    ] = None,
    synthetic: Annotated[int | None, typer.Option(min=1, help="Calibrate on N people in synthetic scenes.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write a copy of the bundle here, with the file added.")
    ] = None,
    crops: Annotated[
        int | None, typer.Option(min=1, help="Use at most N people from --images; 256 by default.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="int8, or fp8 on GPUs that support it: Ada, Hopper, Blackwell.")
    ] = "int8",
    method: Annotated[str, typer.Option(help=f"Range calibration: {', '.join(CALIBRATION_METHODS)}.")] = "mse",
    budget_mm: Annotated[
        float | None,
        typer.Option(
            "--budget-mm", min=0.0, help="Largest mean joint distance from fp32 in millimetres; 4 by default."
        ),
    ] = None,
    weight_bits: Annotated[
        int,
        typer.Option(help="8, or 7 for int8 on CPUs without VNNI, whose kernels are wrong for weights of 8 bits."),
    ] = 8,
    placement: Annotated[
        Path | None, typer.Option(help="Bundle whose choice of eight-bit blocks is reused, whatever the error.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Add an eight-bit network that stays within an error budget in millimetres."""
    choice("--precision", precision, PRECISIONS)
    chosen = Precision(precision)
    choice("--method", method, CALIBRATION_METHODS)
    if (images is None and keypoints is None) == (synthetic is None):
        raise JotrDeployError(
            "calibrate needs either pictures or synthetic scenes", "give --images, --keypoints or --synthetic 256"
        )
    exclusive("--synthetic", synthetic is not None, {"--crops": crops})
    exclusive("--placement", placement is not None, {"--budget-mm": budget_mm})
    needs("calibrate", "onnxruntime")
    errors.print(f"[dim]calibrating[/] {escape(str(bundle))}", highlight=False, soft_wrap=True)
    from jotr_deploy.bundle import open_bundle, to_write
    from jotr_deploy.calibration.calibration_crops import crops_of_pictures, synthetic_crops
    from jotr_deploy.calibration.eight_bit_copy import blocks_of
    from jotr_deploy.calibration.eight_bit_copy import calibrate as calibrated

    blocks = None if placement is None else blocks_of(open_bundle(placement), chosen)
    budget_mm = 4.0 if budget_mm is None else budget_mm
    with to_write(bundle, output) as opened, bar() as progress:
        if synthetic is not None:
            found = synthetic_crops(synthetic, opened.manifest.model, progress)
        else:
            source = images or cast(Path, keypoints).parent
            found = crops_of_pictures(opened, source, keypoints, crops or 256, progress)
        result = calibrated(opened, found, cast(Any, method), budget_mm, chosen, progress, blocks, weight_bits)
    if found.skipped:
        names = ", ".join(found.skipped[:5]) + (", ..." if len(found.skipped) > 5 else "")
        errors.print(f"[yellow]skipped[/] {count(len(found.skipped), 'picture')} that cannot be read: {escape(names)}",
                     highlight=False, soft_wrap=True)  # fmt: skip
    target = output or bundle
    if chosen is Precision.INT8 and weight_bits == 8 and sums_saturate():
        errors.print("[yellow]note[/] this CPU has no VNNI: int8 is slow here, and fast with --weight-bits 7",
                     highlight=False, soft_wrap=True)  # fmt: skip
    if as_json:
        print_json(as_dict(result, found.skipped))
        return
    console.print(block_table(result))
    size = f"{result.size_bytes / 1e6:.1f} MB, fp32 {result.float_bytes / 1e6:.1f} MB"
    drift = f"{result.search.drift_mm:.2f} mm from fp32, 95 % below {result.search.p95_mm:.2f} mm; {size}"
    done(target / chosen.file(), drift, f"jotr-deploy eval {target} --drift")


def as_dict(result: Calibrated, skipped: tuple[str, ...]) -> dict[str, Any]:
    """The output of `--json`."""
    search = asdict(result.search)
    return {**search, "crops": result.crops, "held_out": result.held_out, "skipped": list(skipped),
            "size_bytes": result.size_bytes, "float_bytes": result.float_bytes}  # fmt: skip


def block_table(result: Calibrated) -> Table:
    """A table of the drift that each block causes on its own, with bars."""
    table = Table(
        title=f"drift with one block in {result.precision}, {result.held_out} held-out crops; with all of them "
        f"{result.search.all_mm:.2f} mm",
        title_justify="left",
    )
    for name, side in (("block", "left"), ("mm", "right"), ("", "left"), ("kept in", "left")):
        table.add_column(name, justify=cast(Any, side))
    longest = max(block.alone_mm for block in result.search.blocks) or 1.0
    for block in result.search.blocks:
        bars = "█" * max(1, round(_BAR * block.alone_mm / longest))
        kind, colour = (result.precision, "cyan") if block.bits == 8 else ("float", "yellow")
        table.add_row(block.name, f"{block.alone_mm:.2f}", f"[{colour}]{bars}[/]", f"[{colour}]{kind}[/]")
    return table
