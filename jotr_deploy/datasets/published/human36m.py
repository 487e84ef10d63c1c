"""Human3.6M: joints from motion capture in a studio, four cameras; joints and fits are in the studio's frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation, Camera, Fit
from jotr_deploy.datasets.published.json_entries import AGAIN, Entry, each_entry, people_of
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
from jotr_deploy.errors import DatasetError
from jotr_deploy.skeletons import H36M17
from jotr_deploy.support.aliases import Array

SUBJECTS = (1, 5, 6, 7, 8)
PARTS = ("data", "camera", "joint_3d", "smpl_param")
FILES = tuple(f"annotations/Human36M_subject{subject}_{part}.json" for subject in SUBJECTS for part in PARTS)
EVERY = 5
"""Every Nth frame is read."""

_KNOWN = known_by_name(H36M17)


class _Picture(NamedTuple):
    file: str
    size_px: tuple[int, int]
    moment: tuple[str, str, str]  # action, subaction, frame
    camera: str


class _View(NamedTuple):
    camera: Camera
    camera_from_world: Array  # (3, 4), metres


def read_human36m(folder: Path, files: list[Path]) -> Iterator[Annotation]:
    """Read all people, subject by subject, in every fifth frame; `files` are those of `FILES`."""
    for start in range(0, len(files), len(PARTS)):
        yield from _subject(SUBJECTS[start // len(PARTS)], folder / "images", *files[start : start + len(PARTS)])


def _subject(subject: int, images: Path, data: Path, cameras: Path, joints: Path, fits: Path) -> Iterator[Annotation]:
    views = {name: _view(Entry(f"{cameras}: camera {name}", value)) for name, value in each_entry(cameras)}
    joints_at = {
        moment: entry.numbers(moment[2], len(H36M17), 3).astype(np.float32) for moment, entry in _moments(joints)
    }
    fits_at: dict[tuple[str, str, str], Fit] = {
        moment: fit_of(entry.inside(moment[2])) for moment, entry in _moments(fits)
    }
    for picture, (number, box_px) in people_of(data, _picture, lambda entry: (entry.whole("id"), box_of(entry))):
        moment = picture.moment
        if picture.camera not in views:
            raise DatasetError(f"{cameras}: has no camera '{picture.camera}', which {picture.file} needs", AGAIN)
        if moment not in joints_at:
            raise DatasetError(f"{joints}: has no joints of {_text(moment)}, which {picture.file} needs", AGAIN)
        view, fit = views[picture.camera], fits_at.get(moment)
        turn, shift_m = view.camera_from_world[:, :3], view.camera_from_world[:, 3]
        joints_m = by_name(joints_at[moment] / MM @ turn.T + shift_m, H36M17)
        yield Annotation(
            key=f"{subject}/{number}",
            image=picture_in(images, picture.file),
            size_px=picture.size_px,
            box_px=box_px,
            joints_px=_project(joints_m, view.camera),
            joints_m=joints_m,
            joints_m_known=_KNOWN,
            fit=fit and Fit(fit.pose_rad, fit.betas, fit.trans_m, fit.gender, view.camera_from_world),
            camera=view.camera,
            sequence=f"subject {subject} action {moment[0]} subaction {moment[1]} camera {picture.camera}",
            frame=int(moment[2]),
        )


def _picture(image: Entry) -> _Picture | None:
    frame = image.whole("frame_idx")
    if frame % EVERY:
        return None
    moment = (str(image.whole("action_idx")), str(image.whole("subaction_idx")), str(frame))
    return _Picture(image.text("file_name"), size_of(image), moment, str(image.whole("cam_idx")))


def _view(entry: Entry) -> _View:
    camera_from_world = np.concatenate([entry.numbers("R", 3, 3), entry.numbers("t", 3, 1) / MM], 1)
    return _View(camera_of(entry, "f", "c"), camera_from_world)


def _project(joints_m: Array, camera: Camera) -> Array:
    """(30, 3) x, y, 1 for the known joints in front of the camera; zero for the others."""
    out = np.zeros((len(joints_m), 3))
    shown = _KNOWN & (joints_m[:, 2] > 0)
    out[shown, :2] = joints_m[shown, :2] / joints_m[shown, 2:] * camera.focal_px + camera.principal_px
    out[shown, 2] = 1
    return out


def _moments(path: Path) -> Iterator[tuple[tuple[str, str, str], Entry]]:
    """Entries of every fifth frame from the object of a subaction, which has them by frame."""
    for action, subactions in each_entry(path):
        parts = Entry(f"{path}: action {action}", subactions)
        for subaction in parts:
            entry = Entry(f"{path}: action {action} subaction {subaction}", parts[subaction])
            for frame in entry:
                if frame.isdecimal() and int(frame) % EVERY == 0:
                    yield (action, subaction, frame), entry


def _text(moment: tuple[str, str, str]) -> str:
    return "action {} subaction {} frame {}".format(*moment)
