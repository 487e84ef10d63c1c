"""Tracking: every person gets an id that stays with them through the clip.

People in a frame are matched with the positions predicted for those of earlier frames, at constant velocity. Similarity
comes from their joints and boxes, or from boxes alone where joints are unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from jotr_deploy.geometry.boxes import iou
from jotr_deploy.geometry.crop import VALID_CONFIDENCE
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.box_selection import LEAST_SHARED_JOINTS, pose_similarity
from jotr_deploy.support.aliases import Array

MEMORY_S = 1.0
"""Longest absence after which a person is still recognised."""
SAME = 0.2
"""Least similarity, 0..1, between a person and a predicted one for them to be matched."""
VELOCITY_S = 0.3
"""Averaging time of the velocity."""


@dataclass
class _Track:
    """A person as last seen, and their velocity."""

    id: int
    frame: int
    seen_s: float
    keypoints_px: Array  # (30, 3)
    box_px: Array  # (4,)
    velocity_px_s: Array = field(default_factory=lambda: np.zeros(2))
    followed_s: float = 0.0  # from first to last sighting

    def shift_px(self, seconds: float) -> Array:
        """(2,) displacement expected since the person was last seen."""
        return self.velocity_px_s * seconds

    def see(self, frame: int, now_s: float, keypoints_px: Array, box_px: Array) -> None:
        """Update with a sighting in a later frame."""
        seconds = now_s - self.seen_s
        measured_px_s = _moved_px(self, keypoints_px, box_px) / seconds
        self.followed_s += seconds
        share = seconds / min(self.followed_s, max(VELOCITY_S, seconds))
        self.velocity_px_s = self.velocity_px_s + share * (measured_px_s - self.velocity_px_s)
        self.frame, self.seen_s, self.keypoints_px, self.box_px = frame, now_s, keypoints_px, box_px


class Tracker:
    """Assigns track ids to the people of a clip, frame by frame.

    Everybody has an id from the first frame on: 1, 2, 3 and so on in order of appearance; none is used twice. People
    who are absent for up to `MEMORY_S` and reappear where they were heading keep their id; later they get a new one.
    Ids depend only on the frames so far: equal clips get equal ids.
    """

    def __init__(self, fps: float, every: int = 1) -> None:
        """`fps`: frame numbers per second of the source, above 0 (else ValueError); one frame in `every` is given."""
        if not fps > 0:
            raise ValueError(f"tracking needs a frame rate above 0, not {fps}")
        self.fps, self.every = fps, every
        self._tracks: list[_Track] = []
        self._given = 0
        self._last_frame = -1

    def __call__(self, people: Detections, frame: int, time_s: float | None = None) -> Detections:
        """The same people in the same order, with `track_ids`; existing ids are replaced.

        Args:
            people: of one frame, possibly none; boxes (N, 4) square or not, joints where they are known.
            frame: number in the source; increasing (else ValueError), gaps are allowed.
            time_s: timestamp, increasing too; None where only the frame rate is known.
        """
        if frame <= self._last_frame:
            raise ValueError(f"frame {frame} does not come after frame {self._last_frame}")
        self._last_frame = frame
        now_s = frame / self.fps if time_s is None else time_s
        memory_s = MEMORY_S + 1e-3  # times in films are rounded
        self._tracks = [
            each for each in self._tracks if now_s - each.seen_s <= memory_s or frame - each.frame <= self.every
        ]
        ids = np.full(len(people), -1)
        for at, person in pairs(self._alike(people, now_s)):
            track = self._tracks[at]
            track.see(frame, now_s, people.keypoints_px[person], people.boxes_px[person])
            ids[person] = track.id
        for person in np.flatnonzero(ids < 0).tolist():
            self._given += 1
            ids[person] = self._given
            self._tracks.append(_Track(self._given, frame, now_s, people.keypoints_px[person], people.boxes_px[person]))
        return replace(people, track_ids=ids)

    def _alike(self, people: Detections, now_s: float) -> Array:
        """(T, N) similarity in 0..1 of each person and each predicted track."""
        if not self._tracks or not len(people):
            return np.zeros((len(self._tracks), len(people)))
        keypoints_px, boxes_px = self._expected(now_s)
        boxes = iou(boxes_px, people.boxes_px)
        joints = pose_similarity(keypoints_px, boxes_px, people.keypoints_px, people.boxes_px)
        valid, seen = (
            (each[..., 2] > VALID_CONFIDENCE).astype(np.int64) for each in (keypoints_px, people.keypoints_px)
        )
        known = valid @ seen.T >= LEAST_SHARED_JOINTS
        return np.where(known, (joints + boxes) / 2, boxes)

    def _expected(self, now_s: float) -> tuple[Array, Array]:
        """Predicted joints (T, 30, 3) and boxes (T, 4) of all tracks."""
        shifts = np.stack([track.shift_px(now_s - track.seen_s) for track in self._tracks])
        keypoints_px = np.stack([track.keypoints_px for track in self._tracks]).astype(np.float64)
        keypoints_px[..., :2] += shifts[:, None]
        return keypoints_px, np.stack([track.box_px for track in self._tracks]) + np.tile(shifts, 2)


def pairs(alike: Array) -> Sequence[tuple[int, int]]:
    """Matched rows and columns, best match first; each at most once, all more similar than `SAME`."""
    left, found = alike.copy(), []
    while left.size:
        row, column = np.unravel_index(left.argmax(), left.shape)
        if not left[row, column] > SAME:
            break
        found.append((int(row), int(column)))
        left[row], left[:, column] = -1, -1
    return found


def _moved_px(track: _Track, keypoints_px: Array, box_px: Array) -> Array:
    """(2,) displacement of a person since last seen: from joints known both times, else from the box."""
    both = (track.keypoints_px[:, 2] > VALID_CONFIDENCE) & (keypoints_px[:, 2] > VALID_CONFIDENCE)
    if both.sum() >= LEAST_SHARED_JOINTS:  # a box also moves when an arm is occluded
        return np.median(keypoints_px[both, :2].astype(np.float64) - track.keypoints_px[both, :2], axis=0)
    step: Array = box_px.astype(np.float64) - track.box_px
    return (step[:2] + step[2:]) / 2
