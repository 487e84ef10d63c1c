"""Every file of a known format is of exactly one, whatever the order in which they are asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canned import (
    efficient_nms_answers,
    mmdeploy_answers,
    rf_detr_answers,
    rtdetr_answers,
    ultralytics_end_to_end,
    ultralytics_raw,
    with_objectness,
    write_always,
    write_yolox,
    yolox_rows,
)

from jotr_deploy.runtime.finding.detection import FORMATS, open_detector
from jotr_deploy.runtime.sessions import open_session

SIZE = (96, 64)
BOXES, SCORES = np.array([[10, 10, 30, 50], [50, 10, 70, 50.0]]), np.array([0.9, 0.8], np.float32)


def yolox(path: Path, **kind) -> Path:
    return write_yolox(path, yolox_rows(BOXES, SCORES, SIZE, **kind), SIZE)


def rtmo() -> dict[str, np.ndarray]:
    dets = np.concatenate([BOXES, SCORES[:, None]], 1).astype(np.float32)
    return {"dets": dets, "keypoints": np.zeros((2, 17, 3), np.float32)}


def pose_raw() -> dict[str, np.ndarray]:
    rows = ultralytics_raw(BOXES, SCORES, SIZE)["output0"]
    return {"output0": np.concatenate([rows, np.zeros((51, rows.shape[1]), np.float32)])}


def pose_end_to_end() -> dict[str, np.ndarray]:
    rows = ultralytics_end_to_end(BOXES, SCORES)["output0"]
    return {"output0": np.concatenate([rows, np.zeros((len(rows), 51), np.float32)], 1)}


def decoded(path: Path, name: str, each: int) -> Path:
    return write_always(path, "images", SIZE, {name: with_objectness(BOXES, SCORES, SIZE, each, 80)})


FILES = {
    "yolov5": ("yolov5", lambda path: decoded(path, "output0", 3)),
    "yolov7": ("yolov5", lambda path: decoded(path, "output", 3)),
    "yolov6": ("yolov6", lambda path: decoded(path, "outputs", 1)),
    "efficient nms": (
        "efficient-nms",
        lambda path: write_always(path, "images", SIZE, efficient_nms_answers(BOXES, SCORES)),
    ),
    "ultralytics, the transformer": (
        "rtdetr-ultralytics",
        lambda path: write_always(path, "images", SIZE, rtdetr_answers(BOXES - 0.5, SCORES, SIZE)),
    ),
    "rf-detr": ("rf-detr", lambda path: write_always(path, "input", SIZE, rf_detr_answers(BOXES - 0.5, SCORES, SIZE))),
    "yolox": ("yolox", yolox),
    "yolox, 80 classes": ("yolox", lambda path: yolox(path, classes=80)),
    "yolox, decoded inside": ("yolox", lambda path: yolox(path, decoded=True)),
    "mmdeploy": ("mmdeploy", lambda path: write_always(path, "input", SIZE, mmdeploy_answers(BOXES, SCORES))),
    "ultralytics, one class": (
        "ultralytics",
        lambda path: write_always(path, "images", SIZE, ultralytics_raw(BOXES, SCORES, SIZE)),
    ),
    "ultralytics, 80 classes": (
        "ultralytics",
        lambda path: write_always(path, "images", SIZE, ultralytics_raw(BOXES, SCORES, SIZE, 80)),
    ),
    "ultralytics, end to end": (
        "ultralytics",
        lambda path: write_always(path, "images", SIZE, ultralytics_end_to_end(BOXES, SCORES)),
    ),
    "rtmo": ("rtmo", lambda path: write_always(path, "input", SIZE, rtmo())),
    "ultralytics, pose": ("ultralytics-pose", lambda path: write_always(path, "images", SIZE, pose_raw())),
    "ultralytics, pose end to end": (
        "ultralytics-pose",
        lambda path: write_always(path, "images", SIZE, pose_end_to_end()),
    ),
}


TAKEN = "class 0 is assumed to be person, as the file names no classes"
FACTS = {
    "yolov5": "classes: 80",
    "yolov7": "classes: 80",
    "yolov6": "classes: 80",
    "efficient nms": f"end to end, {TAKEN}",
    "ultralytics, the transformer": "classes: 80",
    "rf-detr": "classes: 91, person is class 1",
    "yolox": "classes: 1",
    "yolox, 80 classes": "classes: 80",
    "yolox, decoded inside": "classes: 1",
    "mmdeploy": f"pixels as for yolox, {TAKEN}",
    "ultralytics, one class": "classes: 1",
    "ultralytics, 80 classes": "classes: 80",
    "ultralytics, end to end": f"end to end, {TAKEN}",
    "rtmo": "joints of coco17",
    "ultralytics, pose": "joints of coco17",
    "ultralytics, pose end to end": "joints of coco17",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_of_one_format_and_no_other(tmp_path, name):
    expected, write = FILES[name]
    with open_session(write(tmp_path / "d.onnx"), device="cpu") as session:
        assert [each.name for each in FORMATS if each.fits(session)] == [expected]
        detector = open_detector(session)
        boxes_px, scores = detector(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    assert detector.name == expected
    assert detector.about == f"{expected}, 96 x 64 px, {FACTS[name]}"
    np.testing.assert_allclose(boxes_px, BOXES - 0.5, atol=1e-3)
    np.testing.assert_allclose(scores, SCORES, rtol=1e-5)


def test_every_format_has_a_file_here():
    """BlazePose's channels-last file is covered by tests/runtime/finding/blazepose/test_blazepose_formats.py."""
    assert {expected for expected, _ in FILES.values()} | {"blazepose"} == {each.name for each in FORMATS}
