"""Who is who from frame to frame: every person gets a number that stays with them through the clip.

People of a frame are matched with where those of earlier frames should be by now, at constant velocity. How well two
fit is told by their joints and their boxes, or by boxes alone where joints are unknown.
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
"""How long a person may be gone and still be known."""
SAME = 0.2
"""How alike, 0..1, a person must be to where somebody is expected."""
VELOCITY_S = 0.3
"""Velocity is the mean over about this long."""


@dataclass
class _Track:
    """Somebody as last seen, and how they move."""

    id: int
    frame: int
    seen_s: float
    keypoints_px: Array  # (30, 3)
    box_px: Array  # (4,)
    velocity_px_s: Array = field(default_factory=lambda: np.zeros(2))
    followed_s: float = 0.0  # from the first to the last time seen

    def shift_px(self, seconds: float) -> Array:
        """(2,) how far they should have moved since they were last seen."""
        return self.velocity_px_s * seconds

    def see(self, frame: int, now_s: float, keypoints_px: Array, box_px: Array) -> None:
        """They are here now, in a later frame than before."""
        seconds = now_s - self.seen_s
        measured_px_s = _moved_px(self, keypoints_px, box_px) / seconds
        self.followed_s += seconds
        share = seconds / min(self.followed_s, max(VELOCITY_S, seconds))
        self.velocity_px_s = self.velocity_px_s + share * (measured_px_s - self.velocity_px_s)
        self.frame, self.seen_s, self.keypoints_px, self.box_px = frame, now_s, keypoints_px, box_px


class Tracker:
    """Numbers the people of a clip, frame by frame.

    Everybody has an id from the first frame on: 1, 2, 3 and so on in the order of appearance, and none is given twice.
    Who is gone for up to `MEMORY_S` and comes back where they were heading keeps theirs; later they are somebody new.
    Everything follows from the frames so far: equal clips get equal ids.
    """

    def __init__(self, fps: float, every: int = 1) -> None:
        """`fps`: frame numbers in a second of the source, above 0 (else ValueError); one frame in `every` is given."""
        if not fps > 0:
            raise ValueError(f"tracking needs a frame rate above 0, not {fps}")
        self.fps, self.every = fps, every
        self._tracks: list[_Track] = []
        self._given = 0
        self._last_frame = -1

    def __call__(self, people: Detections, frame: int, time_s: float | None = None) -> Detections:
        """The same people in the same order, with `track_ids`; ids that they had are replaced.

        Args:
            people: of one frame, perhaps nobody; boxes (N, 4) square or not, joints where they are known.
            frame: its number in the source; numbers ascend (else ValueError) and may leave some out.
            time_s: when it is shown, ascending too; None where only the frame rate tells.
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
        """(T, N) in 0..1: how well each person fits where each track should be now."""
        if not self._tracks or not len(people):
            return np.zeros((len(self._tracks), len(people)))
        keypoints_px, boxes_px = self._expected(now_s)
        boxes = iou(boxes_px, people.boxes_px)
        everyone = np.concatenate([keypoints_px, people.keypoints_px])
        joints = pose_similarity(everyone, np.concatenate([boxes_px, people.boxes_px]))
        valid = (everyone[..., 2] > VALID_CONFIDENCE).astype(np.int64)
        count = len(self._tracks)
        known = valid[:count] @ valid[count:].T >= LEAST_SHARED_JOINTS
        return np.where(known, (joints[:count, count:] + boxes) / 2, boxes)

    def _expected(self, now_s: float) -> tuple[Array, Array]:
        """Joints (T, 30, 3) and boxes (T, 4) of all tracks, moved to where they should be by now."""
        shifts = np.stack([track.shift_px(now_s - track.seen_s) for track in self._tracks])
        keypoints_px = np.stack([track.keypoints_px for track in self._tracks]).astype(np.float64)
        keypoints_px[..., :2] += shifts[:, None]
        return keypoints_px, np.stack([track.box_px for track in self._tracks]) + np.tile(shifts, 2)


def pairs(alike: Array) -> Sequence[tuple[int, int]]:
    """Rows and columns that belong together, the best fit first; each at most once, all more alike than `SAME`."""
    left, found = alike.copy(), []
    while left.size:
        row, column = np.unravel_index(left.argmax(), left.shape)
        if not left[row, column] > SAME:
            break
        found.append((int(row), int(column)))
        left[row], left[:, column] = -1, -1
    return found


def _moved_px(track: _Track, keypoints_px: Array, box_px: Array) -> Array:
    """(2,) how far somebody went since last seen: by the joints known both times, else by the box."""
    both = (track.keypoints_px[:, 2] > VALID_CONFIDENCE) & (keypoints_px[:, 2] > VALID_CONFIDENCE)
    if both.sum() >= LEAST_SHARED_JOINTS:  # a box also moves when an arm is hidden
        return np.median(keypoints_px[both, :2].astype(np.float64) - track.keypoints_px[both, :2], axis=0)
    step: Array = box_px.astype(np.float64) - track.box_px
    return (step[:2] + step[2:]) / 2
