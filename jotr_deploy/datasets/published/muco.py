"""MuCo-3DHP: pictures composed of people from a studio, joints from motion capture, fits to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation, Camera, Fit
from jotr_deploy.datasets.published.json_entries import Entry, each_entry, people_of
from jotr_deploy.datasets.published.layouts import (
    MM,
    box_of,
    by_name,
    camera_of,
    fit_of,
    known_by_name,
    picture_in,
    size_of,
)
from jotr_deploy.support.aliases import Array

FILES = ("annotations/MuCo-3DHP.json", "annotations/smpl_param.json")
JOINTS = (
    *("Head_top", "Thorax", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist"),
    *("R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle"),
    *("Pelvis", "Spine", "Head", "R_Hand", "L_Hand", "R_Toe", "L_Toe"),
)

_KNOWN = known_by_name(JOINTS)
_PELVIS = JOINTS.index("Pelvis")


class _Picture(NamedTuple):
    file: str
    size_px: tuple[int, int]
    camera: Camera


class _Person(NamedTuple):
    number: int
    box_px: Array  # (4,)
    joints_px: Array  # (21, 2)
    joints_mm: Array  # (21, 3) camera frame


def read_muco(folder: Path, files: list[Path]) -> Iterator[Annotation]:
    """Read the person with the pelvis closest to the camera in every picture; `files` are those of `FILES`."""
    people, fits = files
    nearest: dict[str, tuple[_Picture, _Person]] = {}
    for picture, person in people_of(people, _picture, _person):
        other = nearest.get(picture.file)
        if other is None or person.joints_mm[_PELVIS, 2] < other[1].joints_mm[_PELVIS, 2]:
            nearest[picture.file] = picture, person
    fit_by_person = _fits(fits, {str(person.number) for _, person in nearest.values()})
    for picture, person in nearest.values():
        yield Annotation(
            key=str(person.number),
            image=picture_in(folder / "images", picture.file),
            size_px=picture.size_px,
            box_px=person.box_px,
            joints_px=np.concatenate([by_name(person.joints_px, JOINTS), _KNOWN[:, None]], 1),
            joints_m=by_name(person.joints_mm, JOINTS) / MM,
            joints_m_known=_KNOWN,
            fit=fit_by_person.get(str(person.number)),
            camera=picture.camera,
        )


def _picture(image: Entry) -> _Picture:
    return _Picture(image.text("file_name"), size_of(image), camera_of(image, "f", "c"))


def _person(entry: Entry) -> _Person:
    joints_px = entry.numbers("keypoints_img", len(JOINTS), 2).astype(np.float32)
    joints_mm = entry.numbers("keypoints_cam", len(JOINTS), 3).astype(np.float32)
    return _Person(entry.whole("id"), box_of(entry).astype(np.float32), joints_px, joints_mm)


def _fits(path: Path, wanted: set[str]) -> dict[str, Fit]:
    return {key: fit_of(Entry(f"{path}: {key}", value)) for key, value in each_entry(path) if key in wanted}
