"""Networks that are not read: refused by what they are, with what to give in their place."""

from __future__ import annotations

import numpy as np
import pytest
from canned import Canned

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.sessions import TensorSpec

IMAGE = (1, 3, 640, 640)
OTHERS = "give YOLOX, or RF-DETR"

# what it is -> inputs, outputs, metadata, words of the refusal
DETECTORS = {
    "yolov8-seg": ({"images": IMAGE}, {"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}, {},
                   "a segmentation network"),
    "yolov8-seg by its task": ({"images": IMAGE}, {"output0": (1, 116, 8400)}, {"task": "segment"},
                               "a segmentation network"),
    "yolo11-obb": ({"images": IMAGE}, {"output0": (1, 20, 8400)}, {"task": "obb"}, "a detector of oriented boxes"),
    "yolo11-obb, end to end": ({"images": IMAGE}, {"output0": (1, 300, 7)}, {}, "a detector of oriented boxes"),
    "yolov8-cls": ({"images": (1, 3, 224, 224)}, {"output0": (1, 1000)}, {}, "an image classifier"),
    "13 joints": ({"images": IMAGE}, {"output0": (1, 44, 8400)}, {"task": "pose", "kpt_shape": "[13, 3]"},
                  "a pose network with 13 joints (kpt_shape [13, 3])"),
    "joints without visibility": ({"images": IMAGE}, {"output0": (1, 39, 8400)},
                                  {"task": "pose", "kpt_shape": "[17, 2]"},
                                  "a pose network whose joints have no visibility (kpt_shape [17, 2])"),
    "pp-yoloe": ({"image": IMAGE, "scale_factor": (1, 2)}, {"multiclass_nms3_0.tmp_0": ("n", 6)}, {},
                 "a network of PaddleDetection (PP-YOLOE, PicoDet)"),
    "rt-detr": ({"images": IMAGE, "orig_target_sizes": (1, 2)},
                {"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)}, {},
                "RT-DETR, D-FINE or DEIM as exported by their own projects"),
    "detr": ({"pixel_values": IMAGE}, {"logits": (1, 100, 92), "pred_boxes": (1, 100, 4)}, {},
             "DETR as exported by Hugging Face"),
    "yolov7, nms inside": ({"images": IMAGE}, {"output": ("n", 7)}, {},
                           "a detector with NMS that returns the boxes of all images in one list (YOLOv7)"),
    "damo-yolo": ({"images": IMAGE}, {"output": (1, 8400, 80), "952": (1, 8400, 4)}, {},
                  "a detector with separate boxes and scores (DAMO-YOLO, YOLO-NAS)"),
    "ssd of tensorflow": ({"image_tensor": (1, 300, 300, 3)},
                          {"detection_boxes": (1, 9, 4), "detection_scores": (1, 9)}, {},
                          "a detector of TensorFlow's Object Detection API (SSD)"),
    "colours last": ({"images": (1, 640, 640, 3)}, {"output": (1, 8400, 85)}, {},
                     "a network with channels-last images [B, H, W, 3]"),
    "levels apart": ({"images": IMAGE}, {"a": (1, 85, 80, 80), "b": (1, 85, 40, 40), "c": (1, 85, 20, 20)}, {},
                     "a network with 3 outputs, such as a detector with one output per level"),
    "yolov9, two heads": ({"images": IMAGE}, {"output0": (1, 84, 8400), "1903": (1, 84, 8400)}, {},
                          "YOLOv9 with its auxiliary training head"),
    "yolov8 under another name": ({"images": IMAGE}, {"out": (1, 84, 8400)}, {},
                                  "a detector with a column per cell, like YOLOv8, but with the output name 'out'"),
    "nanodet": ({"data": (1, 3, 416, 416)}, {"output": (1, 3598, 112)}, {}, "NanoDet"),
    "nanodet of 320 px": ({"data": (1, 3, 320, 320)}, {"output": (1, 2125, 112)}, {}, "NanoDet"),
    "yolov8 in rows": ({"images": IMAGE}, {"output": (1, 8400, 84)}, {}, "YOLOv8 with a row per cell"),
    "yolov8 in rows, by its own name": ({"images": IMAGE}, {"output0": (1, 8400, 84)}, {"task": "detect"},
                                        "YOLOv8 with a row per cell"),
    "yolov5 with its levels": ({"images": IMAGE}, {"output": (1, 25200, 85), "345": (1, 3, 80, 80, 85)}, {},
                               "a detector with decoded boxes in 'output' and the raw levels beside them"),
    "detr of its project": ({"inputs": IMAGE}, {"pred_logits": (1, 100, 92), "pred_boxes": (1, 100, 4)}, {},
                            "DETR as exported by its own project"),
    "d-fine, its size inside": ({"images": IMAGE}, {"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)}, {},
                                "a detector with separate boxes, labels and scores (torchvision; RT-DETR and D-FINE of "
                                "their own projects)"),
    "ssd": ({"image": IMAGE}, {"bboxes": (1, 9, 4), "labels": (1, 9), "scores": (1, 9)}, {},
            "a detector with separate boxes, labels and scores (SSD)"),
    "torchvision in numbers": ({"images": IMAGE}, {"27": ("n", 4), "28": ("n",), "29": ("n",)}, {},
                               "a detector with separate boxes, labels and scores (torchvision)"),
    "yolov4": ({"input": IMAGE}, {"boxes": (1, 99, 1, 4), "confs": (1, 99, 80)}, {},
               "a detector with separate boxes and scores (YOLOv4)"),
    "yolo-nas, one list": ({"images": IMAGE}, {"graph2_flat_predictions": ("n", 7)}, {},
                           "a detector of super-gradients (YOLO-NAS)"),
    "batched nms": ({"images": IMAGE}, {"num_detections": (1, 1), "nmsed_boxes": (1, 9, 4)}, {},
                    "a detector with TensorRT's older BatchedNMS plugin"),
    "ssd of tensorflow, counted": ({"image_tensor:0": (1, 300, 300, 3)},
                                   {"detection_boxes:0": (1, 9, 4), "detection_scores:0": (1, 9)}, {},
                                   "a detector of TensorFlow's Object Detection API (SSD)"),
    "rf-detr with masks without a name": ({"input": IMAGE}, {"dets": (1, 9, 4), "labels": (1, 9, 91),
                                                             "4245": (1, 9, 8, 8)}, {}, "a segmentation network"),
    "blazepose": ({"input_1": (1, 224, 224, 3)}, {"Identity": (1, 2254, 12), "Identity_1": (1, 2254, 1)}, {},
                  "a BlazePose network"),
    "rt-detr in rows of six": ({"images": IMAGE}, {"output0": (1, 300, 6)}, {"description": "Ultralytics rtdetr-l"},
                               "RT-DETR in rows of six, which may hold two classes, or a score and a class"),
    "rtmpose": ({"input": (1, 3, 256, 192)}, {"simcc_x": (1, 17, 384), "simcc_y": (1, 17, 512)}, {},
                "a pose network (SimCC)"),
    "hrnet": ({"input": (1, 3, 256, 192)}, {"output": (1, 17, 64, 48)}, {},
              "a heat-map network, such as a pose network"),
}  # fmt: skip


def session(inputs: dict, outputs: dict, metadata: dict[str, str]) -> Canned:
    made = Canned(inputs, outputs)
    made.metadata = metadata
    return made


@pytest.mark.parametrize("name", DETECTORS)
def test_a_network_that_is_no_detector_here(name):
    *tensors, words = DETECTORS[name]
    with pytest.raises(SessionError) as refusal:
        open_detector(session(*tensors))
    assert refusal.value.cause.startswith(
        f"canned.onnx: this is {words}, which cannot be used as a detector here (inputs "
    )
    assert refusal.value.remedy


def test_pictures_in_whole_numbers():
    made = session({"images": IMAGE}, {"output": (1, 8400, 85)}, {})
    made.inputs = {"images": TensorSpec(np.dtype(np.uint8), IMAGE)}
    with pytest.raises(SessionError, match="this is a network with integer images") as refusal:
        open_detector(made)
    assert refusal.value.remedy.startswith("export it with one float32 or float16 input [B, 3, H, W], ")


@pytest.mark.parametrize(
    ("outputs", "metadata"),
    [
        pytest.param({"output": (1, 2125, 112)}, {}, id="NanoDet of 320 px is no YOLOX of 107 classes"),
        pytest.param({"output": (1, 6300, 16)}, {}, id="faces of YOLOv5"),
        pytest.param({"output0": (1, 300, 6)}, {"description": "Ultralytics RTDETR-l"}, id="RT-DETR, shares"),
        pytest.param({"output0": (1, 84, 2100)}, {"task": "pose"}, id="its task says pose"),
        pytest.param({"output": (1, 2100, 85)}, {"task": "segment"}, id="its task says masks"),
        pytest.param({"outputs": (1, 2100, 85)}, {"names": "{0: 'cat'}"}, id="cats"),
    ],
)
def test_shapes_alone_do_not_make_a_detector(outputs, metadata):
    with pytest.raises(SessionError):
        open_detector(session({"images": (1, 3, 320, 320)}, outputs, metadata))


POSE_NETWORKS = {
    "yolox": ({"images": IMAGE}, {"output": (1, 8400, 85)}, {}, "a detector (yolox)"),
    "yolov8": ({"images": IMAGE}, {"output0": (1, 84, 8400)}, {"task": "detect"}, "a detector (ultralytics)"),
    "yolov8-pose": ({"images": IMAGE}, {"output0": (1, 56, 8400)}, {},
                    "a network that finds people and their joints (ultralytics-pose)"),
    "openpose": ({"input": (1, 3, 368, 368)}, {"output": (1, 57, 46, 46)}, {},
                 "a heat-map network without one output of a quarter of its input (OpenPose, HigherHRNet)"),
    "two sets of maps": ({"input": (1, 3, 256, 256)}, {"a": (1, 16, 64, 64), "b": (1, 16, 64, 64)}, {},
                         "a heat-map network without one output of a quarter of its input (OpenPose, HigherHRNet)"),
    "simcc under numbers": ({"input": (1, 3, 256, 192)}, {"1220": (1, 17, 384), "1221": (1, 17, 512)}, {},
                            "a SimCC pose network whose outputs have other names or sizes (1220, 1221)"),
    "rtmw3d": ({"input": (1, 3, 384, 288)}, {f"simcc_{axis}": (1, 133, 576) for axis in "xyz"}, {},
               "a 3-D pose network (RTMW3D)"),
    "classifier": ({"images": IMAGE}, {"output0": (1, 1000)}, {"task": "classify"},
                   "a network for the task 'classify'"),
    "colours last": ({"input": (1, 192, 192, 3)}, {"output_0": (1, 1, 17, 3)}, {},
                     "a network with channels-last images [B, H, W, 3]"),
}  # fmt: skip


@pytest.mark.parametrize("name", POSE_NETWORKS)
def test_a_network_that_is_no_pose_network_here(name):
    *tensors, words = POSE_NETWORKS[name]
    with pytest.raises(SessionError) as refusal:
        open_pose_network(session(*tensors))
    assert refusal.value.cause.startswith(
        f"canned.onnx: this is {words}, which cannot be used as a pose network here (inputs "
    )
    assert refusal.value.remedy
