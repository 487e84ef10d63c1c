"""COCO: results, and annotation files with their pictures. AlphaPose and Ultralytics write such results too."""

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

NO_PERSON = "of another category than person"
NO_KEYPOINTS = "without keypoints"
CROWD = "of a crowd"
NO_IMAGE = "of a picture that is not among its 'images'"


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
    one_picture = names_no_picture(items)
    _add_people(found, path, items, person_categories(items, None, found.notes), one_picture, Images())
    return found


def names_no_picture(items: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the entries are those of one picture, whose name none of them gives."""
    return bool(items) and (is_results_of_ultralytics(items) or all(image_of(item) is None for item in items))


def wrapped_results(data: Mapping[str, Any]) -> list[Any] | None:
    """The one list of results in an object such as `{"predictions": [...]}`, None where there is none."""
    lists = [value for value in data.values() if isinstance(value, list) and value]
    if len(lists) == 1 and all(isinstance(item, dict) and image_of(item) is not None for item in lists[0]):
        return lists[0]
    return None


def coco_annotations(path: Path, data: Mapping[str, Any]) -> Entries:
    """An annotation file, `{images, annotations, categories}`: numbers become the file names of `images`."""
    items, categories = data["annotations"], data.get("categories")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise KeypointFileError(f"{path}: 'annotations' is not a list of entries", LAYOUTS)
    if items and not any("keypoints" in item for item in items):
        raise KeypointFileError(f"{path}: its annotations have no 'keypoints'", "boxes alone are given as --boxes")
    found = Entries()
    images = images_of(path, data.get("images"))
    found.images = list(images.names.values())
    orders = {}
    for category in categories if isinstance(categories, list) else ():
        if isinstance(category, dict) and (order := named_order(category.get("keypoints"))):
            orders[_number(category.get("id"))] = order
        elif isinstance(category, dict) and category.get("keypoints"):
            found.notes.append("its joints have no names of joints; their number tells the order")
    _add_people(found, path, items, person_categories(items, categories, found.notes), False, images, orders)
    return found


@dataclass(frozen=True)
class Images:
    """The `images` of an annotation file by their ids."""

    ids: frozenset[ImageKey] = frozenset()
    names: Mapping[ImageKey, str] = field(default_factory=dict)  # where the file has them
    canvases_px: Mapping[ImageKey, Size | None] = field(default_factory=dict)

    def key(self, where: str, item: Mapping[str, Any]) -> tuple[ImageKey, Size | None]:
        """The picture of an annotation or a result, by its file name where that is known, and its size."""
        said = image_of(item)
        given = _id_of(where, said)
        if given in self.ids:
            return self.names.get(given, given), self.canvases_px.get(given)
        return image_key(where, said), None

    def lack(self, key: ImageKey) -> bool:
        """Whether an entry is of none of the pictures that the file lists."""
        return bool(self.ids) and key not in self.ids and key not in self.names.values()


def _id_of(where: str, value: object) -> ImageKey:
    """An id of a picture: 7 of 7.0 and of "7"."""
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
            f"{path}: no entry is of category 1, which is person (there are: {', '.join(sorted(others))})",
            "write category_id 1 with every person, or give 'categories' with their names",
        )


def image_of(item: Mapping[str, Any]) -> object:
    """What an entry names its picture by."""
    names = ("image_id", "file_name", "image_name", "image_path", "image")
    return next((item[name] for name in names if item.get(name) is not None), None)


def images_of(path: Path, listed: object) -> Images:
    """The `images` of an annotation file.

    Raises:
        KeypointFileError: one without an id, or two with the same id.
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
                    f"{where}: id {number} is of '{names[number]}' and of '{name}'",
                    "give every picture an id of its own",
                )
        ids.add(number)
        canvases[number] = canvas_of(image)
    return Images(frozenset(ids), names, canvases)


def person_categories(items: Sequence[Mapping[str, Any]], categories: object, notes: list[str]) -> frozenset[object]:
    """The ids of the category person: by `categories`, else 0 where any entry has it, as COCO counts from 1; else 1."""
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
            notes.append(f"category '{known[0].get('name')}' is taken for person: there is no other")
            return frozenset([_number(known[0]["id"])])
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
