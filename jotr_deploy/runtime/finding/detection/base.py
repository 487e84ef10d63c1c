"""Common interface of detectors, independent of their format."""

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
"""Callable with the signature of a `Detector`, with or without a network behind it."""

COUNTED_FROM_0: Mapping[int, int] = {0: 0, 1: 0, 80: 0, 365: 0}
"""Index of the person class by the number of classes: one class, the 80 of COCO, the 365 of Objects365."""


class OfClasses(recognition.Recipe):
    """Settings of a detector that may have classes other than person."""

    person: Annotated[int, Field(ge=0)] | None = None
    """Index of the person class; by default taken from the class names in the file."""


class Detector(Format):
    """Detector of people in an image, after the score threshold of its recipe and non-maximum suppression."""

    task = "detect"
    usual: ClassVar[Mapping[int, int]] = COUNTED_FROM_0
    """Index of the person class by the number of classes, if the file names none; see `person_classes`."""

    @abstractmethod
    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image, highest score first.

        Args:
            image_bgr: (H, W, 3) uint8.

        Returns:
            boxes_px (N, 4) float32 x0 y0 x1 y1 within the image, pixel centres at integer coordinates, so that
            the whole image is -0.5 -0.5 W-0.5 H-0.5; and scores (N,) float32 in 0..1. N may be 0.
        """

    def person_classes(self, classes: int | None) -> list[int]:
        """Indices of the classes that are people; `classes` is their number in the outputs, None if undetermined.

        Raises:
            SessionError: see `network_metadata.person_classes`.
        """
        return person_classes(self.session, classes, self.options.person, self.usual)

    @property
    def sure_of_people(self) -> bool:
        """True if the file or the recipe determines which class is a person."""
        return self.options.person is not None or bool(declared(self.session).names)


def class_facts(people: list[int], classes: int | None, sure: bool = True) -> tuple[str, ...]:
    """Readable number of classes and, unless obvious, which of them are people; see `Format.facts`.

    Args:
        people: indices of the person classes.
        classes: number of classes; None if the outputs do not determine it.
        sure: whether the file, the recipe or the number of classes determines the person class.
    """
    count = () if classes is None else (f"classes: {classes}",)
    if not sure:
        return (*count, f"class {people[0]} is assumed to be person, as the file names no classes")
    if people == [0]:
        return count
    word = "person is class" if len(people) == 1 else "people are classes"
    return (*count, f"{word} {', '.join(map(str, people))}")
