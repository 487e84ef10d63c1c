"""Boxes of people that users bring as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.detections import Detections, box_text
from jotr_deploy.runtime.joint_files.entries import image_key, read_json, score_of, to_numbers
from jotr_deploy.runtime.joint_files.image_index import ImageIndex, ImageKey

Array = NDArray[Any]

_LAYOUTS = "give [[x0, y0, x1, y1], ...], {image name: [[x0, y0, x1, y1], ...]}, or COCO results with bbox and image_id"
_INFINITE_PX = 1e12  # larger numbers are no places, and float32 overflows on the way to the square


@dataclass(frozen=True)
class BoxFile:
    """The boxes of many images as a file has them."""

    people: Detections  # everyone in the file; boxes x0 y0 x1 y1 as they stand there, no joints
    index: ImageIndex

    def for_image(
        self, name: str, image_id: int | None = None, frame: int | None = None, *, size_px: tuple[int, int]
    ) -> Detections:
        """The boxes of one image of `size_px` (width, height); nobody where the file does not know the image.

        `name`, `image_id` and `frame` are those of `ImageIndex.find`.

        Raises:
            KeypointFileError: a box without a pixel of the image.
        """
        people = self.people[self.index.find(name, image_id, frame) or []]
        for person, (x0, y0, x1, y1) in enumerate(people.boxes_px):
            if x1 <= 0 or y1 <= 0 or x0 >= size_px[0] or y0 >= size_px[1]:
                raise KeypointFileError(
                    f"{self.index.path}: person {person} of '{name}': box {box_text(people.boxes_px[person])}"
                    f" lies outside the image of {size_px[0]} x {size_px[1]} px",
                    "boxes are x0, y0, x1, y1 in pixels of the image; COCO results x, y, width, height",
                )
        return people


def read_boxes(path: Path) -> BoxFile:
    """Read a box file.

    Raises:
        KeypointFileError: naming the file, and the person where it is about one.
    """
    data = read_json(path)
    if isinstance(data, dict) and all(isinstance(boxes, list) for boxes in data.values()):
        return _collect(path, _by_name(path, data), [Path(name).name for name in data])
    if isinstance(data, list) and all(isinstance(item, dict) for item in data):
        return _collect(path, _results(path, data), [])
    if isinstance(data, list):
        found = ((None, _box(f"{path}: person {person}", item), 1.0) for person, item in enumerate(data))
        return _collect(path, found, [None])
    raise KeypointFileError(f"{path}: not a layout of boxes that is known", _LAYOUTS)


def _by_name(path: Path, data: dict[str, list[Any]]) -> Iterator[tuple[ImageKey, Array, float]]:
    for name, boxes in data.items():
        for person, item in enumerate(boxes):
            yield Path(name).name, _box(f"{path}: person {person} of '{name}'", item), 1.0


def _results(path: Path, data: list[dict[str, Any]]) -> Iterator[tuple[ImageKey, Array, float]]:
    """COCO results of a detector; other categories than 1, persons, are left out."""
    for person, item in enumerate(data):
        where = f"{path}: person {person}"
        if item.get("category_id", 1) == 1:
            if "bbox" not in item:
                raise KeypointFileError(f"{where}: has no 'bbox'", _LAYOUTS)
            x, y, width, height = _four(where, item["bbox"])
            box = _checked(where, np.array([x, y, x + width, y + height], np.float32))
            yield image_key(where, item.get("image_id")), box, score_of(where, item.get("score", 1.0))


def _box(where: str, value: object) -> Array:
    return _checked(where, _four(where, value))


def _four(where: str, value: object) -> Array:
    numbers = to_numbers(where, "a box", value)
    if numbers.shape != (4,):
        raise KeypointFileError(f"{where}: a box has four numbers, not {value}", _LAYOUTS)
    return numbers


def _checked(where: str, box_px: Array) -> Array:
    if not (np.abs(box_px) < _INFINITE_PX).all():
        raise KeypointFileError(f"{where}: box {box_text(box_px)} holds NaN or infinity", _LAYOUTS)
    x0, y0, x1, y1 = box_px
    if not (x1 > x0 and y1 > y0):
        raise KeypointFileError(f"{where}: box {box_text(box_px)} is inverted or empty", _LAYOUTS)
    return box_px


def _collect(path: Path, found: Iterator[tuple[ImageKey, Array, float]], images: list[ImageKey]) -> BoxFile:
    rows: dict[ImageKey, list[int]] = {image: [] for image in images}
    boxes, scores = [], []
    for row, (image, box, score) in enumerate(found):
        rows.setdefault(image, []).append(row)
        boxes.append(box)
        scores.append(score)
    people = Detections.from_boxes(np.reshape(np.asarray(boxes, np.float32), (-1, 4)), np.asarray(scores))
    return BoxFile(people, ImageIndex(path, rows))
