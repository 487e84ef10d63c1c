"""People by BlazePose: found in windows of the picture, and followed by their joints through a film."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.blazepose import person_rules
from jotr_deploy.runtime.finding.blazepose.landmarks import BlazeLandmarks, Poses
from jotr_deploy.runtime.finding.blazepose.person_detector import BlazeDetector, Found
from jotr_deploy.runtime.finding.blazepose.rotated_crops import radii_px
from jotr_deploy.runtime.finding.blazepose.windows import Window, windows
from jotr_deploy.runtime.finding.people_source import with_joints
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.spans import Spans

Array = NDArray[Any]

SKELETON = "blazepose33"
EVERY = 2
"""Frames of a film for one window in which new people are looked for."""
LONGEST_STEP = 6
"""Frames from one that is given to the next, above which everybody is looked for anew."""
LEAST_RADIUS_PX = 1.0
"""Of the circle around a person."""


@dataclass(frozen=True)
class BlazePose:
    """Both networks, opened; any number of people sources share them."""

    detector: BlazeDetector
    landmarks: BlazeLandmarks


@contextmanager
def open_blazepose(
    detector: Path, landmarks: Path, device: str = "auto", threads: int | None = None
) -> Iterator[BlazePose]:
    """Both networks from their files; the sessions end with the block.

    Raises:
        SessionError: a file that no engine on this machine opens.
    """
    with ExitStack() as stack:
        found, joints = (
            stack.enter_context(open_session(path, device=device, threads=threads)) for path in (detector, landmarks)
        )
        yield BlazePose(BlazeDetector(found), BlazeLandmarks(joints))


@dataclass
class BlazePosePeople:
    """Finds the people of pictures or, with `film`, of the frames of one film, in order.

    On film people are followed by their joints, and the windows in which new ones are looked for are spread over the
    frames.
    """

    networks: BlazePose
    film: bool = False
    spans: Spans | None = None  # told of the stages "detect" and "pose"
    _before: _Seen | None = field(default=None, init=False)

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """See `PeopleSource`."""
        size_px = (image_bgr.shape[1], image_bgr.shape[0])
        before, span = self._before, self.spans or Spans()
        fresh = before is None or before.size_px != size_px or not 0 < frame - before.frame <= LONGEST_STEP
        followed, where = Poses.joined(), windows(size_px)
        scores, turn = np.zeros(0), 0
        if self.film and before is not None and not fresh:
            with span("pose", frame):
                followed = self.networks.landmarks(image_bgr, before.poses.rois_px)
            scores, turn = before.scores, before.turn + 1
            where = due(where, turn, len(followed) > 0)
        with span("detect", frame):
            found = self.networks.detector(image_bgr, where)
        with span("pose", frame):
            poses, scores = self._with_new(image_bgr, followed, scores, found)
        self._before = _Seen(frame, size_px, turn, poses, scores)
        return as_detections(poses, scores * poses.flags, size_px)

    def _with_new(self, image_bgr: Array, followed: Poses, scores: Array, found: Found) -> tuple[Poses, Array]:
        """Those who are followed and still there, and those found who are not one of them; with detection scores."""
        found = found[np.flatnonzero(radii_px(found.rois_px) > LEAST_RADIUS_PX)]
        found = found[np.flatnonzero(~person_rules.alike_rois(found.rois_px, followed.rois_px).any(1))]
        found = found[person_rules.distinct_rois(found.rois_px)]
        first = self.networks.landmarks(image_bgr, found.rois_px)
        again = np.flatnonzero(first.flags >= person_rules.LEAST_FIRST_FLAG)
        second = self.networks.landmarks(image_bgr, first.rois_px[again])
        sure = found.scores[again] * second.flags >= person_rules.LEAST_STRENGTH
        new = np.flatnonzero(sure & person_rules.agree(first[again], second))
        poses = Poses.joined(followed, second[new])
        strength = np.concatenate([scores, found.scores[again][new]])
        # Who is followed has been somebody for longer than who is new.
        rank = strength * poses.flags + (np.arange(len(poses)) < len(followed))
        kept = person_rules.people(poses, rank)
        return poses[kept], strength[kept]


@dataclass(frozen=True)
class _Seen:
    """The people of a frame, by whom those of the next are followed."""

    frame: int
    size_px: tuple[int, int]
    turn: int  # number of the frame since people were looked for everywhere
    poses: Poses
    scores: Array  # of their detection


def due(where: list[Window], turn: int, somebody: bool) -> list[Window]:
    """The windows of a frame of a film, of all there are, the whole picture first.

    Where nobody is followed the whole picture and one other; else one in every `EVERY` frames, the whole picture and
    another by turns.
    """
    whole, others = where[:1], where[1:]
    if not somebody:
        return whole + others[turn % len(others) :][:1]
    look, rest = divmod(turn, EVERY)
    if rest:
        return []
    return whole if look % 2 else others[look // 2 % len(others) :][:1]


def as_detections(poses: Poses, scores: Array, size_px: tuple[int, int]) -> Detections:
    """People in an image of (width, height) with their crop boxes and their joints in the 30-joint set."""
    people = Detections.from_boxes(person_rules.boxes_px(poses), scores)
    return with_joints(people, poses.joints, SKELETON, size_px)
