"""Temporal smoothing of the people in a clip: causal, or offline with future frames taken into account.

See `docs/tracking.md` for the formulas.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from jotr_deploy.people import People
from jotr_deploy.runtime.body_session import Body
from jotr_deploy.runtime.motion.smoothed_state import SPACES, Motion, motions_of, on_line, tracked, with_motions
from jotr_deploy.runtime.sources.frame_source import Frame, moment
from jotr_deploy.support.aliases import Array

Mode = Literal["one-euro", "two-sided"]

RESTART_S = 1.0
"""A person absent for longer is smoothed as if new."""
SHAPE_S = 2.0
"""Averaging time of the shape: the true shape is constant, only its estimate improves."""
SPREAD_S = 0.05
"""Standard deviation of the two-sided window, which ends at three of them."""
TOLERANCE = 0.01
"""Frames within this distance, in frames, count as the same moment: times in films are rounded."""
SPEED_HZ = 2.0
"""Cut-off frequency of the velocity estimate that sets the cut-off of a One-Euro filter."""


class Cutoff(NamedTuple):
    """Cut-off of a One-Euro filter: slow motion is smoothed strongly, fast motion is followed."""

    least_hz: float
    hz_per_speed: float  # by part of `Motion`: per rad/s, limbs/s, 1/s


CUTOFFS = (Cutoff(1.0, 2.0), Cutoff(2.0, 2.0), Cutoff(1.0, 5.0))


class Smoother(Protocol):
    """A filter that takes frames in order and returns each once, in order, with smoothed people.

    `pose_rad`, `betas` and `translation_m` are smoothed; `vertices_m` and `joints_m` are recomputed from them. The
    person's camera, boxes, `keypoints_px`, `joints_img` and the raw `cam` stay as measured. People without a track id
    pass unchanged.
    """

    def push(self, frame: Frame, people: People) -> list[tuple[Frame, People]]:
        """Take the next frame; return the frames that are ready now, possibly none."""
        ...

    def flush(self) -> list[tuple[Frame, People]]:
        """Return the frames still held back, at the end of the clip."""
        ...


def open_smoother(mode: Mode, body: Body, fps: float) -> Smoother:
    """The smoother of that name; `fps`: frame numbers per second of the source, above 0 (else ValueError).

    Frames that carry a timestamp are taken at that time.
    """
    return OneEuro(body, fps) if mode == "one-euro" else TwoSided(body, fps)


class OneEuro:
    """One-Euro filters (Casiez, Roussel and Vogel 2012): one per joint, one for position and one for size.

    Causal: every frame is returned at once.
    """

    def __init__(self, body: Body, fps: float) -> None:
        self._body, self._fps, self._shapes = body, _checked(fps), Shapes(fps)
        self._people: dict[int, _Followed] = {}

    def push(self, frame: Frame, people: People) -> list[tuple[Frame, People]]:
        """Smooth a frame and return it at once."""
        at = tracked(people)
        ids = people.track_ids[at].tolist()
        now = moment(frame, self._fps)
        self._shapes.see(now, ids, people.betas[at])
        oldest = now - RESTART_S * self._fps - TOLERANCE
        before = {track: each for track, each in self._people.items() if each.moment >= oldest}
        for track, motion in zip(ids, motions_of(people[at]), strict=True):
            known = before.get(track)
            before[track] = known.next(now, motion, self._fps) if known else _Followed.start(now, motion)
        self._people = before
        smooth = [before[track].smooth for track in ids]
        return [(frame, with_motions(people, at, smooth, self._shapes.of(ids), self._body))]

    def flush(self) -> list[tuple[Frame, People]]:
        """Return nothing, as no frame is held back."""
        return []


class _Followed(NamedTuple):
    """The One-Euro filters of a person."""

    moment: float  # of the last frame
    raw: Motion
    smooth: Motion
    velocity: tuple[Array, ...]  # per second, for each part of the motion

    @classmethod
    def start(cls, now: float, motion: Motion) -> _Followed:
        """Filters of a person seen for the first time."""
        at_rest = tuple(space.between(part, part) for space, part in zip(SPACES, motion, strict=True))
        return cls(now, motion, motion, at_rest)

    def next(self, now: float, raw: Motion, fps: float) -> _Followed:
        """Filters after one more measurement."""
        seconds = (now - self.moment) / fps
        units = (1.0, np.exp(raw.log_limb_px), 1.0)
        smooth, velocity = [], []
        for part, (space, cutoff, unit) in enumerate(zip(SPACES, CUTOFFS, units, strict=True)):
            measured = space.between(self.raw[part], raw[part]) / seconds
            velocity.append(self.velocity[part] + low_pass(SPEED_HZ, seconds) * (measured - self.velocity[part]))
            speed = np.linalg.norm(velocity[part], axis=-1, keepdims=True) / unit
            taken = low_pass(cutoff.least_hz + cutoff.hz_per_speed * speed, seconds)
            smooth.append(space.moved(self.smooth[part], taken * space.between(self.smooth[part], raw[part])))
        return _Followed(now, raw, Motion(*smooth), tuple(velocity))


class TwoSided:
    """Local linear regression over time in a window around each frame, with Gaussian weights.

    In the tangent space a straight line is a steady rotation, so steady rotations and motions are preserved without
    lag, also at the ends of a track and beside gaps, where the window is one-sided.

    Offline: a frame is returned `reach` frames later, in time at the mean rate; until then it is held with its image.
    """

    def __init__(self, body: Body, fps: float) -> None:
        self._body, self._fps, self._shapes = body, _checked(fps), Shapes(fps)
        self.reach = math.ceil(3 * SPREAD_S * fps)
        self._seen: deque[tuple[float, dict[int, Motion]]] = deque()  # by time and track
        self._waiting: deque[tuple[Frame, People]] = deque()

    def push(self, frame: Frame, people: People) -> list[tuple[Frame, People]]:
        """Take a frame; return those whose window is complete."""
        at = tracked(people)
        ids = people.track_ids[at].tolist()
        now = moment(frame, self._fps)
        before = self._up_to(now - self.reach - 1)  # their windows are complete, and shapes may be forgotten now
        self._shapes.see(now, ids, people.betas[at])
        self._seen.append((now, dict(zip(ids, motions_of(people[at]), strict=True))))
        self._waiting.append((frame, people))
        return before + self._up_to(now - self.reach)

    def flush(self) -> list[tuple[Frame, People]]:
        """Return the frames still held back."""
        return self._up_to(math.inf) if self._waiting else []

    def _up_to(self, last: float) -> list[tuple[Frame, People]]:
        """Frames up to a moment, smoothed; drops data that no later frame needs."""
        done = []
        while self._waiting and moment(self._waiting[0][0], self._fps) <= last + TOLERANCE:
            frame, people = self._waiting.popleft()
            now = moment(frame, self._fps)
            while self._seen[0][0] < now - self.reach - TOLERANCE:
                self._seen.popleft()
            at = tracked(people)
            ids = people.track_ids[at].tolist()
            smooth = [self._smooth(now, track) for track in ids]
            done.append((frame, with_motions(people, at, smooth, self._shapes.of(ids), self._body)))
        return done

    def _smooth(self, now: float, track: int) -> Motion:
        last = now + self.reach + TOLERANCE
        window = {n: seen[track] for n, seen in self._seen if n <= last and track in seen}
        seconds = (np.array(list(window)) - now) / self._fps
        weights = np.exp(-np.square(seconds / SPREAD_S) / 2)
        centre = list(window).index(now)
        parts = [np.stack(values) for values in zip(*window.values(), strict=True)]
        return Motion(*(on_line(s, each, centre, seconds, weights) for s, each in zip(SPACES, parts, strict=True)))


class Shapes:
    """Shape of every tracked person: a running mean, dominated by the last `SHAPE_S`."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._means: dict[int, tuple[float, int, Array]] = {}  # by track: last moment, frames seen, mean (10,)
        self._last = -math.inf

    def see(self, now: float, tracks: Sequence[int], betas: Array) -> None:
        """Add the shapes (K, 10) of people at a moment; see `moment`.

        Raises:
            ValueError: the moment is not later than the one before.
        """
        if now <= self._last:
            raise ValueError(f"frame {now:g} does not come after frame {self._last:g}")
        self._last = now
        oldest = now - RESTART_S * self._fps - TOLERANCE
        self._means = {track: each for track, each in self._means.items() if each[0] >= oldest}
        for track, measured in zip(tracks, betas.astype(np.float64), strict=True):
            last, count, mean = self._means.get(track, (now, 0, measured))
            taken = max(1 / (count + 1), 1 - math.exp((last - now) / self._fps / SHAPE_S))
            self._means[track] = (now, count + 1, mean + taken * (measured - mean))

    def times_seen(self, track: int) -> int:
        """Number of frames in which a track's shape was seen; 0 for unknown and forgotten tracks."""
        return self._means[track][1] if track in self._means else 0

    def of(self, tracks: Sequence[int]) -> Array:
        """(K, 10) shapes of people seen within `RESTART_S`."""
        return np.array([self._means[track][2] for track in tracks]).reshape(-1, 10)


def low_pass(cutoff_hz: Any, seconds: float) -> Any:
    """Weight (0..1) of a new value in a first-order low-pass after this time step."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * seconds))


def _checked(fps: float) -> float:
    if not fps > 0:
        raise ValueError(f"smoothing needs a frame rate above 0, not {fps}")
    return fps
