"""The typing pass: every type where the table wants it, a valid file, and a mesh that stays where it was."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from golden_case import SEED, network, tiny_golden
from onnx import numpy_helper
from tiny import TINY

from jotr_deploy.engines.low_precision import (
    FLOAT,
    LOW_TYPES,
    TYPE_NAMES,
    Typing,
    emulate,
    format_typing,
    row_of,
    tensor_types,
    to_low_precision,
    typing_report,
)
from jotr_deploy.engines.verify import Network, measure, random_crops, require
from jotr_deploy.errors import BundleError
from jotr_deploy.export.to_bundle import torch_network
from jotr_deploy.model.jotr import JOTR
from jotr_deploy.plugins import NAME
from jotr_deploy.plugins.onnx_function import inline
from jotr_deploy.support.precisions import LIMITS, Precision

PRECISIONS: tuple[Precision, ...] = (Precision.FP16, Precision.BF16)
pytestmark = pytest.mark.slow

LOW_ROWS = (
    "backbone", "lifting", "fusion", "fusion.decoder.layers", "fusion.decoder.memory_kv", "fusion.decoder.sampled_k",
    "fusion.decoder.sampled_v", "fusion.decoder.fc_pos_3d",
)  # fmt: skip
FULL_ROWS = ("", "fusion.decoder.fc_pos_3d.0", "fusion.decoder.joint_img_regress", "heads", "vposer", "body")


@dataclass(frozen=True)
class Case:
    torch: JOTR
    plain: onnx.ModelProto
    typed: dict[str, onnx.ModelProto]


def case(model: JOTR, exported: Path, precisions: tuple[Precision, ...]) -> Case:
    plain = onnx.load(exported)
    return Case(model, plain, {precision: to_low_precision(plain, precision) for precision in precisions})


@pytest.fixture(scope="module")
def tiny(tiny_golden_file: Path) -> Case:
    return case(tiny_golden(), tiny_golden_file, PRECISIONS)


@pytest.fixture(scope="module")
def published(golden_file: Path) -> Case:
    """The published network's size, weights by formula."""
    return case(network(SEED), golden_file, (Precision.FP16,))


def runtime(model: onnx.ModelProto) -> Network:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def hand_made(body: str, scopes: list[str]) -> onnx.ModelProto:
    """A model in ONNX's text form, its nodes named by these scopes."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 19]> agraph {body}')
    for node, scope in zip(model.graph.node, scopes, strict=True):
        node.name = f"{scope}/{node.op_type}"
    return model


# ---- what it costs


def test_the_fp16_file_stays_within_the_limits_in_onnx_runtime(tiny: Case) -> None:
    require(measure(torch_network(tiny.torch), runtime(tiny.typed["fp16"]), TINY), Precision.FP16, "mesh.fp16.onnx")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounding_every_low_value_stays_within_the_limits(tiny: Case, precision: Precision) -> None:
    emulated = runtime(emulate(tiny.typed[precision]))
    require(measure(torch_network(tiny.torch), emulated, TINY), precision, "emulated")


def test_an_inlined_network_is_typed_too_its_sampling_in_float32(tiny: Case) -> None:
    typed = to_low_precision(inline(tiny.plain), "fp16")
    require(measure(runtime(tiny.plain), runtime(typed), TINY, (3,)), Precision.FP16, "inlined")


def test_the_published_network_drifts_by_a_millimetre(published: Case) -> None:
    """Weights by formula amplify: float32 itself drifts eight times as far as in a network before training."""
    config = published.torch.config
    rows = measure(torch_network(published.torch), runtime(published.typed["fp16"]), config, (1, 3))
    assert {row.batch for row in rows} == {1, 3}
    for row in rows:
        _, limit = LIMITS["fp16"][row.output]
        assert row.finite
        assert row.mean < 2 * limit, row


@pytest.mark.parametrize("size", ["tiny", "published"])
def test_odd_inputs_give_finite_outputs(request: pytest.FixtureRequest, size: str) -> None:
    asked: Case = request.getfixturevalue(size)
    odd = {
        "nothing odd": ("image", ...),
        "black": ("image", 0),
        "white": ("image", 1),
        "no joints": ("joints_mask", 0),
        "far joints": ("joints", 1e6),
        "joints on the border": ("joints", asked.torch.config.heatmap_side),
    }
    feeds = random_crops(asked.torch.config, len(odd))
    for person, (name, value) in enumerate(odd.values()):
        if value is not ...:
            feeds[name][person] = value
    for output, found in runtime(asked.typed["fp16"])(feeds).items():
        finite = np.isfinite(found).reshape(len(odd), -1).all(1)
        assert finite.all(), (output, np.array(list(odd))[~finite])


def test_nearly_all_arithmetic_of_the_published_network_is_low(published: Case) -> None:
    rows = typing_report(published.typed["fp16"])
    assert sum(row.flops for row in rows if row.type == "fp16") > 0.998 * sum(row.flops for row in rows)


def test_the_published_file_is_nearly_half(published: Case) -> None:
    weights = {t.name for t in published.typed["fp16"].graph.initializer if t.data_type == LOW_TYPES["fp16"]}
    saved = sum(
        2 * numpy_helper.to_array(t).size for t in published.plain.graph.initializer if f"{t.name}.fp16" in weights
    )
    plain, typed = published.plain.ByteSize(), published.typed["fp16"].ByteSize()
    assert typed == pytest.approx(plain - saved, rel=1e-3)
    assert typed < 0.57 * plain  # the body, a quarter of what is left, stays float32


# ---- which types


@pytest.mark.parametrize("precision", PRECISIONS)
def test_inputs_and_outputs_do_not_change(tiny: Case, precision: Precision) -> None:
    typed = tiny.typed[precision].graph
    assert list(typed.input) == list(tiny.plain.graph.input)
    assert list(typed.output) == list(tiny.plain.graph.output)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_all_arithmetic_of_low_rows_is_low(tiny: Case, precision: Precision) -> None:
    rows = typing_report(tiny.typed[precision])
    for row in LOW_ROWS:
        assert any(r.scope == row and r.type == precision and r.nodes for r in rows), row
    assert [r for r in rows if r.scope in LOW_ROWS and r.type == "fp32" and r.flops] == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_norms_and_residual_sums_are_float32_in_low_rows(tiny: Case, precision: Precision) -> None:
    typed = tiny.typed[precision]
    types = tensor_types(typed)
    wide = {n.op_type for n in typed.graph.node if row_of(n) in LOW_ROWS and types[n.output[0]].elem_type == FLOAT}
    assert wide == {"LayerNormalization", "Add", "Cast"}
    norms = [n for n in typed.graph.node if n.op_type == "LayerNormalization"]
    assert norms
    assert {types[name].elem_type for node in norms for name in node.input} == {FLOAT}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_that_stay_full_hold_no_low_value(tiny: Case, precision: Precision) -> None:
    typed = tiny.typed[precision]
    types = tensor_types(typed)
    nodes = [node for node in typed.graph.node if row_of(node) in FULL_ROWS and node.op_type != "Cast"]
    for row in FULL_ROWS:
        assert any(row_of(node) == row for node in nodes), row
    for node in nodes:
        assert not {types[name].elem_type for name in (*node.input, *node.output)} & set(LOW_TYPES.values()), node.name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_coordinates_between_decoder_layers_are_float32(tiny: Case, precision: Precision) -> None:
    typed = tiny.typed[precision]
    types = tensor_types(typed)
    found = {n.op_type: types[n.output[0]].elem_type for n in typed.graph.node if row_of(n) == "fusion.decoder"}
    for operator in ("Sigmoid", "Log", "Div", "Clip", "Pow"):
        assert found[operator] == FLOAT, operator


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_sampler_takes_low_features_and_float_points(tiny: Case, precision: Precision) -> None:
    typed, low = tiny.typed[precision], LOW_TYPES[precision]
    types = tensor_types(typed)
    samplers = [node for node in typed.graph.node if node.op_type == NAME]
    assert len(samplers) == TINY.decoder_layers - 1
    for node in samplers:
        assert [types[name].elem_type for name in (*node.input, *node.output)] == [low, FLOAT, low]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_types_contradict_no_operator(tiny: Case, precision: Precision) -> None:
    assert contradictions(inline(tiny.typed[precision])) == []


def contradictions(model: onnx.ModelProto) -> list[str]:
    """Nodes whose tensors differ where their operator wants one type, or have a type it does not know."""
    types, wrong = tensor_types(model), []
    spelled = {kind: f"tensor({onnx.TensorProto.DataType.Name(kind).lower()})" for kind in (1, 6, 7, 9, 10, 16)}
    for node in model.graph.node:
        schema = onnx.defs.get_schema(node.op_type, model.opset_import[0].version)
        allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
        given: defaultdict[str, set[str]] = defaultdict(set)
        for formals, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
            for slot, name in enumerate(names):
                if name:
                    formal = formals[min(slot, len(formals) - 1)]
                    given[formal.type_str].add(spelled[types[name].elem_type])
        wrong += [
            node.name for kind, found in given.items() if len(found) > 1 or not found <= allowed.get(kind, {kind})
        ]
    return wrong


# ---- the file


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_tensor_is_cast_once_and_never_back(tiny: Case, precision: Precision) -> None:
    casts = [node for node in tiny.typed[precision].graph.node if node.op_type == "Cast"]
    read = [node.input[0] for node in casts]
    assert len(set(read)) == len(read)
    assert not set(read) & {node.output[0] for node in casts}
    assert not set(read) & {tensor.name for tensor in tiny.typed[precision].graph.initializer}
    norms = sum(node.op_type == "LayerNormalization" for node in tiny.plain.graph.node)
    assert len(casts) < 2 * norms


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_pass_is_deterministic_and_leaves_its_input_alone(tiny: Case, precision: Precision) -> None:
    before = tiny.plain.SerializeToString(deterministic=True)
    again = to_low_precision(tiny.plain, precision)
    assert again.SerializeToString(deterministic=True) == tiny.typed[precision].SerializeToString(deterministic=True)
    assert tiny.plain.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(("precision", "opset"), [("fp16", 19), ("bf16", 22)])
def test_function_names_and_opset_survive(tiny: Case, precision: Precision, opset: int) -> None:
    typed = tiny.typed[precision]
    assert [function.name for function in typed.functions] == [NAME]
    standard = [o.version for holder in (typed, *typed.functions) for o in holder.opset_import if o.domain == ""]
    assert standard == [opset, opset]
    assert len({node.name for node in typed.graph.node}) == len(typed.graph.node)
    assert [n.name for n in typed.graph.node if n.op_type != "Cast"] == [n.name for n in tiny.plain.graph.node]
    assert not typed.graph.value_info
    for holder in (typed, typed.graph, *typed.graph.node):
        assert not holder.metadata_props
        assert not holder.doc_string


def test_integers_are_the_same(tiny: Case) -> None:
    def integers(model: onnx.ModelProto) -> dict[str, bytes]:
        kept = (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT64)
        return {t.name: t.SerializeToString(deterministic=True) for t in kept}

    assert integers(tiny.typed["fp16"]) == integers(tiny.plain)


# ---- weights


ONE_WEIGHT = (
    "(float[batch,5] x) => (float[batch,5] y) <float[5] w = {1, 1, 1, 1, 1}> { a = Mul (x, w)  y = Identity (a) }"
)


def with_weight(values: list[float]) -> onnx.ModelProto:
    model = hand_made(ONE_WEIGHT, ["low", "out"])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(values, np.float32), "w"))
    return model


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize(
    "values",
    [
        pytest.param([1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8], id="ties to even"),
        pytest.param([65504.0, -65504.0, 65519.0 / 2, 0.1, -0.0], id="largest"),
        pytest.param([6e-8, 2.9e-8, -1e-5, 1e-30, 1e-45], id="tiny"),
    ],
)
def test_weights_are_rounded_to_nearest(precision: Precision, dtype: torch.dtype, values: list[float]) -> None:
    typed = to_low_precision(with_weight(values), precision, {"": "full", "low": "low"})
    (weight,) = typed.graph.initializer
    found = numpy_helper.to_array(weight).astype(np.float32)
    assert (weight.name, weight.data_type) == (f"w.{precision}", LOW_TYPES[precision])
    np.testing.assert_array_equal(found, torch.tensor(values).to(dtype).float().numpy())


@pytest.mark.parametrize(
    ("precision", "value", "message"),
    [
        ("fp16", 70000.0, "weight w holds 70000, beyond the range of fp16\nuse bf16 or fp32"),
        ("fp16", -1e6, "weight w holds 1e+06, beyond the range of fp16\nuse bf16 or fp32"),
        ("fp16", np.nan, "weight w holds nan, beyond the range of fp16\nuse bf16 or fp32"),
        ("bf16", np.inf, "weight w holds inf, beyond the range of bf16\nuse fp32"),
    ],
)
def test_a_weight_out_of_range_is_refused_by_name(precision: Precision, value: float, message: str) -> None:
    with pytest.raises(BundleError) as refused:
        to_low_precision(with_weight([1, 2, value, 4, 5]), precision, {"": "full", "low": "low"})
    assert str(refused.value) == message


def test_a_weight_that_only_full_nodes_read_may_have_any_value() -> None:
    typed = to_low_precision(with_weight([1e9, 1, 1, 1, 1]), "fp16", {"": "full", "out": "low"})
    assert [tensor.name for tensor in typed.graph.initializer] == ["w"]


# ---- rules


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("/Exp", ""),
        ("backbone.layer1.0.conv1/Conv", "backbone"),
        ("backbones/Conv", ""),
        ("fusion/Reshape", "fusion"),
        ("fusion.decoder/Sigmoid", "fusion.decoder"),
        ("fusion.decoder.norm/LayerNormalization", "fusion.decoder"),
        ("fusion.decoder.layers.10.norm1/LayerNormalization", "fusion.decoder.layers"),
        ("fusion.decoder.fc_pos_3d.0/MatMul", "fusion.decoder.fc_pos_3d.0"),
        ("fusion.decoder.fc_pos_3d.3/MatMul", "fusion.decoder.fc_pos_3d"),
        ("heads/Gather", "heads"),
        ("Conv", ""),
    ],
)
def test_the_longest_row_decides(name: str, row: str) -> None:
    assert row_of(onnx.NodeProto(name=name)) == row


def test_a_weight_of_both_kinds_is_stored_twice_and_a_tensor_cast_where_types_meet() -> None:
    text = """(float[batch,2] x) => (float[batch,2] y) <float[2] w = {1, 2}>
        { a = Mul (x, w)  b = Mul (a, w)  y = Mul (b, w) }"""
    typed = to_low_precision(hand_made(text, ["first", "low", "last"]), "fp16", {"": "full", "low": "low"})
    assert [tensor.name for tensor in typed.graph.initializer] == ["w", "w.fp16"]
    assert [(n.name, list(n.input), list(n.output)) for n in typed.graph.node] == [
        ("first/Mul", ["x", "w"], ["a"]),
        ("low/Cast_0", ["a"], ["a.fp16"]),
        ("low/Mul", ["a.fp16", "w.fp16"], ["b"]),
        ("last/Cast_0", ["b"], ["b.fp32"]),
        ("last/Mul", ["b.fp32", "w"], ["y"]),
    ]


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [("l, l", "fp16"), ("l, w", "fp16"), ("l, f", "fp32"), ("f, f", "fp32"), ("w, w", "fp32")],
)
def test_widest_is_low_only_where_every_computed_input_is(inputs: str, kind: str) -> None:
    text = f"""(float[batch,2] x) => (float[batch,2] y) <float[2] w = {{1, 2}}>
        {{ l = Relu (x)  f = Neg (x)  s = Add ({inputs})  t = Add (s, l)  y = Add (t, f) }}"""
    table = {"": "full", "low": "low", "meeting": "widest"}
    typed = to_low_precision(hand_made(text, ["low", "full", "meeting", "full", "full"]), "fp16", table)
    assert tensor_types(typed)["s"].elem_type == {"fp16": LOW_TYPES["fp16"], "fp32": FLOAT}[kind]


def test_what_gives_an_output_stays_float32() -> None:
    text = "(float[batch,2] x) => (float[batch,2] y) { a = Relu (x)  y = Neg (a) }"
    typed = to_low_precision(hand_made(text, ["low", "low"]), "fp16", {"": "full", "low": "low"})
    assert [node.op_type for node in typed.graph.node] == ["Cast", "Relu", "Cast", "Neg"]
    types = tensor_types(typed)
    assert [types[node.output[0]].elem_type for node in typed.graph.node[1:]] == [LOW_TYPES["fp16"], FLOAT, FLOAT]


def test_another_network_is_refused() -> None:
    text = "(float[batch,2] x) => (float[batch,2] y) { a = Relu (x)  y = Neg (a) }"
    with pytest.raises(BundleError) as refused:
        to_low_precision(
            hand_made(text, ["backbone", "lifting"]), "fp16", {"": "full", "backbone": "low", "fusion": "low"}
        )
    assert str(refused.value) == "no node of fusion: not a mesh network of this version\nexport it again"


def test_a_network_of_others_keeps_its_opset_and_what_its_operators_say() -> None:
    """A cast, and the scales of a resize, which are float32 whatever it computes in."""
    text = (
        "(float[batch,1,2,2] x) => (float[batch,1,4,4] y) <float[4] scales = {1, 1, 2, 2}, float[1] w = {3}> "
        "{ a = Mul (x, w)  b = Cast <to = 1> (a)  c = Resize (b, , scales)  d = Mul (c, w)  y = Neg (d) }"
    )
    model = hand_made(text, list("abcde"))
    opset = {each.domain: each.version for each in model.opset_import}
    typed = to_low_precision(model, Precision.FP16, {"": "low"}, of_others=True)
    assert {each.domain: each.version for each in typed.opset_import} == opset
    types = {name: TYPE_NAMES[value.elem_type] for name, value in tensor_types(typed).items()}
    assert [types[name] for name in "xabcdy"] == ["fp32", "fp16", "fp32", "fp16", "fp16", "fp32"]
    resize = next(node for node in typed.graph.node if node.op_type == "Resize")
    assert types[resize.input[2]] == "fp32"
    feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)}
    plain, low = (onnxruntime.InferenceSession(each.SerializeToString()).run(None, feeds)[0] for each in (model, typed))
    np.testing.assert_allclose(low, plain, rtol=2e-3)


def test_a_node_that_ignores_the_type_of_its_inputs_is_no_silent_island() -> None:
    text = "(float[batch,2] x) => (float[batch,2] y) { a = Relu (x)  b = Cast <to = 1> (a)  y = Neg (b) }"
    with pytest.raises(RuntimeError, match=r"^low/Cast does not compute in fp16$"):
        to_low_precision(hand_made(text, ["low", "low", "full"]), "fp16", {"": "full", "low": "low"})


# ---- emulation and report


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_emulation_rounds_weights_inputs_and_results(precision: Precision, dtype: torch.dtype) -> None:
    weight = [0.1, 3.3, -1e-3, 7.77, 123.4]
    typed = to_low_precision(with_weight(weight), precision, {"": "full", "low": "low"})
    x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    expected = torch.from_numpy(x).to(dtype) * torch.tensor(weight).to(dtype)
    np.testing.assert_array_equal(runtime(emulate(typed))({"x": x})["y"], expected.float().numpy())


def test_the_report_counts_what_is_there() -> None:
    text = """(float[batch,3,8,8] x) => (float[batch,4,8,8] y)
        { a = Conv <pads = [1, 1, 1, 1]> (x, w, b)  c = Relu (a)  y = Neg (c) }"""
    model = hand_made(text, ["backbone.conv1", "backbone", "heads"])
    for name, shape in (("w", (4, 3, 3, 3)), ("b", (4,))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    assert typing_report(model) == [
        Typing("backbone", "fp32", nodes=2, weights=112, flops=2 * 27 * 4 * 64),
        Typing("heads", "fp32", nodes=1, weights=0, flops=0),
    ]
    rows = typing_report(to_low_precision(model, "bf16", {"": "full", "backbone": "low"}))
    assert rows == [
        Typing("backbone", "bf16", nodes=2, weights=112, flops=2 * 27 * 4 * 64),
        Typing("backbone", "cast", nodes=1, weights=0, flops=0),
        Typing("heads", "cast", nodes=1, weights=0, flops=0),
        Typing("heads", "fp32", nodes=1, weights=0, flops=0),
    ]
    assert format_typing(rows).splitlines()[:2] == [
        "scope                               type  nodes     weights     MFLOP",
        "backbone                            bf16      2         112       0.0",
    ]
