"""People packed into arrays come back as they were put in."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jotr_deploy.datasets.published import packed
from jotr_deploy.datasets.published.annotation import Annotation, Camera, Fit
from jotr_deploy.datasets.published.packed import Annotations

BARE = Annotation("a", Path("a.jpg"), (64, 48), np.array([1.0, 2, 30, 40]), np.zeros((30, 3)))
FIT = Fit(np.arange(72.0).reshape(24, 3), np.arange(10.0), np.array([1.0, 2, 3]), "female")
PEOPLE = [
    BARE,
    replace(BARE, key="b", joints_m=np.ones((30, 3)), joints_m_known=np.arange(30) < 5, sequence="s", frame=7),
    replace(BARE, key="c", fit=FIT, camera=Camera((100.0, 101.0), (32.0, 24.0))),
    replace(BARE, key="d", fit=replace(FIT, gender="male", camera_from_fit=np.arange(12.0).reshape(3, 4))),
    replace(BARE, key="e", found_px=np.full((18, 3), 0.5), found_skeleton="coco18"),
    replace(BARE, key="f", found_px=np.full((17, 3), 0.25)),
]


def plain(value: object) -> object:
    """A value whose arrays are lists, to be compared."""
    if isinstance(value, (Annotation, Fit, Camera)):
        return {name: plain(part) for name, part in vars(value).items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("block", [1, 4, 4096])
def test_people_come_back(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_BLOCK", block)
    assert [plain(person) for person in Annotations(PEOPLE)] == [plain(person) for person in PEOPLE]


def test_people_by_number() -> None:
    people = Annotations(PEOPLE)
    assert len(people) == 6
    assert [people[number].key for number in (0, 3, -1)] == ["a", "d", "f"]
    assert people[np.int64(2)].key == "c"  # type: ignore[call-overload]
    assert [person.key for person in people[1:5:2]] == ["b", "d"]
    with pytest.raises(IndexError):
        people[6]


def test_nobody() -> None:
    people = Annotations()
    assert (len(people), list(people), people[:]) == (0, [], [])


def test_they_go_to_other_processes() -> None:
    people = pickle.loads(pickle.dumps(Annotations(PEOPLE)))
    assert [plain(person) for person in people] == [plain(person) for person in PEOPLE]


def test_nobody_changes_a_set_by_mistake() -> None:
    people = Annotations(PEOPLE)
    with pytest.raises(ValueError, match="read-only"):
        people[0].box_px[0] = 5


def test_numbers_are_float32() -> None:
    person = Annotations([replace(BARE, box_px=np.array([0.1, 0.2, 0.3, 0.4]))])[0]
    assert person.box_px.dtype == np.float32
    assert person.box_px.tolist() == np.array([0.1, 0.2, 0.3, 0.4], np.float32).tolist()
