"""The rules table: what this package exports passes it, and every rule catches what it is there for, and only that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from jotr_deploy.engines.tensorrt import rules
from jotr_deploy.engines.tensorrt.build import BuildError
from jotr_deploy.engines.tensorrt.graph import Graph, Rule
from jotr_deploy.engines.tensorrt.onnx_copy import tensorrt_copy
from jotr_deploy.engines.tensorrt.qdq import RULES as QDQ_RULES
from jotr_deploy.engines.tensorrt.rules import RULES, Finding, check
from jotr_deploy.engines.tensorrt.versions import EVERY, NEWEST, OLDEST, Version, Versions, parse_version
from jotr_deploy.plugins.onnx_function import inline

X, Y = "float[batch,8] x", "float[batch,8] y"
IMAGE = "float[batch,4,8,8] x"


def network(body: str, inputs: str = X, output: str = Y, opset: int = 19, more: str = "") -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : {opset}{more}]> g ({inputs}) => ({output}) {{ {body} }}'
    return onnx.parser.parse_model(text)


@pytest.fixture(scope="module")
def exported(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load(tiny_bundle / "mesh.onnx")


def test_the_real_network_passes_in_every_form(exported: onnx.ModelProto) -> None:
    assert check(exported) == []
    assert check(inline(exported)) == []
    for plugin in ("aot", "library", "none"):
        assert check(tensorrt_copy(exported, plugin)) == []


def constant(name: str, text: str) -> str:
    return f"{name} = Constant <value = {text}> () "


SCALE = constant("s", "float {0.1}") + constant("z", "int8 {0}")
PAIR = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "
KERNEL = constant("w", "int8[4,4,1,1] {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}")
CHANNELS = constant("ws", "float[4] {0.1,0.1,0.1,0.1}") + constant("wz", "int8[4] {0,0,0,0}")
CONV = SCALE + KERNEL + CHANNELS + "wd = DequantizeLinear <axis = 0> (w, ws, wz) "
WEIGHT = constant("w", "float[8,2] {0,1,2,3,4,5,6,7,0,1,2,3,4,5,6,7}")

GOOD = [
    network("y = Relu (x)"),
    network("y = Identity (x)", "uint8[batch,8] x", "uint8[batch,8] y"),  # bytes may enter and leave
    network(CONV + PAIR + "c = Conv (d, wd) y = Relu (c)", IMAGE, "float[batch,4,8,8] y"),
    network(
        SCALE + PAIR + WEIGHT + constant("ws", "float[2] {0.1,0.2}") + constant("wz", "int8[2] {0,0}")
        + "wq = QuantizeLinear <axis = 1> (w, ws, wz) wd = DequantizeLinear <axis = 1> (wq, ws, wz) y = MatMul (d, wd)",
        output="float[batch,2] y",
    ),
    network(SCALE + "r = Relu (x) " + PAIR + "y = Add (r, d)"),  # a residual sum, its skip branch quantised
    network(
        "s = Shape (x) " + constant("i", "int64[1] {0}") + constant("r", "int64[2] {2,4}")
        + "b = Gather (s, i) t = Concat <axis = 0> (b, r) y = Reshape (x, t)",
        output="float[batch,2,4] y",
    ),
    network("y = jotr.TrilinearSample3D (f, x)", "float16[batch,8,8,8,4] f, float[batch,5,3] x",
            "float16[batch,5,4] y", more=', "jotr" : 1'),
]  # fmt: skip


@pytest.mark.parametrize("model", GOOD)
def test_good_networks_pass(model: onnx.ModelProto) -> None:
    assert check(model) == []


FUNCTION = """
<ir_version: 10, opset_import: ["" : 19, "ours" : 1]> g (float[batch,8] x) => (float[batch,8] y) { y = Relu (x) }
<domain: "ours", opset_import: ["" : 19]> Twice (a) => (b) { b = Add (a, a) }
"""
VOLUME = "float[batch,8,8,8,4] f, "

# rule, node or tensor that is named, network
BAD = [
    ("valid", "the model", network(
        constant("w", "float[2,2] {1,2,3,4}") + "y = MatMul (x, w)", output="float[batch,2] y")),
    ("opset", "the model", network("y = Relu (x)", opset=22)),
    ("opset", "the model", network(SCALE + "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)", opset=13)),
    ("functions", "ours::Twice", onnx.parser.parse_model(FUNCTION)),
    ("operators", "y (Det)", network("y = Det (x)", "float[batch,8,8] x", "float[batch] y")),
    ("operators", "y (GridSample)", network("y = jotr.GridSample (x)", more=', "jotr" : 1')),  # the standard one!
    ("operators", "y (Other)", network("y = ours.Other (x)", more=', "ours" : 1')),
    ("types", "y", network("y = Cast <to = 11> (x)", output="double[batch,8] y")),
    ("types", "b", network("b = Cast <to = 2> (x) y = Cast <to = 1> (b)")),  # bytes inside the network
    ("mixed types", "y (Add)", network("h = Cast <to = 10> (x) y = Add (x, h)")),
    ("sampling", "y (TrilinearSample3D)", network("y = jotr.TrilinearSample3D (f, x)", VOLUME + "float16[batch,5,3] x",
                                                  "float[batch,5,4] y", more=', "jotr" : 1')),
    ("sampling", "y (TrilinearSample3D)", network("y = jotr.TrilinearSample3D (f, x)", VOLUME + "float[batch,5,1,3] x",
                                                  "float[batch,5,4] y", more=', "jotr" : 1')),
    ("dynamic", "x", network("y = Relu (x)", "float[batch,width] x", "float[batch,width] y")),
    ("dynamic", "x", network("y = Relu (x)", "float[2,8] x", "float[2,8] y")),
    ("dynamic", "w", network("y = Relu (x)", "float[batch,8] x, float[others,8] w")),
    ("ranks", "y (AveragePool)", network(
        "y = AveragePool <kernel_shape = [2]> (x)", "float[batch,2,8] x", "float[batch,2,7] y")),
    ("ranks", "y (Expand)", network(constant("s", "int64[9] {1,1,1,1,1,1,1,1,1}") + "y = Expand (x, s)",
                                    output="float[a,b,c,d,e,f,g,batch,8] y")),
    ("constants", "y (ReduceSum)", network("s = Shape (x) " + constant("i", "int64[1] {0}")
                                           + "a = Gather (s, i) y = ReduceSum (x, a)", output="float[k,8] y")),
    ("forms", "y (MaxPool)", network(
        "y = MaxPool <kernel_shape = [2,2], dilations = [2,2]> (x)", IMAGE, "float[batch,4,6,6] y")),
    ("forms", "y (MaxPool)", network("y, i = MaxPool <kernel_shape = [2,2]> (x)", IMAGE, "float[batch,4,7,7] y")),
    ("forms", "y (GridSample)", network('y = GridSample <mode = "linear"> (x, g)', IMAGE + ", float[batch,5,5,2] g",
                                        "float[batch,4,5,5] y", opset=20)),
    ("equations", "y (Einsum)", network('y = Einsum <equation = "...i,...i->..."> (x, x)', output="float[batch] y")),
    ("integers", "y (Ceil)", network("y = Ceil (x)", "int64[batch,8] x", "int64[batch,8] y")),
    ("computed axes", "y (Unsqueeze)", network(
        "s = Shape (x) " + constant("i", "int64[1] {0}") + "a = Gather (s, i) y = Unsqueeze (x, a)",
        output="float[a,b,c] y")),
    ("integer powers", "y (Pow)", network("y = Pow (x, x)", "int64[batch,8] x", "int64[batch,8] y")),
    ("shape arithmetic", "y (Reshape)", network(
        "s = Shape (x) f = Cast <to = 1> (s) t = Cast <to = 7> (f) y = Reshape (x, t)", output="float[batch,k] y")),
    ("shape arithmetic", "y (Expand)", network("y = Expand (x, n)", X + ", int64[batch] n", "float[k,8] y")),
    ("quantised type", "q (QuantizeLinear)", network(
        constant("s", "float {0.1}") + constant("z", "uint8 {0}") + PAIR + "y = Relu (d)")),
    ("quantised type", "q (QuantizeLinear)", network(
        constant("s", "float {0.1}") + "q = QuantizeLinear (x, s) d = DequantizeLinear (q, s) y = Relu (d)")),
    ("quantised type", "b (DequantizeLinear)", network(
        constant("s", "float {0.1}") + constant("i", "int32[8] {1,2,3,4,5,6,7,8}")
        + "b = DequantizeLinear (i, s) y = Add (x, b)")),
    ("symmetry", "q (QuantizeLinear)", network(
        constant("s", "float {0.1}") + constant("z", "int8 {3}") + PAIR + "y = Relu (d)")),
    ("scales", "q (QuantizeLinear)", network(
        constant("s", "float {-0.1}") + constant("z", "int8 {0}") + PAIR + "y = Relu (d)")),
    ("scales", "q (QuantizeLinear)", network(
        constant("z", "int8 {0}") + "m = ReduceMax <keepdims = 0> (x) s = Abs (m) " + PAIR + "y = Relu (d)")),
    ("scale types", "q (QuantizeLinear)", network(
        SCALE + "h = Cast <to = 10> (s) "
        "q = QuantizeLinear (x, h, z) d = DequantizeLinear (q, s, z) y = Relu (d)")),
    ("channels", "q (QuantizeLinear)", network(
        constant("s", "float[8] {1,1,1,1,1,1,1,1}") + constant("z", "int8[8] {0,0,0,0,0,0,0,0}")
        + PAIR + "y = Relu (d)")),
    ("channels", "wd (DequantizeLinear)", network(
        SCALE + KERNEL + CHANNELS + "wd = DequantizeLinear <axis = 1> (w, ws, wz) " + PAIR + "y = Conv (d, wd)",
        IMAGE, "float[batch,4,8,8] y")),
    ("pairs", "q (QuantizeLinear)", network(SCALE + "q = QuantizeLinear (x, s, z) t = Transpose (q) "
                                            "d = DequantizeLinear (t, s, z) y = Relu (d)", output="float[8,batch] y")),
    ("placement", "y (MatMul)", network(SCALE + PAIR + WEIGHT + "y = MatMul (d, w)", output="float[batch,2] y")),
    ("placement", "y (Add)", network(
        SCALE + "a = Relu (x) b = Neg (x) qa = QuantizeLinear (a, s, z) da = DequantizeLinear (qa, s, z) "
        "qb = QuantizeLinear (b, s, z) db = DequantizeLinear (qb, s, z) y = Add (da, db)")),
    ("placement", "y (Relu)", network(
        CONV + PAIR + "c = Conv (d, wd) cq = QuantizeLinear (c, s, z) cd = DequantizeLinear (cq, s, z) y = Relu (cd)",
        IMAGE, "float[batch,4,8,8] y")),
    ("fp8 kernels", "y (Conv)", network(
        constant("s", "float {0.1}") + constant("z", "float8e4m3fn {0}") + constant("c", "float[4,4,1,1] {1,2,3,4,5,6,"
        "7,8,1,2,3,4,5,6,7,8}") + "w = QuantizeLinear (c, s, z) wd = DequantizeLinear (w, s, z) " + PAIR
        + "y = Conv (d, wd)", IMAGE, "float[batch,4,8,8] y")),
    ("one quantised type", "the model", network(
        SCALE + constant("e", "float8e4m3fn {0}") + PAIR
        + "f = QuantizeLinear (d, s, e) y = DequantizeLinear (f, s, e)")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "where", "model"), BAD, ids=[f"{rule}-{index}" for index, (rule, *_) in enumerate(BAD)]
)
def test_each_bad_network_breaks_its_rule_alone(rule: str, where: str, model: onnx.ModelProto) -> None:
    findings = check(model)
    assert {finding.rule for finding in findings} == {rule}
    assert findings[0].where == where


def test_every_rule_has_a_network_that_breaks_it() -> None:
    assert {rule for rule, *_ in BAD} == {"valid"} | {rule.name for rule in (*RULES, *QDQ_RULES)}


def test_a_finding_names_the_node_and_the_way_out() -> None:
    model = network("y = Relu (x)", opset=22)
    assert list(map(str, check(model))) == [
        "the model: opset 22; the parser of TensorRT 10.3 reads 9 to 20; export it with opset 19"
    ]
    node = network("y = Pow (x, x)", "int64[batch,8] x", "int64[batch,8] y")
    node.graph.node[0].name = "heads/Pow"
    problem = "an integer operand (TensorRT before 10.12)"
    assert check(node) == [Finding("integer powers", "heads/Pow (Pow)", problem, "cast to float32 before it")]


def test_a_node_without_a_name_goes_by_its_output() -> None:
    assert (
        check(network("out = Det (x) y = Relu (out)", "float[batch,8,8] x", "float[batch] y"))[0].where == "out (Det)"
    )


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────

XOR = network("a = Greater (x, x) b = Less (x, x) c = Xor (a, b) y = Cast <to = 1> (c)")


@pytest.mark.parametrize(
    ("changed", "target", "problem"),
    [
        ({}, None, None),
        ({}, (12, 0), None),
        ({"Xor": Versions(until=(12, 0))}, None, None),  # a version that is not read yet
        ({"Xor": Versions(until=(12, 0))}, (12, 0), "only the parser of TensorRT before 12.0 has this operator"),
        ({"Xor": Versions(until=(12, 0))}, (11, 9), None),  # it does not vanish for the others
        ({"Xor": Versions(until=(11, 2))}, None, "only the parser of TensorRT before 11.2 has this operator"),
        ({"Xor": Versions(until=(11, 2))}, (10, 3), None),
        ({"Xor": Versions(since=(10, 9))}, None, "only the parser of TensorRT 10.9 and newer has this operator"),
        ({"Xor": Versions(since=(10, 9))}, (10, 8), "only the parser of TensorRT 10.9 and newer has this operator"),
        ({"Xor": Versions(since=(10, 9))}, (10, 9), None),
    ],
)
def test_an_operator_that_a_version_drops_or_brings(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Versions], target: Version | None, problem: str | None
) -> None:
    monkeypatch.setattr(rules, "CHANGED", changed)
    expected = [] if problem is None else [Finding("operators", "c (Xor)", problem, "write it with standard operators")]
    assert check(XOR, target) == expected


def test_every_operator_that_changed_is_one_that_some_version_has() -> None:
    assert set(rules.CHANGED) <= rules.OPERATORS
    assert all(versions.any for versions in rules.CHANGED.values())


AXES = network(
    "s = Shape (x) " + constant("i", "int64[1] {0}") + "a = Gather (s, i) y = Unsqueeze (x, a)", output="float[a,b,c] y"
)


@pytest.mark.parametrize(
    ("target", "problems"),
    [
        (None, ["input 'a' is computed (TensorRT before 10.7)"]),
        ((10, 3), ["input 'a' is computed"]),
        ((10, 7), []),
        ((12, 0), []),
    ],
)
def test_a_rule_of_some_versions_is_none_of_the_others(target: Version | None, problems: list[str]) -> None:
    assert [finding.problem for finding in check(AXES, target)] == problems


def test_a_rule_of_versions_that_are_too_old_or_too_new_to_be_asked_for() -> None:
    graph = Graph.of(AXES)
    for versions in (Versions(until=OLDEST), Versions(since=(NEWEST[0], NEWEST[1] + 1))):
        assert list(Rule("", lambda graph: iter([("x", "bad")]), "", versions).found(graph)) == []


@pytest.mark.parametrize(
    ("versions", "text", "inside", "outside"),
    [
        (EVERY, "TensorRT of every version", [(8, 0), OLDEST, NEWEST], []),
        (Versions(since=(10, 9)), "TensorRT 10.9 and newer", [(10, 9), (11, 0)], [(10, 8), (9, 12)]),
        (Versions(until=(11, 0)), "TensorRT before 11.0", [(10, 16)], [(11, 0), (12, 0)]),
        (Versions((10, 4), (10, 9)), "TensorRT 10.4 and newer, before 10.9", [(10, 4), (10, 8)], [(10, 3), (10, 9)]),
    ],
)
def test_ranges_of_versions(versions: Versions, text: str, inside: list[Version], outside: list[Version]) -> None:
    assert str(versions) == text
    assert [version in versions for version in (*inside, *outside)] == [True] * len(inside) + [False] * len(outside)


@pytest.mark.parametrize(("said", "version"), [("10.3", (10, 3)), ("10.16.1.11", (10, 16)), ("11.4.0.106", (11, 4))])
def test_versions_are_read(said: str, version: Version) -> None:
    assert parse_version(said) == version


@pytest.mark.parametrize("said", ["", "10", "ten.three", "10.x", "10.3rc1"])
def test_other_words_are_no_versions(said: str) -> None:
    with pytest.raises(BuildError) as refusal:
        parse_version(said)
    assert refusal.value.cause == f"TensorRT {said!r}: not a version"


def test_the_command_line_asks_for_one_version_or_all(
    cli: Callable[..., Any], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "CHANGED", {"Softmax": Versions(since=(10, 9))})
    every = cli("build-engine", tiny_bundle, "--check-only")
    assert every.code == 2
    assert "only the parser of TensorRT 10.9 and newer has this operator" in every.out
    assert cli("build-engine", tiny_bundle, "--check-only", "--for-tensorrt", "10.16.1").code == 0
    assert cli("build-engine", tiny_bundle, "--check-only", "--for-tensorrt", "10.3").code == 2
    refused = cli("build-engine", tiny_bundle, "--for-tensorrt", "10.3")
    assert refused.code == 2
    assert "--for-tensorrt needs --check-only" in refused.err
