"""The `build-engine` and `plugins` commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.choices import BACKENDS, NETWORKS, PLUGINS, PORTABLE, explained, listed
from jotr_deploy.support.precisions import USUAL, Precision
from jotr_deploy.verbs.terminal import console, difference_table, done, errors, exclusive, needs, print_json, steps

if TYPE_CHECKING:
    from jotr_deploy.api import BuiltEngine

plugins = typer.Typer(help="Inspect, check and build the sampling plugin for TensorRT.")

_PRECISIONS = (
    f"{', '.join(p for p in Precision if not p.calibrated)}, "
    f"or {listed([p for p in Precision if p.calibrated])} of a calibrated bundle; by default fp16, for openvino bf16."
)
_CALLED = {"mesh": "network", "detector": "detector", "pose": "pose network", "features": "extractor"}
_FOR = {
    "onnxruntime": "ONNX Runtime on a GPU",
    "openvino": "OpenVINO on a processor that computes in bfloat16",
    "tensorrt": "this TensorRT and GPU",
}
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def build_engine(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write a copy of the bundle here, with the engine added.")
    ] = None,
    network: Annotated[str, typer.Option(help=f"Network to build from: {listed(NETWORKS)}.")] = "mesh",
    backend: Annotated[str, typer.Option(help=f"{listed(BACKENDS)}.")] = "tensorrt",
    precision: Annotated[str | None, typer.Option(help=_PRECISIONS)] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            help="MIN:OPT:MAX people in one call; 1,4,16 for kernels chosen for each size; or one fixed number. "
            "By default 1:4:16."
        ),
    ] = None,
    plugin: Annotated[str | None, typer.Option(help=f"{explained(PLUGINS)}; by default the first available.")] = None,
    portable: Annotated[
        str | None, typer.Option(help=f"{explained(PORTABLE)}; by default this TensorRT and GPU model alone.")
    ] = None,
    attention: Annotated[
        bool,
        typer.Option(
            "--attention", help="Write each attention as one ONNX node, to compare speeds; TensorRT 10.14 or newer."
        ),
    ] = False,
    workspace: Annotated[str | None, typer.Option(help="Scratch memory, such as 1GiB; default the whole GPU.")] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="File of kernel timings; by default in the cache.")] = None,
    level: Annotated[
        int | None, typer.Option(min=0, max=5, help="TensorRT's builder level, 3 by default; higher takes longer.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--try", help="Also compare a detector or pose network on this photo of people.")
    ] = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="Only check the rules; needs no GPU.")] = False,
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
    choice("--network", network, NETWORKS)
    choice("--backend", backend, BACKENDS)
    chosen = USUAL[backend] if precision is None else Precision.of(precision)
    if plugin is not None:
        choice("--plugin", plugin, tuple(PLUGINS))
    if portable is not None:
        choice("--portable", portable, tuple(PORTABLE))
    if target is not None and not check_only:
        raise JotrDeployError(
            "--for-tensorrt needs --check-only",
            "add --check-only; engines are always built by the installed TensorRT",
        )
    of_builder = {
        "--batch": batch, "--portable": portable, "--workspace": workspace, "--timing-cache": timing_cache,
        "--level": level,
    }  # fmt: skip
    of_tensorrt = {"--check-only": check_only or None, "--plugin": plugin, "--attention": attention or None}
    exclusive(f"--backend {backend}", backend != "tensorrt", {**of_tensorrt, **of_builder})
    exclusive("--check-only", check_only, {"--output": output, "--try": picture, **of_builder})
    if check_only:
        _check(bundle, network, chosen, plugin, target, attention, as_json)
    elif backend == "tensorrt":
        from jotr_deploy.engines.tensorrt.engine import parse_batches

        _build(
            bundle, output, network, backend, chosen, picture, as_json,
            batch=None if batch is None else parse_batches(batch), plugin=plugin, portable=portable,
            attention=attention,
            workspace_bytes=None if workspace is None else _bytes(workspace), timing_cache=timing_cache,
            optimization_level=3 if level is None else level,
        )  # fmt: skip
    else:
        _build(bundle, output, network, backend, chosen, picture, as_json)


def _check(
    bundle: Path,
    network: str,
    precision: Precision,
    plugin: str | None,
    target: str | None,
    attention: bool,
    as_json: bool,
) -> None:
    from jotr_deploy.api import original_network
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.engines.tensorrt.engine import check_network
    from jotr_deploy.engines.tensorrt.versions import parse_version

    version = None if target is None else parse_version(target)
    original = original_network(cast(Any, network))
    findings = check_network(open_bundle(bundle), precision, cast(Any, plugin), version, original, attention)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    for finding in () if as_json else findings:
        console.print(f"[bold red]{finding.rule}[/] {escape(str(finding))}", highlight=False, soft_wrap=True)
    if findings:
        raise JotrDeployError(
            f"{bundle}: TensorRT would refuse {len(findings)} places of the {precision} {_CALLED[network]}",
            "see each finding above",
        )
    if not as_json:
        option = ("" if network == "mesh" else f" --network {network}") + " --attention" * attention
        done(bundle, f"no rule of TensorRT's parser is broken by the {precision} {_CALLED[network]}",
             f"jotr-deploy build-engine {bundle}{option} --precision {precision}")  # fmt: skip


def _build(
    bundle: Path,
    output: Path | None,
    network: str,
    backend: str,
    precision: Precision,
    picture: Path | None,
    as_json: bool,
    **tensorrt: Any,
) -> None:
    needs("build-engine", "onnxruntime", *(["openvino"] if backend == "openvino" else []))
    from jotr_deploy.api import build_engine

    with _phases() as (say, progress):
        if backend == "tensorrt":
            tensorrt["progress"] = progress
        built = build_engine(
            bundle, network=cast(Any, network), backend=cast(Any, backend), precision=precision, output=output,
            picture=picture, say=say, **tensorrt,
        )  # fmt: skip
    _report(output or bundle, network, backend, built, precision, as_json)


def _report(bundle: Path, network: str, backend: str, built: BuiltEngine, precision: Precision, as_json: bool) -> None:
    name, rows = built.path.name, list(built.differences)
    lines = [line for line in (built.trtexec, built.polygraphy) if line is not None]
    used = None if network == "mesh" else _used(bundle, network)
    if as_json:
        here = {} if used is None else {"used_here": used}
        print_json(
            {
                "file": name,
                "trtexec": lines[:1],
                "polygraphy": lines[1:],
                "differences": [asdict(row) for row in rows],
                **here,
            }
        )
        return
    against = "mesh.onnx" if network == "mesh" else f"{network}.onnx"
    console.print(difference_table(rows, precision, f"{name} against {against} in ONNX Runtime, max (mean)"))
    for said, line in zip(("build by hand", "compare by hand"), lines, strict=False):
        console.print(f"[dim]{said}:[/] {escape(line)}", highlight=False, soft_wrap=True)
    if used is None:
        done(bundle / name, "verified", f"jotr-deploy run {bundle} IMAGE --file {name} -o DIR")
        return
    if used != name:
        why = "eight bits are used only when named" if precision.calibrated else f"it is for {_FOR[backend]}"
        console.print(f"not used here, where {used} is: {why}", highlight=False)
    done(bundle / name, "verified", f"jotr-deploy run {bundle} IMAGE -o DIR")


def _used(bundle: Path, network: str) -> str:
    """The file of the detector, pose network or extractor that is used on this machine."""
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.runtime.finding.people_networks import file_for

    return file_for(open_bundle(bundle), cast(Any, network)).name


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
