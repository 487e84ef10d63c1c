"""User-supplied 2-D joints from any tool: the format is recognised by the content."""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.geometry.orientation import upright_from_stored
from jotr_deploy.runtime.detections import Detections, absent_is_zero
from jotr_deploy.runtime.joint_files.coco_json import coco_annotations, coco_results, image_of, wrapped_results
from jotr_deploy.runtime.joint_files.coordinates import Coordinates, JointsIn, coordinates_of
from jotr_deploy.runtime.joint_files.image_index import ImageIndex, ImageKey, as_path
from jotr_deploy.runtime.joint_files.mmpose_json import is_mmpose, is_mmpose_batch, mmpose_results
from jotr_deploy.runtime.joint_files.named_json import is_named, named_pictures
from jotr_deploy.runtime.joint_files.npz_file import read_npz
from jotr_deploy.runtime.joint_files.openpose_json import OPENPOSE_END, openpose_frames, openpose_picture
from jotr_deploy.runtime.joint_files.person_entry import Entries, PersonEntry, joints_of, read_json, score_of, track_ids
from jotr_deploy.runtime.joint_files.unsupported_files import LAYOUTS, is_recognised, what_bytes_are, what_json_is
from jotr_deploy.runtime.sources.images import natural_order
from jotr_deploy.skeletons import SKELETONS, SMPL30, SMPL30_INDEX, to_smpl30
from jotr_deploy.support.aliases import Array

NO_BODY = "without body joints"


@dataclass(frozen=True)
class KeypointFile:
    """People of many images, as stored in a file, in the 30-joint set."""

    people: Detections  # everybody in the file; boxes are crop boxes when `has_boxes`, else zero
    index: ImageIndex
    coordinates: Coordinates
    canvases_px: Array  # (P, 2) width, height that the file declares for a person's picture, else NaN
    has_boxes: bool = False
    left_out: dict[str, int] = field(default_factory=dict)  # number of skipped entries by reason

    def for_image(
        self,
        name: str,
        image_id: int | None = None,
        frame: int | None = None,
        size_px: tuple[int, int] | None = None,
    ) -> Detections:
        """People of one image on its own; empty if the file does not list it.

        `name`, `image_id` and `frame` are those of `ImageIndex.find`; `size_px` (width, height) is needed for files
        whose coordinates are not pixels.
        """
        return self.in_picture(self.index.find(name, image_id, frame) or [], size_px, name=name)

    def in_picture(
        self, rows: list[int], size_px: tuple[int, int] | None, orientation: int = 1, name: str = ""
    ) -> Detections:
        """People of these rows, in pixels of their picture of `size_px`; see `Coordinates.in_picture`."""
        people = self.people[rows]
        if not rows:
            return people
        canvas = self.canvases_px[rows[0]]
        if size_px is None:
            if self.coordinates.fractions is not None or np.isfinite(canvas).all():
                raise ValueError(f"{self.index.path}: coordinates are not pixels, so the image size is needed")
            return people
        keypoints = people.keypoints_px.astype(np.float64)
        seen = keypoints[..., 2] > 0
        said = (float(canvas[0]), float(canvas[1])) if np.isfinite(canvas).all() else None
        keypoints[seen, :2] = self.coordinates.in_picture(keypoints[seen, :2], said, size_px, orientation, name)
        return replace(people, keypoints_px=absent_is_zero(keypoints))


def read_keypoints(path: Path, skeleton: str | None = None, joints_in: JointsIn = "auto") -> KeypointFile:
    """Read a keypoint file, or a folder with one file per picture; the format is recognised by the content.

    Args:
        path: the file or folder.
        skeleton: a key of `SKELETONS`; by default taken from the file or the number of joints.
        joints_in: convention of the coordinates.

    Raises:
        KeypointFileError: names the file and, if applicable, the person.
    """
    if skeleton is not None and skeleton not in SKELETONS:
        raise KeypointFileError(f"unknown skeleton '{skeleton}'", f"known: {', '.join(sorted(SKELETONS))}")
    if path.is_dir():
        return _collect(path, _of_folder(path), skeleton, joints_in)
    if not path.exists():
        raise KeypointFileError(f"{path}: no such file or folder", "check the path")
    if path.suffix.lower() == ".npz" or zipfile.is_zipfile(path):
        found = read_npz(path, skeleton)
        pixels: JointsIn = "pixels" if found.has_boxes and joints_in == "auto" else joints_in
        return KeypointFile(
            found.people,
            ImageIndex(path, found.rows, by_position=True),
            coordinates_of(path, _places(found.people.keypoints_px), pixels),
            np.full((len(found.people), 2), np.nan),
            found.has_boxes,
        )
    return _collect(path, _entries(path, read_json(path)), skeleton, joints_in)


def _entries(path: Path, data: Any) -> Entries:
    if isinstance(data, list):
        if not data:
            return Entries()
        if all(isinstance(item, dict) and "people" in item for item in data):
            return openpose_frames(path, data)
        if is_mmpose(data) or is_mmpose_batch(data):
            return mmpose_results(path, data)
        if isinstance(data[0], list):
            raise KeypointFileError(*what_json_is(path, data))
        return coco_results(path, data)
    if isinstance(data, dict):
        if not data:
            return Entries()
        if is_mmpose_batch(data.get("predictions")):
            return mmpose_results(path, data["predictions"])
        if "keypoints" in data and image_of(data) is not None:
            return coco_results(path, [data])
        if "people" in data:
            return openpose_picture(path, data)
        if "annotations" in data:
            return coco_annotations(path, data)
        if "instance_info" in data:
            return mmpose_results(path, data)
        if (results := wrapped_results(data)) is not None:
            return coco_results(path, results)
        if is_named(data) and not is_recognised(path, data):
            return named_pictures(path, data)
    raise KeypointFileError(*what_json_is(path, data))


def _of_folder(folder: Path) -> Entries:
    """Read a folder with one file per picture, named like the picture."""
    present = [path for path in natural_order(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    jsons = [path for path in present if path.suffix.lower() == ".json"]
    files = [path for path in jsons if path.stem.lower().endswith(OPENPOSE_END)] or jsons
    if not files:
        known = what_bytes_are(present[0].read_bytes()) if present else None
        if known is not None:
            raise KeypointFileError(f"{folder}: no JSON files; {present[0].name} {known[0]}", known[1])
        raise KeypointFileError(f"{folder}: no OpenPose files (*{OPENPOSE_END}.json) in this folder", LAYOUTS)
    whole = Entries()
    for file in files:
        found = _entries(file, read_json(file))
        keys = {*found.images, *(person.image for person in found.people)}
        is_openpose = file.stem.lower().endswith(OPENPOSE_END)
        name = as_path(file.stem[: -len(OPENPOSE_END)] if is_openpose else file.stem)
        if not keys <= {None, name}:
            raise KeypointFileError(
                f"{file}: covers more than one picture, but the folder must have one file per picture",
                "give this file on its own",
            )
        whole.images.append(name)
        whole.people += [replace(person, image=name) for person in found.people]
        whole.last_pixel_is_1 |= found.last_pixel_is_1
        for why, count in found.left_out.items():
            whole.left_out[why] = whole.left_out.get(why, 0) + count
    return whole


def _collect(path: Path, entries: Entries, skeleton: str | None, joints_in: JointsIn) -> KeypointFile:
    """Check everybody and convert them to the 30-joint set."""
    rows: dict[ImageKey, list[int]] = {image: [] for image in entries.images}
    joints: dict[tuple[str, ...], list[tuple[int, Array]]] = {}
    kept: list[PersonEntry] = []
    for entry in entries.people:
        rows.setdefault(entry.image, [])
        if (found := joints_of(entry, skeleton)) is None:
            entries.leave_out(NO_BODY)
            continue
        rows[entry.image].append(len(kept))
        joints.setdefault(found[0], []).append((len(kept), found[1]))
        kept.append(entry)
    if entries.people and not kept:
        raise KeypointFileError(
            f"{path}: none of its {len(entries.people)} people has body joints", "detect bodies as well"
        )
    keypoints = np.zeros((len(kept), len(SMPL30), 3), np.float32)
    for names, people in joints.items():
        keypoints[[row for row, _ in people]] = absent_is_zero(to_smpl30(np.stack([a for _, a in people]), names))
    ids, doubt = track_ids((entry.track for entry in kept), [entry.image for entry in kept])
    notes = [*entries.notes, *([f"its ids are not used: {doubt}; people are tracked"] if doubt else [])]
    for note in notes:
        logging.getLogger("jotr_deploy").warning("%s: %s", path, note)
    scores = np.array([score_of(entry.where, entry.score) for entry in kept])
    return KeypointFile(
        Detections(np.zeros((len(kept), 4)), keypoints, scores, ids),
        ImageIndex(path, rows, entries.by_position, entries.complete),
        coordinates_of(path, _places(keypoints), joints_in, entries.last_pixel_is_1),
        np.reshape([entry.canvas_px or (np.nan, np.nan) for entry in kept], (-1, 2)),
        left_out=entries.left_out,
    )


def _places(keypoints_px: Array) -> Array:
    return keypoints_px[keypoints_px[..., 2] > 0][:, :2]


def lie_down(keypoints_px: Array, orientation: int) -> float:
    """Gain in uprightness of people (P, 30, 3) in a rotated picture if their joints are in stored pixels.

    Above 0 the stored pixels are more likely; 0 if nothing can be told.
    """
    top, bottom = (keypoints_px[:, SMPL30_INDEX[name]] for name in ("Neck", "Pelvis"))
    known = (top[:, 2] > 0) & (bottom[:, 2] > 0)
    up = (top - bottom)[known, :2].astype(np.float64)
    up /= np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-9)
    turned = upright_from_stored(up, orientation, (1, 1))
    return float((up[:, 1] - turned[:, 1]).sum())
