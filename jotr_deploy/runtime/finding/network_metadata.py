"""Metadata that an exporter writes into a network file, parsed into values.

The keys are those of Ultralytics' exporter, which others have adopted: `task`, `names`, `kpt_shape`, `kpt_names`,
`imgsz`, `channels`. Files of most other projects have none, and then nothing is declared.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import Session

PERSON_NAMES = frozenset({"person", "persons", "people", "pedestrian", "pedestrians", "human", "humans"})
_LONGEST_WORD = 60
_LARGEST_PX = 8192
_LONGEST = 200_000  # characters of a value that is parsed; the 601 names of Open Images are 15 000

_TASKS = {
    "detect": "detect", "detection": "detect", "object-detection": "detect",
    "pose": "pose", "keypoints": "pose", "keypoint-detection": "pose",
    "segment": "segment", "segmentation": "segment", "instance-segmentation": "segment", "seg": "segment",
    "semantic": "segment", "obb": "obb", "classify": "classify", "classification": "classify",
}  # fmt: skip


@dataclass(frozen=True)
class Declared:
    """Metadata declared by a file; None for anything it does not declare."""

    task: str | None = None
    """"detect", "pose", "segment", "obb", "classify", or the file's own word for another task."""
    names: Mapping[int, str] | None = None
    """Class index -> name."""
    keypoints: tuple[int, int] | None = None
    """Number of joints and of values per joint: 3 with visibility, 2 without."""
    joint_names: tuple[str, ...] | None = None
    """Names of the joints, in order."""
    size_px: tuple[int, int] | None = None
    """Width and height of the input image."""
    channels: int | None = None
    """Number of channels of the input image."""
    description: str = ""
    """The exporter's own description, in lower case."""

    @property
    def people(self) -> tuple[int, ...]:
        """Indices of the classes whose name means a person."""
        return tuple(sorted(n for n, name in (self.names or {}).items() if name.strip().lower() in PERSON_NAMES))


def declared(session: Session) -> Declared:
    """Metadata of a session's file; a value that cannot be parsed counts as missing."""
    said = session.metadata
    task = said.get("task")
    return Declared(
        task=_TASKS.get(task.strip().lower(), _plain(task)) if task and task.strip() else None,
        names=_names(_value(said.get("names"))),
        keypoints=_pair(_value(said.get("kpt_shape"))),
        joint_names=_joint_names(_value(said.get("kpt_names"))),
        size_px=_size_px(_value(said.get("imgsz"))),
        channels=_whole(_value(said.get("channels"))),
        description=said.get("description", "").lower(),
    )


def person_classes(session: Session, classes: int | None, chosen: int | None, usual: Mapping[int, int]) -> list[int]:
    """Indices of the classes that are people.

    Args:
        session: its metadata may name the classes.
        classes: number of classes in the outputs; None if they do not determine it.
        chosen: the index that the recipe gives; it overrides any name.
        usual: number of classes -> index of the person, for the data sets that most networks are trained on. If neither
            file nor outputs determine the number of classes, `usual[0]` is used.

    Raises:
        SessionError: the names contradict the outputs or name no person, or the person's class cannot be determined.
    """
    said, path = declared(session), session.path
    names = said.names
    count = classes if classes is not None else max(names) + 1 if names else None
    if names and classes is not None and max(names) >= classes:
        raise SessionError(
            f"{path}: its metadata name class {max(names)}, but its outputs have {classes} classes",
            "export the network again: metadata and outputs do not match",
        )
    if names and classes is not None and len(names) < classes and said.task is None:
        # The other columns may be joints, an angle or a mask as well as unnamed classes.
        raise SessionError(
            f"{path}: its metadata name {len(names)} classes, but its outputs have room for {classes}",
            "give a detector exactly as its exporter writes it",
        )
    if chosen is not None:
        if count is not None and chosen >= count:
            raise SessionError(f"{path}: recipe: person: class {chosen} of {count}", f"give one of 0 to {count - 1}")
        return [chosen]
    if names:
        people = said.people
        if not people:
            listed = ", ".join(names[number] for number in sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
            raise SessionError(
                f"{path}: none of its classes is a person ({listed})",
                "give a detector of people, or the index of the person class: --set detector.person=NUMBER",
            )
        return list(people)
    number = usual.get(classes or 0)
    if number is None:
        raise SessionError(
            f"{path}: {classes} values per box that may be unnamed classes: cannot tell which is a person",
            "if they are classes, give the person's, counted from 0: --set detector.person=NUMBER; joints, angles and "
            "landmarks are not supported here",
        )
    return [number]


def _value(text: str | None) -> Any:
    """Parsed Python or JSON literal; None for anything else. Nothing is executed."""
    if text is None or len(text) > _LONGEST:
        return None
    for read in (ast.literal_eval, json.loads):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _plain(word: Any) -> str:
    """Printable, shortened form of a word, for one-line messages."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(word)[:_LONGEST_WORD]).split())


def _names(value: Any) -> dict[int, str] | None:
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return None
    try:
        names = {int(number): _plain(name) for number, name in value.items()}
    except (ValueError, TypeError, OverflowError):
        return None
    return names if min(names) >= 0 else None


def _joint_names(value: Any) -> tuple[str, ...] | None:
    """Joint names; those of the first class if they are listed per class."""
    if isinstance(value, dict):
        value = next(iter(value.values()), None)
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) and value else None


def _pair(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    first, second = map(_whole, value)
    return None if first is None or second is None else (first, second)


def _size_px(value: Any) -> tuple[int, int] | None:
    height_width = _pair(value) if _whole(value) is None else (int(value), int(value))
    if height_width is None or max(height_width) > _LARGEST_PX:
        return None
    return height_width[::-1]


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
