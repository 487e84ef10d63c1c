"""Files keyed by picture, `{name: people}`: demo of 3DCrowdNet and JOTR, PoseFlow, AlphaPose's `--format open`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.openpose_json import add_openpose
from jotr_deploy.runtime.joint_files.person_entry import Entries, PersonEntry, image_key
from jotr_deploy.runtime.joint_files.unsupported_files import LAYOUTS

PROPERTIES = frozenset(
    (
        "people",
        "keypoints",
        "scores",
        "boxes",
        "bboxes",
        "labels",
        "predictions",
        "results",
        "detections",
        "instances",
        "poses",
    )
)
"""Keys that are not picture names: the file has another layout."""
_MOST_COLUMNS = 6  # per joint: x, y, confidence, and tags of the network


def is_named(data: Mapping[str, Any]) -> bool:
    """True if every value can belong to a picture: a list of people, or an object with them."""
    return (
        bool(data)
        and not PROPERTIES.intersection(data)
        and all(
            _is_openpose(value) or (isinstance(value, list) and all(_is_person(person) for person in value))
            for value in data.values()
        )
    )


def named_pictures(path: Path, data: Mapping[str, Any]) -> Entries:
    """Read the people of every picture."""
    found = Entries()
    for name, value in data.items():
        image = image_key(f"{path}: '{name}'", name)
        found.images.append(image)
        if _is_openpose(value):
            add_openpose(found, path, image, value, f"{path}: '{name}': person")
            continue
        for person, item in enumerate([value] if _is_joints(value) else value):
            where = f"{path}: '{name}': person {person}"
            if isinstance(item, dict):
                if "keypoints" not in item:
                    raise KeypointFileError(f"{where}: has no 'keypoints'", LAYOUTS)
                score = item.get("score", item.get("scores", 1.0))
                track = item.get("track_id", item.get("idx"))
                entry = PersonEntry(where, image, item["keypoints"], item.get("keypoint_scores"), score, track)
            else:
                entry = PersonEntry(where, image, item)
            found.people.append(entry)
    return found


def _is_openpose(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("people", value.get("bodies")), list)


def _is_person(person: object) -> bool:
    if isinstance(person, dict):
        return "keypoints" in person
    return person is None or isinstance(person, list)


def _is_joints(value: object) -> bool:
    """True if a list is one person (joints x columns), not a list of people."""
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(joint, list) and 2 <= len(joint) <= _MOST_COLUMNS for joint in value)
        and not any(isinstance(number, list) for joint in value for number in joint)
    )
