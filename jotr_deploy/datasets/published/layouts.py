"""Layout shared by the files of several sets: boxes, cameras, fits, and joints by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jotr_deploy.datasets.published.annotation import Camera, Fit, Gender
from jotr_deploy.datasets.published.json_entries import AGAIN, Entry
from jotr_deploy.errors import DatasetError
from jotr_deploy.skeletons import SKELETONS, SMPL30, SMPL30_INDEX, to_smpl30
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_names import path_inside

MM = 1000.0
"""Millimetres in a metre."""


def size_of(image: Entry) -> tuple[int, int]:
    """Width and height of a picture."""
    return image.whole("width"), image.whole("height")


def picture_in(folder: Path, file: str) -> Path:
    """Path of a picture named by the files of a set.

    Raises:
        DatasetError: the name leads out of the folder, or is not a name.
    """
    try:
        return path_inside(folder, file, below=True)
    except ValueError as error:
        raise DatasetError(f"{folder}: {error}", AGAIN) from None


def box_of(person: Entry) -> Array:
    """(4,) x0 y0 x1 y1 from a `bbox` with x, y, width, height."""
    x, y, width, height = person.numbers("bbox", 4)
    return np.array([x, y, x + width, y + height])


def camera_of(entry: Entry, focal: str = "focal", principal: str = "princpt") -> Camera:
    """Camera in pixels."""
    (fx, fy), (cx, cy) = entry.numbers(focal, 2).tolist(), entry.numbers(principal, 2).tolist()
    return Camera((fx, fy), (cx, cy))


def fit_of(entry: Entry, gender: Gender = "neutral", camera_from_fit: Array | None = None) -> Fit:
    """Fit from an object with `pose`, `shape` and `trans`: radians and metres, kept as float32."""
    pose_rad, betas, trans_m = entry.numbers("pose", 24, 3), entry.numbers("shape", 10), entry.numbers("trans", 3)
    kept = np.concatenate([pose_rad.ravel(), betas, trans_m]).astype(np.float32)
    return Fit(kept[:72].reshape(24, 3), kept[72:82], kept[82:], gender, camera_from_fit)


def labelled(person: Entry, skeleton: str) -> Array:
    """(30, 3) x, y, 1 for labelled joints, from `keypoints` whose third number is 0 for unlabelled ones.

    If the skeleton lacks pelvis and neck, they are the midpoints of hips and shoulders, provided both are labelled.
    """
    joints = person.numbers("keypoints", len(SKELETONS[skeleton]), 3)
    joints[:, 2] = joints[:, 2] > 0
    out = to_smpl30(joints[None], skeleton)[0]
    out[out[:, 2] == 0] = 0
    return out


def by_name(values: Array, names: tuple[str, ...]) -> Array:
    """(30, D) values in the order of the 30-joint set from (J, D) of joints with these names; zero for the others."""
    out = np.zeros((len(SMPL30), values.shape[1]))
    for value, name in zip(values, names, strict=True):
        if name in SMPL30_INDEX:
            out[SMPL30_INDEX[name]] = value
    return out


def known_by_name(names: tuple[str, ...]) -> Array:
    """(30,) bool, true for joints among these names."""
    return np.array([name in names for name in SMPL30])
