"""`build-engine --backend tensorrt`: a bundle gains an engine that was built here and proven equal to its network."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx

from jotr_deploy.bundle import Bundle, FileEntry, replace_file
from jotr_deploy.engines.derived_files import MESH_NETWORK, Original
from jotr_deploy.engines.fused_attention import standard_attention
from jotr_deploy.engines.int8 import for_tensorrt
from jotr_deploy.engines.tensorrt.build import BATCH, BATCHES, BuildError, Recipe, Shapes, build_plan, refuse_portable
from jotr_deploy.engines.tensorrt.inspector import Layers, inspect
from jotr_deploy.engines.tensorrt.onnx_copy import sampling_nodes, tensorrt_copy
from jotr_deploy.engines.tensorrt.plugin_form import default_plugin, register
from jotr_deploy.engines.tensorrt.rules import CHANGED, Finding, check
from jotr_deploy.engines.tensorrt.timing_cache import timing_cache_path
from jotr_deploy.engines.tensorrt.trtexec import polygraphy_command, trtexec_command
from jotr_deploy.engines.tensorrt.versions import Version, parse_version, text
from jotr_deploy.engines.verify import Difference, vertices_error
from jotr_deploy.errors import MissingDependency, choice, install
from jotr_deploy.plugins import DOMAIN, NAME
from jotr_deploy.plugins.kernel import SOURCE
from jotr_deploy.runtime.sessions.tensorrt_engine import (
    being_added,
    environment,
    mismatch,
    tensorrt,
    with_header,
)
from jotr_deploy.support.aliases import PhaseProgress, Say
from jotr_deploy.support.choices import PLUGINS, Plugin, Portable
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
    "parse_batches",
    "trtexec_command",
]

Batch = tuple[int, int, int]
USUAL_BATCH: Batch = (1, 4, 16)
ATTENTION = "Attention"


@dataclass(frozen=True)
class Options:
    """Optional settings of a build; see `build_engine`."""

    plugin: Plugin | None = None
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    optimization_level: int = 3
    fixed_batch: bool = False
    """True if the network may have a fixed batch."""
    portable: Portable | None = None


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
    polygraphy: str
    """Command line that compares the files in Polygraphy."""


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


def parse_batches(text: str) -> tuple[Batch, ...]:
    """Read what `parse_batch` reads, or "1,4,16": one range up to each of these sizes, with kernels chosen for it.

    >>> parse_batches("1,4,16")
    ((1, 1, 1), (2, 4, 4), (5, 16, 16))

    Raises:
        BuildError: it is neither.
    """
    if "," not in text:
        return (parse_batch(text),)
    sizes = text.split(",")
    if not all(size.isdecimal() for size in sizes):
        raise BuildError(f"--batch {text}: not a list of batch sizes", BATCHES)
    numbers = [0, *map(int, sizes)]
    if any(size <= smaller for smaller, size in itertools.pairwise(numbers)):
        raise BuildError(f"--batch {text}: the sizes do not increase", BATCHES)
    return tuple((smaller + 1, size, size) for smaller, size in itertools.pairwise(numbers))


def check_network(
    bundle: Bundle,
    precision: Precision | str = Precision.FP16,
    plugin: Plugin | None = None,
    target: Version | None = None,
    original: Original = MESH_NETWORK,
    attention: bool = False,
) -> list[Finding]:
    """Problems that TensorRT would have with the source of an engine; needs neither TensorRT nor a GPU.

    Args:
        bundle: as opened.
        precision: of the engine.
        plugin: form of the sampling operator; None assumes a plugin if the network has a node for it.
        target: TensorRT version to check for; None checks every supported version, or with `attention` the oldest that
            has its operator.
        original: network of the bundle.
        attention: every attention as one node of ONNX.

    Raises:
        JotrDeployError: this bundle has no such network, or such an engine of it is refused.
    """
    precision = Precision.of(precision)
    original.refuse("tensorrt", precision, plugin)
    if attention:
        target = target or CHANGED[ATTENTION].since
        _refuse_attention(original, target)
    network = _typed_network(bundle, precision, original, attention)
    copy = tensorrt_copy(network, plugin or ("aot" if sampling_nodes(network) else "none"))
    return check(copy, target, original.fixed_batch)


def build_engine(
    bundle: Bundle,
    *,
    precision: Precision | str = Precision.FP16,
    original: Original = MESH_NETWORK,
    batch: Batch | Sequence[Batch] | None = None,
    plugin: Plugin | None = None,
    portable: Portable | None = None,
    attention: bool = False,
    workspace_bytes: int | None = None,
    timing_cache: Path | None = None,
    optimization_level: int = 3,
    say: Say = lambda step: None,
    progress: PhaseProgress | None = None,
) -> Built:
    """Build, inspect and verify an engine for the current GPU, then put it into the bundle.

    Args:
        bundle: gains `mesh.<precision>.sm<capability>.engine`, or that of the other network, and the TensorRT copy of
            its ONNX.
        precision: "fp32", "fp16" or "bf16", written into the ONNX, or "int8" or "fp8" of a calibrated bundle.
        original: network of the bundle that it is built from.
        batch: smallest, best and largest number of people, for one range or several; kernels are chosen for the best
            of each. None is the fixed batch of the file, or `USUAL_BATCH`.
        plugin: sampling implementation; None takes the first available: "aot", "library", "none".
        portable: "same-capability" or "version": other machines that it is for; such an engine may be slower.
        attention: every attention as one node of ONNX, for TensorRT 10.14 and newer; the file has a name of its own.
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
    original.refuse("tensorrt", precision, plugin)
    source = original.entry(bundle, precision)
    installed = parse_version(tensorrt().__version__)  # before the network is prepared, which takes a while
    if attention:
        _refuse_attention(original, installed)
    network = _typed_network(bundle, precision, original, attention)
    batches = _batches(network, batch, source.name)
    _require_reference()
    options = Options(plugin, workspace_bytes, timing_cache, optimization_level, original.fixed_batch, portable)
    planned = plan_network(network, precision, batches, options, say, progress)
    form = "attention." if attention else ""
    entry = _engine_entry(original, source, precision, batches, planned, form)
    grown, differences = _add_engine(bundle, original, planned, precision, entry, batches, say)
    copy_entry = entry.model_copy(update={"built_with": {}, "batch": source.batch or "dynamic", "error_mm": None})
    if original.role == "mesh":
        copy_entry = copy_entry.model_copy(update={"recipe": {"plugin": planned.plugin}})
    onnx_copy = original.file(precision, f"{form}tensorrt.onnx")
    grown = _add_copy(grown, planned.copy, onnx_copy, copy_entry)
    engine, copy = bundle.path / entry.name, bundle.path / onnx_copy
    files = copy, engine, planned.recipe, planned.plugin, planned.library
    lines = trtexec_command(*files), polygraphy_command(*files)
    return Built(grown, engine, copy, planned.plugin, planned.layers, differences, *lines)


def plan_network(
    network: onnx.ModelProto,
    precision: Precision,
    batch: Batch | Sequence[Batch],
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
    refuse_portable(trt, options.portable)
    chosen = options.plugin or _default_plugin(trt, network, options, say)
    _refuse(check(tensorrt_copy(network, chosen), parse_version(trt.__version__), options.fixed_batch))
    here = environment()
    _refuse_hardware(precision, here)
    namespace, library = register(trt, network, chosen)
    copy = tensorrt_copy(network, chosen, namespace)
    cache = options.timing_cache or timing_cache_path(here, SOURCE if chosen == "aot" else None)
    profiles = tuple(filter(None, (_shapes(copy, each) for each in _several(batch))))
    recipe = Recipe(profiles, cache, options.workspace_bytes, options.optimization_level, options.portable)
    sampling = f", sampling by {PLUGINS[chosen]}" if sampling_nodes(network) else ""
    say(f"building {precision} for {here['gpu']} with TensorRT {here['tensorrt']}{sampling}")
    plan = build_plan(trt, copy.SerializeToString(deterministic=True), recipe, progress, say)
    layers = inspect(trt, plan, options.portable)
    if chosen != "none" and not layers.plugin:
        say(f"the inspector names no layer of {DOMAIN}::{NAME}: it was fused into another one")
    made = {"portable": options.portable} if options.portable else {}
    return Planned(plan, copy, chosen, library, layers, recipe, {**here, "plugin": chosen, **made})


def _default_plugin(trt: Any, network: onnx.ModelProto, options: Options, say: Say) -> Plugin:
    """As `default_plugin`, but standard operators where another TensorRT may load the engine."""
    return "none" if options.portable == "version" else default_plugin(trt, network, say)


def _several(batch: Batch | Sequence[Batch]) -> tuple[Batch, ...]:
    """One range of batch sizes as several."""
    return (cast(Batch, batch),) if isinstance(batch[0], int) else tuple(cast("Sequence[Batch]", batch))


# ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────


def _typed_network(
    bundle: Bundle, precision: Precision, original: Original, attention: bool = False
) -> onnx.ModelProto:
    typed = _typed(bundle, precision, original)
    return standard_attention(typed) if attention else typed


def _refuse_attention(original: Original, version: Version | None) -> None:
    """Refuse `--attention` for a network that has none, or for a TensorRT without its operator."""
    if original.role != "mesh":
        raise BuildError("--attention is a form of the mesh network", "leave it out")
    if version is not None and version not in CHANGED[ATTENTION]:
        raise BuildError(
            f"--attention: TensorRT {text(version)} does not have ONNX's operator {ATTENTION}",
            f"leave --attention out; it is for {CHANGED[ATTENTION]}",
        )


def _typed(bundle: Bundle, precision: Precision, original: Original) -> onnx.ModelProto:
    model = original.load(bundle, precision)
    if precision.calibrated:  # between the 8-bit products fp16, or attention would stay in unfused fp32 kernels
        return original.typed(for_tensorrt(model), Precision.FP16)
    return model if precision is Precision.FP32 else original.typed(model, precision)


def _batches(model: onnx.ModelProto, asked: Batch | Sequence[Batch] | None, name: str) -> tuple[Batch, ...]:
    """Ranges of batch sizes of an engine: the requested ones, or the fixed batch of the file."""
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    wanted = _several(asked or USUAL_BATCH)
    if not fixed:
        return wanted
    if asked is not None and wanted != ((fixed, fixed, fixed),):
        raise BuildError(f"--batch {_as_text(wanted)}: {name} takes {fixed} at once", "leave --batch out")
    return ((fixed, fixed, fixed),)


def _as_text(batches: Sequence[Batch]) -> str:
    """The ranges as `--batch` takes them; several by the largest of each."""
    if len(batches) == 1:
        return ":".join(map(str, batches[0]))
    return ",".join(str(largest) for _, _, largest in batches)


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
    """Shapes of the inputs with a dynamic batch."""
    shapes = {}
    for value in model.graph.input:
        first, *rest = (size.dim_value for size in value.type.tensor_type.shape.dim)
        if first:
            continue
        low, best, high = ((size, *rest) for size in batch)
        shapes[value.name] = (low, best, high)
    return shapes


# ── the files ────────────────────────────────────────────────────────────────────────────────────────────────────


def _engine_entry(
    original: Original, source: FileEntry, precision: Precision, batches: Sequence[Batch], planned: Planned, form: str
) -> FileEntry:
    """Manifest entry of an engine; that of a detector or pose network keeps the recipe of its source."""
    capability = planned.built_with["capability"].replace(".", "")
    made = {
        "plugin": planned.plugin,
        "optimization_level": planned.recipe.optimization_level,
        "workspace_bytes": planned.recipe.workspace_bytes,
    }
    return FileEntry(
        role=original.role,
        name=original.file(precision, f"{form}sm{capability}.engine"),
        sha256="",
        precision=precision,
        backend="tensorrt",
        recipe=made if original.role == "mesh" else source.recipe,
        batch=_as_text(batches),
        built_with=dict(planned.built_with),
    )


def _add_engine(
    bundle: Bundle,
    original: Original,
    planned: Planned,
    precision: Precision,
    entry: FileEntry,
    batches: Sequence[Batch],
    say: Say,
) -> tuple[Bundle, list[Difference]]:
    """Verified at the ends and the best of every range. Metadata, such as names of classes, go before the plan."""
    differences: list[Difference] = []
    metadata = {each.key: each.value for each in planned.copy.metadata_props}

    def write(path: Path) -> FileEntry:
        path.write_bytes(with_header(metadata, planned.plan))
        sizes = sorted({size for batch in batches for size in batch})
        say(f"comparing with ONNX Runtime{original.in_calls_of(sizes)}")
        what = f"the {precision} engine"
        with being_added(path, planned.built_with):
            differences.extend(original.measured(bundle, path, precision, sizes, what, device="cuda"))
        return entry.model_copy(update={"error_mm": vertices_error(differences)})

    return replace_file(bundle, entry.name, write), differences


def _add_copy(bundle: Bundle, copy: onnx.ModelProto, name: str, entry: FileEntry) -> Bundle:
    def write(path: Path) -> FileEntry:
        path.write_bytes(copy.SerializeToString(deterministic=True))
        return entry

    return replace_file(bundle, name, write)
