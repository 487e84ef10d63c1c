"""`build-engine --backend tensorrt`: a bundle gains an engine that was built here and proven equal to its network."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from jotr_deploy.bundle import Bundle, FileEntry, replace_file
from jotr_deploy.engines.derived_files import load_source, measured
from jotr_deploy.engines.int8 import for_tensorrt
from jotr_deploy.engines.low_precision import to_low_precision
from jotr_deploy.engines.tensorrt.build import BATCH, BuildError, Recipe, Shapes, build_plan
from jotr_deploy.engines.tensorrt.inspector import Layers, inspect
from jotr_deploy.engines.tensorrt.onnx_copy import sampling_nodes, tensorrt_copy
from jotr_deploy.engines.tensorrt.plugin_form import default_plugin, register
from jotr_deploy.engines.tensorrt.rules import Finding, check
from jotr_deploy.engines.tensorrt.timing_cache import timing_cache_path
from jotr_deploy.engines.tensorrt.trtexec import trtexec_command
from jotr_deploy.engines.tensorrt.versions import Version, parse_version
from jotr_deploy.engines.verify import Difference, vertices_error
from jotr_deploy.errors import MissingDependency, choice, install
from jotr_deploy.plugins import DOMAIN, NAME
from jotr_deploy.plugins.kernel import SOURCE
from jotr_deploy.runtime.sessions.tensorrt_engine import environment, mismatch, tensorrt
from jotr_deploy.support.aliases import PhaseProgress, Say
from jotr_deploy.support.choices import PLUGINS, Plugin
from jotr_deploy.support.precisions import Precision

__all__ = [
    "BuildError",
    "Built",
    "PhaseProgress",
    "Plugin",
    "build_engine",
    "check_network",
    "mismatch",
    "parse_batch",
    "trtexec_command",
]

Batch = tuple[int, int, int]


@dataclass(frozen=True)
class Options:
    """Optional settings of a build; see `build_engine`."""

    plugin: Plugin | None = None
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    optimization_level: int = 3


@dataclass(frozen=True)
class Planned:
    """An engine in memory, and how it came to be."""

    plan: bytes
    copy: onnx.ModelProto
    """The TensorRT copy of the network, which the engine was built from."""
    plugin: Plugin
    library: Path | None
    """Plugin library that the engine needs, if any."""
    layers: Layers
    recipe: Recipe
    built_with: Mapping[str, str]


@dataclass(frozen=True)
class Built:
    """Result of `build_engine`."""

    bundle: Bundle
    """The updated bundle."""
    engine: Path
    copy: Path
    """The TensorRT copy of the network, which the engine was built from."""
    plugin: Plugin
    layers: Layers
    differences: list[Difference]
    trtexec: str
    """Equivalent command line."""


def parse_batch(text: str) -> Batch:
    """Read "1:4:16", smallest, best and largest batch, or "4", a fixed one.

    Raises:
        BuildError: it is neither.
    """
    sizes = text.split(":") if ":" in text else [text] * 3
    if len(sizes) != 3 or not all(size.isdecimal() for size in sizes):
        raise BuildError(f"--batch {text}: not a range of batch sizes", BATCH)
    low, best, high = map(int, sizes)
    if not 1 <= low <= best <= high:
        raise BuildError(f"--batch {text}: not 1 <= MIN <= OPT <= MAX", BATCH)
    return low, best, high


def check_network(
    bundle: Bundle,
    precision: Precision | str = Precision.FP16,
    plugin: Plugin | None = None,
    target: Version | None = None,
) -> list[Finding]:
    """Problems that TensorRT would have with the source of an engine; needs neither TensorRT nor a GPU.

    Args:
        bundle: as opened.
        precision: of the engine.
        plugin: form of the sampling operator; None assumes a plugin if the network has a node for it.
        target: TensorRT version to check for; None checks every supported version.

    Raises:
        BuildError: this bundle has no such network.
    """
    network = _typed_network(bundle, Precision.of(precision))
    return check(tensorrt_copy(network, plugin or ("aot" if sampling_nodes(network) else "none")), target)


def build_engine(
    bundle: Bundle,
    *,
    precision: Precision | str = Precision.FP16,
    batch: Batch = (1, 4, 16),
    plugin: Plugin | None = None,
    workspace_bytes: int | None = None,
    timing_cache: Path | None = None,
    optimization_level: int = 3,
    say: Say = lambda step: None,
    progress: PhaseProgress | None = None,
) -> Built:
    """Build, inspect and verify an engine for the current GPU, then put it into the bundle.

    Args:
        bundle: gains `mesh.<precision>.sm<capability>.engine` and the TensorRT copy of its ONNX.
        precision: "fp32", "fp16" or "bf16", written into the ONNX, or "int8" or "fp8" of a calibrated bundle.
        batch: smallest, best and largest number of people; kernels are chosen for the best.
        plugin: sampling implementation; None takes the first available: "aot", "library", "none".
        workspace_bytes: scratch memory the builder may use; None is the whole GPU.
        timing_cache: file of kernel timings, read and added to; None is one in the user's cache.
        optimization_level: 0 to 5, how long the builder searches.
        say: called with each step, one line each.
        progress: called with the builder's own steps.

    Raises:
        MissingDependency: TensorRT, CUDA's bindings or the plugin is not installed.
        BuildError: TensorRT refuses the network.
        SessionError: no GPU, or it refuses the engine.
        VerificationError: an output differs by more than the limit. As with every failure, nothing is kept.
        KeyboardInterrupt: Ctrl-C; the build was cancelled.
    """
    precision = Precision.of(precision)
    network = _typed_network(bundle, precision)
    _require_reference()
    options = Options(plugin, workspace_bytes, timing_cache, optimization_level)
    planned = plan_network(network, precision, batch, options, say, progress)
    entry = _engine_entry(precision, batch, planned)
    grown, differences = _add_engine(bundle, planned.plan, precision, entry, batch, say)
    grown = _add_copy(grown, planned.copy, precision, planned.plugin)
    engine, onnx_copy = bundle.path / entry.name, bundle.path / _copy_name(precision)
    line = trtexec_command(onnx_copy, engine, planned.recipe, planned.plugin, planned.library)
    return Built(grown, engine, onnx_copy, planned.plugin, planned.layers, differences, line)


def plan_network(
    network: onnx.ModelProto,
    precision: Precision,
    batch: Batch,
    options: Options = Options(),
    say: Say = lambda step: None,
    progress: PhaseProgress | None = None,
) -> Planned:
    """Build and inspect an engine of any network with the batch as first dimension; nothing is written or verified.

    Raises:
        see `build_engine`.
    """
    if options.plugin is not None:
        choice("--plugin", options.plugin, tuple(PLUGINS))
    trt = tensorrt()
    chosen = options.plugin or default_plugin(trt, network, say)
    _refuse(check(tensorrt_copy(network, chosen), parse_version(trt.__version__)))
    here = environment()
    _refuse_hardware(precision, here)
    namespace, library = register(trt, network, chosen)
    copy = tensorrt_copy(network, chosen, namespace)
    cache = options.timing_cache or timing_cache_path(here, SOURCE if chosen == "aot" else None)
    recipe = Recipe(_shapes(copy, batch), cache, options.workspace_bytes, options.optimization_level)
    say(f"building {precision} for {here['gpu']} with TensorRT {here['tensorrt']}, sampling by {PLUGINS[chosen]}")
    plan = build_plan(trt, copy.SerializeToString(deterministic=True), recipe, progress, say)
    layers = inspect(trt, plan)
    if chosen != "none" and not layers.plugin:
        say(f"the inspector names no layer of {DOMAIN}::{NAME}: it was fused into another one")
    return Planned(plan, copy, chosen, library, layers, recipe, {**here, "plugin": chosen})


# ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────


def _typed_network(bundle: Bundle, precision: Precision) -> onnx.ModelProto:
    model = load_source(bundle, precision)
    if precision.calibrated:
        return for_tensorrt(model)
    return model if precision is Precision.FP32 else to_low_precision(model, precision)


def _require_reference() -> None:
    """Check for the reference engine now rather than after minutes of building."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingDependency("ONNX Runtime is not installed, and engines are verified against it", install("cpu"))


def _refuse(findings: Sequence[Finding]) -> None:
    if findings:
        more = f" (and {len(findings) - 1} more: --check-only lists them)" if len(findings) > 1 else ""
        raise BuildError(f"TensorRT cannot take {findings[0].where}: {findings[0].problem}{more}", findings[0].remedy)


def _refuse_hardware(precision: Precision, here: Mapping[str, str]) -> None:
    major, minor = map(int, here["capability"].split("."))
    if (major, minor) < precision.capability:
        raise BuildError(
            f"{here['gpu']} (compute capability {here['capability']}) has no {precision}",
            "build int8 or fp16" if precision is Precision.FP8 else "build fp16",
        )


def _shapes(model: onnx.ModelProto, batch: Batch) -> Shapes:
    shapes = {}
    for value in model.graph.input:
        rest = tuple(size.dim_value for size in value.type.tensor_type.shape.dim[1:])
        low, best, high = ((size, *rest) for size in batch)
        shapes[value.name] = (low, best, high)
    return shapes


# ── the files ────────────────────────────────────────────────────────────────────────────────────────────────────


def _engine_entry(precision: Precision, batch: Batch, planned: Planned) -> FileEntry:
    capability = planned.built_with["capability"].replace(".", "")
    return FileEntry(
        role="mesh",
        name=precision.file(f"sm{capability}.engine"),
        sha256="",
        precision=precision,
        backend="tensorrt",
        recipe={
            "plugin": planned.plugin,
            "optimization_level": planned.recipe.optimization_level,
            "workspace_bytes": planned.recipe.workspace_bytes,
        },
        batch=":".join(map(str, batch)),
        built_with=dict(planned.built_with),
    )


def _add_engine(
    bundle: Bundle, plan: bytes, precision: Precision, entry: FileEntry, batch: Batch, say: Say
) -> tuple[Bundle, list[Difference]]:
    differences: list[Difference] = []

    def write(path: Path) -> FileEntry:
        path.write_bytes(plan)
        differences.extend(_verified(bundle, path, precision, batch, say))
        return entry.model_copy(update={"error_mm": vertices_error(differences)})

    return replace_file(bundle, entry.name, write), differences


def _verified(bundle: Bundle, engine: Path, precision: Precision, batch: Batch, say: Say) -> list[Difference]:
    """Differences of every output from the bundle's network in ONNX Runtime, at smallest, best and largest batch."""
    sizes = sorted(set(batch))
    say(f"comparing with ONNX Runtime at batch {', '.join(map(str, sizes))}")
    return measured(bundle, engine, precision, sizes, f"the {precision} engine", device="cuda")


def _copy_name(precision: Precision) -> str:
    return precision.file("tensorrt.onnx")


def _add_copy(bundle: Bundle, copy: onnx.ModelProto, precision: Precision, plugin: Plugin) -> Bundle:
    def write(path: Path) -> FileEntry:
        path.write_bytes(copy.SerializeToString(deterministic=True))
        return FileEntry(
            role="mesh",
            name=_copy_name(precision),
            sha256="",
            precision=precision,
            backend="tensorrt",
            recipe={"plugin": plugin},
            batch="dynamic",
        )

    return replace_file(bundle, _copy_name(precision), write)
