"""Detectors and pose networks whose answers are known: sessions that answer from a function, and tiny ONNX files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.runtime.detection.letterbox import boxes_on_canvas, fitted_size_px
from jotr_deploy.runtime.detection.yolox import cells
from jotr_deploy.runtime.sessions import Session, TensorSpec

STRIDES = (8, 16, 32)
FLOAT = np.dtype(np.float32)


class Canned(Session):
    """A session of stated tensors that answers what `answer` makes of the feeds, and counts its calls."""

    def __init__(self, inputs: dict, outputs: dict, answer: Callable[[np.ndarray], dict] | None = None) -> None:
        self.path = Path("canned.onnx")
        self.inputs = {name: TensorSpec(FLOAT, shape) for name, shape in inputs.items()}
        self.outputs = {name: TensorSpec(FLOAT, shape) for name, shape in outputs.items()}
        self.answer, self.seen = answer, []

    def _run(self, feeds: dict) -> dict:
        ((_, images),) = feeds.items()
        self.seen.append(images.copy())
        return self.answer(images)


def rows_of(size_px: tuple[int, int], strides: tuple[int, ...] = STRIDES) -> int:
    return sum((size_px[0] // s) * (size_px[1] // s) for s in strides)


def yolox_rows(
    boxes: np.ndarray, scores: np.ndarray, size_px: tuple[int, int], decoded: bool = False, classes: int = 1
) -> np.ndarray:
    """(A, 5 + C) output of a network that finds these boxes (N, 4) on its canvas, one after the other in cells."""
    cell, stride = cells(size_px, STRIDES)
    out = np.zeros((len(cell), 5 + classes), np.float32)
    out[:, :2], out[:, 2:4] = -cell, np.log(0.5)  # scores of nothing, boxes about the corner
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    at = np.linspace(0, len(cell) - 1, len(boxes)).astype(int)  # over all levels
    out[at, :2] = centre / stride[at] - cell[at]
    out[at, 2:4] = np.log(size / stride[at])
    out[at, 4], out[at, 5] = np.sqrt(scores), np.sqrt(scores)
    if decoded:
        out[:, :2] = (out[:, :2] + cell) * stride
        out[:, 2:4] = np.exp(out[:, 2:4]) * stride
    return out


def yolox_session(rows: np.ndarray, size_px: tuple[int, int], batch: int | str = "batch") -> Canned:
    """A detector that always finds the same."""
    inputs = {"images": (batch, 3, size_px[1], size_px[0])}
    return Canned(inputs, {"output": (batch, *rows.shape)}, lambda images: {"output": np.stack([rows] * len(images))})


def on_canvas(boxes_px: np.ndarray, image_size_px: tuple[int, int], size_px: tuple[int, int]) -> np.ndarray:
    fitted = fitted_size_px(image_size_px, size_px)
    return boxes_on_canvas(boxes_px, np.array(fitted) / image_size_px)


def simcc_session(
    answer: Callable | None, size_px: tuple[int, int], joints: int = 17, ratio: int = 2, batch: int | str = "batch"
) -> Canned:
    width, height = size_px
    outputs = {"simcc_x": (batch, joints, ratio * width), "simcc_y": (batch, joints, ratio * height)}
    return Canned({"input": (batch, 3, height, width)}, outputs, answer)


def brightest(images: np.ndarray, joints: int = 17, ratio: int = 2) -> dict:
    """SimCC heights of a network whose every joint is the brightest pixel: 1 there, 0 for black."""
    low, high = (bound((1, 2, 3), keepdims=True) for bound in (images.min, images.max))
    grey = (images - low) / np.maximum(high - low, 1e-6)
    out = {}
    for name, axes in (("simcc_x", (1, 2)), ("simcc_y", (1, 3))):
        profile = grey.max(axes)
        bins = np.zeros((len(images), joints, ratio * profile.shape[1]), np.float32)
        bins[..., ::ratio] = profile[:, None]
        out[name] = bins
    return out


def write_yolox(path: Path, rows: np.ndarray, size_px: tuple[int, int]) -> Path:
    """A network in YOLOX's format that finds the same in every picture."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "image_axes"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing4"]),
        helper.make_node("Squeeze", ["nothing4", "last"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["output"]),
    ]
    constants = {"image_axes": np.array([1, 2, 3]), "zero": np.zeros(1, np.float32), "last": np.array([3]),
                 "rows": rows[None].astype(np.float32)}  # fmt: skip
    inputs = {"images": ["batch", 3, size_px[1], size_px[0]]}
    return _write(path, nodes, constants, inputs, {"output": ["batch", *rows.shape]})


def write_simcc(path: Path, size_px: tuple[int, int], joints: int = 17) -> Path:
    """A network in RTMPose's format whose every joint is the brightest pixel."""
    width, height = size_px
    nodes, constants = [], {"joints": np.ones((joints, 1), np.float32), "one": np.array([1])}
    for name, axes, side in (("simcc_x", [1, 2], width), ("simcc_y", [1, 3], height)):
        constants |= {f"{name}_axes": np.array(axes), f"{name}_bins": np.eye(2 * side, dtype=np.float32)[::2]}
        nodes += [
            helper.make_node("ReduceMax", ["input", f"{name}_axes"], [f"{name}_profile"], keepdims=0),
            helper.make_node("MatMul", [f"{name}_profile", f"{name}_bins"], [f"{name}_flat"]),
            helper.make_node("Unsqueeze", [f"{name}_flat", "one"], [f"{name}_row"]),
            helper.make_node("Mul", [f"{name}_row", "joints"], [name]),
        ]
    outputs = {"simcc_x": ["batch", joints, 2 * width], "simcc_y": ["batch", joints, 2 * height]}
    return _write(path, nodes, constants, {"input": ["batch", 3, height, width]}, outputs)


def _write(path: Path, nodes: list, constants: dict, inputs: dict, outputs: dict) -> Path:
    def described(tensors: dict) -> list:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in tensors.items()]

    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "canned", described(inputs), described(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path
