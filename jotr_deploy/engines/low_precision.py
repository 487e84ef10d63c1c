"""Low precision written into the ONNX: a strongly typed copy of a network, the nodes of ours typed by their scope.

The file carries every type itself, so an engine has none left to choose: TensorRT builds it strongly typed, and plain
ONNX Runtime executes the fp16 form. Inputs and outputs stay float32: the contract of the file does not change.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from jotr_deploy.errors import BundleError
from jotr_deploy.plugins import NAME
from jotr_deploy.support.precisions import Precision

Rule = Literal["low", "full", "widest"]

# The one table of types. A node's scope is its name up to the slash; the longest row that is the scope or one of its
# parents decides: "low" computes in the low type, "full" in float32, "widest" in float32 if any computed input is.
SCOPES: Mapping[str, Rule] = {
    "": "full",  # heat maps: exponents of squared distances up to 650
    "backbone": "low",
    "lifting": "low",
    "fusion": "low",
    "fusion.decoder": "widest",  # between its layers tokens and coordinates meet
    "fusion.decoder.layers": "low",
    "fusion.decoder.memory_kv": "low",
    "fusion.decoder.sampled_k": "low",
    "fusion.decoder.sampled_v": "low",
    "fusion.decoder.fc_pos_3d": "low",
    "fusion.decoder.fc_pos_3d.0": "full",  # takes logits of coordinates
    "fusion.decoder.joint_img_regress": "full",
    "heads": "full",
    "vposer": "full",
    "body": "full",
}

# Within "low" rows. A norm sums squares, and a strongly typed TensorRT network has no say in the type of these sums but
# the type of the input (its parser passes over `stash_type`). The residual sums between norms are float32 with them:
# that takes no cast more.
OPERATORS: Mapping[str, Rule] = {"LayerNormalization": "full", "Add": "widest"}

# Inputs that an operator wants in float32 whatever it computes in: the points of the sampler.
FULL_INPUTS = {NAME: (1,)}

FLOAT = int(TensorProto.FLOAT)
LOW_TYPES = {Precision.FP16: int(TensorProto.FLOAT16), Precision.BF16: int(TensorProto.BFLOAT16)}
_ONNX_NAMES = {FLOAT: "float"} | {kind: name.numpy_type for name, kind in LOW_TYPES.items()}
TYPE_NAMES = {FLOAT: Precision.FP32} | {kind: name for name, kind in LOW_TYPES.items()}

LARGEST = {LOW_TYPES[Precision.FP16]: 65504.0, LOW_TYPES[Precision.BF16]: 3.3895e38}

# ONNX has bfloat16 convolutions from opset 22; no operator of this network changed its meaning between the two.
OPSETS = {Precision.FP16: 19, Precision.BF16: 22}


def to_low_precision(
    model: onnx.ModelProto, precision: Precision, scopes: Mapping[str, Rule] = SCOPES, of_others: bool = False
) -> onnx.ModelProto:
    """A strongly typed copy of a network: checked, and deterministic to the byte.

    Args:
        model: what `export_onnx` gives; its local function is kept and takes its type from its inputs. Or a network
            of others, of standard operators without subgraphs.
        precision: the type of what the table calls low.
        scopes: the table.
        of_others: a network that is not ours: its operators may mean something else in another opset, so that stays,
            and where they say a type themselves, as casts do, they keep it.

    Raises:
        BundleError: a low row of the table names no node, or a weight is beyond the range of the low type.
    """
    floats = {name for name, value in tensor_types(model).items() if value.elem_type == FLOAT}
    opset = next(opset.version for opset in model.opset_import if opset.domain == "")
    opset = opset if of_others else OPSETS[precision]
    kinds = _plan(model.graph, floats, LOW_TYPES[precision], scopes, opset, of_others)
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    del typed.graph.value_info[:], typed.graph.node[:], typed.graph.initializer[:]
    _rewrite(model.graph, typed.graph, kinds, floats, opset)
    for holder in (typed, *typed.functions):
        for imported in holder.opset_import:
            if imported.domain == "":
                imported.version = opset
    onnx.checker.check_model(typed, full_check=True)
    found = tensor_types(typed)
    for node, kind in zip(model.graph.node, kinds, strict=True):
        if any(name in floats and found[name].elem_type != kind for name in node.output):
            raise RuntimeError(f"{node.name} does not compute in {TYPE_NAMES[kind]}")
    return typed


def row_of(node: onnx.NodeProto, scopes: Mapping[str, Rule] = SCOPES) -> str:
    """The row of the table that types a node."""
    return max((row for row in scopes if not row or f"{_scope(node)}.".startswith(f"{row}.")), key=len)


def tensor_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Element type and shape of every tensor of the graph, inferred strictly."""
    graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.input, *graph.output)}
    for tensor in graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
    return types


def _scope(node: onnx.NodeProto) -> str:
    return str(node.name.rpartition("/")[0])


def _plan(
    graph: onnx.GraphProto, floats: set[str], low: int, scopes: Mapping[str, Rule], opset: int, of_others: bool
) -> list[int]:
    """The type each node computes in, in the order of the graph."""
    rows = [row_of(node, scopes) for node in graph.node]
    lost = [row for row, rule in scopes.items() if rule == "low" and row not in rows]
    if lost:
        raise BundleError(f"no node of {', '.join(lost)}: not a mesh network of this version", "export it again")
    weights, outputs = {tensor.name for tensor in graph.initializer}, {value.name for value in graph.output}
    kind_of = {value.name: FLOAT for value in graph.input}
    kinds = []
    for node, row in zip(graph.node, rows, strict=True):
        rule = scopes[row]
        if rule == "low":
            rule = OPERATORS.get(node.op_type, rule)
        if rule == "widest":
            wanted = [name for _, name, kind in _float_inputs(node, low, floats, opset) if kind == low]
            rule = "low" if {kind_of[name] for name in wanted if name not in weights} == {low} else "full"
        lowered = rule == "low" and outputs.isdisjoint(node.output)
        lowered = lowered and (not of_others or _follows(node, low, floats, opset))
        kinds.append(low if lowered else FLOAT)
        kind_of.update(dict.fromkeys(node.output, kinds[-1]))
    return kinds


def _follows(node: onnx.NodeProto, kind: int, floats: set[str], opset: int) -> bool:
    """True if a node's results have the type of its float inputs, unlike those of casts and constants."""
    if node.op_type == "Cast" or floats.isdisjoint(node.input):
        return False
    return all(_allows(node, "outputs", slot, kind, opset) for slot, name in enumerate(node.output) if name in floats)


def _allows(node: onnx.NodeProto, side: Literal["inputs", "outputs"], slot: int, kind: int, opset: int) -> bool:
    """True if an operator allows a type for this input or output; the scales of a Resize, for example, are float32."""
    if not onnx.defs.has(node.op_type, node.domain):
        return True
    formal = getattr(onnx.defs.get_schema(node.op_type, opset, node.domain), side)
    return f"tensor({_ONNX_NAMES[kind]})" in formal[min(slot, len(formal) - 1)].types


def _float_inputs(node: onnx.NodeProto, kind: int, floats: set[str], opset: int) -> Iterator[tuple[int, str, int]]:
    """Slot, tensor and wanted type of the inputs of a node that computes in `kind`."""
    for slot, name in enumerate(node.input):
        if name in floats:
            full = slot in FULL_INPUTS.get(node.op_type, ()) or not _allows(node, "inputs", slot, kind, opset)
            yield slot, name, FLOAT if full else kind


def _rewrite(graph: onnx.GraphProto, typed: onnx.GraphProto, kinds: list[int], floats: set[str], opset: int) -> None:
    """Fill `typed` with the nodes and weights of `graph`, each in its type; one cast a tensor where types meet."""
    weights = {tensor.name for tensor in graph.initializer if tensor.name in floats}
    names = {name: {FLOAT: name} for name in (*weights, *(value.name for value in graph.input))}  # own type first
    scales = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    read, casts = set(), Counter[str]()
    for plain, kind in zip(graph.node, kinds, strict=True):
        node = onnx.NodeProto()
        node.CopyFrom(plain)
        for slot, name, wanted in _float_inputs(plain, kind, floats, opset):
            known = names[name]
            if wanted not in known:
                source, known[wanted] = next(iter(known.values())), f"{name}.{TYPE_NAMES[wanted]}"
                if name not in weights:
                    label = f"{_scope(plain)}/Cast_{casts[_scope(plain)]}"
                    casts[_scope(plain)] += 1
                    typed.node.append(helper.make_node("Cast", [source], [known[wanted]], label, to=wanted))
            node.input[slot] = known[wanted]
            read.add(known[wanted])
        typed.node.append(node)
        names.update((output, {kind: output}) for output in plain.output)
    for tensor in graph.initializer:
        if tensor.name not in weights:
            typed.initializer.append(tensor)
            continue
        for kind, name in names[tensor.name].items():
            if name in read:
                typed.initializer.append(
                    tensor if kind == FLOAT else _lowered(tensor, name, kind, tensor.name in scales)
                )


def _lowered(tensor: TensorProto, name: str, kind: int, positive: bool = False) -> TensorProto:
    """Float32 weight rounded to the nearest number of the low type; values below its smallest become zero.

    With `positive`, the smallest number instead: the scale of a channel that is nearly zero must not be zero.
    """
    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0))
    if not largest <= LARGEST[kind]:
        raise BundleError(
            f"weight {tensor.name} holds {largest:g}, beyond the range of {TYPE_NAMES[kind]}",
            "use fp32" if kind == LOW_TYPES[Precision.BF16] else "use bf16 or fp32",
        )
    dtype: np.dtype[Any] = np.dtype(np.float16 if kind == LOW_TYPES[Precision.FP16] else ml_dtypes.bfloat16)
    low = values.astype(dtype)
    if positive:
        low = np.maximum(low, ml_dtypes.finfo(dtype).smallest_subnormal)
    return numpy_helper.from_array(low, name)


def emulate(typed: onnx.ModelProto) -> onnx.ModelProto:
    """Emulation without low-precision kernels: float32 arithmetic, with every low tensor rounded to its type.

    Shows the drift of a type that a runtime lacks (bfloat16 in ONNX Runtime on a CPU), or whose kernels it replaces
    by wider ones (its float16). A device that fuses operators rounds less often.
    """
    kinds = {name: value.elem_type for name, value in tensor_types(typed).items()}
    low = {name: kind for name, kind in kinds.items() if kind in LOW_TYPES.values()}
    model = onnx.ModelProto()
    model.CopyFrom(typed)
    del model.graph.node[:]
    for tensor in model.graph.initializer:
        if tensor.name in low:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in typed.graph.node:
        copy = model.graph.node.add()
        copy.CopyFrom(node)
        if node.op_type == "Cast":
            copy.CopyFrom(helper.make_node("Identity", node.input, node.output, node.name))
        for slot, name in enumerate(node.output):
            if name in low:
                exact, rounded = f"{name}.exact", f"{name}.rounded"
                copy.output[slot] = exact
                model.graph.node.append(helper.make_node("Cast", [exact], [rounded], f"{name}/Round", to=low[name]))
                model.graph.node.append(helper.make_node("Cast", [rounded], [name], f"{name}/Widen", to=FLOAT))
    onnx.checker.check_model(model, full_check=True)
    return model


@dataclass(frozen=True)
class Typing:
    """Totals of one row of the table in one type, at batch 1."""

    scope: str
    type: str  # fp32, fp16, bf16; "cast" for the casts
    nodes: int
    weights: int  # numbers held
    flops: int  # of convolutions, matrix products and sampling; a multiply-add is two


def typing_report(model: onnx.ModelProto) -> list[Typing]:
    """Nodes, weights and arithmetic by row of the table and type, counted from the inferred types."""
    types = tensor_types(model)
    unseen = {tensor.name for tensor in model.graph.initializer}
    nodes, weights, flops = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for node in model.graph.node:
        row, result = row_of(node), types[node.output[0]]
        if result.elem_type in TYPE_NAMES:
            key = row, "cast" if node.op_type == "Cast" else TYPE_NAMES[result.elem_type]
            nodes[key] += 1
            flops[key] += flops_of(node, types)
        for name in unseen.intersection(node.input):
            unseen.remove(name)
            if types[name].elem_type in TYPE_NAMES:
                weights[row, TYPE_NAMES[types[name].elem_type]] += math.prod(_shape(types[name]))
    keys = sorted(nodes | weights, key=lambda key: (list(SCOPES).index(key[0]), key[1]))
    return [Typing(*key, nodes[key], weights[key], flops[key]) for key in keys]


def format_typing(rows: list[Typing]) -> str:
    """The report as a table."""
    lines = [f"{'scope':34}{'type':>6}{'nodes':>7}{'weights':>12}{'MFLOP':>10}"]
    for row in rows:
        name = row.scope or "(heat maps)"
        lines.append(f"{name:34}{row.type:>6}{row.nodes:>7}{row.weights:>12,}{row.flops / 1e6:>10,.1f}")
    return "\n".join(lines)


def _shape(value: onnx.TypeProto.Tensor) -> list[int]:
    """Shape with unknown sizes, which are the batch, taken as 1."""
    return [dim.dim_value or 1 for dim in value.shape.dim]


def flops_of(node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto.Tensor]) -> int:
    """Arithmetic of a node at batch 1: convolutions, matrix products, attention, sampling; a multiply-add is two."""
    results = math.prod(_shape(types[node.output[0]]))
    if node.op_type == "Conv":
        return 2 * results * math.prod(_shape(types[node.input[1]])[1:])
    if node.op_type in ("MatMul", "Gemm"):
        return 2 * results * _shape(types[node.input[0]])[-1]
    if node.op_type == "MultiHeadAttention":  # scores of all query-key pairs, and the weighted values
        return 2 * 2 * results * _shape(types[node.input[1]])[1]
    return 2 * 8 * results if node.op_type == NAME else 0
