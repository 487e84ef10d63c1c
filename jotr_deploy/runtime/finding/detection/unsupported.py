"""Recognition of unsupported files, so that the refusal can name their kind and what to give instead.

Nothing here decides what is supported; only files that fit no format get here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jotr_deploy.runtime.finding.detection.yolox import NEITHER
from jotr_deploy.runtime.finding.network_metadata import Declared, declared
from jotr_deploy.runtime.finding.recognition import Unread
from jotr_deploy.runtime.sessions import Session, TensorSpec

_OTHERS = "give YOLOX, or RF-DETR"
_ONE_INPUT = "export it with one float32 or float16 input [B, 3, H, W], and with outputs that docs/formats.md lists"
_ULTRALYTICS = "export it with Ultralytics' exporter, which names the output output0"
_NANODET, _TURNED = NEITHER
_WITHOUT_NMS = "export it without non-maximum suppression (NMS)"

_BLAZEPOSE = {(224, 224, 3), (256, 256, 3)}

_BY_TASK = {
    "segment": Unread("a segmentation network", "export a detector, such as yolo11n.pt instead of yolo11n-seg.pt"),
    "obb": Unread("a detector of oriented boxes", "export one with upright boxes: yolo11n.pt, not yolo11n-obb.pt"),
    "classify": Unread("an image classifier", "export a detector: yolo11n.pt instead of yolo11n-cls.pt"),
}
_BY_INPUTS = {
    ("image", "scale_factor"): Unread("a network of PaddleDetection (PP-YOLOE, PicoDet)", _OTHERS),
    ("im_shape", "image", "scale_factor"): Unread(
        "a network of PaddleDetection (PP-YOLOE, RT-DETR)", "give YOLOX, or RT-DETR as exported by Ultralytics"
    ),
    ("images", "orig_target_sizes"): Unread(
        "RT-DETR, D-FINE or DEIM as exported by their own projects",
        "give RT-DETR as exported by Ultralytics, or RF-DETR",
    ),
    ("pixel_mask", "pixel_values"): Unread("a Hugging Face network (DETR)", _OTHERS),
}
_BY_OUTPUTS = {
    ("logits", "pred_boxes"): Unread("DETR as exported by Hugging Face", _OTHERS),
    ("pred_boxes", "pred_logits"): Unread("DETR as exported by its own project", _OTHERS),
    ("boxes", "labels", "scores"): Unread(
        "a detector with separate boxes, labels and scores (torchvision; RT-DETR and D-FINE of their own projects)",
        _OTHERS,
    ),
    ("bboxes", "labels", "scores"): Unread("a detector with separate boxes, labels and scores (SSD)", _OTHERS),
    ("boxes", "scores"): Unread("a detector with separate boxes and scores (SSD, YOLO-NAS)", _OTHERS),
    ("boxes", "confs"): Unread("a detector with separate boxes and scores (YOLOv4)", _OTHERS),
    ("simcc_x", "simcc_y"): Unread("a pose network (SimCC)", "give it with --pose, and a detector to find the boxes"),
    ("flag", "heatmaps", "landmarks", "world"): Unread("BlazePose's landmark network", "give it with --pose"),
    ("keypoints", "scores"): Unread("a pose network", "give it with --pose, and a detector to find the boxes"),
}


def unread(session: Session) -> Unread | None:
    """Kind of a file that fits no detector format; None if it is not recognised."""
    said = declared(session)
    return next(iter((*_by_metadata(said), *_by_names(session), *_by_shapes(session))), None)


def other_pictures(session: Session) -> Iterator[Unread]:
    """Kinds of networks that do not have a single floating-point input [B, 3, H, W]."""
    if {"vertices", "joints_proj"} <= set(session.outputs):
        yield Unread("a mesh network of this project", "give a detector or a pose network")
    if {spec.shape[1:] for spec in session.inputs.values()} & _BLAZEPOSE and "Identity" in session.outputs:
        yield Unread("a BlazePose network", "fetch it: jotr-deploy fetch people, then run --people blazepose")
    if len(session.inputs) != 1:
        yield Unread(f"a network with {len(session.inputs)} inputs", _ONE_INPUT)
        return
    (spec,) = session.inputs.values()
    if len(spec.shape) == 4 and spec.shape[3] == 3 and spec.shape[1] != 3:
        yield Unread("a network with channels-last images [B, H, W, 3]", _ONE_INPUT)
    elif len(spec.shape) == 4 and isinstance(spec.shape[1], int) and spec.shape[1] != 3:
        yield Unread(f"a network for images with {spec.shape[1]} channels", "give a network for colour images")
    elif len(spec.shape) == 4 and spec.dtype.kind != "f":
        yield Unread(f"a network with integer images ({spec.dtype.name})", _ONE_INPUT)


def _by_metadata(said: Declared) -> Iterator[Unread]:
    if said.task in _BY_TASK:
        yield _BY_TASK[said.task]
    elif said.task == "pose" and said.keypoints is not None:
        joints, values = said.keypoints
        instead = "give one with 17 joints in COCO's order (kpt_shape [17, 3]), or a detector"
        if values != 3:
            yield Unread(f"a pose network whose joints have no visibility (kpt_shape [{joints}, {values}])", instead)
        else:
            yield Unread(f"a pose network with {joints} joints (kpt_shape [{joints}, 3])", instead)
    elif "rtdetr" in said.description:
        yield Unread(
            "RT-DETR in rows of six, which may hold two classes, or a score and a class",
            "export it as [B, n, 4 + C], with a number of classes other than two",
        )
    elif said.task not in (None, "detect", "pose"):
        yield Unread(f"a network for the task '{said.task}'", "export a detector, or a pose network with 17 joints")


def _by_names(session: Session) -> Iterator[Unread]:
    inputs, outputs = _plain(session.inputs), _plain(session.outputs)
    if inputs in _BY_INPUTS:
        yield _BY_INPUTS[inputs]
    if outputs in _BY_OUTPUTS:
        yield _BY_OUTPUTS[outputs]
    if any("mask" in name for name in outputs) or {"dets", "labels"} < set(outputs):
        yield _BY_TASK["segment"]
    if {"detection_boxes", "detection_scores"} <= set(outputs):
        yield Unread("a detector of TensorFlow's Object Detection API (SSD)", _OTHERS)
    if any(word in name for word in ("pred_boxes", "num_predictions", "flat_predictions") for name in outputs):
        yield Unread("a detector of super-gradients (YOLO-NAS)", _OTHERS)
    if "nmsed_boxes" in outputs:
        yield Unread("a detector with TensorRT's older BatchedNMS plugin", _WITHOUT_NMS)
    if any("multiclass_nms" in name for name in outputs):
        yield Unread("a network of PaddleDetection", "give YOLOX, or RT-DETR as exported by Ultralytics")


def _plain(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted names without TensorFlow's tensor numbers, as in `detection_boxes:0`."""
    return tuple(sorted(name.partition(":")[0] for name in names))


def _by_shapes(session: Session) -> Iterator[Unread]:
    yield from other_pictures(session)
    yield from _beside_heads(session)
    shapes = [spec.shape for spec in session.outputs.values()]
    ranks = [len(shape) for shape in shapes]
    if ranks == [3, 4]:
        yield _BY_TASK["segment"]
    if "dets" in session.outputs and session.outputs["dets"].shape[2:] == (6,):
        yield Unread("a detector of oriented boxes (mmrotate)", "give one with upright boxes, such as RTMDet")
    if len(shapes) == 1:
        ((name, spec),) = session.outputs.items()
        yield from _by_one_shape(name, spec)
    elif ranks == [3, 3] and shapes[0] == shapes[1]:
        yield Unread("YOLOv9 with its auxiliary training head", "export the converted weights (yolov9-c-converted)")
    elif sorted(ranks) == [3, 3] and any(shape[2] == 4 for shape in shapes):
        yield Unread("a detector with separate boxes and scores (DAMO-YOLO, YOLO-NAS)", _OTHERS)
    elif sorted(ranks)[:3] == [1, 1, 2] and any(shape[1:] == (4,) for shape in shapes):
        yield Unread("a detector with separate boxes, labels and scores (torchvision)", _OTHERS)
    elif len(shapes) >= 3 and all(rank in (3, 4, 5) for rank in ranks):
        yield Unread(
            f"a network with {len(shapes)} outputs, such as a detector with one output per level",
            f"export it with its boxes decoded, in one output; or {_OTHERS}",
        )


def _beside_heads(session: Session) -> Iterator[Unread]:
    """Detectors (YOLOv5 to YOLOv7) that output the raw levels beside the decoded boxes."""
    decoded = [name for name, spec in session.outputs.items() if len(spec.shape) == 3]
    heads = [name for name, spec in session.outputs.items() if len(spec.shape) == 5]
    if len(session.inputs) == len(decoded) == 1 and heads and len(heads) + 1 == len(session.outputs):
        (picture,) = session.inputs
        yield Unread(
            f"a detector with decoded boxes in '{decoded[0]}' and the raw levels beside them",
            f"keep only that output: onnx.utils.extract_model(OLD, NEW, ['{picture}'], ['{decoded[0]}'])",
        )


def _by_one_shape(name: str, spec: TensorSpec) -> Iterator[Unread]:
    shape = spec.shape
    if len(shape) == 4:
        yield Unread("a heat-map network, such as a pose network", f"if it is one, give it with --pose; else {_OTHERS}")
    elif name == "output0" and len(shape) == 3 and shape[2] == 7:
        yield _BY_TASK["obb"]
    elif name == "output0" and len(shape) == 3 and shape[2] == _TURNED:
        yield Unread("YOLOv8 with a row per cell", _ULTRALYTICS)
    elif name != "output0" and len(shape) == 3 and isinstance(shape[1], int) and isinstance(shape[2], int):
        if 4 < shape[1] < shape[2]:
            yield Unread(
                f"a detector with a column per cell, like YOLOv8, but with the output name '{name}'",
                _ULTRALYTICS,
            )
        elif shape[2] == _NANODET:
            yield Unread("NanoDet", _OTHERS)
        elif shape[2] == _TURNED:
            yield Unread("YOLOv8 with a row per cell", _ULTRALYTICS)
    elif len(shape) == 2 and shape[1] in (6, 7):
        yield Unread("a detector with NMS that returns the boxes of all images in one list (YOLOv7)", _WITHOUT_NMS)
    elif len(shape) == 2:
        yield _BY_TASK["classify"]
