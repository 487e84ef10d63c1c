"""User-supplied boxes of people: lists, lists by picture, COCO, Ultralytics, mmdet, and MOT text files."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.detections import Detections, box_text
from jotr_deploy.runtime.joint_files.coco_json import (
    CROWD,
    NO_IMAGE,
    NO_PERSON,
    images_of,
    is_person,
    names_no_picture,
    person_categories,
    wrapped_results,
)
from jotr_deploy.runtime.joint_files.coordinates import Coordinates, JointsIn, coordinates_of
from jotr_deploy.runtime.joint_files.image_index import ImageIndex, ImageKey
from jotr_deploy.runtime.joint_files.named_json import PROPERTIES
from jotr_deploy.runtime.joint_files.person_entry import (
    Size,
    canvas_of,
    image_key,
    read_json,
    score_of,
    to_numbers,
    track_ids,
)
from jotr_deploy.runtime.joint_files.unsupported_files import BOX_LAYOUTS, remedy_for, what_json_is
from jotr_deploy.support.aliases import Array

_INFINITE_PX = 1e12  # larger values are not coordinates, and their squares overflow float32
_NO_CORNERS = (
    "a box is given by its corners x0, y0, x1, y1; give boxes of x, y (top left), width, height as COCO results"
)
_EMPTY = "with an empty box"
_CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1"),
            ("left", "top", "right", "bottom"))  # fmt: skip
_CLASSES_OF_PEOPLE = (1, 2, 7)  # MOT ground truth: pedestrian, person on vehicle, static person
_MOT_LINE = re.compile(rb"\s*[0-9]+(?:\.0*)?\s*,\s*-?[0-9]+(?:\.0*)?\s*(,\s*-?[0-9.eE+-]+\s*){4,}")


@dataclass(frozen=True)
class _Entry:
    where: str
    image: ImageKey
    box: Array | None  # x0 y0 x1 y1; None where it has no area
    score: object = 1.0
    track: object = None
    canvas_px: Size | None = None


@dataclass
class _Boxes:
    entries: list[_Entry] = field(default_factory=list)
    images: list[ImageKey] = field(default_factory=list)  # including pictures without people
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1


@dataclass(frozen=True)
class BoxFile:
    """Boxes of many images, as stored in a file."""

    people: Detections  # everybody in the file; boxes x0 y0 x1 y1 as stored, no joints
    index: ImageIndex
    coordinates: Coordinates
    canvases_px: Array  # (P, 2) width, height that the file declares for a person's picture, else NaN
    left_out: dict[str, int] = field(default_factory=dict)  # number of skipped entries by reason

    def for_image(
        self, name: str, image_id: int | None = None, frame: int | None = None, *, size_px: tuple[int, int]
    ) -> Detections:
        """Boxes of one image of `size_px` (width, height) on its own; empty if the file does not list it.

        `name`, `image_id` and `frame` are those of `ImageIndex.find`.

        Raises:
            KeypointFileError: half of the boxes or more lie outside the image.
        """
        return self.in_picture(self.index.find(name, image_id, frame) or [], size_px, name=name)

    def in_picture(self, rows: list[int], size_px: tuple[int, int], orientation: int = 1, name: str = "") -> Detections:
        """Boxes of these rows, in pixels of their picture; see `Coordinates.in_picture` and `for_image`."""
        people = self.people[rows]
        if not rows:
            return people
        canvas = self.canvases_px[rows[0]]
        said = (float(canvas[0]), float(canvas[1])) if np.isfinite(canvas).all() else None
        corners: Array = people.boxes_px.reshape(-1, 2).astype(np.float64)
        corners = self.coordinates.in_picture(corners, said, size_px, orientation, name).reshape(-1, 2, 2)
        boxes_px = np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)
        outside = np.asarray((boxes_px[:, 2:] <= 0).any(1) | (boxes_px[:, :2] >= np.array(size_px)).any(1))
        if 2 * outside.sum() >= len(outside):
            person = int(np.flatnonzero(outside)[0])
            raise KeypointFileError(
                f"{self.index.path}: person {person} of '{name}': box {box_text(boxes_px[person])}"
                f" lies outside the image of {size_px[0]} x {size_px[1]} px",
                "boxes are x0, y0, x1, y1 in pixels of the image; in COCO results x, y, width, height",
            )
        return replace(people, boxes_px=boxes_px)


def read_boxes(path: Path, joints_in: JointsIn = "auto") -> BoxFile:
    """Read a box file; `joints_in` is the convention of its coordinates.

    Raises:
        KeypointFileError: names the file and, if applicable, the person.
    """
    found = _Boxes()
    if (lines := _mot_lines(path)) is not None:
        _add_mot(found, path, lines)
    else:
        _add_json(found, path, read_json(path, boxes=True))
    return _collect(path, found, joints_in)


def _add_json(found: _Boxes, path: Path, data: Any) -> None:
    if isinstance(data, list):
        if data and all(isinstance(item, dict) for item in data):
            return _add_results(found, path, data, None, names_no_picture(data))
        found.images = [None] if data else []
        return _add_list(found, data, None, f"{path}: person", "")
    if isinstance(data, dict):
        if isinstance(data.get("annotations"), list):
            return _add_results(found, path, data["annotations"], data, False)
        if isinstance(data.get("bboxes"), list):
            return _add_mmdet(found, path, data)
        if (results := wrapped_results(data)) is not None:
            return _add_results(found, path, results, None, False)
        if not PROPERTIES.intersection(data) and all(isinstance(boxes, list) for boxes in data.values()):
            for name, boxes in data.items():
                image = image_key(f"{path}: '{name}'", name)
                found.images.append(image)
                _add_list(found, boxes, image, f"{path}: person", f" of '{name}'")
            return None
    raise KeypointFileError(*_what_else(path, data))


def _what_else(path: Path, data: object) -> tuple[str, str]:
    """Cause and remedy for JSON without supported boxes."""
    cause, remedy = what_json_is(path, data)
    item = data[0] if isinstance(data, list) and data else data
    if isinstance(item, dict) and ("people" in item or "keypoints" in item):
        return f"{path}: contains keypoints but no boxes", "give it as --keypoints"
    if "not a known" in cause:
        return f"{path}: not a known box layout", BOX_LAYOUTS
    return cause, remedy_for(remedy, True)


def _add_list(found: _Boxes, boxes: Iterable[Any], image: ImageKey, where: str, of: str) -> None:
    """Add boxes x0, y0, x1, y1, optionally followed by a score."""
    for person, item in enumerate(boxes):
        here = f"{where} {person}{of}"
        if not item and isinstance(item, (list, type(None))):
            found.leave_out(_EMPTY)
            continue
        if isinstance(item, dict):
            raise KeypointFileError(f"{here}: a box has four numbers, not {', '.join(item)}", BOX_LAYOUTS)
        numbers = to_numbers(here, "a box", item)
        score = 1.0
        if numbers.shape == (5,) and 0 <= numbers[4] <= 1:
            numbers, score = numbers[:4], float(numbers[4])
        if numbers.shape != (4,):
            raise KeypointFileError(f"{here}: a box has four numbers, not {item}", BOX_LAYOUTS)
        _add(found, _Entry(here, image, numbers, score), _NO_CORNERS)


def _add_results(
    found: _Boxes, path: Path, items: list[Any], whole: Mapping[str, Any] | None, one_picture: bool
) -> None:
    """Add COCO results or annotations, or Ultralytics results; categories other than person are skipped."""
    categories = whole.get("categories") if whole is not None else None
    images = images_of(path, whole.get("images") if whole is not None else None)
    found.images = list(images.names.values())
    if not all(isinstance(item, dict) for item in items):
        raise KeypointFileError(f"{path}: not a known box layout", BOX_LAYOUTS)
    persons = person_categories(items, categories, found.notes)
    for person, item in enumerate(items):
        where = f"{path}: person {person}"
        if not is_person(item, persons):
            found.leave_out(NO_PERSON)
        elif item.get("iscrowd") == 1:
            found.leave_out(CROWD)
        else:
            box = _of_result(where, item)
            key, canvas = (None, None) if one_picture else images.key(where, item)
            if images.lack(key):
                found.leave_out(NO_IMAGE)
                continue
            score = item.get("score", item.get("confidence", 1.0))
            track = item.get("track_id")
            _add(found, _Entry(where, key, box, score, track, canvas or canvas_of(item)), BOX_LAYOUTS)


def _of_result(where: str, item: Mapping[str, Any]) -> Array | None:
    named = item["box"] if isinstance(item.get("box"), dict) else item
    if "x3" in named:
        raise KeypointFileError(
            f"{where}: is an oriented box (four corners)", "give upright boxes, or the keypoints as --keypoints"
        )
    for corners in _CORNERS:
        if all(key in named for key in corners):
            return _four(where, [named[key] for key in corners])
    if "bbox" not in item:
        remedy = "give it as --keypoints" if "keypoints" in item else BOX_LAYOUTS
        raise KeypointFileError(f"{where}: has no 'bbox'", remedy)
    if not item["bbox"]:
        return None
    x, y, width, height = _four(where, item["bbox"])
    return np.array([x, y, x + width, y + height], np.float32)


def _add_mmdet(found: _Boxes, path: Path, data: Mapping[str, Any]) -> None:
    """Add one picture's boxes x0, y0, x1, y1 with labels (0 is person) and scores."""
    boxes, labels, scores = (data.get(key) for key in ("bboxes", "labels", "scores"))
    labels = labels if isinstance(labels, list) else [0] * len(boxes or ())
    scores = scores if isinstance(scores, list) else [1.0] * len(boxes or ())
    if not isinstance(boxes, list) or not len(boxes) == len(labels) == len(scores):
        raise KeypointFileError(f"{path}: 'bboxes', 'labels' and 'scores' differ in length", BOX_LAYOUTS)
    found.images = [None]
    for person, (box, label, score) in enumerate(zip(boxes, labels, scores, strict=True)):
        where = f"{path}: person {person}"
        if label == 0:
            _add(found, _Entry(where, None, _four(where, box), score), BOX_LAYOUTS)
        else:
            found.leave_out(NO_PERSON)


def _mot_lines(path: Path) -> list[bytes] | None:
    """Lines of a MOT text file: frame, id, x, y, width, height, confidence, ...; None for anything else."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return None
    lines = [line for line in data.splitlines() if line.strip()]
    return lines if lines and all(_MOT_LINE.match(line) for line in lines[:5]) else None


def _add_mot(found: _Boxes, path: Path, lines: list[bytes]) -> None:
    """Add MOT lines. Frames are counted from 1, or from 0 if the file has a frame 0; negative ids mean no id."""
    rows = []
    for at, line in enumerate(lines, 1):
        where = f"{path}: line {at}"
        parts = [part.strip() for part in line.decode("latin-1").split(",")]
        values = to_numbers(where, "a line of MOT", [part for part in parts if part])
        if len(values) < 6 or not np.isfinite(values[:6]).all() or values[0] != int(values[0]):
            raise KeypointFileError(f"{where}: not frame, id, x, y, width, height, confidence", "write the file again")
        rows.append((where, values))
    first = 0 if any(values[0] == 0 for _, values in rows) else 1
    if not first:
        found.notes.append("frames are counted from 0, as there is a frame 0")
    for where, values in rows:
        if len(values) == 9 and values[7] >= 1 and values[7] not in _CLASSES_OF_PEOPLE:
            found.leave_out(NO_PERSON)
            continue
        x, y, width, height = values[2:6]
        box = np.array([x, y, x + width, y + height], np.float32)
        score = float(values[6]) if len(values) > 6 and 0 <= values[6] <= 1 else 1.0
        _add(found, _Entry(where, int(values[0]) - first, box, score, int(values[1])), BOX_LAYOUTS)


def _four(where: str, value: object) -> Array:
    numbers = to_numbers(where, "a box", value)
    if numbers.shape != (4,):
        raise KeypointFileError(f"{where}: a box has four numbers, not {value}", BOX_LAYOUTS)
    return numbers


def _add(found: _Boxes, entry: _Entry, remedy: str) -> None:
    """Add an entry with a box; empty boxes are skipped, inverted ones are an error."""
    if entry.box is None:
        return found.leave_out(_EMPTY)
    if not (np.abs(entry.box) < _INFINITE_PX).all():
        raise KeypointFileError(f"{entry.where}: box {box_text(entry.box)} contains NaN or infinity", BOX_LAYOUTS)
    x0, y0, x1, y1 = entry.box
    if x1 < x0 or y1 < y0:
        raise KeypointFileError(f"{entry.where}: box {box_text(entry.box)} is inverted", remedy)
    if x1 == x0 or y1 == y0:
        return found.leave_out(_EMPTY)
    found.entries.append(entry)
    return None


def _collect(path: Path, found: _Boxes, joints_in: JointsIn) -> BoxFile:
    rows: dict[ImageKey, list[int]] = {image: [] for image in found.images}
    for row, entry in enumerate(found.entries):
        rows.setdefault(entry.image, []).append(row)
    boxes = np.reshape(np.asarray([entry.box for entry in found.entries], np.float32), (-1, 4))
    ids, doubt = track_ids((entry.track for entry in found.entries), [entry.image for entry in found.entries])
    for note in [*found.notes, *([f"its ids are not used: {doubt}; people are tracked"] if doubt else [])]:
        logging.getLogger("jotr_deploy").warning("%s: %s", path, note)
    scores = np.array([score_of(entry.where, entry.score) for entry in found.entries])
    people = replace(Detections.from_boxes(boxes, scores), track_ids=ids)
    canvases = np.reshape([entry.canvas_px or (np.nan, np.nan) for entry in found.entries], (-1, 2))
    places = coordinates_of(path, boxes.reshape(-1, 2), joints_in)
    return BoxFile(people, ImageIndex(path, rows), places, canvases, found.left_out)
