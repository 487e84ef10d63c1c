"""`jotr-deploy bench`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, OutputError, choice
from jotr_deploy.support.choices import DEVICES, FITS, TF32, VPOSER, choose_fit, listed
from jotr_deploy.verbs.terminal import bar, console, done, errors, exclusive, needs, print_json, refuse_tf32_on_cpu

BATCHES = [1, 4, 16]


def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    batches: Annotated[
        str | None, typer.Option(help="Batch sizes (people per call), comma-separated; 1,4,16 by default.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Approximate measuring time in seconds.")] = 30.0,
    source: Annotated[Path | None, typer.Option(help="Picture to time, instead of the packaged one.")] = None,
    keypoints: Annotated[Path | None, typer.Option(help="2-D joints of the people in that picture.")] = None,
    no_eager: Annotated[bool, typer.Option("--no-eager", help="Skip the comparison with PyTorch eager.")] = False,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            metavar="PRESET",
            help=f"Also time the stages of a fit: {listed(FITS)}. At least five fits are timed, whatever --seconds.",
        ),
    ] = None,
    vposer: Annotated[Path | None, typer.Option(help=VPOSER)] = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Only find and remember the fastest engine for each file on this machine.")
    ] = False,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Only show where a call on the CPU spends its time, at the first batch size.",
        ),
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Also write a report with charts: one HTML file.")] = None,
    target_p99: Annotated[
        str | None,
        typer.Option(
            "--target-p99",
            help="Only search for the highest throughput under this p99 latency, such as 20ms.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help=f"{listed(DEVICES)}.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for every engine; one per core by default.")
    ] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help=TF32)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure the latency of every engine of a bundle and the stages of a frame."""
    choice("--device", device, DEVICES)
    refuse_tf32_on_cpu(tf32, device)
    fitted = choose_fit(fit, vposer)
    sizes = _batches(batches)
    needs("bench", "onnxruntime", *(["openvino"] if choose else []))
    errors.print(f"[dim]measuring[/] {escape(str(bundle))}", highlight=False, soft_wrap=True)
    for_all = {
        "--report": report,
        "--source": source,
        "--keypoints": keypoints,
        "--no-eager": no_eager or None,
        "--fit": fit,
        "--vposer": vposer,
    }
    where = {"--device": None if device == "auto" else device, "--tf32": tf32 or None}
    exclusive("--layers", layers, {"--choose": choose or None, "--target-p99": target_p99, **for_all, **where})
    exclusive("--choose", choose, {"--target-p99": target_p99, "--batches": batches, **for_all, **where})
    exclusive("--target-p99", target_p99 is not None, for_all)
    if choose:
        _choose(bundle, threads, seconds, as_json)
        return
    if layers:
        _layers(bundle, (sizes or BATCHES)[0], threads, as_json)
        return
    if target_p99 is not None:
        _target(bundle, target_p99, sizes, threads, tf32, device, seconds, as_json)
        return
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.profiling.bench_table import report as table
    from jotr_deploy.profiling.benchmark import bench as measure
    from jotr_deploy.profiling.report import write_report

    opened = open_bundle(bundle)
    if report is not None and not report.resolve().parent.is_dir():
        raise OutputError(f"{report}: its folder does not exist", "give a file in an existing folder")
    with bar() as progress:
        result = measure(
            opened, batches=sizes or BATCHES, threads=threads, tf32=tf32, device=device, seconds=seconds,
            source=source, keypoints=keypoints, eager=not no_eager, fit=fitted, progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(result.as_dict())
    else:
        console.print(table(result))
    if report is not None:
        write_report(result, report)
    if as_json:
        return
    if report is not None:
        done(report, "one self-contained page", f"open {report} in a browser")
    else:
        same = (f" --fit {fit}" if fit else "") + (f" --vposer {vposer}" if vposer else "")
        done(bundle, "measured; nothing was written", f"jotr-deploy bench {bundle}{same} --report report.html")


def _batches(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise JotrDeployError(f"--batches {text}: not a list of batch sizes", "give one such as 1,4,16")
    return [int(part) for part in parts]


def _target(
    bundle: Path,
    p99: str,
    batches: list[int] | None,
    threads: int | None,
    tf32: bool,
    device: str,
    seconds: float,
    as_json: bool,
) -> None:
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.profiling.bench_table import target_report
    from jotr_deploy.profiling.p99_search import BATCHES, find, remember_chosen
    from jotr_deploy.profiling.p99_search_result import parse_target
    from jotr_deploy.runtime.sessions.choice import choices

    opened, target_ms = open_bundle(bundle), parse_target(p99)
    with bar() as progress:
        found = find(
            opened, target_ms, batches=batches or BATCHES, device=device, threads=threads, tf32=tf32, seconds=seconds,
            progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(found.as_dict())
    else:
        console.print(target_report(found))
    if error := found.error():
        raise error
    assert found.chosen is not None
    assert found.command is not None
    remember_chosen(opened, found.chosen)
    if not as_json:
        done(choices(), f"the engine of {found.chosen.file} is remembered for this processor", found.command)


def _layers(bundle: Path, batch: int, threads: int | None, as_json: bool) -> None:
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.profiling.bench_table import layers_report
    from jotr_deploy.profiling.layer_times import profile

    with bar() as progress:
        found = profile(open_bundle(bundle), batch, threads, progress)
    if as_json:
        print_json(asdict(found))
        return
    console.print(layers_report(found))
    done(bundle, "profiled; nothing was written",
         f"jotr-deploy bench {bundle} --layers --json for every kernel")  # fmt: skip


def _choose(bundle: Path, threads: int | None, seconds: float, as_json: bool) -> None:
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.profiling.bench_table import choices_report
    from jotr_deploy.profiling.choose import choose
    from jotr_deploy.runtime.sessions.choice import choices

    with bar() as progress:
        found = choose(open_bundle(bundle), threads, seconds, progress)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    console.print(choices_report(found))
    done(choices(), "remembered for this processor and these files", f"jotr-deploy run {bundle} IMAGE -o DIR")
