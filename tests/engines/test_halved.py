"""Weights in float16: half the file, the values of float16, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.engines.fp16_weights import LEAST_ELEMENTS, halve_weights

SIDE = 40


def network(weights: dict[str, np.ndarray], as_input: bool = False) -> onnx.ModelProto:
    """The sum of the input and every weight (SIDE x SIDE or smaller); the first is added again in a subgraph."""
    nodes, last = [], "x"
    for name in weights:
        nodes.append(helper.make_node("Add", [last, name], [f"x + {name}"]))
        last = f"x + {name}"
    first = next(iter(weights))
    branch = helper.make_graph(
        [helper.make_node("Add", [last, first], ["branch"])], "branch", [],
        [helper.make_tensor_value_info("branch", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes += [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIDE, SIDE])]
    if as_input:
        inputs.append(helper.make_tensor_value_info(first, TensorProto.FLOAT, weights[first].shape))
    initialisers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    initialisers.append(numpy_helper.from_array(np.array(True), "yes"))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIDE, SIDE])
    graph = helper.make_graph(nodes, "sums", inputs, [output], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def computed(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return {weight.name: weight.data_type for weight in model.graph.initializer}


def test_the_network_is_that_of_rounded_weights(rng):
    weights = {"a": rng.normal(size=(SIDE, SIDE)).astype(np.float32), "b": rng.normal(size=SIDE).astype(np.float32)}
    model = network(weights)
    before = model.SerializeToString()
    halved = halve_weights(model)
    assert model.SerializeToString() == before
    assert kinds(halved) == {"a.float16": TensorProto.FLOAT16, "b": TensorProto.FLOAT, "yes": TensorProto.BOOL}
    assert len(before) - len(halved.SerializeToString()) > 0.9 * 2 * SIDE * SIDE
    x = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
    rounded = weights["a"].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(computed(halved, x), x + rounded + weights["b"] + rounded)
    assert halve_weights(halved).SerializeToString() == halved.SerializeToString()


@pytest.mark.parametrize(
    ("value", "chosen", "halved"),
    [
        (np.ones((SIDE, SIDE), np.float32), lambda weight: True, True),
        (np.ones((SIDE, SIDE), np.float32), lambda weight: weight.name != "a", False),
        (np.full((SIDE, SIDE), 65504, np.float32), lambda weight: True, True),
        (np.full((SIDE, SIDE), 65520, np.float32), lambda weight: True, False),  # would be infinite
        (np.full((SIDE, SIDE), np.nan, np.float32), lambda weight: True, False),
        (np.ones(SIDE, np.float32), lambda weight: True, False),  # small
        (np.zeros((0, SIDE), np.float32), lambda weight: True, False),
    ],
)
def test_which_weights(value: np.ndarray, chosen: Callable[[TensorProto], bool], halved: bool):
    assert ("a.float16" in kinds(halve_weights(network({"a": value}), chosen))) == halved
    assert SIDE * SIDE > LEAST_ELEMENTS > SIDE


def test_what_is_also_an_input_stays():
    assert "a" in kinds(halve_weights(network({"a": np.ones((SIDE, SIDE), np.float32)}, as_input=True)))
