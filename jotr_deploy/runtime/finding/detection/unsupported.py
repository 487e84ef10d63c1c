"""Files that are no detector that is read, by what they are: so that a refusal can say it, and what to give instead.

Nothing here decides what is read; only files that fit no format come here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jotr_deploy.runtime.finding.detection.yolox import NEITHER
from jotr_deploy.runtime.finding.network_metadata import Declared, declared
from jotr_deploy.runtime.finding.recognition import Unread
from jotr_deploy.runtime.sessions import Session, TensorSpec

_OTHERS = "give YOLOX, or RF-DETR"
_ONE_INPUT = (
    "export it with one input [B, 3, H, W] of fractions (float32 or float16), and with outputs that docs/formats.md has"
)
_ULTRALYTICS = "export it with Ultralytics' exporter, which names the output output0"
_NANODET, _TURNED = NEITHER
_WITHOUT_NMS = "export it without the choice of boxes (NMS) inside"

_BLAZEPOSE = {(224, 224, 3), (256, 256, 3)}

_BY_TASK = {
    "segment": Unread("a segmentation network", "export a detector, such as yolo11n.pt in place of yolo11n-seg.pt"),
    "obb": Unread("a detector of oriented boxes", "export one of upright boxes: yolo11n.pt in place of yolo11n-obb.pt"),
    "classify": Unread("a classifier of whole pictures", "export a detector: yolo11n.pt in place of yolo11n-cls.pt"),
}
_BY_INPUTS = {
    ("image", "scale_factor"): Unread("a network of PaddleDetection (PP-YOLOE, PicoDet)", _OTHERS),
    ("im_shape", "image", "scale_factor"): Unread(
        "a network of PaddleDetection (PP-YOLOE, RT-DETR)", "give YOLOX, or RT-DETR as Ultralytics exports it"
    ),
    ("images", "orig_target_sizes"): Unread(
        "RT-DETR, D-FINE or DEIM as their own projects export them",
        "give RT-DETR as Ultralytics exports it, or RF-DETR",
    ),
    ("pixel_mask", "pixel_values"): Unread("a network of Hugging Face (DETR)", _OTHERS),
}
_BY_OUTPUTS = {
    ("logits", "pred_boxes"): Unread("DETR as Hugging Face exports it", _OTHERS),
    ("pred_boxes", "pred_logits"): Unread("DETR as its own project exports it", _OTHERS),
    ("boxes", "labels", "scores"): Unread(
        "a detector with boxes, labels and scores apart (torchvision; RT-DETR and D-FINE of their own projects)",
        _OTHERS,
    ),
    ("bboxes", "labels", "scores"): Unread("a detector with boxes, labels and scores apart (SSD)", _OTHERS),
    ("boxes", "scores"): Unread("a detector with boxes and scores apart (SSD, YOLO-NAS)", _OTHERS),
    ("boxes", "confs"): Unread("a detector with boxes and scores apart (YOLOv4)", _OTHERS),
    ("simcc_x", "simcc_y"): Unread("a pose network (SimCC)", "give it with --pose; a detector finds the boxes for it"),
    ("flag", "heatmaps", "landmarks", "world"): Unread("BlazePose's landmark network", "give it with --pose"),
    ("keypoints", "scores"): Unread("a pose network", "give it with --pose; a detector finds the boxes for it"),
}


def unread(session: Session) -> Unread | None:
    """What a file is that fits no format of a detector; None where it is not recognised."""
    said = declared(session)
    return next(iter((*_told(said), *_by_names(session), *_by_shapes(session))), None)


def other_pictures(session: Session) -> Iterator[Unread]:
    """A network whose one input is no [B, 3, H, W] of fractions."""
    if {"vertices", "joints_proj"} <= set(session.outputs):
        yield Unread("a mesh network of this project", "give the file of a detector or of a pose network")
    if {spec.shape[1:] for spec in session.inputs.values()} & _BLAZEPOSE and "Identity" in session.outputs:
        yield Unread("a network of BlazePose", "fetch it: jotr-deploy fetch people, then run --people blazepose")
    if len(session.inputs) != 1:
        yield Unread(f"a network of {len(session.inputs)} inputs", _ONE_INPUT)
        return
    (spec,) = session.inputs.values()
    if len(spec.shape) == 4 and spec.shape[3] == 3 and spec.shape[1] != 3:
        yield Unread("a network of pictures with the colours last [B, H, W, 3]", _ONE_INPUT)
    elif len(spec.shape) == 4 and isinstance(spec.shape[1], int) and spec.shape[1] != 3:
        yield Unread(f"a network of pictures with {spec.shape[1]} channels", "give a network of colour pictures")
    elif len(spec.shape) == 4 and spec.dtype.kind != "f":
        yield Unread(f"a network of pictures in whole numbers ({spec.dtype.name})", _ONE_INPUT)


def _told(said: Declared) -> Iterator[Unread]:
    if said.task in _BY_TASK:
        yield _BY_TASK[said.task]
    elif said.task == "pose" and said.keypoints is not None:
        joints, values = said.keypoints
        instead = "give one of 17 joints in COCO's order (kpt_shape [17, 3]), or a detector"
        if values != 3:
            yield Unread(f"a pose network whose joints have no visibility (kpt_shape [{joints}, {values}])", instead)
        else:
            yield Unread(f"a pose network of {joints} joints (kpt_shape [{joints}, 3])", instead)
    elif "rtdetr" in said.description:
        yield Unread(
            "RT-DETR in rows of six, which may be two classes or scores and classes",
            "export it as [B, n, 4 + C], with another number of classes than two",
        )
    elif said.task not in (None, "detect", "pose"):
        yield Unread(f"a network for the task '{said.task}'", "export a detector, or a pose network of 17 joints")


def _by_names(session: Session) -> Iterator[Unread]:
    inputs, outputs = _plain(session.inputs), _plain(session.outputs)
    if inputs in _BY_INPUTS:
        yield _BY_INPUTS[inputs]
    if outputs in _BY_OUTPUTS:
        yield _BY_OUTPUTS[outputs]
    if any("mask" in name for name in outputs) or {"dets", "labels"} < set(outputs):
        yield _BY_TASK["segment"]
    if {"detection_boxes", "detection_scores"} <= set(outputs):
        yield Unread("a detector of TensorFlow's object detection (SSD)", _OTHERS)
    if any(word in name for word in ("pred_boxes", "num_predictions", "flat_predictions") for name in outputs):
        yield Unread("a detector of super-gradients (YOLO-NAS)", _OTHERS)
    if "nmsed_boxes" in outputs:
        yield Unread("a detector with TensorRT's older choice of boxes inside (BatchedNMS)", _WITHOUT_NMS)
    if any("multiclass_nms" in name for name in outputs):
        yield Unread("a network of PaddleDetection", "give YOLOX, or RT-DETR as Ultralytics exports it")


def _plain(names: Iterable[str]) -> tuple[str, ...]:
    """In order, without the numbers that TensorFlow gives to its tensors: `detection_boxes:0`."""
    return tuple(sorted(name.partition(":")[0] for name in names))


def _by_shapes(session: Session) -> Iterator[Unread]:
    yield from other_pictures(session)
    yield from _beside_heads(session)
    shapes = [spec.shape for spec in session.outputs.values()]
    ranks = [len(shape) for shape in shapes]
    if ranks == [3, 4]:
        yield _BY_TASK["segment"]
    if "dets" in session.outputs and session.outputs["dets"].shape[2:] == (6,):
        yield Unread("a detector of oriented boxes (mmrotate)", "give one of upright boxes, such as RTMDet")
    if len(shapes) == 1:
        ((name, spec),) = session.outputs.items()
        yield from _by_one_shape(name, spec)
    elif ranks == [3, 3] and shapes[0] == shapes[1]:
        yield Unread(
            "YOLOv9 with the head that only training needs", "export the converted weights (yolov9-c-converted)"
        )
    elif sorted(ranks) == [3, 3] and any(shape[2] == 4 for shape in shapes):
        yield Unread("a detector with boxes and scores apart (DAMO-YOLO, YOLO-NAS)", _OTHERS)
    elif sorted(ranks)[:3] == [1, 1, 2] and any(shape[1:] == (4,) for shape in shapes):
        yield Unread("a detector with boxes, labels and scores apart (torchvision)", _OTHERS)
    elif len(shapes) >= 3 and all(rank in (3, 4, 5) for rank in ranks):
        yield Unread(
            f"a network with {len(shapes)} outputs, such as a detector whose levels are apart",
            f"export it with its boxes decoded, in one output; or {_OTHERS}",
        )


def _beside_heads(session: Session) -> Iterator[Unread]:
    """The decoded output of YOLOv5 to YOLOv7, and beside it the levels that it is made of."""
    decoded = [name for name, spec in session.outputs.items() if len(spec.shape) == 3]
    heads = [name for name, spec in session.outputs.items() if len(spec.shape) == 5]
    if len(session.inputs) == len(decoded) == 1 and heads and len(heads) + 1 == len(session.outputs):
        (picture,) = session.inputs
        yield Unread(
            f"a detector with its boxes decoded in '{decoded[0]}', and the levels that they are made of beside it",
            f"keep that output alone: onnx.utils.extract_model(OLD, NEW, ['{picture}'], ['{decoded[0]}'])",
        )


def _by_one_shape(name: str, spec: TensorSpec) -> Iterator[Unread]:
    shape = spec.shape
    if len(shape) == 4:
        yield Unread("a network of maps, such as a pose network", f"if it is one, give it with --pose; else {_OTHERS}")
    elif name == "output0" and len(shape) == 3 and shape[2] == 7:
        yield _BY_TASK["obb"]
    elif name == "output0" and len(shape) == 3 and shape[2] == _TURNED:
        yield Unread("YOLOv8 with a row for each cell", _ULTRALYTICS)
    elif name != "output0" and len(shape) == 3 and isinstance(shape[1], int) and isinstance(shape[2], int):
        if 4 < shape[1] < shape[2]:
            yield Unread(
                f"a detector with a column for each cell, as YOLOv8, and the output '{name}'",
                _ULTRALYTICS,
            )
        elif shape[2] == _NANODET:
            yield Unread("NanoDet", _OTHERS)
        elif shape[2] == _TURNED:
            yield Unread("YOLOv8 with a row for each cell", _ULTRALYTICS)
    elif len(shape) == 2 and shape[1] in (6, 7):
        yield Unread("a detector with the choice of boxes of all pictures in one list (YOLOv7)", _WITHOUT_NMS)
    elif len(shape) == 2:
        yield _BY_TASK["classify"]
