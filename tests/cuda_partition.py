"""Partition of a network between ONNX Runtime's CUDA provider and the CPU, worked out without a GPU.

ONNX Runtime itself optimises the graph on the CPU, as it does before it assigns nodes. Nodes are then assigned as it
does: to CUDA where that has a kernel for version and types, to the CPU where that is the only one, or where all inputs
are sizes that are on the CPU already. A tensor made on one side and read on the other is a copy.
`scripts/cuda_provider.py partition` compares this with the provider of the published packages.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
from onnx import helper, shape_inference

KERNELS = Path(__file__).parent / "contracts" / "onnxruntime-cuda-kernels.txt"

# Inputs and outputs that a CUDA kernel has in the CPU's memory (`InputMemoryType` of its registration).
CPU_INPUTS = {
    "Reshape": {1}, "Expand": {1}, "Slice": {1, 2, 3, 4}, "Squeeze": {1}, "Unsqueeze": {1}, "Split": {1}, "Tile": {1},
    "Range": {0, 1, 2}, "ConstantOfShape": {0}, "Clip": {1, 2}, "Resize": {1, 2, 3}, "Pad": {1, 2, 3}, "TopK": {1},
    "ReduceSum": {1}, "ReduceMean": {1}, "ReduceMax": {1}, "ReduceL2": {1}, "ReduceLogSumExp": {1},
}  # fmt: skip
CPU_OUTPUTS = {"Shape": {0}, "Size": {0}}
_SMALL = 100  # numbers in an initializer that may go to the CPU
_NEVER_MOVED = ("float16", "bfloat16", "float8")  # what computes in these types is no computation of sizes


@dataclass(frozen=True)
class Kernel:
    """A row of the list: first and last opset, and the types allowed for each type parameter."""

    first: int
    last: int | None
    types: dict[str, set[str]]

    def fits(self, since: int) -> bool:
        """True if it executes an operator whose schema is of this opset: a newer schema needs a newer kernel."""
        return self.first == since or (self.last is not None and self.first <= since <= self.last)


@functools.cache
def kernels() -> dict[str, list[Kernel]]:
    """The published library's own list, by operator (`scripts/cuda_provider.py`)."""
    found: dict[str, list[Kernel]] = {}
    for line in KERNELS.read_text().splitlines():
        if line and not line.startswith("#"):
            operator, opsets, *types = line.split()
            first, _, last = opsets.partition("-")
            by_parameter = {name: set(words.split(",")) for name, _, words in (word.partition("=") for word in types)}
            found.setdefault(operator, []).append(Kernel(int(first), int(last) if last else None, by_parameter))
    return found


@dataclass(frozen=True)
class Partition:
    """Nodes without a kernel for CUDA, tensors copied, and nodes that compute sizes on the CPU."""

    without_kernel: list[str]
    copies: list[str]
    sizes: list[str]


def optimised(path: Path, folder: Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime is about to assign, functions inlined and constants folded."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _without_casts_for_the_cpu(onnx.load(folder / "optimised.onnx"))


def _without_casts_for_the_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """Undo the casts around float16 nodes that the CPU has no kernel for, which CUDA's graph does not get."""
    inserted = {node.output[0]: node.input[0] for node in model.graph.node if node.name.startswith("InsertedPrecision")}
    results = {value.name for value in model.graph.output}

    def source(name: str) -> str:
        while name in inserted and name not in results:
            name = inserted[name]
        return name

    kept = [node for node in model.graph.node if not (node.output[0] in inserted and node.output[0] not in results)]
    for node in kept:
        node.input[:] = [source(name) for name in node.input]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(kept)
    return model


def partition(model: onnx.ModelProto) -> Partition:
    """Assign every node of an optimised graph, in its order."""
    graph, types = model.graph, _types(model)
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    stored = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    given = {value.name for value in graph.input}
    lost = {node.output[0] for node in graph.node if not _has_kernel(node, opset, types)}
    on_cpu_tensors: set[str] = set()
    sizes: set[str] = set()
    # ONNX Runtime walks from tensors on the CPU to their readers; in topological order, one pass does the same.
    for node in graph.node:
        if node.output[0] in lost:
            on_cpu_tensors.update(node.output)
        elif on_cpu_tensors.intersection(node.input) and _computes_sizes(node, types, stored, given, on_cpu_tensors):
            sizes.add(node.output[0])
            on_cpu_tensors.update(node.output)
        else:
            on_cpu_tensors.update(node.output[slot] for slot in CPU_OUTPUTS.get(node.op_type, ()))
    copies = sorted(set(_copies(graph, lost | sizes, on_cpu_tensors)))
    return Partition(
        [f"{node.op_type} ({node.name})" for node in graph.node if node.output[0] in lost],
        copies,
        [f"{node.op_type} ({node.name})" for node in graph.node if node.output[0] in sizes],
    )


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """Element type of every tensor, as ONNX Runtime writes it."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    kinds.update((tensor.name, tensor.data_type) for tensor in inferred.initializer)
    return {name: helper.tensor_dtype_to_string(kind).partition(".")[2].lower() for name, kind in kinds.items()}


def _has_kernel(node: onnx.NodeProto, opset: int, types: dict[str, str]) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    wanted = dict(_parameters(node, schema, types))
    return any(
        kernel.fits(schema.since_version)
        and all(wanted[name] in allowed for name, allowed in kernel.types.items() if name in wanted)
        for kernel in kernels().get(node.op_type, [])
    )


def _parameters(node: onnx.NodeProto, schema: onnx.defs.OpSchema, types: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Type parameters of a schema and the types they have at a node."""
    for formals, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for slot, name in enumerate(names):
            if name:
                yield formals[min(slot, len(formals) - 1)].type_str, types[name]


def _computes_sizes(
    node: onnx.NodeProto, types: dict[str, str], stored: dict[str, int], given: set[str], on_cpu: set[str]
) -> bool:
    """True if all that a node reads is on the CPU already, and not because its kernel for CUDA wants it there."""
    for slot, name in enumerate(node.input):
        if name and types[name].startswith(_NEVER_MOVED):
            return False
        if not name or stored.get(name, _SMALL + 1) <= _SMALL or name in given:
            continue
        if name not in on_cpu or slot in CPU_INPUTS.get(node.op_type, ()):
            return False
    return True


def _copies(graph: onnx.GraphProto, on_cpu: set[str], on_cpu_tensors: set[str]) -> Iterator[str]:
    made = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name in made:
                wanted_on_cpu = node.output[0] in on_cpu or slot in CPU_INPUTS.get(node.op_type, ())
                if wanted_on_cpu != (name in on_cpu_tensors):
                    yield f"{name} to {'the CPU' if wanted_on_cpu else 'CUDA'} for {node.op_type}"
