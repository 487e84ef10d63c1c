"""Peak rates of the machine: a large matrix product in an engine, and reading memory."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.sessions.openvino_stages import STAGES

SIDE = 1024
"""Side of the matrices."""
_TIMES = 30
_MEMORY_BYTES = 1 << 28  # many times the size of a cache


@cache
def product_gflops(backend: str, precision: str, threads: int | None) -> float:
    """Speed of a product of two square matrices in an engine on the CPU, in 1e9 operations a second.

    Args:
        backend: "onnxruntime" or "openvino".
        precision: "fp32", "bf16" or "int8".
        threads: width of the engine.
    """
    with tempfile.TemporaryDirectory(prefix="jotr-deploy-peak-") as directory:
        path = Path(directory) / "product.onnx"
        onnx.save(_product(precision), path)
        feeds = {"x": np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)}
        with open_session(path, backend, "cpu", threads) as session:
            session(feeds)
            return 2 * SIDE**3 / 1e9 / _fastest(lambda: session(feeds))


@cache
def memory_gb_per_s() -> float:
    """Speed at which one thread reads memory, in 1e9 bytes a second."""
    numbers = np.ones(_MEMORY_BYTES // 8)
    return _MEMORY_BYTES / 1e9 / _fastest(numbers.max)


def _fastest(call: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls, the least disturbed one."""
    seconds = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _product(precision: str) -> onnx.ModelProto:
    """Model x -> x times a constant, in the type; int8 in the form for engines' integer kernels."""
    weight = np.random.default_rng(1).normal(size=(SIDE, SIDE)).astype(np.float32)
    nodes, constants, operands = [], {"w": weight}, ["x", "w"]
    if precision == "int8":
        step = float(np.abs(weight).max()) / 127
        constants = {
            "w.int8": np.rint(weight / step).astype(np.int8), "w.scale": np.full(SIDE, step, np.float32),
            "w.zero": np.zeros(SIDE, np.int8), "x.scale": np.float32(step), "x.zero": np.uint8(128),
        }  # fmt: skip
        operands = ["x.found", "w.found"]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["x.int8"]),
            helper.make_node("DequantizeLinear", ["x.int8", "x.scale", "x.zero"], ["x.found"]),
            helper.make_node("DequantizeLinear", ["w.int8", "w.scale", "w.zero"], ["w.found"], axis=1),
        ]
    nodes.append(helper.make_node("MatMul", operands, ["y"]))
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE])] for name in "xy"]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", *ends, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    if precision == "bf16":
        helper.set_model_props(model, {STAGES: json.dumps([["bf16", []]])})
    return model
