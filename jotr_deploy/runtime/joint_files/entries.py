"""Keypoints of one person in the JSON files of others, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import KeypointFileError, first_line
from jotr_deploy.runtime.joint_files.image_index import ImageKey
from jotr_deploy.skeletons import SKELETONS

Array = NDArray[Any]

OPENPOSE_END = "_keypoints"  # of a file name, before .json
LAYOUTS = "give COCO or AlphaPose results, OpenPose files, or the .npz that --save-2d writes"

_SKELETON_OF = {len(names): skeleton for skeleton, names in SKELETONS.items()}
_LENGTHS = ", ".join(f"{3 * joints} ({skeleton})" for joints, skeleton in sorted(_SKELETON_OF.items()))
_MPI_NUMBERS = 45


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        KeypointFileError: missing, not JSON, or cut off.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text)
    except OSError as error:
        raise KeypointFileError(f"{path}: cannot be read ({error.strerror})", "check the path") from error
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) > 0 or error.msg.startswith("Unterminated string")
        what = "the JSON ends too early, the file is truncated" if cut else "not JSON"
        raise KeypointFileError(f"{path}: {what} ({error})", "write the file again") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, nested too deep
        raise KeypointFileError(f"{path}: not JSON ({first_line(error)})", LAYOUTS) from error


def image_key(where: str, value: object) -> ImageKey:
    """How a results file names an image: a file name (its folder is dropped) or a whole number.

    Raises:
        KeypointFileError.
    """
    if isinstance(value, str) and value:
        return Path(value).name
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise KeypointFileError(f"{where}: image_id is neither a file name nor a number", "write one with every person")


def to_numbers(where: str, what: str, value: object) -> Array:
    """Numbers as float32, of any shape; null becomes NaN and what is too large infinite.

    Raises:
        KeypointFileError: something else than numbers.
    """
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, np.float64).astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise KeypointFileError(f"{where}: {what} must be numbers", "write the file again") from error


@dataclass(frozen=True)
class PersonEntry:
    """One person as the file says."""

    where: str  # file and person, for messages
    image: ImageKey
    keypoints: object
    score: object = 1.0
    track: object = None


def results_people(path: Path, data: list[Any]) -> Iterator[PersonEntry]:
    """COCO results, and those of AlphaPose, which lack the category and may have tracks."""
    for person, item in enumerate(data):
        where = f"{path}: person {person}"
        if not isinstance(item, dict) or "keypoints" not in item:
            raise KeypointFileError(f"{where}: has no 'keypoints'", LAYOUTS)
        if item.get("category_id", 1) == 1:
            image = image_key(where, item.get("image_id"))
            yield PersonEntry(where, image, item["keypoints"], item.get("score", 1.0), item.get("idx"))


def openpose_people(file: Path) -> tuple[ImageKey, list[PersonEntry]]:
    """The image and the people of one OpenPose file."""
    data = read_json(file)
    people = data.get("people") if isinstance(data, dict) else None
    if not isinstance(people, list):
        raise KeypointFileError(f"{file}: no list of 'people', so not an OpenPose file", LAYOUTS)
    # A file under another name is about the one image that it comes with.
    image = file.stem[: -len(OPENPOSE_END)] if file.stem.endswith(OPENPOSE_END) else None
    entries = []
    for person, item in enumerate(people):
        where = f"{file}: person {person}"
        if not isinstance(item, dict) or "pose_keypoints_2d" not in item:
            raise KeypointFileError(f"{where}: has no 'pose_keypoints_2d'", LAYOUTS)
        entries.append(PersonEntry(where, image, item["pose_keypoints_2d"], track=item.get("person_id")))
    return image, entries


def joints_of(entry: PersonEntry, skeleton: str | None) -> tuple[str, Array]:
    """The skeleton and the (J, 3) joints of one person, confidences in 0..1."""
    numbers = to_numbers(entry.where, "keypoints", entry.keypoints)
    if not np.isfinite(numbers).all():
        raise KeypointFileError(f"{entry.where}: keypoints hold NaN or infinity", "write absent joints as 0, 0, 0")
    count = numbers.size
    if numbers.ndim != 1 or count % 3:
        raise KeypointFileError(f"{entry.where}: {count} numbers are not a flat list of x, y, confidence", LAYOUTS)
    if skeleton is not None and count != 3 * len(SKELETONS[skeleton]):
        raise KeypointFileError(
            f"{entry.where}: {count} numbers, {skeleton} needs {3 * len(SKELETONS[skeleton])}",
            f"give the right skeleton; known lengths: {_LENGTHS}",
        )
    if count == _MPI_NUMBERS:
        raise KeypointFileError(
            f"{entry.where}: 45 numbers are the MPI body of OpenPose, which is not supported",
            "run OpenPose with --model_pose BODY_25 or COCO",
        )
    if skeleton is None and count // 3 not in _SKELETON_OF:
        raise KeypointFileError(f"{entry.where}: {count} numbers fit no skeleton", f"known lengths: {_LENGTHS}")
    joints = numbers.reshape(-1, 3)
    joints[:, 2] = np.clip(joints[:, 2], 0, 1)
    return skeleton or _SKELETON_OF[count // 3], joints


def score_of(where: str, value: object) -> float:
    """The confidence of a person, clipped to 0..1: AlphaPose goes beyond."""
    score = to_numbers(where, "the score", value)
    if score.size != 1 or not np.isfinite(score).all():
        raise KeypointFileError(f"{where}: the score must be one finite number", "write the file again")
    return float(np.clip(score.item(), 0, 1))


def track_id_of(value: object) -> int:
    """AlphaPose and OpenPose write a number or a list with one; anything else is no track."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and 0 <= value < 2**63 else -1
