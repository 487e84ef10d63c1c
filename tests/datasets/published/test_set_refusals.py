"""What is missing or wrong in an annotated set is said in one line, what to do in another."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from miniature import KNOWN, write_miniature

from jotr_deploy.datasets.published.json_entries import AGAIN
from jotr_deploy.datasets.published.pictures import read_picture
from jotr_deploy.datasets.published.sets import SETS, read_set, there
from jotr_deploy.errors import DatasetError

Change = Callable[[Any], Any]
HUGE = (
    b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, 2**20 + 1, 2**20 + 1, 1, 24, 0, 0, 0, 0, 0, 0)
)  # a BMP's head


def refusal(name: str, root: Path, split: str) -> tuple[str, str]:
    """Cause and remedy of what is refused."""
    with pytest.raises(DatasetError) as caught:
        list(read_set(name, root, split))
    assert "\n" not in caught.value.cause + caught.value.remedy
    return caught.value.cause, caught.value.remedy


# ── what is not there ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_set_that_is_not_known(tmp_path: Path) -> None:
    known = "known: h36m, mscoco, muco, crowdpose, 3dpw, 3dpw-oc, 3dpw-pc, 3dpw-crowd, 3dpw-occ-3dnbf, 3doh"
    assert refusal("panoptic", tmp_path, "test") == ("data set 'panoptic' is not known", known)


def test_sequences_that_are_missing_are_named(tmp_path: Path) -> None:
    """The slalom has only a frame that does not count, and nobody plays golf."""
    write_miniature("3dpw-occ-3dnbf", tmp_path)
    annotations = tmp_path / "3DPW" / "annotations"
    path = annotations / "3DPW_latest_test.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        if image["sequence"].startswith("outdoors_slalom"):
            image["file_name"] = "image_00481.jpg"
        image["sequence"] = image["sequence"].replace("outdoors_golf", "outdoors_tennis")
    path.write_text(json.dumps(content))
    cause, remedy = refusal("3dpw-occ-3dnbf", tmp_path, "all")
    assert cause == (
        f"{annotations}: 2 of the 17 sequences of 3DPW-Occ have nobody in the three files 3DPW_latest_*.json: "
        "outdoors_golf, outdoors_slalom"
    )
    assert remedy == "use the whole annotation files of 3DPW: without these sequences the figures are not of the set"


def test_a_split_that_is_not_known(tmp_path: Path) -> None:
    assert refusal("3dpw", tmp_path, "train") == ("3DPW has no split 'train'", "it has: test, validation")


@pytest.mark.parametrize(
    ("name", "split", "title", "files"),
    [
        ("mscoco", "train", "MSCOCO", "MSCOCO/annotations/person_keypoints_train2017.json, "
         "MSCOCO/annotations/MSCOCO_train_SMPL_NeuralAnnot.json"),
        ("3dpw", "test", "3DPW", "3DPW/annotations/3DPW_latest_test.json"),
        ("3dpw-crowd", "validation", "3DPW-Crowd", "3DPW/annotations/3DPW_latest_validation.json, "
         "3DPW/annotations/3DPW_validation_crowd_hhrnet_result.json"),
        ("3dpw-occ-3dnbf", "all", "3DPW-Occ of 3DNBF", "3DPW/annotations/3DPW_latest_train.json, "
         "3DPW/annotations/3DPW_latest_validation.json, 3DPW/annotations/3DPW_latest_test.json"),
        ("3doh", "test", "3DOH50K", "3DOH/annotations/3doh_test_annots_scale_1.json"),
    ],
)  # fmt: skip
def test_every_missing_file_is_named(name: str, split: str, title: str, files: str, tmp_path: Path) -> None:
    assert refusal(name, tmp_path, split) == (
        f"{tmp_path}: {title} ({split}) is not complete, missing: {files}",
        f"register with the authors of {title} and put its files where docs/datasets.md says; "
        "what needs no data set (synthetic) works without, other sets that are there: none",
    )


def test_of_a_set_that_is_there_in_part_the_rest_is_named(tmp_path: Path) -> None:
    write_miniature("h36m", tmp_path)
    write_miniature("3dpw", tmp_path)
    folder = tmp_path / "Human36M/annotations"
    for part in ("Human36M_subject5_camera.json", "Human36M_subject8_smpl_param.json"):
        (folder / part).unlink()
    cause, remedy = refusal("h36m", tmp_path, "train")
    assert cause == (
        f"{tmp_path}: Human3.6M (train) is not complete, missing: Human36M/annotations/Human36M_subject5_camera.json, "
        "Human36M/annotations/Human36M_subject8_smpl_param.json"
    )
    assert remedy.endswith("other sets that are there: 3dpw (test), 3dpw (validation)")


def test_what_is_there(tmp_path: Path) -> None:
    assert there(tmp_path) == []
    for name in SETS:
        write_miniature(name, tmp_path)
    assert there(tmp_path) == list(KNOWN)


# ── what is damaged ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [(name, split, file) for name, split in KNOWN for file in SETS[name].files[split] if "subject" not in file]
    + [("h36m", "train", f"annotations/Human36M_subject1_{part}.json")
       for part in ("data", "camera", "joint_3d", "smpl_param")],
)  # fmt: skip
@pytest.mark.parametrize("half", [True, False])
def test_a_truncated_file_is_named(name: str, split: str, file: str, half: bool, tmp_path: Path) -> None:
    write_miniature(name, tmp_path)
    path = tmp_path / SETS[name].folder / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if half else b"")
    assert refusal(name, tmp_path, split) == (f"{path}: the JSON ends too early: the file is truncated", AGAIN)


def without(*keys: str | int) -> Change:
    """Take away what lies at the end of this path."""

    def change(content: Any) -> Any:
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        return content

    return change


def put(value: Any, *keys: str | int) -> Change:
    """Write a value at the end of this path."""

    def change(content: Any) -> Any:
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        return content

    return change


H36M, COCO, MUCO, CROWD, DPW, DOH = (
    ("h36m", "train"), ("mscoco", "train"), ("muco", "train"), ("crowdpose", "train"), ("3dpw-oc", "test"),
    ("3doh", "test"),
)  # fmt: skip
COCO_FITS, CROWD_FITS = "MSCOCO_train_SMPL_NeuralAnnot", "CrowdPose_train_SMPL_NeuralAnnot"
PEOPLE, S1 = "person_keypoints_train2017", "Human36M_subject1"
DAMAGES: list[tuple[tuple[str, str], str, Change, str]] = [
    (H36M, f"{S1}_data", without("images", 0, "cam_idx"), "image 1: has no 'cam_idx'"),
    (H36M, f"{S1}_data", without("annotations", 2, "bbox"), "annotation 3: has no 'bbox'"),
    (H36M, f"{S1}_data", put("x", "images", 1, "frame_idx"), "image 2: 'frame_idx' is no whole number"),
    (H36M, f"{S1}_camera", without("1", "R"), "camera 1: has no 'R'"),
    (H36M, f"{S1}_camera", without("2"), "has no camera '2', which s_01/0002.jpg needs"),
    (H36M, f"{S1}_joint_3d", put([1, 2], "2", "1", "5"), "action 2 subaction 1: '5' has 2 numbers, not 51"),
    (H36M, f"{S1}_joint_3d", without("2", "1", "5"),
     "has no joints of action 2 subaction 1 frame 5, which s_01/0003.jpg needs"),
    (H36M, f"{S1}_joint_3d", put(3, "2", "1"), "action 2 subaction 1: is no object"),
    (H36M, f"{S1}_smpl_param", without("2", "1", "0", "trans"), "action 2 subaction 1: 0: has no 'trans'"),
    (COCO, PEOPLE, without("images"), "has no list 'images'"),
    (COCO, PEOPLE, without("annotations", 3, "num_keypoints"), "annotation 4: has no 'num_keypoints'"),
    (COCO, PEOPLE, put([1] * 50, "annotations", 1, "keypoints"), "annotation 2: 'keypoints' has 50 numbers, not 51"),
    (COCO, PEOPLE, without("images", 1), "annotation 2: there is no image 2"),
    (COCO, COCO_FITS, without("1", "cam_param"), "1: has no 'cam_param'"),
    (COCO, COCO_FITS, put([0] * 71, "1", "smpl_param", "pose"), "1: smpl_param: 'pose' has 71 numbers, not 72"),
    (MUCO, "MuCo-3DHP", without("images", 0, "f"), "image 1: has no 'f'"),
    (MUCO, "MuCo-3DHP", put([[0, 0]] * 17, "annotations", 0, "keypoints_img"),
     "annotation 1: 'keypoints_img' has 34 numbers, not 42"),
    (MUCO, "smpl_param", without("2", "shape"), "2: has no 'shape'"),
    (CROWD, "crowdpose_train", without("annotations", 0, "keypoints"), "annotation 1: has no 'keypoints'"),
    (CROWD, "crowdpose_train", without("images", 0, "width"), "image 100: has no 'width'"),
    (CROWD, CROWD_FITS, without("2", "fit_err"), "2: has no 'fit_err'"),
    (DPW, "3DPW_oc", without("images", 0, "sequence"), "image 1: has no 'sequence'"),
    (DPW, "3DPW_oc", without("images", 1, "cam_param", "focal"), "image 2: cam_param: has no 'focal'"),
    (DPW, "3DPW_oc", put("x", "annotations", 0, "smpl_param", "gender"),
     "annotation 21: smpl_param: gender 'x' is not known"),
    (DPW, "3DPW_oc", without("annotations", 1, "openpose_result"), "annotation 22: has no 'openpose_result'"),
    (("3dpw-crowd", "validation"), "3DPW_validation_crowd_hhrnet_result", without("11", "coco_joints"),
     "11: has no 'coco_joints'"),
    (DOH, "3doh_test_annots_scale_1", without("testImages/2_color.jpg", "hrnet_results"),
     "testImages/2_color.jpg: has no 'hrnet_results'"),
    (DOH, "3doh_test_annots_scale_1", put([1], "testImages/1_color.jpg", "bbox"),
     "testImages/1_color.jpg: 'bbox' has 1 numbers, not 4"),
]  # fmt: skip


def change_json(root: Path, name: str, stem: str, change: Change) -> Path:
    """Change a file of annotations of a miniature."""
    path = root / SETS[name].folder / "annotations" / f"{stem}.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return path


def every_picture(file: str) -> Change:
    """Call all pictures so."""

    def change(content: Any) -> Any:
        for image in content["images"]:
            image["file_name"] = file
        return content

    return change


LEAVING = ["../x.jpg", "/etc/passwd", "x/../../../y.jpg", "x\\..\\y.jpg", "x\0.jpg", "C:/x.jpg"]


@pytest.mark.parametrize("file", LEAVING)
@pytest.mark.parametrize(
    ("which", "stem", "folder"),
    [(H36M, f"{S1}_data", "Human36M/images"), (COCO, PEOPLE, "MSCOCO/images/train2017"),
     (MUCO, "MuCo-3DHP", "MuCo/images"), (CROWD, "crowdpose_train", "CrowdPose/images"),
     (DPW, "3DPW_oc", "3DPW/imageFiles")],
)  # fmt: skip
def test_a_picture_stays_in_the_folder_of_its_set(
    which: tuple[str, str], stem: str, folder: str, file: str, tmp_path: Path
) -> None:
    write_miniature(which[0], tmp_path)
    change_json(tmp_path, which[0], stem, every_picture(file))
    cause, remedy = refusal(which[0], tmp_path, which[1])
    assert cause.startswith(f"{tmp_path / folder}: the file name ")
    assert cause.isprintable()
    assert remedy == AGAIN


@pytest.mark.parametrize("file", LEAVING)
def test_a_picture_that_is_a_key_stays_too(file: str, tmp_path: Path) -> None:
    write_miniature("3doh", tmp_path)
    change_json(tmp_path, "3doh", "3doh_test_annots_scale_1", lambda content: {file: next(iter(content.values()))})
    assert refusal("3doh", tmp_path, "test")[0].startswith(f"{tmp_path / '3DOH/images'}: the file name ")


@pytest.mark.parametrize(("which", "stem", "change", "what"), DAMAGES, ids=[damage[3] for damage in DAMAGES])
def test_what_a_file_lacks_is_named(
    which: tuple[str, str], stem: str, change: Change, what: str, tmp_path: Path
) -> None:
    name, split = which
    write_miniature(name, tmp_path)
    path = change_json(tmp_path, name, stem, change)
    assert refusal(name, tmp_path, split) == (f"{path}: {what}", AGAIN)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_picture_is_missed_when_it_is_read(tmp_path: Path) -> None:
    write_miniature("3dpw", tmp_path)
    shutil.rmtree(tmp_path / "3DPW/imageFiles")
    person = read_set("3dpw", tmp_path, "test")[0]
    with pytest.raises(DatasetError) as caught:
        read_picture(person)
    assert caught.value.cause == f"{person.image}: cannot be read (No such file or directory)"
    assert caught.value.remedy == "put the pictures of the set where docs/datasets.md says"


def test_a_set_without_sizes_misses_a_picture_when_the_person_is_asked_for(tmp_path: Path) -> None:
    write_miniature("3doh", tmp_path)
    missing = tmp_path / KNOWN["3doh", "test"][1].image
    missing.unlink()
    people = read_set("3doh", tmp_path, "test")
    assert people[0].key == KNOWN["3doh", "test"][0].key
    with pytest.raises(DatasetError) as caught:
        people[1]
    assert caught.value.cause == f"{missing}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", HUGE])
def test_a_damaged_picture(data: bytes, tmp_path: Path) -> None:
    write_miniature("mscoco", tmp_path)
    person = read_set("mscoco", tmp_path, "train")[0]
    person.image.write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        read_picture(person)
    assert caught.value.cause == f"{person.image}: no image that can be decoded"
    assert caught.value.remedy == "get the picture again"


def test_a_scaled_picture_does_not_fit_its_annotations(tmp_path: Path) -> None:
    write_miniature("mscoco", tmp_path)
    person = read_set("mscoco", tmp_path, "train")[0]
    cv2.imwrite(str(person.image), np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(DatasetError) as caught:
        read_picture(person)
    assert caught.value.cause == f"{person.image}: 60 x 50 px, the annotations are for 120 x 100 px"
    assert caught.value.remedy == "take the pictures as the set has them, not scaled"


def test_a_picture_is_bgr(tmp_path: Path) -> None:
    write_miniature("mscoco", tmp_path)
    person = read_set("mscoco", tmp_path, "train")[0]
    blue, green, red = read_picture(person)[50, 60].tolist()  # written as 60, 90, 120
    assert blue < green < red


def test_a_picture_is_as_stored(tmp_path: Path) -> None:
    write_miniature("mscoco", tmp_path)
    person = read_set("mscoco", tmp_path, "train")[0]
    quarter_turn = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # TIFF, orientation 6
    exif = b"Exif\0\0" + quarter_turn
    data = person.image.read_bytes()
    person.image.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    turned = cv2.imread(str(person.image))
    assert turned is not None
    assert turned.shape == (120, 100, 3)
    assert read_picture(person).shape == (100, 120, 3)
