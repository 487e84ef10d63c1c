"""COCO results of people: what pycocotools and the package's own reader take back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from crowd import crowd

from jotr_deploy.errors import OutputError
from jotr_deploy.geometry.camera import project_px
from jotr_deploy.people import People
from jotr_deploy.runtime.joint_files.keypoint_file import read_keypoints
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX
from jotr_deploy.visual.coco_results import coco_file, coco_people

BOXES = [[10, 20, 210, 220], [300, 0, 400, 100]]


@pytest.mark.parametrize("frames", [[], [0], [0, 0], [2, 0, 1]])
def test_a_list_with_an_entry_a_person(tmp_path: Path, frames: list[int]) -> None:
    with coco_file(tmp_path / "p.json") as append:
        for number, count in enumerate(frames):
            append(number, crowd(BOXES[:count]))
    entries = json.loads((tmp_path / "p.json").read_text())
    numbers = [number for number, count in enumerate(frames) for _ in range(count)]
    assert [entry["image_id"] for entry in entries] == numbers


def test_joints_and_box_are_those_of_the_body_in_the_picture() -> None:
    people = crowd(BOXES)
    for person, entry in enumerate(coco_people("a.jpg", people)):
        joints = np.reshape(entry["keypoints"], (17, 3))
        shown = project_px(people.joints_camera_m, people.focal_px, people.principal_px)[person]
        expected = [shown[SMPL30_INDEX[name]] for name in SKELETONS["coco17"]]
        np.testing.assert_allclose(joints[:, :2], expected, atol=0.006)
        x, y, width, height = entry["bbox"]
        centre_px, side_px = people.principal_px[person], people.boxes_px[person, 2] - people.boxes_px[person, 0]
        np.testing.assert_allclose([x + width / 2, y + height / 2], centre_px, atol=0.02)  # a ball in the middle
        assert width == pytest.approx(height, rel=0.002) == pytest.approx(2 * side_px * 5000 / 256 * 0.5 / 40, rel=0.01)


@pytest.mark.parametrize(("track_ids", "expected"), [(-1, [None, None]), ([7, -1], [7, None])])
def test_who_is_tracked_says_so(track_ids: object, expected: list[int | None]) -> None:
    assert [entry.get("track_id") for entry in coco_people(0, crowd(BOXES, track_ids=track_ids))] == expected


def test_it_is_read_back_as_keypoints(tmp_path: Path) -> None:
    people = crowd(BOXES)
    with coco_file(tmp_path / "p.json") as append:
        append("a.jpg", people)
        append("b.jpg", People.none())
    file = read_keypoints(tmp_path / "p.json")
    found = file.for_image("a.jpg", size_px=(640, 480))
    assert len(found) == 2
    assert len(file.for_image("b.jpg", size_px=(640, 480))) == 0
    nose = SMPL30_INDEX["Nose"]
    shown = project_px(people.joints_camera_m, people.focal_px, people.principal_px)[:, nose]
    np.testing.assert_allclose(found.keypoints_px[:, nose, :2], shown, atol=0.006)


def test_what_is_not_finite_is_never_written(tmp_path: Path) -> None:
    people = crowd([*BOXES, BOXES[0]])
    people.joints_m[0, SMPL30_INDEX["Nose"]] = np.nan
    people.vertices_m[1] = np.nan
    people.vertices_m[2, :9] = np.inf
    with coco_file(tmp_path / "p.json") as append:
        append(0, people)
    entries = json.loads((tmp_path / "p.json").read_text(), parse_constant=pytest.fail)
    assert len(entries) == 2
    assert entries[0]["keypoints"][:3] == [0, 0, 0]
    assert np.isfinite([entry["bbox"] for entry in entries]).all()


def write_half(path: Path) -> None:
    with coco_file(path) as append:
        append(0, crowd(BOXES))
        raise ZeroDivisionError


def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "p.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError), coco_file(tmp_path / "nowhere" / "p.json"):
        pass
