"""COCO: results, and annotation files with their pictures. AlphaPose and Ultralytics write such results too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.image_index import ImageKey
from jotr_deploy.runtime.joint_files.person_entry import Entries, PersonEntry, Size, canvas_of, image_key, named_order
from jotr_deploy.runtime.joint_files.unsupported_files import LAYOUTS, what_json_is

_PERSON_NAMES = ("person", "people", "human", "pedestrian")
_IMAGE = (("image_width", "image_height"), ("img_width", "img_height"), ("canvas_width", "canvas_height"))

NO_PERSON = "of another category than person"
NO_KEYPOINTS = "without keypoints"
CROWD = "of a crowd"


def is_results_of_ultralytics(items: Sequence[Any]) -> bool:
    """Whether a list is what `Results.to_json` of Ultralytics writes about one picture."""
    return all(isinstance(item, dict) and "box" in item and "confidence" in item for item in items)


def coco_results(path: Path, items: list[Any]) -> Entries:
    """COCO results, those of AlphaPose, which lack the category and may have ids, and those of Ultralytics."""
    found = Entries()
    for person, item in enumerate(items):
        if not isinstance(item, dict):
            raise KeypointFileError(f"{path}: person {person}: has no 'keypoints'", LAYOUTS)
    if items and not any("keypoints" in item for item in items):
        boxes = "bbox" in items[0] or "box" in items[0]
        remedy = "these are boxes: give them as --boxes" if boxes else what_json_is(path, items)[1]
        raise KeypointFileError(f"{path}: person 0: has no 'keypoints'", remedy)
    one_picture = bool(items) and is_results_of_ultralytics(items)
    _add_people(found, path, items, person_categories(items, None, found.notes), one_picture, {})
    return found


def coco_annotations(path: Path, data: Mapping[str, Any]) -> Entries:
    """An annotation file, `{images, annotations, categories}`: numbers become the file names of `images`."""
    items, categories = data["annotations"], data.get("categories")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise KeypointFileError(f"{path}: 'annotations' is not a list of entries", LAYOUTS)
    if items and not any("keypoints" in item for item in items):
        raise KeypointFileError(f"{path}: its annotations have no 'keypoints'", "boxes alone are given as --boxes")
    found = Entries()
    names, canvases = image_names(path, data.get("images"))
    found.images = list(names.values())
    orders = {}
    for category in categories if isinstance(categories, list) else ():
        if isinstance(category, dict) and (order := named_order(category.get("keypoints"))):
            orders[_number(category.get("id"))] = order
    _add_people(found, path, items, person_categories(items, categories, found.notes), False, names, canvases, orders)
    return found


def _add_people(
    found: Entries,
    path: Path,
    items: Sequence[Mapping[str, Any]],
    persons: frozenset[object],
    one_picture: bool,
    names: Mapping[int, str],
    canvases: Mapping[int, Size | None] | None = None,
    orders: Mapping[object, tuple[str, ...]] | None = None,
) -> None:
    others = set()
    for person, item in enumerate(items):
        where = f"{path}: person {person}"
        if not is_person(item, persons):
            others.add(str(item.get("category_id")))
            found.leave_out(NO_PERSON)
        elif item.get("iscrowd") == 1:
            found.leave_out(CROWD)
        elif "keypoints" not in item:
            found.leave_out(NO_KEYPOINTS)
        else:
            key = None if one_picture else image_key(where, image_of(item))
            number = key if isinstance(key, int) else None
            found.people.append(
                PersonEntry(
                    where,
                    key if number is None else names.get(number, key),
                    item["keypoints"],
                    item.get("keypoint_scores", item.get("keypoints_scores")),
                    item.get("score", item.get("scores", item.get("confidence", 1.0))),
                    item.get("track_id", item.get("idx")),
                    canvas_of(item, _IMAGE) or (canvases or {}).get(number if number is not None else -1),
                    (orders or {}).get(_number(item.get("category_id"))),
                )
            )
    if items and not found.people and found.left_out.keys() == {NO_PERSON}:
        raise KeypointFileError(
            f"{path}: no entry is of category 1, which is person (there are: {', '.join(sorted(others))})",
            "write category_id 1 with every person, or give 'categories' with their names",
        )


def image_of(item: Mapping[str, Any]) -> object:
    """What an entry names its picture by."""
    names = ("image_id", "file_name", "image_name", "image_path", "image")
    return next((item[name] for name in names if item.get(name) is not None), None)


def image_names(path: Path, images: object) -> tuple[dict[int, str], dict[int, Size | None]]:
    """The file names, and the sizes where they are given, of the `images` of an annotation file, by their ids."""
    names: dict[int, str] = {}
    canvases: dict[int, Size | None] = {}
    for image in images if isinstance(images, list) else ():
        if not isinstance(image, dict) or "id" not in image:
            raise KeypointFileError(f"{path}: an entry of 'images' has no id", "write the file again")
        number = image_key(f"{path}: 'images'", image["id"])
        if isinstance(number, int) and isinstance(name := image.get("file_name"), str) and name:
            names[number] = str(image_key(f"{path}: 'images'", name))
            canvases[number] = canvas_of(image)
    return names, canvases


def person_categories(items: Sequence[Mapping[str, Any]], categories: object, notes: list[str]) -> frozenset[object]:
    """The ids of the category person: by `categories`, else 0 where any entry has it, as COCO counts from 1; else 1."""
    if isinstance(categories, list):
        known = [
            category
            for category in categories
            if isinstance(category, dict) and _number(category.get("id")) is not None
        ]
        named = [_number(c["id"]) for c in known if str(c.get("name", "")).strip().lower() in _PERSON_NAMES]
        if named or len(known) == 1:
            return frozenset(named or [_number(known[0]["id"])])
    if any(_number(item.get("category_id")) == 0 for item in items):
        notes.append("category 0 is taken for person: the file counts its categories from 0")
        return frozenset([0])
    return frozenset([1])


def is_person(item: Mapping[str, Any], persons: frozenset[object]) -> bool:
    """Whether an entry is a person, by its category or its name; so is an entry without either."""
    category = item.get("category_id")
    if category is None:
        name = item.get("name", item.get("category_name", item.get("label")))
        return not isinstance(name, str) or name.strip().lower() in _PERSON_NAMES
    return _number(category) in persons or (isinstance(category, str) and category.strip().lower() in _PERSON_NAMES)


def _number(category: object) -> object:
    if isinstance(category, str) and category.strip().isdecimal():
        return int(category)
    return category if isinstance(category, (int, float)) else None


def key_of(names: Mapping[int, str], key: ImageKey) -> ImageKey:
    """The file name for a number that `images` knows, else the key as it is."""
    return names.get(key, key) if isinstance(key, int) else key
