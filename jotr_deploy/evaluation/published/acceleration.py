"""Acceleration error of people, frame by frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.support.aliases import Array

NOT_FOLLOWED = -1


def tracks_of(people: Sequence[Annotation]) -> Array:
    """Tracks of people by the truth: in one sequence, the same gender and the same shape.

    Sets give a person one shape for a whole sequence, and no id. If two people of one frame cannot be told
    apart, neither is tracked; nor is anybody in a set without sequences.

    Returns:
        (N,) int64, equal for the same person, else `NOT_FOLLOWED`.
    """
    numbers: dict[Any, int] = {}
    tracks = np.full(len(people), NOT_FOLLOWED)
    for place, person in enumerate(people):
        if person.sequence and person.fit is not None:
            who = person.sequence, person.fit.gender, np.asarray(person.fit.betas, np.float32).tobytes()
            tracks[place] = numbers.setdefault(who, len(numbers))
    at = [(track, person.frame) for track, person in zip(tracks.tolist(), people, strict=True)]
    times = Counter(at)
    tracks[[times[each] > 1 for each in at]] = NOT_FOLLOWED
    return tracks


def acceleration_errors_mm(gap_m: Array, tracks: Array, frames: Array) -> tuple[Array, Array]:
    """Acceleration error of everybody who is also in the frame before and the frame after.

    The mean over the joints of the length of the second difference of found minus true joints; both sides are relative
    to their pelvis. Nothing is measured across a frame that is missing.

    Args:
        gap_m: (N, J, 3) found minus true joints.
        tracks: (N,) of `tracks_of`.
        frames: (N,) whole numbers, consecutive in time.

    Returns:
        (K,) int64 indices of the people measured, and (K,) their errors in mm/frame^2.
    """
    order = np.lexsort((frames, tracks))
    track, frame = tracks[order], frames[order]
    together = (track[1:] == track[:-1]) & (frame[1:] - frame[:-1] == 1) & (track[1:] != NOT_FOLLOWED)
    middle = np.flatnonzero(together[1:] & together[:-1]) + 1
    before, at, after = (np.asarray(gap_m, np.float64)[order[middle + step]] for step in (-1, 0, 1))
    return order[middle], np.linalg.norm(before - 2 * at + after, axis=-1).mean(-1) * 1000
