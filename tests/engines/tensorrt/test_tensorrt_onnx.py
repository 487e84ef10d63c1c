"""The TensorRT copy: what the parser of every version needs, nothing else changed, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny import TINY

from jotr_deploy.engines.tensorrt.onnx_copy import portable, sampling_nodes, tensorrt_copy
from jotr_deploy.engines.verify import random_crops
from jotr_deploy.plugins import DOMAIN
from jotr_deploy.plugins.onnx_function import inline
from jotr_deploy.support.choices import Plugin


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> onnx.ModelProto:
    return onnx.load(tiny_bundle / "mesh.onnx")


def run(proto: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, random_crops(TINY, 2))


@pytest.mark.parametrize(
    ("plugin", "attributes"),
    [
        ("aot", {"plugin_namespace": b"jotr", "plugin_version": b"1", "aot": 1}),
        ("library", {"plugin_namespace": b"jotr", "plugin_version": b"1"}),
    ],
)
def test_a_plugin_is_named_on_every_node_and_the_body_is_gone(
    model: onnx.ModelProto, plugin: Plugin, attributes: dict[str, object]
) -> None:
    copy = tensorrt_copy(model, plugin)
    assert not copy.functions
    assert len(sampling_nodes(copy)) == len(sampling_nodes(model)) > 0
    for node in sampling_nodes(copy):
        assert {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} == attributes
        del node.attribute[:]
    assert copy.graph == model.graph  # nothing else differs


def test_without_a_plugin_standard_operators_are_left(model: onnx.ModelProto) -> None:
    copy = tensorrt_copy(model, "none")
    assert not copy.functions
    assert {node.domain for node in copy.graph.node} == {""}
    assert DOMAIN not in {opset.domain for opset in copy.opset_import}


@pytest.mark.parametrize("plugin", ["aot", "library", "none"])
def test_the_model_is_left_alone_and_the_copy_is_always_the_same(model: onnx.ModelProto, plugin: Plugin) -> None:
    before = model.SerializeToString(deterministic=True)
    first, second = (tensorrt_copy(model, plugin).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("plugin", ["aot", "library", "none"])
def test_the_copy_computes_what_the_model_does(model: onnx.ModelProto, plugin: Plugin) -> None:
    for found, expected in zip(run(portable(tensorrt_copy(model, plugin))), run(model), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_network_without_the_operator_stays_as_it_is(model: onnx.ModelProto) -> None:
    flat = inline(model)
    assert tensorrt_copy(flat, "none").graph == tensorrt_copy(flat, "library").graph == flat.graph


@pytest.mark.parametrize(("version", "becomes"), [(19, 19), (20, 20), (22, 19)])
def test_the_opset_is_one_that_every_parser_reads(model: onnx.ModelProto, version: int, becomes: int) -> None:
    newer = onnx.ModelProto()
    newer.CopyFrom(model)
    newer.opset_import[0].version = version
    assert {o.domain: o.version for o in tensorrt_copy(newer, "aot").opset_import} == {"": becomes, DOMAIN: 1}
