"""2-D joints that users bring: COCO results, AlphaPose, OpenPose, and our own `.npz`."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import KeypointFileError, first_line
from jotr_deploy.runtime.detections import Detections, box_text
from jotr_deploy.runtime.images import natural_order
from jotr_deploy.runtime.joint_files.entries import (
    LAYOUTS,
    OPENPOSE_END,
    PersonEntry,
    joints_of,
    openpose_people,
    read_json,
    results_people,
    score_of,
    track_id_of,
)
from jotr_deploy.runtime.joint_files.image_index import ImageIndex, ImageKey
from jotr_deploy.skeletons import SKELETONS, SMPL30, to_smpl30
from jotr_deploy.writing import written_aside

Array = NDArray[Any]


@dataclass(frozen=True)
class KeypointFile:
    """The people of many images as a file has them, in the 30-joint set."""

    people: Detections  # everyone in the file; boxes are crop boxes when `has_boxes`, else zero
    index: ImageIndex
    has_boxes: bool = False
    normalised: tuple[float, float] | None = None  # first and last pixel's coordinate, where they are not pixels

    def for_image(
        self,
        name: str,
        image_id: int | None = None,
        frame: int | None = None,
        size_px: tuple[int, int] | None = None,
    ) -> Detections:
        """The people of one image; nobody where the file does not know the image.

        `name`, `image_id` and `frame` are those of `ImageIndex.find`; `size_px` (width, height) is needed for files
        with normalised coordinates.
        """
        people = self.people[self.index.find(name, image_id, frame) or []]
        if self.normalised is None:
            return people
        if size_px is None:
            raise ValueError(f"{self.index.path}: coordinates are normalised, the image size is needed")
        low, high = self.normalised
        keypoints = people.keypoints_px.copy()
        keypoints[..., :2] = (keypoints[..., :2] - low) / (high - low) * (np.asarray(size_px) - 1)
        return replace(people, keypoints_px=_absent_is_zero(keypoints))


def read_keypoints(path: Path, skeleton: str | None = None) -> KeypointFile:
    """Read a keypoint file, or a folder of OpenPose files; the content tells the format.

    Args:
        path: the file or folder.
        skeleton: a key of `SKELETONS`; by default the number of joints tells it.

    Raises:
        KeypointFileError: naming the file, and the person where it is about one.
    """
    if skeleton is not None and skeleton not in SKELETONS:
        raise KeypointFileError(f"unknown skeleton '{skeleton}'", f"known: {', '.join(sorted(SKELETONS))}")
    if path.is_dir():
        files = natural_order(path.glob(f"*{OPENPOSE_END}.json"))
        if not files:
            raise KeypointFileError(f"{path}: no OpenPose files (*{OPENPOSE_END}.json) in this folder", LAYOUTS)
        return _openpose(path, files, skeleton)
    if not path.exists():
        raise KeypointFileError(f"{path}: no such file or folder", "check the path")
    if path.suffix == ".npz" or zipfile.is_zipfile(path):
        return _read_npz(path, skeleton)
    data = read_json(path)
    if isinstance(data, dict) and "people" in data:
        return _openpose(path, [path], skeleton)
    if isinstance(data, list):
        return _collect(path, results_people(path, data), skeleton)
    raise KeypointFileError(f"{path}: not a layout of keypoints that is known", LAYOUTS)


def _openpose(path: Path, files: list[Path], skeleton: str | None) -> KeypointFile:
    images, people = zip(*map(openpose_people, files), strict=True)
    return _with_range(_collect(path, chain.from_iterable(people), skeleton, images))


def _with_range(file: KeypointFile) -> KeypointFile:
    """OpenPose can write 0..1 or -1..1 from the first to the last pixel; only the values tell."""
    keypoints = file.people.keypoints_px
    seen = keypoints[keypoints[..., 2] > 0][:, :2]
    if not seen.size or np.abs(seen).max() > 1:
        return file
    low = -1.0 if seen.min() < 0 else 0.0
    logging.getLogger("jotr_deploy").warning(
        "%s: coordinates lie within %g..1; taken as fractions of the image, not as pixels", file.index.path, low
    )
    return replace(file, normalised=(low, 1.0))


def _collect(
    path: Path, entries: Iterable[PersonEntry], skeleton: str | None, images: Iterable[ImageKey] = ()
) -> KeypointFile:
    """Check everyone and bring them into the 30-joint set; `images` are known even when they show nobody."""
    rows: dict[ImageKey, list[int]] = {image: [] for image in images}
    joints: dict[str, list[tuple[int, Array]]] = {}
    scores, tracks = [], []
    for row, entry in enumerate(entries):
        rows.setdefault(entry.image, []).append(row)
        kind, array = joints_of(entry, skeleton)
        joints.setdefault(kind, []).append((row, array))
        scores.append(score_of(entry.where, entry.score))
        tracks.append(track_id_of(entry.track))
    keypoints = np.zeros((len(scores), len(SMPL30), 3), np.float32)
    for kind, found in joints.items():
        keypoints[[row for row, _ in found]] = _absent_is_zero(to_smpl30(np.stack([a for _, a in found]), kind))
    people = Detections(np.zeros((len(scores), 4)), keypoints, np.asarray(scores), np.asarray(tracks))
    return KeypointFile(people, ImageIndex(path, rows))


def _absent_is_zero(keypoints: Array) -> Array:
    """Confidences in 0..1, and all zero where a joint has none."""
    keypoints[..., 2] = np.clip(keypoints[..., 2], 0, 1)
    keypoints[keypoints[..., 2] == 0] = 0
    return keypoints


def _read_npz(path: Path, skeleton: str | None) -> KeypointFile:
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
    keypoints = _absent_is_zero(to_smpl30(arrays["joints"], kind))
    people = Detections(arrays["boxes"], keypoints, np.clip(arrays["scores"], 0, 1), arrays["track_ids"])
    rows: dict[ImageKey, list[int]] = {}
    for row, frame in enumerate(arrays["frame"].tolist()):
        rows.setdefault(frame, []).append(row)
    return KeypointFile(people, ImageIndex(path, rows, by_position=True), has_boxes)


def _npz_arrays(path: Path) -> dict[str, Array]:
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("not a zip archive")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # the library raises anything on bad bytes
        raise KeypointFileError(f"{path}: not an intact .npz ({first_line(error)})", "write it again") from error
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
        OutputError.
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
