"""Networks as heavy as published ones with constant results: weights are random, people are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.support.aliases import Array

WIDTHS = (32, 64, 128, 256, 512)
"""Channels at strides 2, 4, 8, 16 and 32."""


def write_network(
    path: Path, name: str, batch: int | str, size_px: tuple[int, int], gflop: float, answers: Mapping[str, Array]
) -> Path:
    """Write a network of 3 x 3 convolutions with `gflop` (a multiply-add is two) a picture, evenly over five strides.

    Args:
        path: of the ONNX file.
        name: of the input, [batch, 3, H, W].
        batch: a number, or the name of an open dimension.
        size_px: width and height of the input.
        gflop: approximate arithmetic.
        answers: every row of each output, by name.
    """
    rng, nodes, constants = np.random.default_rng(0), [], []
    last, channels = name, 3
    for stride, width in zip((2, 4, 8, 16, 32), WIDTHS, strict=True):
        cells = size_px[0] * size_px[1] / stride**2
        spent, step, first = 0.0, 2, True
        while first or spent + 18e-9 * cells * width**2 / 2 < gflop / len(WIDTHS):
            kernel = f"w{len(nodes)}"
            scale = np.sqrt(2 / (9 * channels))
            constants.append(_constant(kernel, rng.normal(0, scale, (width, channels, 3, 3)).astype(np.float32)))
            nodes.append(helper.make_node("Conv", [last, kernel], [f"c{len(nodes)}"], strides=[step] * 2, pads=[1] * 4))
            nodes.append(helper.make_node("Relu", [nodes[-1].output[0]], [f"r{len(nodes)}"]))
            spent += 18e-9 * cells * width * channels
            last, channels, step, first = nodes[-1].output[0], width, 1, False
    constants += [_constant("nothing", np.zeros(1, np.float32)), _constant("pixels", np.array([1, 2, 3], np.int64))]
    nodes.append(helper.make_node("ReduceMean", [last, "pixels"], ["mean"], keepdims=0))  # (B,)
    nodes.append(helper.make_node("Mul", ["mean", "nothing"], ["zero"]))
    for output, row in answers.items():
        constants.append(_constant(f"{output}.row", row[None].astype(np.float32)))
        constants.append(_constant(f"{output}.shape", np.array([-1, *[1] * row.ndim], np.int64)))
        nodes.append(helper.make_node("Reshape", ["zero", f"{output}.shape"], [f"{output}.zero"]))
        nodes.append(helper.make_node("Add", [f"{output}.row", f"{output}.zero"], [output]))
    graph = helper.make_graph(
        nodes,
        path.stem,
        [_tensor(name, [batch, 3, size_px[1], size_px[0]])],
        [_tensor(output, [batch, *row.shape]) for output, row in answers.items()],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def like_yolox_s(path: Path, boxes_px: Array, size_px: tuple[int, int] = (640, 640)) -> Path:
    """Network like YOLOX-s: 26.8 GFLOP, 8400 raw rows of 85, with people at `boxes_px` (N, 4) on the canvas."""
    strides = (8, 16, 32)
    rows = np.zeros((sum(size_px[0] // s * (size_px[1] // s) for s in strides), 85), np.float32)
    width = size_px[0] // strides[-1]
    first = len(rows) - width * (size_px[1] // strides[-1])
    for box in boxes_px:
        centre, side = (box[:2] + box[2:]) / 2 / strides[-1], (box[2:] - box[:2]) / strides[-1]
        cell = np.floor(centre).astype(int)
        row = rows[first + cell[1] * width + cell[0]]
        row[:2], row[2:4], row[4:6] = centre - cell, np.log(side), 0.95
    return write_network(path, "images", 1, size_px, 26.8, {"output": rows})


def like_rtmpose_m(path: Path, joints: Array) -> Path:
    """Network like RTMPose-m: 3.9 GFLOP a person, SimCC; `joints` (17, 2) as shares of the input's width and height."""
    bins = (384, 512)
    at = np.arange(max(bins))
    x, y = (np.exp(-(((at[:length] - share[:, None] * length) / 6) ** 2) / 2) for share, length in zip(joints.T, bins, strict=True))  # fmt: skip  # noqa: E501
    return write_network(path, "input", "batch", (192, 256), 3.9, {"simcc_x": x, "simcc_y": y})


def _constant(name: str, values: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def _tensor(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
