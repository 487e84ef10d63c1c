"""What the processor decides: sums of int8 products that are right even where integer kernels clip them, bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import onnxruntime, open_session
from jotr_deploy.support import processor
from jotr_deploy.support.processor import WEIGHT_BITS, multiplies_bfloat16, sums_saturate


def large_sums(path: Path, zero: np.generic, bits: int = 8) -> Path:
    """288 products of 127 with the largest weight code of so many bits: each is one, in steps of either."""
    largest = 2 ** (bits - 1) - 1
    one, whole = np.float32(1 / 127), np.float32(300 / 127)
    constants = {
        "one": one, "whole": whole, "zero": zero, "codes": np.full((8, 32, 3, 3), largest, np.int8),
        "ones": np.full(8, np.float32(1 / largest)), "zeros": np.zeros(8, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["codes", "ones", "zeros"], ["weight"], axis=0),
        helper.make_node("Conv", ["rounded", "weight"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "whole", "zero"], ["sum.q"]),
        helper.make_node("DequantizeLinear", ["sum.q", "whole", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 6, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    if bits != 8:
        helper.set_model_props(model, {WEIGHT_BITS: str(bits)})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("zero", [np.int8(0), np.uint8(128)])
def test_the_largest_sum_of_a_convolution(tmp_path: Path, zero: np.generic, backend: str) -> None:
    pytest.importorskip(backend)
    if backend == "openvino" and sums_saturate():
        pytest.skip("OpenVINO has no right sums on this processor, which has no VNNI")
    with open_session(large_sums(tmp_path / "sums.onnx", zero), backend, "cpu") as session:
        found = session({"x": np.ones((1, 32, 8, 8), np.float32)})["y"]
    np.testing.assert_allclose(found, 288, atol=300 / 127)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("zero", [np.int8(0), np.uint8(128)])
def test_integer_kernels_are_right_everywhere_for_weights_of_seven_bits(
    tmp_path: Path, zero: np.generic, backend: str
) -> None:
    """On a processor without VNNI this runs the kernels that clip sums of larger weights."""
    pytest.importorskip(backend)
    with open_session(large_sums(tmp_path / "sums.onnx", zero, 7), backend, "cpu") as session:
        found = [session({"x": np.full((1, 32, 8, 8), sign, np.float32)})["y"] for sign in (1, -1, 0)]
    np.testing.assert_allclose(found[0], 288, atol=300 / 127)
    np.testing.assert_allclose(found[1], -288, atol=300 / 127)
    np.testing.assert_allclose(found[2], 0, atol=1e-3)


@pytest.mark.parametrize(("bits", "asked"), [(8, [False]), (7, [False, True])])
def test_onnx_runtime_gets_integer_kernels_where_they_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, asked: list[bool], capfd: pytest.CaptureFixture[str]
) -> None:
    found = []

    def options(*arguments: Any, integer_kernels: bool = False, **others: Any) -> Any:
        found.append(integer_kernels)
        return real(*arguments, integer_kernels=integer_kernels, **others)

    real = onnxruntime._options
    monkeypatch.setattr(onnxruntime, "_options", options)
    for module in (onnxruntime, processor):
        monkeypatch.setattr(module, "sums_saturate", lambda: True)
    with open_session(large_sums(tmp_path / "sums.onnx", np.uint8(128), bits), "onnxruntime", "cpu"):
        assert found == asked
    assert capfd.readouterr() == ("", "")  # ONNX Runtime warns of an option that is set twice


def test_openvino_refuses_int8_where_its_sums_are_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(processor, "sums_saturate", lambda: True)
    path = large_sums(tmp_path / "sums.onnx", np.uint8(128))
    with pytest.raises(SessionError, match="clip sums on this processor") as caught:
        open_session(path, "openvino", "cpu")
    assert caught.value.remedy == "calibrate with --weight-bits 7, or run the int8 file for ONNX Runtime, or fp32"


@pytest.mark.parametrize(
    ("flags", "clipped"),
    [
        ("flags : sse4_2 avx avx2 fma", True),
        ("flags : avx2 avx512f avx512bw", True),
        ("flags : avx2 avx512f avx512_vnni", False),
        ("flags : avx2 avx_vnni", False),
        ("Features : asimd asimddp", False),
        ("", False),
    ],
)
def test_whose_sums_are_clipped(tmp_path: Path, flags: str, clipped: bool) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    assert sums_saturate(tmp_path / "cpuinfo") == clipped


@pytest.mark.parametrize(
    ("flags", "present"),
    [
        ("flags : avx2 avx512f avx512_bf16", True),
        ("flags : avx2 amx_bf16", True),
        ("Features : asimd bf16", True),
        ("flags : avx2 avx512f avx512_vnni", False),
        ("", False),
    ],
)
def test_who_multiplies_in_bfloat16(tmp_path: Path, flags: str, present: bool) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    assert multiplies_bfloat16(tmp_path / "cpuinfo") == present
