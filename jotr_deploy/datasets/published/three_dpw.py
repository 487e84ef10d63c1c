"""3DPW, with its parts -OC, -PC and -Crowd: people outdoors, measured by inertial sensors and a moving camera."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation, Camera, Fit, Gender
from jotr_deploy.datasets.published.json_entries import AGAIN, Entry, each_entry, people_of
from jotr_deploy.datasets.published.layouts import box_of, camera_of, fit_of, picture_in, size_of
from jotr_deploy.errors import DatasetError
from jotr_deploy.skeletons import SKELETONS, SMPL30
from jotr_deploy.support.aliases import Array

FILES = {
    "test": ("annotations/3DPW_latest_test.json",),
    "validation": ("annotations/3DPW_latest_validation.json",),
}
OC_FILES = {"test": ("annotations/3DPW_oc.json",)}
PC_FILES = {"test": ("annotations/3DPW_pc.json",)}
CROWD_FILES = {"validation": (*FILES["validation"], "annotations/3DPW_validation_crowd_hhrnet_result.json")}
"""Files of 3DPW-Crowd by split."""
CROWDS = ("courtyard_hug_00", "courtyard_dancing_00")
"""Parts of the names of the sequences that make up 3DPW-Crowd."""
GENDERS: dict[str, Gender] = {"m": "male", "male": "male", "f": "female", "female": "female", "neutral": "neutral"}


class _Picture(NamedTuple):
    sequence: str
    file: str
    size_px: tuple[int, int]
    camera: Camera


class _Person(NamedTuple):
    number: int
    box_px: Array  # (4,)
    fit: Fit
    openpose_px: Array  # (18, 3)


def read_3dpw(folder: Path, files: list[Path]) -> Iterator[Annotation]:
    """Read all people of the one file, with the joints detected by OpenPose."""
    for picture, person in people_of(files[0], _picture, _person):
        yield _annotation(folder, picture, person, person.openpose_px, "coco18")


def read_3dpw_crowd(folder: Path, files: list[Path]) -> Iterator[Annotation]:
    """Read all people of the sequences of `CROWDS`, with joints from HigherHRNet, else from OpenPose.

    `files` are those of `CROWD_FILES`.
    """
    people, joints = files
    entries = ((key, Entry(f"{joints}: {key}", value)) for key, value in each_entry(joints))
    shape = (len(SKELETONS["coco17"]), 3)
    found = {key: entry.numbers("coco_joints", *shape) for key, entry in entries}

    def crowd(image: Entry) -> _Picture | None:
        return _picture(image) if any(name in image.text("sequence") for name in CROWDS) else None

    for picture, person in people_of(people, crowd, _person):
        if str(person.number) in found:
            yield _annotation(folder, picture, person, found[str(person.number)], "coco17")
        else:
            yield _annotation(folder, picture, person, person.openpose_px, "coco18")


def _annotation(folder: Path, picture: _Picture, person: _Person, found_px: Array, skeleton: str) -> Annotation:
    return Annotation(
        key=str(person.number),
        image=picture_in(folder / "imageFiles", f"{picture.sequence}/{picture.file}"),
        size_px=picture.size_px,
        box_px=person.box_px,
        joints_px=np.zeros((len(SMPL30), 3)),
        fit=person.fit,
        camera=picture.camera,
        found_px=found_px,
        found_skeleton=skeleton,
        sequence=picture.sequence,
        frame=frame_of(picture.file),
    )


def frame_of(file: str) -> int:
    """Frame number of a file name, 12 for `image_00012.jpg`; 0 without a number."""
    numbers = re.findall(r"\d+", Path(file).stem)
    return int(numbers[-1]) if numbers else 0


def _picture(image: Entry) -> _Picture:
    return _Picture(
        image.text("sequence"), image.text("file_name"), size_of(image), camera_of(image.inside("cam_param"))
    )


def _person(entry: Entry) -> _Person:
    smpl = entry.inside("smpl_param")
    gender = smpl.text("gender")
    if gender not in GENDERS:
        raise DatasetError(f"{smpl.where}: gender '{gender}' is not known", AGAIN)
    openpose_px = entry.numbers("openpose_result", len(SKELETONS["coco18"]), 3)
    return _Person(entry.whole("id"), box_of(entry), fit_of(smpl, GENDERS[gender]), openpose_px)
