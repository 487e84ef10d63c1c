"""The sampling operator: one table of cases for all its forms."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from sampling_cases import CASES, TOLERANCE, case

from jotr_deploy.plugins import DOMAIN, NAME, VERSION
from jotr_deploy.plugins.onnx_function import OPSET, attach, inline
from jotr_deploy.plugins.op import trilinear_sample_3d
from jotr_deploy.plugins.reference import trilinear_sample_3d as reference

Array = np.ndarray

ONNX_TYPE = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


def build(name: str, dtype: str) -> tuple[Array, Array]:
    features, points = case(name)
    return features.astype(getattr(ml_dtypes, dtype, dtype)), points


def onnx_model(dtype: str) -> onnx.ModelProto:
    features = helper.make_tensor_value_info("features", ONNX_TYPE[dtype], ["B", "D", "H", "W", "C"])
    points = helper.make_tensor_value_info("points", TensorProto.FLOAT, ["B", "P", 3])
    samples = helper.make_tensor_value_info("samples", ONNX_TYPE[dtype], ["B", "P", "C"])
    node = helper.make_node(NAME, ["features", "points"], ["samples"], domain=DOMAIN, name="sample")
    graph = helper.make_graph([node], "g", [features, points], [samples])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    attach(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def run_onnx(model: onnx.ModelProto, features: Array, points: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"features": features, "points": points})[0]


def to_torch(array: Array) -> torch.Tensor:
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(array)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_pytorch_equals_the_definition(name: str, dtype: str) -> None:
    features, points = build(name, dtype)
    found = trilinear_sample_3d(to_torch(features), torch.from_numpy(points))
    assert found.dtype == to_torch(features).dtype
    expected = reference(features, points)
    assert expected.dtype == features.dtype
    np.testing.assert_allclose(found.float(), expected.astype(np.float32), rtol=0, atol=TOLERANCE[dtype])


# ONNX Runtime's CPU has no bfloat16 arithmetic; that type is checked by shape inference below.
@pytest.mark.parametrize("form", ["function", "inlined"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "name", sorted(CASES.keys() - {"no points"})
)  # ONNX Runtime cannot reshape an empty tensor with -1
def test_onnx_equals_the_definition(name: str, dtype: str, form: str) -> None:
    features, points = build(name, dtype)
    model = onnx_model(dtype)
    found = run_onnx(inline(model) if form == "inlined" else model, features, points)
    expected = reference(features, points).astype(np.float32)
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_inlining_leaves_nothing_and_keeps_the_type(dtype: str) -> None:
    flat = inline(onnx_model(dtype))
    assert not flat.functions
    assert {node.domain for node in flat.graph.node} == {""}
    inferred = onnx.shape_inference.infer_shapes(flat, strict_mode=True, data_prop=True)
    assert inferred.graph.output[0].type.tensor_type.elem_type == ONNX_TYPE[dtype]


def test_a_body_of_another_opset_is_noticed() -> None:
    model = onnx_model("float32")
    model.functions[0].opset_import[0].version = 20
    with pytest.raises(ValueError, match="inlining left"):
        inline(model)


def test_equals_grid_sample() -> None:
    features, points = (torch.from_numpy(x) for x in build("batch, random in and out", "float32"))
    grid = (2 * points - 1)[:, :, None, None]
    expected = torch.nn.functional.grid_sample(features.permute(0, 4, 1, 2, 3), grid, align_corners=True)
    found = trilinear_sample_3d(features, points)
    torch.testing.assert_close(found, expected[..., 0, 0].transpose(1, 2), rtol=0, atol=2e-6)


def test_gradients_equal_those_of_grid_sample() -> None:
    features, points = (torch.from_numpy(x).requires_grad_() for x in build("unequal sides", "float32"))
    grid = (2 * points - 1)[:, :, None, None]
    expected = torch.nn.functional.grid_sample(features.permute(0, 4, 1, 2, 3), grid, align_corners=True)
    weight = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad((trilinear_sample_3d(features, points) * weight).sum(), (features, points))
    theirs = torch.autograd.grad((expected[..., 0, 0].transpose(1, 2) * weight).sum(), (features, points))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_operator_is_registered_soundly() -> None:
    features, points = (torch.from_numpy(x).requires_grad_() for x in build("unequal sides", "float32"))
    torch.library.opcheck(trilinear_sample_3d, (features, points))


def test_fake_implementation_knows_shape_and_type() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        found = trilinear_sample_3d(torch.empty(2, 3, 4, 5, 6, dtype=torch.float16), torch.empty(2, 7, 3))
    assert (found.shape, found.dtype) == ((2, 7, 6), torch.float16)


def test_repeats_are_equal_to_the_bit() -> None:
    features, points = (torch.from_numpy(x) for x in build("batch, random in and out", "float32"))
    assert torch.equal(trilinear_sample_3d(features, points), trilinear_sample_3d(features, points))
