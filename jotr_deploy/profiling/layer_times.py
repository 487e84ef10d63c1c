"""`bench --layers`: time of a call by part of the network, and its distance from the lower bound."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from jotr_deploy.bundle import Bundle, FileEntry
from jotr_deploy.engines.low_precision import flops_of, tensor_types
from jotr_deploy.errors import JotrDeployError, MissingDependency, SessionError
from jotr_deploy.profiling import peaks
from jotr_deploy.profiling.timed_picture import open_scene
from jotr_deploy.runtime.sessions import Session, open_session
from jotr_deploy.runtime.sessions import onnxruntime as in_onnxruntime
from jotr_deploy.runtime.sessions import openvino as in_openvino
from jotr_deploy.runtime.sessions.session import Kernel
from jotr_deploy.support.aliases import Progress
from jotr_deploy.support.read_errors import read_onnx

CALLS = 20
HEAT_MAPS, GLUE = "heat maps", "glue"
"""Blocks without a name of their own: computation outside every module, and nodes that an engine inserts."""
_LARGE = ("backbone", "lifting", "fusion")
_ENDINGS = ("_nchwc", "_q", "_dq")  # that ONNX Runtime gives to the tensor a kernel ends with
_PROFILED = {"onnxruntime": in_onnxruntime.profiled, "openvino": in_openvino.profiled}


@dataclass(frozen=True)
class Block:
    """Block of the network."""

    name: str
    gflop: float
    ms: float  # median over calls of the sum of its kernels
    kernels: int


@dataclass(frozen=True)
class Layers:
    """Times of one file by block."""

    file: str
    backend: str
    blocks: tuple[Block, ...]  # in the order of the network
    kernels: tuple[Kernel, ...]  # medians over calls, the slowest first
    computing_ms: float  # its arithmetic, at the speed of a large matrix product in the same engine and type
    weights_ms: float  # reading its weights from memory once

    @property
    def ms(self) -> float:
        """Time of all kernels."""
        return sum(block.ms for block in self.blocks)

    @property
    def floor_ms(self) -> float:
        """Lower bound of the time of a call."""
        return max(self.computing_ms, self.weights_ms)


@dataclass(frozen=True)
class Profile:
    """Times of all files that a CPU engine runs."""

    batch: int
    files: tuple[Layers, ...]
    peaks: Mapping[str, float]  # "engine type" -> 1e9 operations a second
    memory_gb_per_s: float
    notes: tuple[str, ...]


def profile(
    bundle: Bundle,
    batch: int = 1,
    threads: int | None = None,
    progress: Progress = lambda step, done, total: None,
) -> Profile:
    """Run every mesh file with its engine's own profiler, on the picture in this package.

    Raises:
        BundleError: a file is missing or changed.
        SessionError, MissingDependency: no file can be run here.
    """
    entries = [entry for entry in bundle.manifest.files if entry.role == "mesh" and not entry.only_parsed]
    files, notes, found = [], [], dict[str, float]()
    failure: JotrDeployError | None = None
    with open_scene(None, None, bundle.manifest.model) as scene:
        for done, entry in enumerate(entries):
            progress(entry.name, done, len(entries))
            try:
                files.append(_layers(bundle, entry, scene.batch(batch), threads, found))
            except (SessionError, MissingDependency) as error:
                failure = error
                notes.append(f"{entry.name} left out: {error.cause}")
    if failure is not None and not files:
        raise failure
    if not files:
        bundle.entry("mesh")  # raises: there is none
    return Profile(batch, tuple(files), found, peaks.memory_gb_per_s(), tuple(notes))


def _layers(
    bundle: Bundle, entry: FileEntry, feeds: Mapping[str, np.ndarray], threads: int | None, found: dict[str, float]
) -> Layers:
    path, batch = bundle.file("mesh", entry.name), len(feeds["image"])
    if path.suffix != ".onnx":
        raise SessionError(f"{entry.name} is not a file for an engine on the CPU", "profile it with its own engine")
    with open_session(path, device="cpu", threads=threads) as session:
        backend, rest = _backend(session), _rest(entry, session)
    model = read_onnx(path)
    blocks, flops = blocks_of(model), Counter[tuple[str, str]]()
    types = tensor_types(model)
    quantised = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in model.graph.node:
        whole = len(node.input) > 1 and quantised.issuperset(node.input[:2])
        flops[blocks[node.output[0]], "int8" if whole else rest] += flops_of(node, types) * batch
    computing_ms = 0.0
    for precision in sorted({precision for _, precision in flops}):
        peak = peaks.product_gflops(backend, precision, threads)
        found[f"{backend} {precision}"] = peak
        computing_ms += sum(count for (_, kind), count in flops.items() if kind == precision) / peak / 1e6
    kernels = median_kernels(_PROFILED[backend](path, feeds, CALLS, threads))
    weights = sum(_bytes(tensor) for tensor in model.graph.initializer)
    return Layers(
        file=entry.name,
        backend=backend,
        blocks=tuple(_by_block(kernels, blocks, flops)),
        kernels=tuple(sorted(kernels, key=lambda kernel: -kernel.ms)),
        computing_ms=computing_ms,
        weights_ms=weights / peaks.memory_gb_per_s() / 1e6,
    )


def _backend(session: Session) -> str:
    return "openvino" if isinstance(session, in_openvino.OpenVINOSession) else "onnxruntime"


def _rest(entry: FileEntry, session: Session) -> str:
    """Type of everything not in eight bits."""
    halves = isinstance(session, in_openvino.OpenVINOSession) and session.halves
    return "bf16" if halves and entry.precision in ("bf16", "int8") else "fp32"


def _bytes(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data) or tensor.ByteSize()


def blocks_of(model: onnx.ModelProto) -> dict[str, str]:
    """Names of nodes and of their results -> block, in the order of the graph."""
    blocks = {}
    for node in model.graph.node:
        blocks.update(dict.fromkeys((node.name, *node.output), _block(node.name)))
    return blocks


def block_of(kernel: str, blocks: Mapping[str, str]) -> str:
    """Block of a kernel, by the engine's name for it: that of a node, a tensor, two joined ones, or a part of one."""
    for part in kernel.split("___"):
        name = part.partition("_token_")[0]
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        if name in blocks:
            return blocks[name]
        if "/" in name and _block(name) in blocks.values():
            return _block(name)
    return GLUE


def _block(node: str) -> str:
    """Block of a node, by the scope in its name: the module, and in large ones the module within it."""
    modules = node.rpartition("/")[0].partition("/")[0].split(".")
    return ".".join(modules[: 2 if modules[0] in _LARGE else 1]) or HEAT_MAPS


def median_kernels(calls: Sequence[Sequence[Kernel]]) -> list[Kernel]:
    """Median time of every kernel over calls; an engine may omit kernels that took no measurable time."""
    by_call: list[dict[tuple[str, str], float]] = []
    for steps in calls:
        by_call.append(defaultdict(float))
        for step in steps:
            by_call[-1][step.name, step.kind] += step.ms
    every = dict.fromkeys(key for found in by_call for key in found)
    return [Kernel(*key, float(np.median([found.get(key, 0.0) for found in by_call]))) for key in every]


def _by_block(
    kernels: Iterable[Kernel], blocks: Mapping[str, str], flops: Mapping[tuple[str, str], int]
) -> Iterable[Block]:
    found: dict[str, list[float]] = {name: [] for name in [*blocks.values(), GLUE]}
    for kernel in kernels:
        found[block_of(kernel.name, blocks)].append(kernel.ms)
    for name, times in found.items():
        gflop = sum(each for (block, _), each in flops.items() if block == name) / 1e9
        yield Block(name, gflop, sum(times), len(times))
