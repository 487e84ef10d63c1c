"""The project's own keypoint file, `NAME_2d.npz`: written by `--save-2d`, read by `--keypoints` to repeat a run."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jotr_deploy.errors import KeypointFileError, first_line
from jotr_deploy.runtime.detections import Detections, absent_is_zero, box_text
from jotr_deploy.runtime.joint_files.image_index import ImageKey
from jotr_deploy.runtime.joint_files.unsupported_files import LAYOUTS
from jotr_deploy.skeletons import SKELETONS, to_smpl30
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.writing import written_aside


@dataclass(frozen=True)
class NpzPeople:
    """Contents of an `.npz` keypoint file."""

    people: Detections  # in the 30-joint set
    rows: dict[ImageKey, list[int]]
    has_boxes: bool  # square crop boxes


def read_npz(path: Path, skeleton: str | None) -> NpzPeople:
    """Read an `.npz` as `write_keypoints_npz` writes it, or one made by hand.

    Raises:
        KeypointFileError: the file is damaged, or its arrays do not have the right shapes.
    """
    arrays = _npz_arrays(path)
    kind = skeleton or str(arrays["skeleton"])
    if kind not in SKELETONS:
        raise KeypointFileError(f"{path}: unknown skeleton '{kind}'", f"known: {', '.join(sorted(SKELETONS))}")
    count, has_boxes = len(np.atleast_1d(arrays["frame"])), "boxes" in arrays
    arrays = {"boxes": np.zeros((count, 4)), "scores": np.ones(count), "track_ids": np.full(count, -1), **arrays}
    shapes = {"joints": (count, len(SKELETONS[kind]), 3), "boxes": (count, 4)}
    for name in ("frame", "joints", "boxes", "scores", "track_ids"):
        array, shape = arrays[name], shapes.get(name, (count,))
        whole = name in ("track_ids", "frame")
        if array.shape != shape or array.dtype.kind not in ("iu" if whole else "iuf") or not np.isfinite(array).all():
            what = "whole" if whole else "finite"
            raise KeypointFileError(f"{path}: '{name}' must be {what} numbers of shape {shape}", LAYOUTS)
    if has_boxes:
        _check_crop_boxes(path, arrays["boxes"])
    keypoints = absent_is_zero(to_smpl30(arrays["joints"], kind))
    people = Detections(arrays["boxes"], keypoints, np.clip(arrays["scores"], 0, 1), arrays["track_ids"])
    rows: dict[ImageKey, list[int]] = {}
    for row, frame in enumerate(arrays["frame"].tolist()):
        rows.setdefault(frame, []).append(row)
    return NpzPeople(people, rows, has_boxes)


def _npz_arrays(path: Path) -> dict[str, Array]:
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("not a zip archive")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # the library raises all sorts of errors on bad bytes
        raise KeypointFileError(f"{path}: not an intact .npz ({first_line(error)})", "write it again") from error
    if "vertices_m" in arrays:
        raise KeypointFileError(
            f"{path}: contains the meshes of a run, not its joints", "give the NAME_2d.npz that run --save-2d writes"
        )
    for name in ("joints", "frame", "skeleton"):
        if name not in arrays:
            raise KeypointFileError(f"{path}: has no array '{name}'", LAYOUTS)
    return arrays


def _check_crop_boxes(path: Path, boxes_px: Array) -> None:
    for person, box in enumerate(boxes_px):
        width, height = box[2:] - box[:2]
        if not (width > 0 and abs(width - height) <= 0.01 * width):
            raise KeypointFileError(
                f"{path}: person {person}: {box_text(box)} is not a square crop box", "leave 'boxes' out of the file"
            )


def write_keypoints_npz(path: Path, frames: Iterable[tuple[int, Detections]]) -> None:
    """Write the people of a run, so that reading the file repeats the run without its detector and pose network.

    Args:
        path: ends in .npz.
        frames: (0-based position in the source, its people with crop boxes).

    Raises:
        OutputError: the file cannot be written.
    """
    pairs = list(frames)
    everyone = [Detections.none(), *(people for _, people in pairs)]
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(
            file,
            joints=np.concatenate([people.keypoints_px for people in everyone]),
            boxes=np.concatenate([people.boxes_px for people in everyone]),
            scores=np.concatenate([people.scores for people in everyone]),
            track_ids=np.concatenate([people.track_ids for people in everyone]),
            frame=np.repeat(np.array([frame for frame, _ in pairs], np.int64), [len(people) for _, people in pairs]),
            skeleton=np.array("smpl30"),
        )
