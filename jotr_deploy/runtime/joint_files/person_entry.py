"""Entries of keypoint files: reading, checking and normalising one person, shared by all layouts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.errors import KeypointFileError, first_line
from jotr_deploy.runtime.joint_files.image_index import ImageKey, as_path
from jotr_deploy.runtime.joint_files.unsupported_files import LAYOUTS, remedy_for, what_bytes_are
from jotr_deploy.skeletons import SKELETONS
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_kinds import UNKNOWN, advice, describe_file

Size = tuple[float, float]

_ALL_NAMES = frozenset(chain.from_iterable(SKELETONS.values()))
_ORDER_OF = {len(names): names for names in SKELETONS.values()}
_WHOLE_BODY = {133: "coco17", 136: "halpe26"}  # joints of COCO-WholeBody and of Halpe: those of the body come first
_LENGTHS = ", ".join(f"{3 * len(names)} ({skeleton})" for skeleton, names in
                     sorted(SKELETONS.items(), key=lambda item: len(item[1])))  # fmt: skip
_NOT_READ = {  # number of joints -> kind of skeleton
    15: "OpenPose's MPI body",
    16: "the MPII body",
    21: "a hand",
    68: "a face",
    70: "an OpenPose face",
    135: "OpenPose's BODY_135",
    308: "Sapiens' Goliath set",
}
_JSON_RULES = "write it with a JSON library: double quotes, no comments, no trailing commas"
_NO_NUMBERS = ("", "null", "none", "nan", "n/a")
_CANVAS_KEYS = (
    ("canvas_width", "canvas_height"),
    ("image_width", "image_height"),
    ("imageWidth", "imageHeight"),
    ("img_width", "img_height"),
    ("width", "height"),
)


def read_json(path: Path, boxes: bool = False) -> Any:
    """Content of a keypoint (or, with `boxes`, box) file in JSON, encoded in UTF-8, UTF-16 or UTF-32.

    Raises:
        KeypointFileError: missing, not JSON, or truncated; names the kind of file if its first bytes identify it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KeypointFileError(f"{path}: cannot be read ({error.strerror})", "check the path") from error
    text = None
    try:
        text = data.decode(json.detect_encoding(data))
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or too many digits for Python
        cause, remedy = _why_no_json(path, data, text, error)
        raise KeypointFileError(f"{path}: {cause}", remedy_for(remedy, boxes)) from error


def _why_no_json(path: Path, data: bytes, text: str | None, error: Exception) -> tuple[str, str]:
    if (known := what_bytes_are(data if text is None else text.encode(errors="replace"))) is not None:
        return known
    what, looks_like_json = describe_file(path), data.lstrip()[:1] in (b"[", b"{")
    if what not in (UNKNOWN, "plain text", "JSON text") and not looks_like_json:
        return f"is {what}", advice(path) or LAYOUTS
    if text is None:
        if looks_like_json:
            return "is text, but not UTF-8", "iconv -f latin1 -t utf-8 FILE > NEW writes it as UTF-8"
        return "is data of an unknown kind", LAYOUTS
    if not isinstance(error, json.JSONDecodeError):
        return f"not JSON ({first_line(error)})", LAYOUTS
    if error.pos >= len(text.rstrip()) > 0 or error.msg.startswith("Unterminated string"):
        return f"the JSON ends too early: the file is truncated ({error})", "write the file again"
    if error.msg == "Extra data" and looks_like_json:
        return f"contains more than one JSON value ({error})", "write one; jq -s add FILE joins lists"
    return f"not JSON ({error})", _JSON_RULES if looks_like_json else LAYOUTS


@dataclass(frozen=True)
class PersonEntry:
    """One person as stored in the file."""

    where: str  # file and person, for messages
    image: ImageKey
    keypoints: object  # None if the person has no body joints
    confidences: object = None  # of the joints, if stored separately
    score: object = 1.0
    track: object = None
    canvas_px: Size | None = None  # width, height of the picture that the coordinates refer to, if declared
    order: tuple[str, ...] | None = None  # names of the joints, if the file has them


@dataclass
class Entries:
    """Everybody in a file."""

    people: list[PersonEntry] = field(default_factory=list)
    images: list[ImageKey] = field(default_factory=list)  # including pictures without people
    left_out: dict[str, int] = field(default_factory=dict)  # number of skipped entries by reason
    notes: list[str] = field(default_factory=list)  # assumptions made, for warnings
    by_position: bool = False  # image numbers are positions in the source
    complete: bool = False  # it lists every picture of its source, in order
    last_pixel_is_1: bool = False  # normalised from first to last pixel centre, as in OpenPose

    def leave_out(self, why: str) -> None:
        """Count a skipped entry."""
        self.left_out[why] = self.left_out.get(why, 0) + 1


def image_key(where: str, value: object) -> ImageKey:
    """Normalised image name from a results file: a file name, possibly with folders, or an integer.

    Raises:
        KeypointFileError: it is neither.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value:
        return as_path(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise KeypointFileError(f"{where}: image_id is neither a file name nor a number", "write one for every person")


def canvas_of(item: Mapping[str, object], keys: Sequence[tuple[str, str]] = _CANVAS_KEYS) -> Size | None:
    """Width and height of the picture, px, if an entry declares them."""
    for pair in keys:
        width, height = (_side(item.get(key)) for key in pair)
        if width is not None and height is not None:
            return width, height
    return None


def _side(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        side = float(value)
    except (ValueError, OverflowError):
        return None
    return side if 0 < side < 1e6 else None


def to_numbers(where: str, what: str, value: object) -> Array:
    """Convert to float32 of any shape; null becomes NaN, and too large values infinite.

    Raises:
        KeypointFileError: not numbers.
    """
    try:
        with np.errstate(over="ignore"):
            try:
                return np.asarray(value, np.float64).astype(np.float32)
            except ValueError:  # rarely: words instead of numbers
                return np.asarray(_without_words(value), np.float64).astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise KeypointFileError(f"{where}: {what} must be numbers", "write the file again") from error


def _without_words(value: object) -> object:
    """Value with words such as "None" replaced by null."""
    if isinstance(value, list):
        return [_without_words(item) for item in value]
    return None if isinstance(value, str) and value.strip().lower() in _NO_NUMBERS else value


def joints_of(entry: PersonEntry, skeleton: str | None) -> tuple[tuple[str, ...], Array] | None:
    """Names and (J, 3) joints of one person, confidences in 0..1; None for a person without a body.

    Non-finite joints count as absent and become all zero.

    Raises:
        KeypointFileError: not numbers, or a number of them that fits no known skeleton.
    """
    keypoints, order = entry.keypoints, entry.order
    if isinstance(keypoints, list) and keypoints and all(isinstance(joint, dict) for joint in keypoints):
        keypoints, order = _of_dictionaries(keypoints, order)
    if isinstance(keypoints, dict):
        keypoints = _of_columns(entry.where, keypoints)
    numbers = to_numbers(entry.where, "keypoints", [] if keypoints is None else keypoints)
    if numbers.size == 0:
        return None
    joints = _three_columns(entry, numbers)
    names = _order(entry.where, numbers, len(joints), skeleton, order)
    joints = joints[: len(names)].copy()
    joints[~np.isfinite(joints).all(1) | _is_mark(joints[:, :2])] = 0
    joints[:, 2] = np.clip(joints[:, 2], 0, 1)
    return names, joints


def _is_mark(places: Array) -> Array:
    """Mask of points (J, 2) that mark a joint as not found, whatever its confidence: exactly (0, 0) or (-1, -1)."""
    return np.asarray((places == 0).all(1) | (places == -1).all(1))


def _of_dictionaries(joints: list[Any], order: tuple[str, ...] | None) -> tuple[object, tuple[str, ...] | None]:
    """Rows and names from [{x, y, score, name}, ...], as written by pose networks in browsers."""
    sure = ("score", "confidence", "visibility", "c", "v")
    places = [joint["position"] if isinstance(joint.get("position"), dict) else joint for joint in joints]
    rows = [
        [place.get("x"), place.get("y"), next((joint[key] for key in sure if key in joint), 1.0)]
        for place, joint in zip(places, joints, strict=True)
    ]
    names = [joint.get("name", joint.get("part")) for joint in joints]
    if all(isinstance(name, str) for name in names):
        order = tuple(joint_name(name) for name in names)
    return rows, order


def _of_columns(where: str, columns: dict[str, Any]) -> object:
    """Rows from {x: [...], y: [...], visible: [...]}, as written by Ultralytics."""
    if not columns:
        return None
    x, y = columns.get("x"), columns.get("y")
    sure = columns.get("visible", columns.get("confidence"))
    if not (isinstance(x, list) and isinstance(y, list) and len(x) == len(y)):
        raise KeypointFileError(f"{where}: keypoints must be numbers", "write the file again")
    if sure is None:  # invisible joints are at (0, 0)
        sure = [float(place != (0, 0)) for place in zip(x, y, strict=True)]
    if not isinstance(sure, list) or len(sure) != len(x):
        raise KeypointFileError(f"{where}: keypoints must be numbers", "write the file again")
    return [list(joint) for joint in zip(x, y, sure, strict=True)]


def _three_columns(entry: PersonEntry, numbers: Array) -> Array:
    """Keypoints of any layout as (J, 3): x, y, confidence."""
    confidences = None
    if entry.confidences is not None:
        confidences = to_numbers(entry.where, "the scores of the keypoints", entry.confidences).ravel()
    if numbers.ndim == 3 and len(numbers) == 1:
        numbers = numbers[0]
    if confidences is not None and numbers.ndim == 1 and numbers.size in (2 * confidences.size, 3 * confidences.size):
        numbers = numbers.reshape(len(confidences), -1)
    elif numbers.ndim == 1 and _known(numbers.size / 2) and not _known(numbers.size / 3):  # x, y without confidence
        numbers = numbers.reshape(-1, 2)
    if numbers.ndim == 2 and confidences is not None and len(confidences) == len(numbers) and numbers.shape[1] >= 2:
        return np.column_stack([numbers[:, :2], confidences])
    if numbers.ndim == 2 and numbers.shape[1] == 2:
        return np.column_stack([numbers, (numbers != 0).any(1)])
    if numbers.ndim == 2 and numbers.shape[1] >= 3:  # further columns are tags of the network
        return numbers[:, :3]
    if numbers.ndim != 1 or numbers.size % 3:
        raise KeypointFileError(
            f"{entry.where}: {numbers.size} numbers are not a flat list of x, y, confidence", LAYOUTS
        )
    return numbers.reshape(-1, 3)


def _known(joints: float) -> bool:
    return joints in _ORDER_OF or joints in _WHOLE_BODY


def _order(
    where: str, numbers: Array, joints: int, skeleton: str | None, order: tuple[str, ...] | None
) -> tuple[str, ...]:
    if skeleton is not None:
        names = SKELETONS[skeleton]
        if joints != len(names) and _WHOLE_BODY.get(joints) != skeleton:
            raise KeypointFileError(
                f"{where}: {numbers.size} numbers, but {skeleton} needs {3 * len(names)}",
                f"give the right skeleton; known lengths: {_LENGTHS}",
            )
        return names
    if order is not None and len(order) == joints:
        if sum(name in _ALL_NAMES for name in order) < len(order) / 2:
            raise KeypointFileError(
                f"{where}: the file names its joints {', '.join(order[:3])}, ..., few of which are known body joints",
                f"name them {', '.join(_ORDER_OF[17][:6])}, ..., or give their order with --skeleton",
            )
        return order
    if joints in _NOT_READ:
        raise KeypointFileError(
            f"{where}: {joints} joints are those of {_NOT_READ[joints]}, which is not supported",
            "use a pose network with COCO, Halpe, CrowdPose, BODY_25 or BlazePose joints"
            if joints != 15 else "run OpenPose with --model_pose BODY_25 or COCO",
        )  # fmt: skip
    if joints in _WHOLE_BODY:
        return SKELETONS[_WHOLE_BODY[joints]]
    if joints not in _ORDER_OF:
        raise KeypointFileError(f"{where}: {numbers.size} numbers match no skeleton", f"known lengths: {_LENGTHS}")
    return _ORDER_OF[joints]


_SAME_JOINT = {
    **dict.fromkeys(("Head_bottom", "Upper_neck"), "Neck"),
    **dict.fromkeys(("Head", "Top_head", "Top_of_head"), "Head_top"),  # detectors use "head" for its top
    **dict.fromkeys(("Hip", "Root", "Mid_hip", "Midhip"), "Pelvis"),
}


_SHORT = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")  # lsho, LShoulder, leye


def joint_name(name: str) -> str:
    """Joint name as in `skeletons`: `L_Shoulder` for `left_shoulder` or `leftShoulder`."""
    short = re.fullmatch(r"(l|r|left|right)[ _-]?([a-z]+)", name.strip(), re.IGNORECASE)
    if short is not None and len(short[2]) > 2:
        for joint in _SHORT:
            if joint.startswith(short[2].lower()):
                return f"{short[1][0].upper()}_{joint.capitalize()}"
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", name.strip()).replace("-", "_").replace(" ", "_").lower().split("_")
    side = {"left": "L", "l": "L", "right": "R", "r": "R"}.get(words[0])
    rest = "_".join(words[1:] if side else words).capitalize()
    return f"{side}_{rest}" if side else _SAME_JOINT.get(rest, rest)


def named_order(names: object) -> tuple[str, ...] | None:
    """Joint order named by a file; None if it names none or only numbers them."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    if all(re.fullmatch(r"\W*[a-z_ .-]*[0-9]+\W*", name.lower()) for name in names):
        return None
    return tuple(map(joint_name, names))


def score_of(where: str, value: object) -> float:
    """Confidence of a person, clipped to 0..1 as AlphaPose exceeds it; 1 if the file has none."""
    score = to_numbers(where, "the score", 1.0 if value is None else value)
    if score.size != 1 or np.isinf(score).any():
        raise KeypointFileError(f"{where}: the score must be one finite number", "write the file again")
    return 1.0 if np.isnan(score.item()) else float(np.clip(score.item(), 0, 1))


def track_ids(tracks: Iterable[object], images: Sequence[ImageKey]) -> tuple[Array, str | None]:
    """Track ids (P,) of people, and why they are rejected, if they are; rejected ids are all -1.

    Ids are accepted if everybody has one and no two people in an image share one. Strings count as ids too.
    """
    words: dict[str, int] = {}
    ids = np.array([_track_id(track, words) for track in tracks], np.int64)
    none = np.full(len(ids), -1, np.int64)
    if not (ids >= 0).any():
        return none, None
    if (ids < 0).any():
        return none, "only some of the people have an id"
    if len(set(zip(images, ids.tolist(), strict=True))) < len(ids):
        return none, "an id occurs twice in one picture"
    return ids, None


def _track_id(value: object, words: dict[str, int]) -> int:
    """Integer id from a number, a string, or a list with one of them, as AlphaPose and OpenPose write; -1 if none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value:
        number = re.fullmatch(r"\s*([0-9]{1,18})(?:\.0*)?\s*", value)
        return int(number[1]) if number else words.setdefault(value, 2**62 + len(words))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 2**62 else -1  # type: ignore[return-value, operator]
