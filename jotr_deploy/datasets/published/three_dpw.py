"""3DPW, with its parts -OC, -PC, -Crowd and -Occ: people outdoors, measured by inertial sensors and a moving camera."""

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
OCC_FILES = {
    "all": tuple(f"annotations/3DPW_latest_{split}.json" for split in ("train", "validation", "test")),
}
"""Files of 3DPW-Occ of 3DNBF, which is drawn from all splits."""
OCC_SEQUENCES = (
    *("courtyard_backpack", "courtyard_basketball", "courtyard_bodyScannerMotions", "courtyard_box", "courtyard_golf"),
    *("courtyard_jacket", "courtyard_laceShoe", "downtown_stairs", "flat_guitar", "flat_packBags"),
    *("outdoors_climbing", "outdoors_crosscountry", "outdoors_fencing", "outdoors_freestyle", "outdoors_golf"),
    *("outdoors_parcours", "outdoors_slalom"),
)
"""Sequences of 3DPW-Occ, without the number at the end of their names."""
OCC_EVERY = 30
"""Frames of 3DPW-Occ: those whose number is a multiple of this."""
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


def read_3dpw_occ(folder: Path, files: list[Path]) -> Iterator[Annotation]:
    """Read all people of every 30th frame of the sequences of `OCC_SEQUENCES`, with the joints detected by OpenPose.

    `files` are those of `OCC_FILES`. Keys name the file too, since each file counts its people by itself.

    Raises:
        DatasetError: besides what any reader raises, a sequence has no such frame.
    """
    missing = set(OCC_SEQUENCES)

    def occluded(image: Entry) -> _Picture | None:
        picture = _picture(image)
        chosen = _without_number(picture.sequence) in OCC_SEQUENCES and frame_of(picture.file) % OCC_EVERY == 0
        return picture if chosen else None

    for file in files:
        split = file.stem.rpartition("_")[2]
        for picture, person in people_of(file, occluded, _person):
            missing.discard(_without_number(picture.sequence))
            yield _annotation(folder, picture, person, person.openpose_px, "coco18", f"{split}/{person.number}")
    if missing:
        raise DatasetError(
            f"{files[0].parent}: {len(missing)} of the {len(OCC_SEQUENCES)} sequences of 3DPW-Occ have nobody in the "
            f"three files 3DPW_latest_*.json: {', '.join(sorted(missing))}",
            "use the whole annotation files of 3DPW: without these sequences the figures are not of the set",
        )


def _without_number(sequence: str) -> str:
    return re.sub(r"_\d+$", "", sequence)


def _annotation(
    folder: Path, picture: _Picture, person: _Person, found_px: Array, skeleton: str, key: str | None = None
) -> Annotation:
    return Annotation(
        key=key or str(person.number),
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
