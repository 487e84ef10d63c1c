"""Every set in miniature is read into the values that were written; some of them computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from miniature import FALLS_BACK, KNOWN, SIZE_PX, betas, pose_rad, trans_m, write_miniature

from jotr_deploy.datasets.published.annotation import Annotation, Camera
from jotr_deploy.datasets.published.pictures import read_picture
from jotr_deploy.datasets.published.sets import SETS, Recipe, read_set
from jotr_deploy.datasets.published.three_dpw import frame_of
from jotr_deploy.errors import DatasetError
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX

per_split = pytest.mark.parametrize(("name", "split"), KNOWN)


def read(name: str, root: Path, split: str = "train", recipe: Recipe = "paper") -> dict[str, Annotation]:
    """The people of a miniature by key."""
    write_miniature(name, root)
    return {person.key: person for person in read_set(name, root, split, recipe)}


def test_every_split_of_every_set_has_a_miniature() -> None:
    assert list(KNOWN) == [(name, split) for name, known in SETS.items() for split in known.splits]


@per_split
def test_people_are_read_as_written(name: str, split: str, tmp_path: Path) -> None:
    people = read(name, tmp_path, split)
    assert list(people) == [known.key for known in KNOWN[name, split]]
    for person, known in zip(people.values(), KNOWN[name, split], strict=True):
        assert person.image == tmp_path / known.image
        assert person.size_px == SIZE_PX
        assert (person.sequence, person.frame) == (known.sequence, known.frame)
        assert person.valid_box
        assert read_picture(person).shape == (*SIZE_PX[::-1], 3)
        assert (person.fit is None) == (known.fit is None)
        if person.fit is not None and known.fit is not None:
            np.testing.assert_allclose(person.fit.pose_rad, pose_rad(known.fit), atol=1e-6)
            np.testing.assert_allclose(person.fit.betas, betas(known.fit), atol=1e-6)
            np.testing.assert_allclose(person.fit.trans_m, trans_m(known.fit), atol=1e-6)
            assert person.fit.gender == known.gender


@per_split
def test_only_sets_with_measured_joints_have_them(name: str, split: str, tmp_path: Path) -> None:
    people = read(name, tmp_path, split).values()
    assert {person.is_3d for person in people} == {name in ("h36m", "muco")}
    assert SETS[name].is_3d == (name not in ("mscoco", "crowdpose"))


@per_split
def test_without_people_a_set_is_empty(name: str, split: str, tmp_path: Path) -> None:
    write_miniature(name, tmp_path)
    for file in SETS[name].paths(tmp_path, split):
        sections = "annotations" in json.loads(file.read_text())
        file.write_text('{"images": [], "annotations": []}' if sections else "{}")
    if name == "3dpw-occ-3dnbf":  # which is a list of sequences, each with somebody
        with pytest.raises(DatasetError, match="17 of the 17 sequences of 3DPW-Occ have nobody"):
            read_set(name, tmp_path, split)
        return
    people = read_set(name, tmp_path, split)
    assert len(people) == 0
    assert list(people) == []


PX = {  # set, person, joint -> x, y, labelled: 0.05 px a millimetre at three metres
    ("h36m", "1/1", "Pelvis"): (60, 50, 1),
    ("h36m", "1/1", "L_Shoulder"): (70, 25, 1),
    ("h36m", "1/1", "Nose"): (60, 50 - 150 * 0.6 / 2.9, 1),
    ("h36m", "1/1", "Head"): (0, 0, 0),
    ("h36m", "1/2", "L_Shoulder"): (50, 25, 1),  # from behind
    ("h36m", "1/2", "Nose"): (60, 50 - 150 * 0.6 / 3.1, 1),
    ("h36m", "1/3", "R_Ankle"): (70, 90, 1),
    ("mscoco", "1", "L_Shoulder"): (70, 25, 1),
    ("mscoco", "1", "R_Wrist"): (50, 50, 1),
    ("mscoco", "1", "Pelvis"): (60, 50, 1),
    ("mscoco", "1", "Neck"): (60, 25, 1),
    ("mscoco", "1", "Head_top"): (0, 0, 0),
    ("mscoco", "2", "L_Hip"): (35, 50, 1),
    ("mscoco", "2", "R_Hip"): (0, 0, 0),
    ("mscoco", "2", "Pelvis"): (0, 0, 0),
    ("mscoco", "2", "Neck"): (30, 25, 1),
    ("muco", "2", "Pelvis"): (75, 50, 1),
    ("muco", "2", "L_Hand"): (85, 52.5, 1),
    ("muco", "2", "Neck"): (0, 0, 0),
    ("crowdpose", "4", "L_Shoulder"): (0, 0, 0),
    ("crowdpose", "4", "R_Shoulder"): (60, 25, 1),
    ("crowdpose", "4", "Neck"): (70, 25, 1),
    ("crowdpose", "4", "Pelvis"): (70, 50, 1),
    ("crowdpose", "4", "Head_top"): (70, 15, 1),
    ("crowdpose", "4", "Nose"): (0, 0, 0),
}


@pytest.mark.parametrize(("name", "key", "joint"), PX)
def test_joints_in_the_picture(name: str, key: str, joint: str, tmp_path: Path) -> None:
    person = read(name, tmp_path)[key]
    assert person.joints_px[SMPL30_INDEX[joint]] == pytest.approx(PX[name, key, joint], abs=1e-4)


M = {  # the same in the camera's frame; None where nothing was measured
    ("h36m", "1/1", "L_Shoulder"): (0.2, -0.5, 3.0),
    ("h36m", "1/1", "Nose"): (0, -0.6, 2.9),
    ("h36m", "1/2", "L_Shoulder"): (-0.2, -0.5, 3.0),
    ("h36m", "1/2", "Nose"): (0, -0.6, 3.1),
    ("h36m", "1/3", "Pelvis"): (0.3, 0, 3.0),
    ("h36m", "1/1", "L_Hand"): None,
    ("muco", "2", "Pelvis"): (0.3, 0, 3.0),
    ("muco", "2", "L_Hand"): (0.5, 0.05, 3.0),
    ("muco", "2", "R_Toe"): (0.2, 0.85, 2.9),
    ("muco", "2", "Neck"): None,
}


@pytest.mark.parametrize(("name", "key", "joint"), M)
def test_joints_before_the_camera(name: str, key: str, joint: str, tmp_path: Path) -> None:
    person, place = read(name, tmp_path)[key], SMPL30_INDEX[joint]
    assert person.joints_m is not None
    assert person.joints_m_known is not None
    assert person.joints_m_known[place] == (M[name, key, joint] is not None)
    assert person.joints_m[place] == pytest.approx(M[name, key, joint] or (0, 0, 0), abs=1e-6)


@pytest.mark.parametrize(("name", "count"), [("h36m", 17), ("muco", 20)])
def test_what_is_measured_is_labelled_in_the_picture(name: str, count: int, tmp_path: Path) -> None:
    for person in read(name, tmp_path).values():
        assert person.joints_m_known is not None
        assert (person.joints_m_known == (person.joints_px[:, 2] == 1)).all()
        assert person.joints_m_known.sum() == count


@per_split
def test_boxes_are_corners(name: str, split: str, tmp_path: Path) -> None:
    people = read(name, tmp_path, split)
    for known in KNOWN[name, split]:
        x = 60 if name == "h36m" else known.pelvis_px[0]  # in that miniature all boxes are equal
        assert people[known.key].box_px.tolist() == [x - 10, 15, x + 10, 93]


@pytest.mark.parametrize(
    ("name", "split", "key", "camera"),
    [
        ("h36m", "train", "5/1", True), ("mscoco", "train", "1", True), ("mscoco", "train", "2", False),
        ("muco", "train", "4", True), ("crowdpose", "train", "1", True), ("3dpw-oc", "test", "21", True),
        ("3doh", "test", "testImages/1_color.jpg", False),
    ],
)  # fmt: skip
def test_cameras(name: str, split: str, key: str, camera: bool, tmp_path: Path) -> None:
    assert read(name, tmp_path, split)[key].camera == (Camera((150, 150), (60, 50)) if camera else None)


def test_fits_of_human36m_stand_in_the_studio(tmp_path: Path) -> None:
    people = read("h36m", tmp_path)
    front, behind = people["1/1"].fit, people["1/2"].fit
    assert front is not None
    assert behind is not None
    pelvis_and_left_m = np.array([[0, 0, 1], [0.2, 0, 1]])  # in the studio
    assert front.in_camera(pelvis_and_left_m) == pytest.approx(np.array([[0, 0, 3], [0.2, 0, 3]]), abs=1e-6)
    assert behind.in_camera(pelvis_and_left_m) == pytest.approx(np.array([[0, 0, 3], [-0.2, 0, 3]]), abs=1e-6)


def test_what_is_behind_a_camera_is_not_in_its_picture(tmp_path: Path) -> None:
    write_miniature("h36m", tmp_path)
    file = tmp_path / "Human36M/annotations/Human36M_subject1_camera.json"
    cameras = json.loads(file.read_text())
    cameras["1"]["t"] = [0, 1000, 0]  # the nose 0.1 m behind, everything else at no depth
    file.write_text(json.dumps(cameras))
    person = read_set("h36m", tmp_path, "train")[0]
    assert person.joints_m_known is not None
    assert person.joints_m_known.sum() == 17
    assert not person.joints_px.any()


def test_other_fits_stand_before_the_camera(tmp_path: Path) -> None:
    fit = read("muco", tmp_path)["2"].fit
    assert fit is not None
    assert fit.camera_from_fit is None
    assert fit.in_camera(np.ones((2, 3))).tolist() == np.ones((2, 3)).tolist()


@pytest.mark.parametrize(("recipe", "kept"), [("paper", ["1", "4"]), ("code", ["2"])])
def test_crowdpose_keeps_the_better_fits_unless_as_published(recipe: Recipe, kept: list[str], tmp_path: Path) -> None:
    people = read("crowdpose", tmp_path, recipe=recipe)
    assert [key for key, person in people.items() if person.fit is not None] == kept
    assert len(people) == 4


@pytest.mark.parametrize("mended", [False, True])
def test_crowdpose_has_the_size_that_its_joints_need(mended: bool, tmp_path: Path) -> None:
    write_miniature("crowdpose", tmp_path)
    if mended:
        file = SETS["crowdpose"].paths(tmp_path, "train")[0]
        content = json.loads(file.read_text())
        for image in content["images"]:
            image["width"], image["height"] = image["height"], image["width"]
        file.write_text(json.dumps(content))
    assert {person.size_px for person in read_set("crowdpose", tmp_path, "train")} == {SIZE_PX}


@pytest.mark.parametrize(
    ("name", "split", "key", "skeleton", "shoulder"),
    [
        ("3dpw", "test", "2", "coco18", (90, 25, 0.875)),
        ("3dpw", "validation", "11", "coco18", (60, 25, 0.875)),
        ("3dpw-oc", "test", "22", "coco18", (66, 25, 0.875)),
        ("3dpw-pc", "test", "31", "coco18", (60, 25, 0.875)),
        ("3dpw-crowd", "validation", "11", "coco17", (61, 25, 0.75)),
        ("3dpw-crowd", "validation", FALLS_BACK, "coco18", (81, 25, 0.875)),
        ("3doh", "test", "testImages/2_color.jpg", "coco17", (50, 25, 0.75)),
    ],
)
def test_joints_found_come_with_their_order(
    name: str, split: str, key: str, skeleton: str, shoulder: tuple[float, ...], tmp_path: Path
) -> None:
    person = read(name, tmp_path, split)[key]
    names = SKELETONS[person.found_skeleton]
    assert person.found_px is not None
    assert (person.found_skeleton, person.found_px.shape) == (skeleton, (len(names), 3))
    assert person.found_px[names.index("L_Shoulder")].tolist() == list(shoulder)
    assert person.found_px[names.index("R_Ear")].tolist() == [0, 0, 0]
    assert not person.joints_px.any()


@pytest.mark.parametrize(
    ("file", "frame"), [("image_00012.jpg", 12), ("0007.png", 7), ("a1/b_2_030.jpg", 30), ("picture.jpg", 0)]
)
def test_the_frame_is_the_last_number_of_the_name(file: str, frame: int) -> None:
    assert frame_of(file) == frame
