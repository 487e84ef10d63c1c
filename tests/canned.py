"""Detectors and pose networks whose answers are known: sessions that answer from a function, and tiny ONNX files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.runtime.finding.detection.letterbox import boxes_on_canvas, fitted_size_px
from jotr_deploy.runtime.finding.detection.yolox import cells
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


def always(name: str, size_px: tuple[int, int], answers: dict[str, np.ndarray], batch: int | str = "batch") -> Canned:
    """A network with input `name` that answers the same for every picture, in the types of the answers."""
    session = Canned({name: (batch, 3, size_px[1], size_px[0])}, {})
    session.answer = lambda images: {out: np.stack([rows] * len(images)) for out, rows in answers.items()}
    session.outputs = {out: TensorSpec(rows.dtype, (batch, *rows.shape)) for out, rows in answers.items()}
    return session


def write_always(
    path: Path,
    name: str,
    size_px: tuple[int, int],
    answers: dict[str, np.ndarray],
    batch: int | str = "batch",
    colours_last: bool = False,
) -> Path:
    """`always` as a file."""
    described, weights = helper.make_tensor_value_info, []
    nodes, outputs = [helper.make_node("Shape", [name], ["rows"], start=0, end=1)], []
    for out, rows in answers.items():
        kind = helper.np_dtype_to_tensor_dtype(rows.dtype)
        weights += [
            numpy_helper.from_array(rows, f"{out}_one"),
            numpy_helper.from_array(np.array(rows.shape), out + "_"),
        ]
        nodes.append(helper.make_node("Concat", ["rows", f"{out}_"], [f"{out}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [f"{out}_one", f"{out}_shape"], [out]))
        outputs.append(described(out, kind, [batch, *rows.shape]))
    shape = [size_px[1], size_px[0], 3] if colours_last else [3, size_px[1], size_px[0]]
    image = described(name, TensorProto.FLOAT, [batch, *shape])
    graph = helper.make_graph(nodes, "always", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def mmdeploy_answers(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Outputs for boxes (N, 4) on the canvas and scores (N,), by default of people, and two rows of padding."""
    dets = np.zeros((len(boxes) + 2, 5), np.float32)
    dets[:-2, :4], dets[:-2, 4], dets[-1] = boxes, scores, -1
    known = np.zeros(len(boxes)) if labels is None else labels
    return {"dets": dets, "labels": np.array([*known, 0, -1], np.int64)}


def on_centred_canvas(boxes_px: np.ndarray, image_size_px: tuple[int, int], size_px: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) of a picture where Ultralytics' own letterbox puts them."""
    ratio = min(size_px[0] / image_size_px[0], size_px[1] / image_size_px[1])
    fitted = [max(round(side * ratio), 1) for side in image_size_px]
    left_top = [round((whole - part) / 2 - 0.1) for whole, part in zip(size_px, fitted, strict=True)]
    edges = (np.asarray(boxes_px, float).reshape(-1, 2, 2) + 0.5) * fitted / image_size_px + left_top
    return edges.reshape(-1, 4)


def ultralytics_raw(
    boxes: np.ndarray, scores: np.ndarray, size_px: tuple[int, int], classes: int = 1
) -> dict[str, np.ndarray]:
    """Output [4 + C, A] for boxes (N, 4) on the canvas, in cells over all levels."""
    out = np.zeros((4 + classes, rows_of(size_px)), np.float32)
    at = np.linspace(0, out.shape[1] - 1, len(boxes)).astype(int)
    out[:2, at], out[2:4, at] = (boxes[:, :2] + boxes[:, 2:]).T / 2, (boxes[:, 2:] - boxes[:, :2]).T
    out[4, at] = scores
    return {"output0": out}


def ultralytics_end_to_end(boxes: np.ndarray, scores: np.ndarray, rows: int = 20) -> dict[str, np.ndarray]:
    """Output [n, 6] for people's boxes (N, 4) on the canvas; the other rows are unused."""
    out = np.zeros((rows, 6), np.float32)
    out[: len(boxes), :4], out[: len(boxes), 4] = boxes, scores
    return {"output0": out}


def rtmo_answers(boxes: np.ndarray, scores: np.ndarray, joints: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs for boxes (N, 4) and joints (N, K, 3) on the canvas, scores (N,), and two rows of padding."""
    keypoints = np.concatenate([joints, np.full((2, *joints.shape[1:]), 0.9)]).astype(np.float32)
    return {"dets": mmdeploy_answers(boxes, scores)["dets"], "keypoints": keypoints}


def ultralytics_pose(
    boxes: np.ndarray, scores: np.ndarray, joints: np.ndarray, size_px: tuple[int, int], end_to_end: bool
) -> dict[str, np.ndarray]:
    """Output [56, A] or [20, 57] for boxes (N, 4) and joints (N, 17, 3) on the canvas and scores (N,)."""
    flat = joints.reshape(len(joints), 51).astype(np.float32)
    if end_to_end:
        rows = ultralytics_end_to_end(boxes, scores)["output0"]
        return {"output0": np.hstack([rows, np.vstack([flat, np.zeros((len(rows) - len(flat), 51), np.float32)])])}
    out = ultralytics_raw(boxes, scores, size_px, 52)["output0"]
    out[5:, np.linspace(0, out.shape[1] - 1, len(boxes)).astype(int)] = flat.T
    return {"output0": out}


def joints_on_canvas(joints_px: np.ndarray, boxes_on_canvas: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Joints (N, J, 3) of a picture, from the centre of the canvas's first pixel, by what takes boxes (N, 4) there."""
    points = joints_px[..., :2].reshape(-1, 2)
    edges = boxes_on_canvas(np.concatenate([points, points], 1))[:, :2]
    return np.concatenate([(edges - 0.5).reshape(*joints_px.shape[:2], 2), joints_px[..., 2:]], -1)


def heatmaps_session(
    answer: Callable | None, size_px: tuple[int, int], joints: int = 17, batch: int | str = "batch"
) -> Canned:
    width, height = size_px
    outputs = {"output": (batch, joints, height // 4, width // 4)}
    return Canned({"input": (batch, 3, height, width)}, outputs, answer)


def write_heatmaps(path: Path, size_px: tuple[int, int], joints: int = 17, udp: bool = False) -> Path:
    """A network in HRNet's format whose every map is how red the picture is, 0..1, at the places of the cells."""
    width, height = size_px
    mean, deviation = 123.675 / 255, 58.395 / 255
    constants = {"red": np.array([0]), "mean": np.float32([mean]), "deviation": np.float32([deviation]),
                 "joints": np.ones((1, joints, 1, 1), np.float32),
                 "size": np.array([1, height // 4, width // 4])}  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["input", "red"], ["normalised"], axis=1),
        helper.make_node("Mul", ["normalised", "deviation"], ["varied"]),
        helper.make_node("Add", ["varied", "mean"], ["redness"]),
        helper.make_node("Shape", ["input"], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", "size"], ["sizes"], axis=0),
        helper.make_node("Resize", ["redness", "", "", "sizes"], ["map"], mode="linear",
                         coordinate_transformation_mode="align_corners" if udp else "asymmetric"),
        helper.make_node("Mul", ["map", "joints"], ["output"]),
    ]  # fmt: skip
    outputs = {"output": ["batch", joints, height // 4, width // 4]}
    return _write(path, nodes, constants, {"input": ["batch", 3, height, width]}, outputs)


def write_yolox_of_any_size(path: Path, batch: int | str = "batch") -> Path:
    """A network in YOLOX's format that sees: every cell of every level is a person who fills it, if it is white."""
    constants = {
        "flat": np.array([0, 3, -1]),
        "colours": np.zeros((3, 6), np.float32),
        "nothing": np.float32([0.5, 0.5, -1e-9, 0, 0, 1]),  # a logarithm may be negative, a share of the picture not
    }  # the middle of the cell, its size, of class 0
    constants["colours"][:, 4] = 1 / 255 / 3
    nodes = []
    for stride in STRIDES:
        pool = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes += [
            helper.make_node("AveragePool", ["images"], [f"cells{stride}"], **pool),
            helper.make_node("Reshape", [f"cells{stride}", "flat"], [f"row{stride}"]),
        ]
    nodes += [
        helper.make_node("Concat", [f"row{stride}" for stride in STRIDES], ["rows"], axis=2),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["columns", "colours"], ["seen"]),
        helper.make_node("Add", ["seen", "nothing"], ["output"]),
    ]
    return _write(path, nodes, constants, {"images": [batch, 3, "height", "width"]}, {"output": [batch, "cells", 6]})


def write_heatmaps_of_any_size(path: Path, joints: int = 17) -> Path:
    """A network in HRNet's format whose every map is how bright the picture is."""
    nodes = [
        helper.make_node("AveragePool", ["input"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["cells", "mean"], ["output"]),
    ]
    constants = {"mean": np.full((joints, 3, 1, 1), 1 / 3, np.float32)}
    return _write(path, nodes, constants, {"input": ["batch", 3, "h", "w"]}, {"output": ["batch", joints, "y", "x"]})


def write_of_one_hidden_size(path: Path, size_px: tuple[int, int]) -> Path:
    """A network in Ultralytics' format that says it takes any size, and does not."""
    nodes = [
        helper.make_node("Flatten", ["input"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["numbers"]),
        helper.make_node("Reshape", ["numbers", "shape"], ["output0"]),
    ]
    cells = rows_of(size_px)
    constants = {"weights": np.zeros((3 * size_px[0] * size_px[1], 5 * cells), np.float32),
                 "shape": np.array([0, 5, cells])}  # fmt: skip
    return _write(path, nodes, constants, {"input": [1, 3, "h", "w"]}, {"output0": [1, "five", "cells"]})


def with_metadata(path: Path, metadata: dict[str, str]) -> Path:
    """A file with this written into it, as its exporter would."""
    model = onnx.load(path)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def centre_size(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) x0 y0 x1 y1 -> centre and size."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def with_objectness(
    boxes: np.ndarray, scores: np.ndarray, size_px: tuple[int, int], each: int, classes: int = 1, person: int = 0
) -> np.ndarray:
    """Rows [each * A, 5 + C] for boxes (N, 4) on the canvas, decoded, as of YOLOv5 (3 each) and YOLOv6 (1 each)."""
    rows = np.zeros((each * rows_of(size_px), 5 + classes), np.float32)
    at = np.linspace(0, len(rows) - 1, len(boxes)).astype(int)
    rows[at, :4], rows[:, 4], rows[at, 5 + person] = centre_size(boxes), 1, scores
    return rows


def efficient_nms_answers(boxes: np.ndarray, scores: np.ndarray, rows: int = 9) -> dict[str, np.ndarray]:
    """Outputs for boxes (N, 4) on the canvas and scores (N,); the rows beyond the count hold somebody all the same."""
    out = {"num_dets": np.array([len(boxes)], np.int32), "det_boxes": np.full((rows, 4), [1, 1, 60, 60], np.float32),
           "det_scores": np.full(rows, 0.99, np.float32), "det_classes": np.zeros(rows, np.int32)}  # fmt: skip
    out["det_boxes"][: len(boxes)], out["det_scores"][: len(boxes)] = boxes, scores
    return out


def shares_of(boxes_px: np.ndarray, image_size_px: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) of a picture as centre and size in shares of it."""
    return centre_size((np.asarray(boxes_px, float).reshape(-1, 4) + 0.5) / (image_size_px * 2)).astype(np.float32)


def rtdetr_answers(
    boxes_px: np.ndarray, scores: np.ndarray, image_size_px: tuple[int, int], classes: int = 80, person: int = 0
) -> dict[str, np.ndarray]:
    """Output [20, 4 + C] for boxes (N, 4) of a picture; the other queries are unsure boxes in the middle."""
    out = np.full((20, 4 + classes), 0.01, np.float32)
    out[:, :4] = 0.5
    out[: len(boxes_px), :4], out[: len(boxes_px), 4 + person] = shares_of(boxes_px, image_size_px), scores
    return {"output0": out}


def rf_detr_answers(
    boxes_px: np.ndarray, scores: np.ndarray, image_size_px: tuple[int, int], classes: int = 91, person: int = 1
) -> dict[str, np.ndarray]:
    """Outputs for boxes (N, 4) of a picture, and a car beside."""
    dets, labels = np.full((20, 4), 0.5, np.float32), np.full((20, classes), -9, np.float32)
    dets[: len(boxes_px)], labels[: len(boxes_px), person] = (
        shares_of(boxes_px, image_size_px),
        np.log(scores / (1 - scores)),
    )
    labels[-1, -1] = 5
    return {"dets": dets, "labels": labels}


RADIUS_SHARE = 0.3
"""Of the person whom `write_blaze_detector` finds, of the longer side of a picture or window."""


def write_blaze_detector(path: Path, batch: int | str = "batch", people: int = 1) -> Path:
    """A network in BlazePose's format that finds a person in the middle of every picture, or nobody."""
    boxes, logits = np.zeros((2254, 12), np.float32), np.full((2254, 1), -9, np.float32)
    middle = 7 * 7 // 2 * 6 + 28 * 28 * 2 + 14 * 14 * 2  # an anchor of the coarsest grid, of its middle cell
    boxes[middle, :8] = [0, -20, 20, 20, 0, 0, 0, -RADIUS_SHARE * 224]
    logits[middle] = 3 if people else -9
    return write_always(path, "image", (224, 224), {"boxes": boxes, "logits": logits}, batch, colours_last=True)


def write_blaze_landmarks(path: Path, batch: int | str = "batch", flag: float = 0.9) -> Path:
    """A network in BlazePose's format for which everybody fills the crop, and whose next crop is the same."""
    points = np.full((39, 5), 5, np.float32)
    points[:33, 0], points[:33, 1] = np.linspace(80, 176, 33), 128 + 90 * np.cos(np.arange(33))
    points[33:, :2] = 128
    points[34, 1] -= 256 / 2.5
    answers = {"landmarks": points.reshape(-1), "flag": np.float32([flag]),
               "heatmaps": np.full((64, 64, 39), -9, np.float32), "world": np.zeros(117, np.float32)}  # fmt: skip
    return write_always(path, "image", (256, 256), answers, batch, colours_last=True)


def blaze_joints(centre_px: tuple[float, float], radius_px: float) -> np.ndarray:
    """(33, 2) where `write_blaze_landmarks` has the joints of a person of this circle."""
    offset = np.stack([np.linspace(80, 176, 33) - 128, 90 * np.cos(np.arange(33))], -1)
    return np.array(centre_px) + offset * 2.5 * radius_px / 256
