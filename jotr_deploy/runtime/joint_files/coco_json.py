"""COCO results and annotation files, including results in this layout from AlphaPose and Ultralytics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.image_index import ImageKey
from jotr_deploy.runtime.joint_files.person_entry import Entries, PersonEntry, Size, canvas_of, image_key, named_order
from jotr_deploy.runtime.joint_files.unsupported_files import LAYOUTS, what_json_is

_PERSON_NAMES = ("person", "persons", "people", "human", "humans", "pedestrian", "pedestrians")
_NAMES_OF_IMAGES = ("file_name", "filename", "im_name", "image_name", "path", "name")
_IMAGE = (("image_width", "image_height"), ("img_width", "img_height"), ("canvas_width", "canvas_height"))

NO_PERSON = "of a category other than person"
NO_KEYPOINTS = "without keypoints"
CROWD = "marked as a crowd"
NO_IMAGE = "of a picture not listed in 'images'"


def is_results_of_ultralytics(items: Sequence[Any]) -> bool:
    """True for a list as written by Ultralytics' `Results.to_json` for one picture."""
    return all(isinstance(item, dict) and "box" in item and "confidence" in item for item in items)


def coco_results(path: Path, items: list[Any]) -> Entries:
    """Read COCO results, including those of AlphaPose (no category, possibly ids) and Ultralytics."""
    found = Entries()
    for person, item in enumerate(items):
        if not isinstance(item, dict):
            raise KeypointFileError(f"{path}: person {person}: has no 'keypoints'", LAYOUTS)
    if items and not any("keypoints" in item for item in items):
        boxes = "bbox" in items[0] or "box" in items[0]
        remedy = "it contains boxes: give it as --boxes" if boxes else what_json_is(path, items)[1]
        raise KeypointFileError(f"{path}: person 0: has no 'keypoints'", remedy)
    one_picture = names_no_picture(items)
    _add_people(found, path, items, person_categories(items, None, found.notes), one_picture, Images())
    return found


def names_no_picture(items: Sequence[Mapping[str, Any]]) -> bool:
    """True if all entries are of one picture that none of them names."""
    return bool(items) and (is_results_of_ultralytics(items) or all(image_of(item) is None for item in items))


def wrapped_results(data: Mapping[str, Any]) -> list[Any] | None:
    """List of results wrapped in an object such as `{"predictions": [...]}`; None if there is none."""
    lists = [value for value in data.values() if isinstance(value, list) and value]
    if len(lists) == 1 and all(isinstance(item, dict) and image_of(item) is not None for item in lists[0]):
        return lists[0]
    return None


def coco_annotations(path: Path, data: Mapping[str, Any]) -> Entries:
    """Read an annotation file, `{images, annotations, categories}`; ids become the file names in `images`."""
    items, categories = data["annotations"], data.get("categories")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise KeypointFileError(f"{path}: 'annotations' is not a list of entries", LAYOUTS)
    if items and not any("keypoints" in item for item in items):
        raise KeypointFileError(f"{path}: its annotations have no 'keypoints'", "give a box file as --boxes")
    found = Entries()
    images = images_of(path, data.get("images"))
    found.images = list(images.names.values())
    orders = {}
    for category in categories if isinstance(categories, list) else ():
        if isinstance(category, dict) and (order := named_order(category.get("keypoints"))):
            orders[_number(category.get("id"))] = order
        elif isinstance(category, dict) and category.get("keypoints"):
            found.notes.append("its joints have no usable names; the order is inferred from their number")
    _add_people(found, path, items, person_categories(items, categories, found.notes), False, images, orders)
    return found


@dataclass(frozen=True)
class Images:
    """Section `images` of an annotation file, by id."""

    ids: frozenset[ImageKey] = frozenset()
    names: Mapping[ImageKey, str] = field(default_factory=dict)  # if the file has them
    canvases_px: Mapping[ImageKey, Size | None] = field(default_factory=dict)

    def key(self, where: str, item: Mapping[str, Any]) -> tuple[ImageKey, Size | None]:
        """Picture of an annotation or a result, by file name if known, and its size."""
        said = image_of(item)
        given = _id_of(where, said)
        if given in self.ids:
            return self.names.get(given, given), self.canvases_px.get(given)
        return image_key(where, said), None

    def lack(self, key: ImageKey) -> bool:
        """True if the file lists pictures but not this one."""
        return bool(self.ids) and key not in self.ids and key not in self.names.values()


def _id_of(where: str, value: object) -> ImageKey:
    """Normalised id of a picture: 7 for 7.0 and for "7"."""
    key = image_key(where, value)
    return int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 19 else key


def _add_people(
    found: Entries,
    path: Path,
    items: Sequence[Mapping[str, Any]],
    persons: frozenset[object],
    one_picture: bool,
    images: Images,
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
            key, canvas = (None, None) if one_picture else images.key(where, item)
            if images.lack(key):
                found.leave_out(NO_IMAGE)
                continue
            found.people.append(
                PersonEntry(
                    where,
                    key,
                    item["keypoints"],
                    item.get("keypoint_scores", item.get("keypoints_scores")),
                    item.get("score", item.get("scores", item.get("confidence", 1.0))),
                    item.get("track_id", item.get("idx")),
                    canvas_of(item, _IMAGE) or canvas,
                    (orders or {}).get(_number(item.get("category_id"))),
                )
            )
    if items and not found.people and found.left_out.keys() == {NO_PERSON}:
        raise KeypointFileError(
            f"{path}: no entry has category 1, which is person (found: {', '.join(sorted(others))})",
            "write category_id 1 for every person, or add 'categories' with their names",
        )


def image_of(item: Mapping[str, Any]) -> object:
    """Value by which an entry names its picture."""
    names = ("image_id", "file_name", "image_name", "image_path", "image")
    return next((item[name] for name in names if item.get(name) is not None), None)


def images_of(path: Path, listed: object) -> Images:
    """Read the `images` of an annotation file.

    Raises:
        KeypointFileError: an image has no id, or two have the same id.
    """
    where = f"{path}: 'images'"
    ids: set[ImageKey] = set()
    names: dict[ImageKey, str] = {}
    canvases: dict[ImageKey, Size | None] = {}
    for image in listed if isinstance(listed, list) else ():
        if not isinstance(image, dict) or "id" not in image:
            raise KeypointFileError(f"{path}: an entry of 'images' has no id", "write the file again")
        number = _id_of(where, image["id"])
        said = (image[key] for key in _NAMES_OF_IMAGES if isinstance(image.get(key), str) and image[key])
        if (name := next(said, None)) is not None:
            name = str(image_key(where, name))
            if names.setdefault(number, name) != name:
                raise KeypointFileError(
                    f"{where}: id {number} is used by both '{names[number]}' and '{name}'",
                    "give every picture a unique id",
                )
        ids.add(number)
        canvases[number] = canvas_of(image)
    return Images(frozenset(ids), names, canvases)


def person_categories(items: Sequence[Mapping[str, Any]], categories: object, notes: list[str]) -> frozenset[object]:
    """Ids of the person category: from `categories`, else 0 if any entry has it (COCO counts from 1), else 1."""
    if isinstance(categories, list):
        known = [
            category
            for category in categories
            if isinstance(category, dict) and _number(category.get("id")) is not None
        ]
        named = [_number(c["id"]) for c in known if str(c.get("name", "")).strip().lower() in _PERSON_NAMES]
        if named:
            return frozenset(named)
        if len(known) == 1:
            notes.append(f"category '{known[0].get('name')}' is assumed to be person, as it is the only one")
            return frozenset([_number(known[0]["id"])])
    if any(_number(item.get("category_id")) == 0 for item in items):
        notes.append("category 0 is assumed to be person, as the file counts its categories from 0")
        return frozenset([0])
    return frozenset([1])


def is_person(item: Mapping[str, Any], persons: frozenset[object]) -> bool:
    """True if an entry is a person by its category or its name, or has neither."""
    category = item.get("category_id")
    if category is None:
        name = item.get("name", item.get("category_name", item.get("label")))
        return not isinstance(name, str) or name.strip().lower() in _PERSON_NAMES
    return _number(category) in persons or (isinstance(category, str) and category.strip().lower() in _PERSON_NAMES)


def _number(category: object) -> object:
    if isinstance(category, str) and category.strip().isdecimal():
        return int(category)
    return category if isinstance(category, (int, float)) else None
