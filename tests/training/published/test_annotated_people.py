"""Who is which sample: both kinds alike, everybody once an epoch, the same order again."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_sets import posed

from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.training.published.sample_order import AnnotatedPeople
from jotr_deploy.training.run_config import TrainingError


def somebody(number: int, is_3d: bool, **more: object) -> Annotation:
    return posed(number, is_3d=is_3d, **{"image": Path(f"{number}.png"), **more})


@pytest.fixture(scope="module")
def sets() -> list[list[Annotation]]:
    """Seven people with depth in two sets, three without."""
    groups = ((range(4), True), (range(10, 13), False), (range(4, 7), True))
    return [[somebody(number, is_3d) for number in numbers] for numbers, is_3d in groups]


def keys(people: AnnotatedPeople, epoch: int) -> list[int]:
    return [int(people(epoch * people.epoch + place)[0].key) for place in range(people.epoch)]


def test_an_epoch(sets: list[list[Annotation]]) -> None:
    people = AnnotatedPeople(sets, 0)
    assert people.epoch == 14
    epochs = [Counter(keys(people, epoch)) for epoch in range(20)]
    for found in epochs:
        assert [found[number] for number in range(7)] == [1] * 7
        assert sorted(found[number] for number in (10, 11, 12)) == [2, 2, 3]
    assert {max((10, 11, 12), key=found.get) for found in epochs} == {10, 11, 12}  # type: ignore[arg-type]
    assert keys(people, 0) != keys(people, 1)


def test_the_order_depends_on_the_numbers_alone(sets: list[list[Annotation]]) -> None:
    people = AnnotatedPeople(sets, 0)
    whole = keys(people, 0) + keys(people, 1)
    other = pickle.loads(pickle.dumps(people))
    assert [int(other(number)[0].key) for number in reversed(range(28))] == whole[::-1]
    assert keys(AnnotatedPeople(sets, 1), 0) != whole[:14]


@pytest.mark.parametrize(("chosen", "epoch"), [((0,), 4), ((0, 2), 7), ((1,), 3)])
def test_one_kind_only(sets: list[list[Annotation]], chosen: tuple[int, ...], epoch: int) -> None:
    people = AnnotatedPeople([sets[number] for number in chosen], 0)
    assert people.epoch == epoch
    assert len(set(keys(people, 0))) == epoch


def test_unusable_boxes_are_left_out() -> None:
    people = AnnotatedPeople([[somebody(0, True), somebody(1, True, box_px=np.array([5.0, 5, 5, 50]))]], 0)
    assert keys(people, 0) == [0]


@pytest.mark.parametrize("sets", [[], [[]], [[somebody(1, True, box_px=np.zeros(4))]]])
def test_nobody(sets: list[list[Annotation]]) -> None:
    with pytest.raises(TrainingError, match="the data sets hold nobody to train on"):
        AnnotatedPeople(sets, 0)


def test_people_who_overlap() -> None:
    def at(number: int, x: float, image: str) -> Annotation:
        return somebody(number, False, box_px=np.array([x, 10, x + 20, 60]), image=Path(image))  # type: ignore[arg-type]

    same = [at(0, 10, "a"), at(1, 90, "b"), at(2, 25, "a"), at(3, 60, "a"), at(4, 28, "a")]
    people = AnnotatedPeople([same, [at(5, 10, "a")]], 0)
    near = {}
    for number in range(people.epoch):
        person, others = people(number)
        near[int(person.key)] = [int(other.key) for other in others]
    # 5 of 35 px shared is an IoU of 0.14; 2 of 38 is 0.05. Another set is another picture.
    assert near == {0: [2], 1: [], 2: [0, 4], 3: [], 4: [2], 5: []}
