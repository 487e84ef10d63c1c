"""The `build-engine` and `plugins` commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.choices import BACKENDS, PLUGINS, explained, listed
from jotr_deploy.support.precisions import Precision
from jotr_deploy.verbs.terminal import console, difference_table, done, errors, needs, print_json, steps

plugins = typer.Typer(help="Inspect, check and build the sampling plugin for TensorRT.")

_PRECISIONS = (
    f"{', '.join(p for p in Precision if not p.calibrated)}, "
    f"or {listed([p for p in Precision if p.calibrated])} of a calibrated bundle."
)
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def build_engine(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write a copy of the bundle here, with the engine added.")
    ] = None,
    backend: Annotated[str, typer.Option(help=f"{listed(BACKENDS)}.")] = "tensorrt",
    precision: Annotated[str, typer.Option(help=_PRECISIONS)] = "fp16",
    batch: Annotated[str, typer.Option(help="People per call: MIN:OPT:MAX, or one fixed number.")] = "1:4:16",
    plugin: Annotated[
        str | None, typer.Option(help=f"{explained(PLUGINS)}; by default the first one available.")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Limit on scratch memory, such as 1GiB; the whole GPU by default.")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="TensorRT timing cache; by default a file in the user's cache.")
    ] = None,
    level: Annotated[int, typer.Option(min=0, max=5, help="TensorRT optimisation level: higher searches longer.")] = 3,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only check the network against TensorRT's rules; needs no GPU.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            "--for-tensorrt",
            metavar="VERSION",
            help="With --check-only: the TensorRT version to check for, such as 10.3; by default every supported one.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build a verified engine and add it to a bundle."""
    choice("--backend", backend, BACKENDS)
    chosen = Precision.of(precision)
    if plugin is not None:
        choice("--plugin", plugin, tuple(PLUGINS))
    if target is not None and not check_only:
        raise JotrDeployError(
            "--for-tensorrt needs --check-only",
            "add --check-only; engines are always built by the installed TensorRT",
        )
    if check_only:
        _check(bundle, chosen, plugin, target, as_json)
    elif backend == "tensorrt":
        from jotr_deploy.engines.tensorrt.engine import parse_batch

        _build(
            bundle, output, backend, chosen, as_json, batch=parse_batch(batch), plugin=plugin,
            workspace_bytes=None if workspace is None else _bytes(workspace), timing_cache=timing_cache,
            optimization_level=level,
        )  # fmt: skip
    else:
        _build(bundle, output, backend, chosen, as_json)


def _check(bundle: Path, precision: Precision, plugin: str | None, target: str | None, as_json: bool) -> None:
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.engines.tensorrt.engine import check_network
    from jotr_deploy.engines.tensorrt.versions import parse_version

    version = None if target is None else parse_version(target)
    findings = check_network(open_bundle(bundle), precision, cast(Any, plugin), version)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    for finding in () if as_json else findings:
        console.print(f"[bold red]{finding.rule}[/] {escape(str(finding))}", highlight=False, soft_wrap=True)
    if findings:
        raise JotrDeployError(
            f"{bundle}: TensorRT would reject the {precision} network in {len(findings)} places",
            "see each finding above",
        )
    if not as_json:
        done(bundle, f"the {precision} network breaks no rule of TensorRT's parser",
             f"jotr-deploy build-engine {bundle} --precision {precision}")  # fmt: skip


def _build(
    bundle: Path, output: Path | None, backend: str, precision: Precision, as_json: bool, **tensorrt: Any
) -> None:
    needs("build-engine", "onnxruntime", *(["openvino"] if backend == "openvino" else []))
    from jotr_deploy.api import build_engine

    with _phases() as (say, progress):
        if backend == "tensorrt":
            tensorrt["progress"] = progress
        built = build_engine(
            bundle, backend=cast(Any, backend), precision=precision, output=output, say=say, **tensorrt
        )
    lines = [] if built.trtexec is None else [built.trtexec]
    _report(output or bundle, built.path.name, list(built.differences), precision, lines, as_json)


def _report(bundle: Path, name: str, rows: list[Any], precision: Precision, lines: list[str], as_json: bool) -> None:
    if as_json:
        print_json({"file": name, "trtexec": lines, "differences": [asdict(row) for row in rows]})
        return
    console.print(difference_table(rows, precision, f"{name} against mesh.onnx in ONNX Runtime, max (mean)"))
    for line in lines:
        console.print(f"[dim]equivalent command:[/] {escape(line)}", highlight=False, soft_wrap=True)
    done(bundle / name, "verified", f"jotr-deploy run {bundle} IMAGE --file {name} -o DIR")


@contextmanager
def _phases() -> Iterator[tuple[Any, Any]]:
    """TensorRT's build phases as one status line: the innermost phase and its progress."""
    with steps() as say:
        yield say, lambda phase, parent, done, total: errors.is_terminal and say(f"{phase}: {done} of {total}")


def _bytes(text: str) -> int:
    number, unit = text[:-3], text[-3:]
    if not number.isdecimal() or unit not in _UNITS:
        raise JotrDeployError(f"--workspace {text}: not a size", "give one such as 512MiB or 4GiB")
    return int(number) * _UNITS[unit]


@plugins.command("list")
def list_plugins(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the places searched for a plugin library, and the plugins registered."""
    from jotr_deploy.plugins.library import describe

    _show(describe(), as_json)


@plugins.command()
def check(
    bundle: Annotated[Path | None, typer.Argument(help="Also report what the files of this bundle need.")] = None,
    tensorrt_include: Annotated[Path | None, typer.Option(help="Folder of TensorRT's headers.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Report what is available, what building the library needs, and what the files of a bundle need."""
    from jotr_deploy.plugins.library import describe
    from jotr_deploy.plugins.library_build import describe_tools

    _show([*describe(), *describe_tools(tensorrt_include), *(() if bundle is None else _needs_of(bundle))], as_json)


def _needs_of(path: Path) -> list[Any]:
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.plugins.library import Looked, required_plugin

    bundle, found = open_bundle(path), []
    for entry in bundle.manifest.files:
        if entry.name.endswith(".onnx"):
            has = required_plugin(bundle.file(entry.role, entry.name))
            what = "sampling nodes: run by their function body or a plugin" if has else "standard operators only"
            found.append(Looked("needs", entry.name, None, what))
        elif "plugin" in entry.built_with:
            found.append(Looked("needs", entry.name, None, f"plugin: {entry.built_with['plugin']}"))
    return found


@plugins.command()
def build(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Library to write; by default in the user's cache.")
    ] = None,
    tensorrt_include: Annotated[Path | None, typer.Option(help="Folder of TensorRT's headers.")] = None,
    architectures: Annotated[str | None, typer.Option(help="GPU architectures in CMake's form: 87, or 80;90.")] = None,
) -> None:
    """Compile the C++ plugin library on this machine."""
    from jotr_deploy.plugins.library_build import build_library

    with steps() as say:
        library = build_library(output, tensorrt_include, architectures, say)
    done(library, "compiled for this TensorRT", "jotr-deploy build-engine BUNDLE --plugin library")


def _show(places: list[Any], as_json: bool) -> None:
    if as_json:
        print_json([asdict(place) for place in places])
        return
    for place in places:
        mark = "[green]ok[/]" if place.problem is None else "[yellow]no[/]"
        text = ": ".join(part for part in (place.where, place.problem or "", place.detail) if part)
        console.print(f"  {mark} {place.what}  {escape(text)}", highlight=False, soft_wrap=True)
