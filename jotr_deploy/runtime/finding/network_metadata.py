"""The metadata that an exporter writes into a network file, read as values.

The keys are those of Ultralytics' exporter, which others have taken over: `task`, `names`, `kpt_shape`, `kpt_names`,
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
_LONGEST = 200_000  # characters of a value that is read; the 601 names of Open Images are 15 000

_TASKS = {
    "detect": "detect", "detection": "detect", "object-detection": "detect",
    "pose": "pose", "keypoints": "pose", "keypoint-detection": "pose",
    "segment": "segment", "segmentation": "segment", "instance-segmentation": "segment", "seg": "segment",
    "semantic": "segment", "obb": "obb", "classify": "classify", "classification": "classify",
}  # fmt: skip


@dataclass(frozen=True)
class Declared:
    """What a file says of itself; None where it says nothing."""

    task: str | None = None
    """"detect", "pose", "segment", "obb", "classify", or the file's own word for another task."""
    names: Mapping[int, str] | None = None
    """Class number -> name."""
    keypoints: tuple[int, int] | None = None
    """Number of joints and of values for each: 3 with visibility, 2 without."""
    joint_names: tuple[str, ...] | None = None
    """In their order."""
    size_px: tuple[int, int] | None = None
    """Width and height of the pictures."""
    channels: int | None = None
    """Of the pictures."""
    description: str = ""
    """The exporter's own words, in small letters."""

    @property
    def people(self) -> tuple[int, ...]:
        """The numbers of the classes that are people by their names."""
        return tuple(sorted(n for n, name in (self.names or {}).items() if name.strip().lower() in PERSON_NAMES))


def declared(session: Session) -> Declared:
    """The metadata of a session's file; a value that cannot be read counts as not there."""
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
    """The numbers of the classes that are people.

    Args:
        session: whose metadata may name the classes.
        classes: how many the outputs have; None where they do not tell.
        chosen: the number that the recipe gives; it counts more than any name.
        usual: number of classes -> the person's number, for the sets that most networks are trained on. Where neither
            file nor outputs tell anything, it is `usual[0]`.

    Raises:
        SessionError: the names contradict the outputs, name no person, or nothing tells which class is a person.
    """
    said, path = declared(session), session.path
    names = said.names
    count = classes if classes is not None else max(names) + 1 if names else None
    if names and classes is not None and max(names) >= classes:
        raise SessionError(
            f"{path}: its metadata names class {max(names)}, but its outputs have {classes} classes",
            "export the network again: metadata and outputs do not belong together",
        )
    if names and classes is not None and len(names) < classes and said.task is None:
        # The other numbers may be joints, an angle or a mask as well as classes without a name.
        raise SessionError(
            f"{path}: its metadata names {len(names)} classes, but its outputs have room for {classes}",
            "give a detector as its exporter writes it",
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
                "give a detector of people, or the number of the class that is one: --set detector.person=NUMBER",
            )
        return list(people)
    number = usual.get(classes or 0)
    if number is None:
        raise SessionError(
            f"{path}: {classes} numbers a box that may be classes, without names: which is a person is not known",
            "if they are classes, say the person's, counted from 0: --set detector.person=NUMBER; joints, angles and "
            "landmarks are not read so",
        )
    return [number]


def _value(text: str | None) -> Any:
    """A literal of Python or JSON; None for anything else. Nothing is executed."""
    if text is None or len(text) > _LONGEST:
        return None
    for read in (ast.literal_eval, json.loads):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _plain(word: Any) -> str:
    """A word for a message of one line."""
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
    """Of the first class, where they are listed for each."""
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
