"""One person of a file of joints, as the file has it and checked; and what all layouts share."""

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
_NOT_READ = {  # joints -> whose
    15: "the MPI body of OpenPose",
    16: "the MPII body",
    21: "a hand",
    68: "a face",
    70: "a face of OpenPose",
    135: "OpenPose's BODY_135",
    308: "the Goliath set of Sapiens",
}
_JSON_RULES = "write it with a JSON library: double quotes, no comments, no comma before a closing bracket"
_NO_NUMBERS = ("", "null", "none", "nan", "n/a")
_CANVAS_KEYS = (
    ("canvas_width", "canvas_height"),
    ("image_width", "image_height"),
    ("imageWidth", "imageHeight"),
    ("img_width", "img_height"),
    ("width", "height"),
)


def read_json(path: Path, boxes: bool = False) -> Any:
    """The content of a JSON file in UTF-8, UTF-16 or UTF-32, of joints or of `boxes`.

    Raises:
        KeypointFileError: missing, not JSON, or cut off; says what the file is where its first bytes tell.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KeypointFileError(f"{path}: cannot be read ({error.strerror})", "check the path") from error
    text = None
    try:
        text = data.decode(json.detect_encoding(data))
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, or a number of more digits than Python reads
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
        return f"the JSON ends too early, the file is truncated ({error})", "write the file again"
    if error.msg == "Extra data" and looks_like_json:
        return f"holds more than one JSON value ({error})", "write one; jq -s add FILE joins lists"
    return f"not JSON ({error})", _JSON_RULES if looks_like_json else LAYOUTS


@dataclass(frozen=True)
class PersonEntry:
    """One person as the file says."""

    where: str  # file and person, for messages
    image: ImageKey
    keypoints: object  # None where the person has no body
    confidences: object = None  # of the joints, where the file has them apart
    score: object = 1.0
    track: object = None
    canvas_px: Size | None = None  # width, height of the picture that the coordinates are of, where the file says it
    order: tuple[str, ...] | None = None  # names of the joints, where the file has them


@dataclass
class Entries:
    """Everybody of a file."""

    people: list[PersonEntry] = field(default_factory=list)
    images: list[ImageKey] = field(default_factory=list)  # known even when they show nobody
    left_out: dict[str, int] = field(default_factory=dict)  # entries that are no person with a body: why, how many
    notes: list[str] = field(default_factory=list)  # what was decided
    by_position: bool = False  # numbers of images count the pictures of the source
    complete: bool = False  # it lists every picture of its source, in order
    last_pixel_is_1: bool = False  # normalised coordinates go from the first to the last pixel's centre, as OpenPose's

    def leave_out(self, why: str) -> None:
        """Count an entry that is not used."""
        self.left_out[why] = self.left_out.get(why, 0) + 1


def image_key(where: str, value: object) -> ImageKey:
    """How a results file names an image: a file name, perhaps with folders, or a whole number.

    Raises:
        KeypointFileError.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value:
        return as_path(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise KeypointFileError(f"{where}: image_id is neither a file name nor a number", "write one with every person")


def canvas_of(item: Mapping[str, object], keys: Sequence[tuple[str, str]] = _CANVAS_KEYS) -> Size | None:
    """Width and height of the picture, px, where an entry of a file says them."""
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
    """Numbers as float32, of any shape; null becomes NaN and what is too large infinite.

    Raises:
        KeypointFileError: something else than numbers.
    """
    try:
        with np.errstate(over="ignore"):
            try:
                return np.asarray(value, np.float64).astype(np.float32)
            except ValueError:  # words, seldom
                return np.asarray(_without_words(value), np.float64).astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise KeypointFileError(f"{where}: {what} must be numbers", "write the file again") from error


def _without_words(value: object) -> object:
    """The value with null for the words that say "no number", such as "None"."""
    if isinstance(value, list):
        return [_without_words(item) for item in value]
    return None if isinstance(value, str) and value.strip().lower() in _NO_NUMBERS else value


def joints_of(entry: PersonEntry, skeleton: str | None) -> tuple[tuple[str, ...], Array] | None:
    """The names and the (J, 3) joints of one person, confidences in 0..1; None for a person without a body.

    A joint that is not finite is absent: all zero.

    Raises:
        KeypointFileError: no numbers, or as many as no known body has.
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
    """Which places (J, 2) stand for a joint that was not found, whatever the confidence: exactly (0, 0) or (-1, -1)."""
    return np.asarray((places == 0).all(1) | (places == -1).all(1))


def _of_dictionaries(joints: list[Any], order: tuple[str, ...] | None) -> tuple[object, tuple[str, ...] | None]:
    """From [{x, y, score, name}, ...], as pose networks in browsers write it."""
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
    """From {x: [...], y: [...], visible: [...]}, as Ultralytics writes it."""
    if not columns:
        return None
    x, y = columns.get("x"), columns.get("y")
    sure = columns.get("visible", columns.get("confidence"))
    if not (isinstance(x, list) and isinstance(y, list) and len(x) == len(y)):
        raise KeypointFileError(f"{where}: keypoints must be numbers", "write the file again")
    if sure is None:  # what is not seen lies at the corner
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
                f"{where}: {numbers.size} numbers, {skeleton} needs {3 * len(names)}",
                f"give the right skeleton; known lengths: {_LENGTHS}",
            )
        return names
    if order is not None and len(order) == joints:
        if sum(name in _ALL_NAMES for name in order) < len(order) / 2:
            raise KeypointFileError(
                f"{where}: the file names its joints {', '.join(order[:3])}, ..., hardly any of which is a body's here",
                f"name them as {', '.join(_ORDER_OF[17][:6])}, ..., or say their order: --skeleton",
            )
        return order
    if joints in _NOT_READ:
        raise KeypointFileError(
            f"{where}: {joints} joints are {_NOT_READ[joints]}, which is not read",
            "find joints with a network of COCO, Halpe, CrowdPose, BODY_25 or BlazePose joints"
            if joints != 15 else "run OpenPose with --model_pose BODY_25 or COCO",
        )  # fmt: skip
    if joints in _WHOLE_BODY:
        return SKELETONS[_WHOLE_BODY[joints]]
    if joints not in _ORDER_OF:
        raise KeypointFileError(f"{where}: {numbers.size} numbers fit no skeleton", f"known lengths: {_LENGTHS}")
    return _ORDER_OF[joints]


_SAME_JOINT = {
    **dict.fromkeys(("Head_bottom", "Upper_neck"), "Neck"),
    **dict.fromkeys(("Head", "Top_head", "Top_of_head"), "Head_top"),  # detectors mean the top
    **dict.fromkeys(("Hip", "Root", "Mid_hip", "Midhip"), "Pelvis"),
}


_SHORT = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")  # lsho, LShoulder, leye


def joint_name(name: str) -> str:
    """The name of a joint as `skeletons` has it: `L_Shoulder` of `left_shoulder` or `leftShoulder`."""
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
    """The order of joints that a file names; None where it names none, or only numbers them."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    if all(re.fullmatch(r"\W*[a-z_ .-]*[0-9]+\W*", name.lower()) for name in names):
        return None
    return tuple(map(joint_name, names))


def score_of(where: str, value: object) -> float:
    """The confidence of a person, clipped to 0..1, for AlphaPose goes beyond; 1 where the file has none."""
    score = to_numbers(where, "the score", 1.0 if value is None else value)
    if score.size != 1 or np.isinf(score).any():
        raise KeypointFileError(f"{where}: the score must be one finite number", "write the file again")
    return 1.0 if np.isnan(score.item()) else float(np.clip(score.item(), 0, 1))


def track_ids(tracks: Iterable[object], images: Sequence[ImageKey]) -> tuple[Array, str | None]:
    """The ids (P,) of people, -1 where they are not to be believed, and then why.

    Believed are ids that everybody has, and that differ among the people of each image. Words count as ids too.
    """
    words: dict[str, int] = {}
    ids = np.array([_track_id(track, words) for track in tracks], np.int64)
    none = np.full(len(ids), -1, np.int64)
    if not (ids >= 0).any():
        return none, None
    if (ids < 0).any():
        return none, "only some of the people have an id"
    if len(set(zip(images, ids.tolist(), strict=True))) < len(ids):
        return none, "an id stands for two people of one picture"
    return ids, None


def _track_id(value: object, words: dict[str, int]) -> int:
    """AlphaPose and OpenPose write a number or a list with one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value:
        number = re.fullmatch(r"\s*([0-9]{1,18})(?:\.0*)?\s*", value)
        return int(number[1]) if number else words.setdefault(value, 2**62 + len(words))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 2**62 else -1  # type: ignore[return-value, operator]
