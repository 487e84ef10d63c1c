"""People found by BlazePose in windows of the image, and tracked by their joints through a video."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.blazepose import person_rules
from jotr_deploy.runtime.finding.blazepose.landmarks import BlazeLandmarks, Poses
from jotr_deploy.runtime.finding.blazepose.person_detector import BlazeDetector, Found
from jotr_deploy.runtime.finding.blazepose.roi_prediction import Steady
from jotr_deploy.runtime.finding.blazepose.rotated_crops import radii_px
from jotr_deploy.runtime.finding.blazepose.windows import Window, both_ways, windows
from jotr_deploy.runtime.finding.crop_boxes import with_joints
from jotr_deploy.runtime.sources.frame_source import apart
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.spans import NO_FRAME, Spans

SKELETON = "blazepose33"
EVERY = 2
"""Number of video frames per window searched for new people."""
LONGEST_STEP = 6
"""Largest gap, in frames, between processed frames; beyond it everybody is detected afresh."""
LEAST_RADIUS_PX = 1.0
"""Smallest radius of the circle around a person."""
MOST_LOOKS = 3
"""Number of similar candidates examined before giving up on finding a person among them."""


@dataclass(frozen=True)
class BlazePose:
    """Both opened networks, which any number of people sources may share."""

    detector: BlazeDetector
    landmarks: BlazeLandmarks


@dataclass
class BlazePosePeople:
    """Finder of the people in images or, with `film`, in the frames of one video, in order.

    In a video people are tracked by their joints, and the windows searched for new people are spread over the frames.
    """

    networks: BlazePose
    film: bool = False
    spans: Spans | None = None  # receives the stages "detect" and "pose"
    crop_factor: float = field(kw_only=True)
    block: int | None = field(default=None, kw_only=True)  # frames after which everybody is searched for afresh
    _before: _Seen | None = field(default=None, init=False)
    stages: ClassVar[tuple[str, ...]] = ("detect", "pose")

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """People of one frame, as for every `PeopleSource`."""
        return self.find(image_bgr, frame)[0]

    def find(self, image_bgr: Array, frame: int = NO_FRAME) -> tuple[Detections, Array]:
        """People in an image (H, W, 3) uint8, and the box (N, 4) around the joints of each."""
        size_px = (image_bgr.shape[1], image_bgr.shape[0])
        before, span = self._before, self.spans or Spans()
        fresh = before is None or before.size_px != size_px or not 0 < frame - before.frame <= LONGEST_STEP
        fresh = fresh or (before is not None and apart(frame, before.frame, self.block))
        followed, where = Poses.joined(), both_ways(windows(size_px))
        scores, steady, turn = np.zeros(0), Steady.start(followed.rois_px), 0
        if self.film and before is not None and not fresh:
            with span("pose", frame):
                followed = self.networks.landmarks(image_bgr, before.steady.rois_px)
            scores, steady, turn = before.scores, before.steady.next(followed.rois_px), before.turn + 1
            where = due(windows(size_px), turn, len(followed) > 0)
        with span("detect", frame):
            found = self.networks.detector(image_bgr, where)
        with span("pose", frame):
            new, strength = self._newcomers(image_bgr, followed, found)
        poses, scores = Poses.joined(followed, new), np.concatenate([scores, strength])
        # Tracked people take precedence over new ones.
        kept = person_rules.people(poses, scores * poses.flags + (np.arange(len(poses)) < len(followed)))
        poses, scores = poses[kept], scores[kept]
        steady = Steady.joined(steady, Steady.start(new.rois_px))[kept]
        self._before = _Seen(frame, size_px, turn, steady, scores)
        return as_detections(poses, scores * poses.flags, size_px, self.crop_factor), person_rules.boxes_px(poses)

    def _newcomers(self, image_bgr: Array, followed: Poses, found: Found) -> tuple[Poses, Array]:
        """Detected people who are not tracked yet, and the score of each.

        Among similar candidates the first is examined, and another only if that is not a person; it gets the best score
        of them all.
        """
        left = found[np.flatnonzero(radii_px(found.rois_px) > LEAST_RADIUS_PX)]
        left = left[np.flatnonzero(~person_rules.alike_rois(left.rois_px, followed.rois_px).any(1))]
        left = replace(left, scores=person_rules.best_alike(left.rois_px, left.scores))
        new, scores = Poses.joined(), np.zeros(0)
        for _ in range(MOST_LOOKS):
            if not len(left):
                break
            distinct = person_rules.distinct_rois(left.rois_px)
            these, left = left[distinct], left[np.setdiff1d(np.arange(len(left)), distinct)]
            first = self.networks.landmarks(image_bgr, these.rois_px)
            again = np.flatnonzero(first.flags >= person_rules.LEAST_FIRST_FLAG)
            first, these = first[again], these[again]
            second = self.networks.landmarks(image_bgr, first.rois_px)
            sure = np.flatnonzero(person_rules.sure(first, second, these.scores))
            # Each pass has an error of its own crop, which averaging reduces.
            new = Poses.joined(new, first[sure].mean(second[sure]))
            scores = np.concatenate([scores, these.scores[sure]])
            known = np.concatenate([these.rois_px[sure], new.rois_px])
            left = left[np.flatnonzero(~person_rules.alike_rois(left.rois_px, known).any(1))]
        return new, scores


@dataclass(frozen=True)
class _Seen:
    """Tracking state: the people of the last frame."""

    frame: int
    size_px: tuple[int, int]
    turn: int  # frames since all windows were searched
    steady: Steady
    scores: Array  # of their detection


def due(where: list[Window], turn: int, somebody: bool) -> list[Window]:
    """Windows to search in one frame of a video; `where` lists all windows, the whole image first.

    While nobody is tracked: the whole image and one other window. Otherwise one window every `EVERY` frames, the whole
    image alternating with another.
    """
    whole, others = where[:1], where[1:]
    if not somebody:
        return whole + others[turn % len(others) :][:1]
    look, rest = divmod(turn, EVERY)
    if rest:
        return []
    return whole if look % 2 else others[look // 2 % len(others) :][:1]


def as_detections(poses: Poses, scores: Array, size_px: tuple[int, int], crop_factor: float) -> Detections:
    """People in an image of size (width, height), with crop boxes and joints in the 30-joint set."""
    people = Detections.from_boxes(person_rules.boxes_px(poses), scores)
    return with_joints(people, poses.joints, SKELETON, size_px, crop_factor)
