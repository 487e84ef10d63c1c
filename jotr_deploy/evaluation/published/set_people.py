"""People of a set by picture, the inputs of the network for them, and people who cannot be evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.datasets.published.sets import SETS, read_set
from jotr_deploy.errors import DatasetError
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.crop_boxes import with_joint_boxes
from jotr_deploy.skeletons import to_smpl30
from jotr_deploy.support.choices import SPLITS

NO_JOINT_BOX = "no crop box from the joints found"
NO_TRUTH = "no true body"


@dataclass(frozen=True)
class Picture:
    """People of one picture who can be evaluated; row n of `given` is `people[n]`."""

    people: tuple[Annotation, ...]
    given: Detections


@dataclass(frozen=True)
class Everybody:
    """All pictures of a set with their people, and the people left out."""

    title: str
    split: str
    count: int
    pictures: tuple[Picture, ...]
    left_out: Mapping[str, tuple[str, ...]]  # reason -> keys of the people

    @property
    def people(self) -> tuple[Annotation, ...]:
        """People who can be evaluated, in the order of the pictures."""
        return tuple(person for picture in self.pictures for person in picture.people)


def read_everybody(protocol: str, root: Path, crop_factor: float, split: str | None = None) -> Everybody:
    """Read a set and select the people whom the published evaluation can crop.

    Args:
        protocol: a key of `SPLITS`.
        root: folder that contains the folders of the sets.
        crop_factor: `ModelConfig.crop_factor` of the network.
        split: another than that of the protocol.

    Raises:
        DatasetError: a file of the set is missing or not as its layout says; a picture is missing.
    """
    split = split or SPLITS[protocol]
    people = list(read_set(protocol, root, split))
    by_image: dict[Path, list[Annotation]] = {}
    for person in people:
        by_image.setdefault(person.image, []).append(person)
    require_pictures(list(by_image))
    pictures, left_out = [], {NO_JOINT_BOX: [], NO_TRUTH: []}  # type: tuple[list[Picture], dict[str, list[str]]]
    for together in by_image.values():
        true = [person for person in together if person.fit is not None]
        given = given_of(true, crop_factor)
        kept = given.track_ids.tolist()
        pictures.append(Picture(tuple(true[place] for place in kept), given))
        left_out[NO_TRUTH] += [person.key for person in together if person.fit is None]
        left_out[NO_JOINT_BOX] += [person.key for place, person in enumerate(true) if place not in kept]
    reasons = {reason: tuple(keys) for reason, keys in left_out.items() if keys}
    return Everybody(SETS[protocol].title, split, len(people), tuple(pictures), reasons)


def given_of(people: Sequence[Annotation], crop_factor: float) -> Detections:
    """Inputs for the people of one picture: the joints found, shipped with the set, and their crop boxes.

    People without a box are left out; `track_ids` identify the others, as indices into `people`.
    """
    joints = [
        np.zeros((1, 30, 3), np.float32)
        if person.found_px is None
        else to_smpl30(person.found_px[None], person.found_skeleton)
        for person in people
    ]
    count = len(people)
    keypoints_px = np.concatenate([np.zeros((0, 30, 3), np.float32), *joints])
    found = Detections(np.zeros((count, 4)), keypoints_px, np.ones(count), np.arange(count))
    return with_joint_boxes(found, people[0].size_px, crop_factor) if people else found


def require_pictures(images: Sequence[Path]) -> None:
    """Check for all pictures before hours of work: without some, the evaluation is not that of the set.

    Raises:
        DatasetError: pictures are missing; names the first and their number.
    """
    missing = [image for image in images if not image.is_file()]
    if missing:
        raise DatasetError(
            f"{missing[0]}: no such picture; {len(missing)} of {len(images)} pictures of the set are missing",
            "put the pictures of the set where docs/datasets.md says: without them the figures are not of the set",
        )
