"""What every detector does, whatever its format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.network_metadata import declared, person_classes
from jotr_deploy.runtime.finding.recognition import Format
from jotr_deploy.support.aliases import Array

FindsPeople = Callable[[Array], tuple[Array, Array]]
"""What is called as a `Detector` is, whether there is a network behind it or not."""

COUNTED_FROM_0: Mapping[int, int] = {0: 0, 1: 0, 80: 0, 365: 0}
"""A person's number by the number of classes: one class, the 80 of COCO, the 365 of Objects365."""


class OfClasses(recognition.Recipe):
    """The recipe of a detector that may know other things than people."""

    person: Annotated[int, Field(ge=0)] | None = None
    """The number of the class that is a person; by default what the names in the file tell."""


class Detector(Format):
    """Finds people in a picture; the score threshold of its recipe is applied, duplicates are gone."""

    task = "detect"
    usual: ClassVar[Mapping[int, int]] = COUNTED_FROM_0
    """A person's number by the number of classes, where the file names none; see `person_classes`."""

    @abstractmethod
    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """The people of one picture, best first.

        Args:
            image_bgr: (H, W, 3) uint8.

        Returns:
            boxes_px (N, 4) float32 x0 y0 x1 y1 within the picture, pixel centres at integer coordinates, so that
            the whole picture is -0.5 -0.5 W-0.5 H-0.5; and scores (N,) float32 in 0..1. N may be 0.
        """

    def person_classes(self, classes: int | None) -> list[int]:
        """The numbers of the classes that are people, of so many that the outputs have, None where they do not tell.

        Raises:
            SessionError: see `declared.person_classes`.
        """
        return person_classes(self.session, classes, self.options.person, self.usual)

    @property
    def sure_of_people(self) -> bool:
        """Whether the file or the recipe tell which class is a person."""
        return self.options.person is not None or bool(declared(self.session).names)


def told_classes(people: list[int], classes: int | None, sure: bool = True) -> tuple[str, ...]:
    """Number of classes, and which are people where that is not plain; in words, see `Format.facts`.

    Args:
        people: their numbers.
        classes: how many there are; None where the outputs do not tell.
        sure: whether the file, the recipe or the number of classes tell who is a person.
    """
    count = () if classes is None else (f"classes: {classes}",)
    if not sure:
        return (*count, f"class {people[0]} is taken for people, the file names none")
    if people == [0]:
        return count
    word = "person is class" if len(people) == 1 else "people are classes"
    return (*count, f"{word} {', '.join(map(str, people))}")
