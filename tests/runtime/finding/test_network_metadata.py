"""What a network file says of itself: read as values, believed, and held against its tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canned import Canned, always, ultralytics_pose, ultralytics_raw, with_metadata, write_always
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.network_metadata import Declared, declared
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.sessions import TensorSpec, open_session

SIZE = (96, 64)
CELLS = 126
ONE = np.array([[10, 10, 30, 50.0]])
PERSON_SECOND = "{0: 'head', 1: 'person', 2: 'hat'}"


def session(metadata: dict[str, str], outputs: dict, size_px=SIZE) -> Canned:
    made = Canned({"images": (1, 3, size_px[1], size_px[0])}, outputs)
    made.metadata = metadata
    return made


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, Declared()),
        ({"task": "detect"}, Declared(task="detect")),
        ({"task": " Segment"}, Declared(task="segment")),
        ({"task": "depth"}, Declared(task="depth")),
        ({"names": "{0: 'person', 1: 'it\\'s'}"}, Declared(names={0: "person", 1: "it's"})),
        ({"names": '{"0": "cat", "1": "person"}'}, Declared(names={0: "cat", 1: "person"})),
        ({"names": "['cat', 'Person']"}, Declared(names={0: "cat", 1: "Person"})),
        ({"names": "{}"}, Declared()),
        ({"names": "{'a': 'b'}"}, Declared()),
        ({"names": "__import__('os').getcwd()"}, Declared()),
        ({"names": "(" * 5000}, Declared()),
        ({"kpt_shape": "[13, 3]"}, Declared(keypoints=(13, 3))),
        ({"kpt_shape": "(17, 2)"}, Declared(keypoints=(17, 2))),
        ({"kpt_shape": "17"}, Declared()),
        ({"kpt_names": "{0: ['nose', 'tail']}"}, Declared(joint_names=("nose", "tail"))),
        ({"imgsz": "[384, 640]"}, Declared(size_px=(640, 384))),
        ({"imgsz": "640"}, Declared(size_px=(640, 640))),
        ({"imgsz": "[-1, 640]"}, Declared()),
        ({"imgsz": "[1000000000, 640]"}, Declared()),
        ({"names": "{1e999: 'person'}"}, Declared()),
        ({"names": "{0: 'two\\nlines\\x1b[31m'}"}, Declared(names={0: "two lines [31m"})),
        ({"channels": "1"}, Declared(channels=1)),
        ({"description": "Ultralytics RTDETR-L"}, Declared(description="ultralytics rtdetr-l")),
    ],
)
def test_metadata_as_values(metadata, expected):
    assert declared(session(metadata, {})) == expected


def test_people_are_found_by_name():
    names = {0: "car", 3: "Pedestrian", 1: " person", 2: "person-like"}
    assert (Declared(names=names).people, Declared().people) == ((1, 3), ())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_person_is_the_class_with_that_name(tmp_path: Path, backend: str) -> None:
    pytest.importorskip(backend)
    answers = ultralytics_raw(ONE, np.array([0.9], np.float32), SIZE, 3)
    answers["output0"][[4, 5]] = answers["output0"][[5, 4]]
    path = write_always(tmp_path / "d.onnx", "images", SIZE, answers)
    with_metadata(path, {"task": "detect", "names": PERSON_SECOND})
    with open_session(path, backend=backend, device="cpu") as opened:
        detector = open_detector(opened)
        boxes_px, scores = detector(np.zeros((64, 96, 3), np.uint8))
        assert len(open_detector(opened, {"person": 0})(np.zeros((64, 96, 3), np.uint8))[0]) == 0
    assert detector.about == "ultralytics, 96 x 64 px, classes: 3, person is class 1"
    np.testing.assert_allclose(boxes_px, ONE - 0.5, atol=1e-3)
    np.testing.assert_allclose(scores, [0.9])


def test_of_several_classes_of_people_the_surer_counts():
    answers = ultralytics_raw(ONE, np.array([0.5], np.float32), SIZE, 2)
    answers["output0"][5] = answers["output0"][4] * 1.5
    made = always("images", SIZE, answers)
    made.metadata = {"names": "{0: 'pedestrian', 1: 'people'}"}
    _, scores = open_detector(made)(np.zeros((64, 96, 3), np.uint8))
    np.testing.assert_allclose(scores, [0.75])


@pytest.mark.parametrize(
    ("metadata", "outputs", "recipe", "cause", "remedy"),
    [
        ({"names": "{0: 'cat', 1: 'dog'}"}, {"output0": (1, 6, CELLS)}, {},
         "none of its classes is a person (cat, dog)",
         "give a detector of people, or the index of the person class: --set detector.person=NUMBER"),
        ({}, {"output0": (1, 24, CELLS)}, {},
         "20 values per box that may be unnamed classes: cannot tell which is a person",
         "if they are classes, give the person's, counted from 0: --set detector.person=NUMBER; joints, angles and "
         "landmarks are not supported here"),
        ({}, {"output0": (1, 24, CELLS)}, {"person": 20}, "recipe: person: class 20 of 20", "give one of 0 to 19"),
        ({"names": PERSON_SECOND}, {"output0": (1, 6, CELLS)}, {},
         "its metadata name class 2, but its outputs have 2 classes",
         "export the network again: metadata and outputs do not match"),
        ({"names": "{0: 'person'}"}, {"output0": (1, 44, CELLS)}, {},
         "its metadata name 1 classes, but its outputs have room for 40",
         "give a detector exactly as its exporter writes it"),
        ({"imgsz": "[64, 64]"}, {"output0": (1, 5, CELLS)}, {},
         "its metadata declare 64 x 64 px (imgsz), but its input is 96 x 64 px",
         "export the network again: metadata and network do not match"),
        ({"channels": "1"}, {"output0": (1, 5, CELLS)}, {}, "its metadata declare images with 1 channels",
         "give a network for colour images"),
        ({"task": "pose", "kpt_shape": "[14, 3]"}, {"output0": (1, 47, CELLS)}, {},
         "14 joints, but the file does not name their order",
         "name it: --set detector.skeleton=NAME, one of blazepose33, body25, coco17, coco18, crowdpose14, halpe26, "
         "smpl30"),
        ({"task": "pose", "kpt_names": str({0: ["tail", *"abcdefghijklmnop"]})}, {"output0": (1, 56, CELLS)}, {},
         "its joints are tail, a, b, c, d, e, ..., an unknown joint order",
         "if it is one of blazepose33, body25, coco17, coco18, crowdpose14, halpe26, smpl30 under other names, name "
         "it: --set detector.skeleton=NAME"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(metadata, outputs, recipe, cause, remedy):
    with pytest.raises(SessionError) as refusal:
        open_detector(session(metadata, outputs), recipe)
    assert (refusal.value.cause, refusal.value.remedy) == (f"canned.onnx: {cause}", remedy)


def test_more_joints_than_seventeen_where_their_order_is_known():
    joints = np.random.default_rng(0).uniform(10, 50, (1, 26, 3)).astype(np.float32)
    joints[..., 2] = 0.9
    answers = ultralytics_raw(ONE, np.array([0.9], np.float32), SIZE, 1 + 78)
    answers["output0"][5:, 0] = joints.reshape(-1)
    made = always("images", SIZE, answers)
    made.metadata = {"task": "pose", "kpt_shape": "[26, 3]", "names": "{0: 'person'}"}
    detector = open_detector(made, {"skeleton": "halpe26"})
    _, _, found = detector.people(np.zeros((64, 96, 3), np.uint8))
    np.testing.assert_allclose(found, joints, atol=1e-4)
    assert detector.skeleton == "halpe26"


def test_a_pose_network_of_two_classes():
    joints = np.full((1, 17, 3), 0.9, np.float32) * [30, 30, 1]
    answers = ultralytics_pose(ONE, np.array([0.9], np.float32), joints, SIZE, end_to_end=False)["output0"]
    made = always("images", SIZE, {"output0": np.insert(answers, 4, 0.01, 0)})
    made.metadata = {"task": "pose", "kpt_shape": "[17, 3]", "names": "{0: 'dog', 1: 'person'}"}
    _, scores, found = open_detector(made).people(np.zeros((64, 96, 3), np.uint8))
    np.testing.assert_allclose(scores, [0.9])
    np.testing.assert_allclose(found, joints, atol=1e-4)


SIMCC = {"simcc_x": (1, 17, 192), "simcc_y": (1, 17, 128)}


@pytest.mark.parametrize(
    ("metadata", "cause"),
    [
        ({"kpt_shape": "[13, 3]"}, "its metadata declare 13 joints (kpt_shape), its outputs have 17"),
        ({"kpt_names": str(["tail", *"abcdefghijklmnop"])},
         "its joints are tail, a, b, c, d, e, ..., an unknown joint order"),
    ],
)  # fmt: skip
def test_joints_of_a_pose_network_must_be_those_of_its_metadata(metadata, cause):
    with pytest.raises(SessionError) as refusal:
        open_pose_network(session(metadata, SIMCC))
    assert refusal.value.cause == f"canned.onnx: {cause}"


def test_names_of_joints_tell_their_order():
    coco = ["nose", "left_eye", "right eye", "Left-Ear", "r_ear", *(f"{side}_{part}" for part in (
        "shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right"))]  # fmt: skip
    made = session({"kpt_names": str({0: coco}), "task": "pose"}, SIMCC)
    assert open_pose_network(made).skeleton == "coco17"
    with pytest.raises(BundleError, match="has 18 joints, but the file has 17"):
        open_pose_network(made, {"skeleton": "coco18"})


def test_fourteen_joints_may_be_in_several_orders():
    made = session({}, {"simcc_x": (1, 14, 192), "simcc_y": (1, 14, 128)})
    with pytest.raises(BundleError) as refusal:
        open_pose_network(made)
    assert (refusal.value.cause, refusal.value.remedy) == (
        "canned.onnx: 14 joints, in the order of CrowdPose, AI Challenger or LSP: the file does not say which",
        "if it is the first, give --set pose.skeleton=crowdpose14; the others are not supported",
    )
    assert open_pose_network(made, {"skeleton": "crowdpose14"}).skeleton == "crowdpose14"


def test_output_sizes_that_a_file_leaves_open_are_those_of_a_call():
    made = always("images", SIZE, ultralytics_raw(ONE, np.array([0.9], np.float32), SIZE))
    made.outputs = {"output0": TensorSpec(np.dtype(np.float32), ("batch", 5, "anchors"))}
    detector = open_detector(made)
    np.testing.assert_allclose(detector(np.zeros((64, 96, 3), np.uint8))[0], ONE - 0.5, atol=1e-3)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["task", "names", "kpt_shape", "kpt_names", "imgsz", "channels"]), st.text(max_size=40))
def test_any_text_is_read_or_left(key, text):
    assert isinstance(declared(session({key: text}, {})), Declared)


def test_a_pose_network_of_another_word_for_people_is_taken_by_its_number():
    made = session({"task": "pose", "kpt_shape": "[17, 3]", "names": "{0: 'skater'}"}, {"output0": (1, 56, 126)})
    with pytest.raises(SessionError, match=r"none of its classes is a person \(skater\)") as refusal:
        open_detector(made)
    assert refusal.value.remedy.endswith("--set detector.person=NUMBER")
    assert open_detector(made, {"person": 0}).people_classes == [0]
