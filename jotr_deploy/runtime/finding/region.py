"""Limits on the people in a frame: only those in a region of the image, and at most N of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.people_source import BoxPeople, KeypointPeople, PeopleSource
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class WithinRegion:
    """People in one region of the image, in pixels of the whole image.

    Detectors see only the region, as if it were the whole image. People from a file are kept if the centre of their
    crop box lies in the region.
    """

    people_source: PeopleSource
    region_px: tuple[int, int, int, int]  # x0 y0 x1 y1; columns x0 to x1 - 1, rows y0 to y1 - 1

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.region_px
        if not (x0 < x1 and y0 < y1):
            raise SourceError(f"the region {self.region_px} is empty", "give x0,y0,x1,y1 with x0 < x1 and y0 < y1")

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """People of one frame inside the region.

        Raises:
            SourceError: no part of the region lies in this image.
        """
        x0, y0, x1, y1 = self._clipped(image_bgr, name)
        if isinstance(self.people_source, (KeypointPeople, BoxPeople)):
            people = self.people_source(image_bgr, name, frame)
            centres_px = (people.boxes_px[:, :2] + people.boxes_px[:, 2:]) / 2
            inside: Array = (centres_px >= (x0, y0)) & (centres_px < (x1, y1))
            return people[np.flatnonzero(inside.all(1))]
        return moved(self.people_source(image_bgr[y0:y1, x0:x1], name, frame), (x0, y0))

    def _clipped(self, image_bgr: Array, name: str) -> tuple[int, int, int, int]:
        height, width = image_bgr.shape[:2]
        x0, y0, x1, y1 = self.region_px
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if not (x0 < x1 and y0 < y1):
            raise SourceError(
                f"{name}: the region {self.region_px} is outside the picture of {width} x {height} px",
                "give x0,y0,x1,y1 inside it, in pixels from the top-left corner",
            )
        return x0, y0, x1, y1


@dataclass(frozen=True)
class MostPeople:
    """At most `limit` people per frame, highest score first; among equal scores, the largest box first."""

    people_source: PeopleSource
    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"at most {self.limit} people: give 1 or more")

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """At most `limit` people of one frame, in their original order."""
        people = self.people_source(image_bgr, name, frame)
        area = (people.boxes_px[:, 2:] - people.boxes_px[:, :2]).prod(1)
        best_first: Array = np.lexsort((-area, -people.scores))
        return people[np.sort(best_first[: self.limit])]


def moved(people: Detections, by_px: tuple[int, int]) -> Detections:
    """People with boxes and joints shifted by `by_px` (x, y); absent joints stay zero."""
    offset_px = np.array([*by_px, *by_px], np.float32)
    keypoints_px = people.keypoints_px.copy()
    keypoints_px[..., :2] += np.where(keypoints_px[..., 2:] > 0, offset_px[:2], 0)
    return replace(people, boxes_px=people.boxes_px + offset_px, keypoints_px=keypoints_px)
