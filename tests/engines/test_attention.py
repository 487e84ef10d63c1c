"""Every attention of a network becomes one node that says the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny import TINY

from jotr_deploy.engines.fused_attention import OPERATOR, fuse_attention
from jotr_deploy.engines.low_precision import flops_of, tensor_types
from jotr_deploy.engines.verify import random_crops

TEXT = """<ir_version: 9, opset_import: ["": 20]>
g (float[N, 6, 8] q, float[N, 5, 8] k, float[N, 5, 8] v) => (float[N, 6, 8] y)
<int64[4] sq = {-1, 6, 2, 4}, int64[4] sk = {-1, 5, 2, 4}, int64[3] sy = {-1, 6, 8}> {
    qr = Reshape(q, sq) kr = Reshape(k, sk) vr = Reshape(v, sk)
    qt = Transpose<perm = [0, 2, 1, 3]>(qr) kt = Transpose<perm = [0, 2, 3, 1]>(kr)
    vt = Transpose<perm = [0, 2, 1, 3]>(vr)
    m = MatMul(qt, kt) s = BETWEEN(m) o = MatMul(s, vt)
    ot = Transpose<perm = [0, 2, 1, 3]>(o) y = Reshape(ot, sy)
}"""


def written(between: str = "Softmax<axis = -1>") -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT.replace("BETWEEN", between))


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("batch", [1, 3])
def test_one_node_says_the_same(rng: np.random.Generator, batch: int) -> None:
    feeds = {n: rng.normal(size=(batch, t, 8)).astype(np.float32) for n, t in (("q", 6), ("k", 5), ("v", 5))}
    fused = fuse_attention(written())
    assert operators(fused) == [OPERATOR]
    assert not fused.graph.initializer
    np.testing.assert_allclose(run(fused, feeds)["y"], run(written(), feeds)["y"], atol=1e-6)


def test_what_is_no_attention_stays() -> None:
    other = written("Relu")
    assert operators(fuse_attention(other)) == operators(other)


def test_all_of_the_network(tiny_bundle: Path) -> None:
    plain = onnx.load(tiny_bundle / "mesh.onnx")
    fused = fuse_attention(plain)
    assert operators(plain).count("Softmax") == operators(fused).count(OPERATOR) == 7
    assert "Softmax" not in operators(fused)
    scopes = {node.name.rpartition("/")[0] for node in plain.graph.node if node.op_type == "Softmax"}
    assert {node.name.rpartition("/")[0] for node in fused.graph.node if node.op_type == OPERATOR} == scopes
    feeds = random_crops(TINY, 3)
    expected = run(plain, feeds)
    for name, value in run(fused, feeds).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-4, err_msg=name)


def test_the_arithmetic_is_the_same(tiny_bundle: Path) -> None:
    plain = onnx.load(tiny_bundle / "mesh.onnx")
    counts = []
    for model in (plain, fuse_attention(plain)):
        types = tensor_types(model)
        counts.append(sum(flops_of(node, types) for node in model.graph.node))
    assert counts[0] == counts[1] > 0
