"""Rules of TensorRT's ONNX parser, for versions 10.3 to 11.4, checked without a GPU.

`RULES` has one row for each rule, with the versions that it applies to; those of quantised networks are in `qdq.py`.
An operator that a version drops or introduces gets a row in `CHANGED`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from jotr_deploy.engines.tensorrt.graph import Graph, Problem, Rule, is_quantiser
from jotr_deploy.engines.tensorrt.onnx_copy import newest_opset
from jotr_deploy.engines.tensorrt.qdq import RULES as QDQ_RULES
from jotr_deploy.engines.tensorrt.versions import EVERY, OLDEST, Version, Versions, text
from jotr_deploy.plugins import DOMAIN, NAME


@dataclass(frozen=True)
class Finding:
    """Place in a network that TensorRT would refuse or misread."""

    rule: str
    where: str
    """A node "name (operator)", a tensor, or "the model"."""
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.remedy}"


def check(model: onnx.ModelProto, target: Version | None = None, fixed_batch: bool = False) -> list[Finding]:
    """Everything in a network, or in its TensorRT copy, that breaks a rule; empty when TensorRT can parse it.

    Args:
        model: the network.
        target: the version that is to parse it; None asks for every version from `OLDEST` to `NEWEST`.
        fixed_batch: one number of rows is as good as any.
    """
    try:
        graph = Graph.of(model, target, fixed_batch)
    except onnx.shape_inference.InferenceError as error:
        text = " ".join(str(error).split())
        return [Finding("valid", "the model", text, "it is no valid ONNX: export it again")]
    return [
        Finding(rule.name, where, problem, rule.remedy)
        for rule in (*RULES, *QDQ_RULES)
        for where, problem in rule.found(graph)
    ]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators of the parsers, from their operator tables. An operator that a version drops ("TensorRT 12 drops Xor")
# stays here, since older versions still have it, and gets a row of `CHANGED` below.
OPERATORS = _words("""
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
    Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity
    InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max
    MaxPool Mean Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
""")


CHANGED: Mapping[str, Versions] = {
    # "Xor": Versions(until=(12, 0)),       TensorRT 12 drops Xor
    "Attention": Versions(since=(10, 14)),
}
"""Operators of `OPERATORS` that only some versions have; `versions.NEWEST` is the newest one whose table was read."""


def _opset(graph: Graph) -> Iterator[Problem]:
    version, newest = graph.opset, newest_opset(graph.target)
    if not 9 <= version <= newest:
        yield "the model", f"opset {version}; the parser of TensorRT {text(graph.target or OLDEST)} reads 9 to {newest}"
    elif version < 19 and any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes):
        yield "the model", f"opset {version}; scales have the type of the network from opset 19 only"


def _functions(graph: Graph) -> Iterator[Problem]:
    for function in graph.model.functions:
        if (function.domain, function.name) != (DOMAIN, NAME):
            yield f"{function.domain}::{function.name}", "a local function, which is called by name without its domain"


def _operators(graph: Graph) -> Iterator[Problem]:
    for node in graph.nodes:
        has = CHANGED.get(node.op_type, EVERY)
        if node.op_type not in OPERATORS:
            yield graph.where(node), "the parser has no such operator"
        elif not (has.all if graph.target is None else graph.target in has):
            yield graph.where(node), f"only the parser of {has} has this operator"
    for node in graph.others:
        if (node.domain, node.op_type) != (DOMAIN, NAME):
            taken = onnx.defs.has(node.op_type) or node.op_type.startswith("TRT_")
            fate = "is taken for TensorRT's own operator" if taken else "is unknown"
            yield graph.where(node), f"it {fate}: the parser ignores the domain {node.domain!r}"


_TYPES = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.UNDEFINED,  # not inferred: no violation can be shown
}


def _types(graph: Graph) -> Iterator[Problem]:
    quantised = {name for node in graph.quantisers for name in (*node.input, *node.output)}
    for name, kind in graph.types.items():
        ends = kind == TensorProto.UINT8 and name in graph.ends
        if kind not in _TYPES and not ends and name not in quantised:
            yield name, f"type {TensorProto.DataType.Name(kind)}"


def _mixed_types(graph: Graph) -> Iterator[Problem]:
    """Nodes with mixed input types: a strongly typed network has no implicit conversions."""
    for node in graph.nodes:
        if not onnx.defs.has(node.op_type) or is_quantiser(node):
            continue
        formal = onnx.defs.get_schema(node.op_type, graph.opset).inputs
        kinds: dict[str, set[int]] = {}
        for index, name in enumerate(node.input):
            parameter = formal[min(index, len(formal) - 1)]
            if graph.types.get(name) and (parameter.is_homogeneous or len(formal) > index):
                kinds.setdefault(parameter.type_str, set()).add(graph.types[name])
        for several in kinds.values():
            if len(several) > 1:
                yield graph.where(node), " and ".join(sorted(map(TensorProto.DataType.Name, several))) + " meet"


def _sampling(graph: Graph) -> Iterator[Problem]:
    for node in graph.others:
        if (node.domain, node.op_type) != (DOMAIN, NAME):
            continue
        features, points = graph.rank(node.input[0]), graph.rank(node.input[1])
        if features not in (5, None) or points not in (3, None):
            yield graph.where(node), f"features of rank {features} and points of rank {points}"
        if graph.types.get(node.input[1]) not in (TensorProto.FLOAT, None):
            kind = TensorProto.DataType.Name(graph.types[node.input[1]])
            yield graph.where(node), f"points of type {kind}"


def _dynamic(graph: Graph) -> Iterator[Problem]:
    """Inputs beyond what one profile can describe: one dynamic batch, first and with the same name everywhere."""
    batch = None
    for value in graph.model.graph.input:
        sizes = [size.dim_value or size.dim_param or "?" for size in value.type.tensor_type.shape.dim]
        if any(isinstance(size, str) for size in sizes[1:]):
            yield value.name, f"shape {sizes}: a dimension other than the first is dynamic"
        elif sizes and not isinstance(sizes[0], str) and graph.fixed_batch:
            continue
        elif not sizes or not isinstance(sizes[0], str):
            yield value.name, f"shape {sizes}: the batch is fixed"
        elif sizes[0] != (batch := batch or sizes[0]):
            yield value.name, f"shape {sizes}: another batch than {batch!r}"


_RANKS = {"GridSample": (4,), "MaxPool": (4, 5), "AveragePool": (4, 5), "Conv": (3, 4, 5), "ConvTranspose": (3, 4, 5)}


def _ranks(graph: Graph) -> Iterator[Problem]:
    for node in graph.nodes:
        rank = graph.rank(node.input[0]) if node.input else None
        allowed = _RANKS.get(node.op_type)
        if rank is not None and allowed and rank not in allowed:
            yield graph.where(node), f"input of rank {rank}, {' or '.join(map(str, allowed))} can be built"
        for name in node.output:
            if (graph.rank(name) or 0) > 8:
                yield graph.where(node), f"result of rank {graph.rank(name)}, TensorRT knows 8 dimensions"


# operator -> the input that must be known while the network is parsed
_CONSTANTS = {
    **dict.fromkeys(("Split", "CumSum", "OneHot", "TopK"), 1),
    **dict.fromkeys(("Slice", "Pad"), 3),
    **{name: 1 for name in OPERATORS if name.startswith("Reduce")},
}


_OLD_CONSTANTS = {"Squeeze": 1, "Unsqueeze": 1}


def _constants(graph: Graph) -> Iterator[Problem]:
    yield from _computed(graph, _CONSTANTS)


def _axes(graph: Graph) -> Iterator[Problem]:
    yield from _computed(graph, _OLD_CONSTANTS)


def _computed(graph: Graph, constants: Mapping[str, int]) -> Iterator[Problem]:
    for node in graph.nodes:
        index = constants.get(node.op_type, len(node.input))
        if index < len(node.input) and node.input[index] and graph.constant(node.input[index]) is None:
            yield graph.where(node), f"input {node.input[index]!r} is computed"


def _forms(graph: Graph) -> Iterator[Problem]:
    """Unsupported variants of operators that are supported in part."""
    for node in graph.nodes:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        more = len([name for name in node.output if name]) > 1
        if node.op_type in ("MaxPool", "AveragePool") and any(step != 1 for step in given.get("dilations", [])):
            yield graph.where(node), "pooling with dilations"
        if node.op_type in ("MaxPool", "LayerNormalization", "BatchNormalization", "Dropout") and more:
            yield graph.where(node), "more than its first output is used"
        if node.op_type == "GridSample" and given.get("mode", b"linear") not in (b"nearest", b"bilinear", b"bicubic"):
            yield graph.where(node), f"mode {given.get('mode', b'linear').decode()!r} is silently read as 'nearest'"
        if node.op_type == "ScatterND" and given.get("reduction", b"none") != b"none":
            yield graph.where(node), "scattering with a reduction"


def _einsum(graph: Graph) -> Iterator[Problem]:
    """Einsum equations with an ellipsis, a diagonal or more than two operands."""
    for node in graph.nodes:
        for attribute in node.attribute if node.op_type == "Einsum" else ():
            if attribute.name == "equation" and not _plain_einsum(attribute.s.decode()):
                yield graph.where(node), f"equation {attribute.s.decode()!r}"


def _plain_einsum(equation: str) -> bool:
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    return "." not in equation and len(terms) < 3 and all(len(set(term)) == len(term) for term in terms)


_FLOAT_ONLY = _words("""
    Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor Log Reciprocal Round Sigmoid Sin Sinh Softmax Sqrt
    Tan Tanh
""")


_INTEGERS = {TensorProto.INT32, TensorProto.INT64}


def _integers(graph: Graph) -> Iterator[Problem]:
    for node in graph.nodes:
        kinds = {graph.types.get(name) for name in node.input}
        if node.op_type in _FLOAT_ONLY and kinds & _INTEGERS:
            yield graph.where(node), "an integer operand"


def _powers(graph: Graph) -> Iterator[Problem]:
    for node in graph.nodes:
        if node.op_type == "Pow" and {graph.types.get(name) for name in node.input} & _INTEGERS:
            yield graph.where(node), "an integer operand"


# operator -> inputs that give a shape
_SHAPES = {
    "Reshape": (1,), "Expand": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2), "Slice": (1, 2), "Tile": (1,),
    "Resize": (3,), "Pad": (1,),
}  # fmt: skip
_SHAPE_ARITHMETIC = _words("""
    Abs Add Cast CastLike Concat ConstantOfShape Div Equal Expand Gather Greater Identity Less Max Min Mod Mul Neg Range
    ReduceMax ReduceMin ReduceProd ReduceSum Reshape Slice Split Squeeze Sub Unsqueeze Where
""")
_SHAPE_TYPES = {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}


def _shape_arithmetic(graph: Graph) -> Iterator[Problem]:
    """Violations of shape arithmetic: shapes must be integers computed from tensor shapes and constants alone."""
    for node in graph.nodes:
        for index in _SHAPES.get(node.op_type, ()):
            if index < len(node.input) and (reason := _no_shape(graph, node.input[index])):
                yield graph.where(node), reason


def _no_shape(graph: Graph, name: str) -> str | None:
    pending, seen = [name], {""}
    while pending:
        name = pending.pop()
        if name in seen or graph.constant(name) is not None:
            continue
        seen.add(name)
        producer = graph.producers.get(name)
        if graph.types.get(name, TensorProto.INT64) not in _SHAPE_TYPES:
            return f"its shape is computed in {TensorProto.DataType.Name(graph.types[name])} ({name})"
        if producer is None:
            return f"its shape depends on the values of the input {name!r}"
        if producer.op_type in ("Shape", "Size"):
            continue
        if producer.op_type not in _SHAPE_ARITHMETIC:
            return f"its shape depends on the values of {graph.where(producer)}"
        pending += producer.input
    return None


RULES: tuple[Rule, ...] = (
    Rule("opset", _opset, "export it with opset 19"),
    Rule("functions", _functions, "inline it (onnx.inliner)"),
    Rule("operators", _operators, "write it with standard operators"),
    Rule("types", _types, "cast it to float32 or int64 before the export"),
    Rule("mixed types", _mixed_types, "put a Cast on one of them"),
    Rule("sampling", _sampling, "give features [B,D,H,W,C] and float32 points [B,P,3]"),
    Rule("dynamic", _dynamic, "export it with fixed sizes and one dynamic batch dimension, the first of each input"),
    Rule("ranks", _ranks, "reshape around it, or write it with matrix products"),
    Rule("constants", _constants, "make it a constant of the model"),
    Rule("computed axes", _axes, "make it a constant of the model", Versions(until=(10, 7))),
    Rule("forms", _forms, "write it with other operators"),
    Rule("equations", _einsum, "write it with matrix products and transpositions", Versions(until=(10, 12))),
    Rule("integers", _integers, "cast to float32 before it"),
    Rule("integer powers", _powers, "cast to float32 before it", Versions(until=(10, 12))),
    Rule("shape arithmetic", _shape_arithmetic, "compute the shape in int64 from Shape and constants"),
)
