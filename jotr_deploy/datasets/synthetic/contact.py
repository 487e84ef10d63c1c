"""Self-intersection test of a pose, with balls in place of limbs to make it cheap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jotr_deploy.datasets.synthetic.anatomy import joints_m, rest_joints_m
from jotr_deploy.support.aliases import Array

# Part, from joint, to joint, places between them (0 the first, above 1 beyond the second), radius in metres.
_BONES: tuple[tuple[str, int, int, tuple[float, ...], float], ...] = (
    *((f"{side}_arm", *j, (0.55, 0.8, 1.0), 0.043) for side, j in (("l", (16, 18)), ("r", (17, 19)))),
    *((f"{side}_fore", *j, (0.25, 0.5, 0.75, 1.0), 0.034) for side, j in (("l", (18, 20)), ("r", (19, 21)))),
    *((f"{side}_fore", *j, (0.5, 1.1), 0.035) for side, j in (("l", (20, 22)), ("r", (21, 23)))),
    *((f"{side}_thigh", *j, (0.3, 0.5, 0.7, 0.9), 0.075) for side, j in (("l", (1, 4)), ("r", (2, 5)))),
    *((f"{side}_shin", *j, (0.1, 0.3, 0.5, 0.75, 1.0), 0.05) for side, j in (("l", (4, 7)), ("r", (5, 8)))),
    *((f"{side}_shin", *j, (0.5, 1.2), 0.04) for side, j in (("l", (7, 10)), ("r", (8, 11)))),
    ("head", 15, 15, (0.0,), 0.09),
)
# The trunk is wider than deep: two balls at each height, at these offsets from their joint.
_TRUNK: tuple[tuple[str, int, tuple[float, float, float], float], ...] = (
    *(("pelvis", 0, (x, -0.06, 0.0), 0.1) for x in (-0.075, 0.075)),
    *(("belly", 3, (x, 0.02, 0.02), 0.09) for x in (-0.045, 0.045)),
    *(("chest", 6, (x, 0.03, 0.015), 0.1) for x in (-0.05, 0.05)),
    *(("chest", 9, (x, 0.06, 0.0), 0.1) for x in (-0.07, 0.07)),
    ("head", 15, (0.0, 0.08, 0.02), 0.105),
)
_APART: tuple[tuple[str, str], ...] = (
    *(("l_" + a, "r_" + b) for a in ("arm", "fore") for b in ("arm", "fore")),
    *(("l_" + a, "r_" + b) for a in ("thigh", "shin") for b in ("thigh", "shin")),
    *((s + "_fore", o + b) for s in "lr" for o in "lr" for b in ("_thigh", "_shin")),
    *((s + "_fore", b) for s in "lr" for b in ("head", "pelvis", "belly", "chest")),
    *((s + "_arm", b) for s in "lr" for b in ("head", "pelvis", "belly", "chest")),
    *((s + "_thigh", b) for s in "lr" for b in ("belly", "chest")),
    *((s + "_shin", b) for s in "lr" for b in ("pelvis", "belly", "chest")),
)


@dataclass(frozen=True)
class _Balls:
    owner: Array  # (S,) the joint each moves with
    offset_m: Array  # (S, 3) from that joint at rest
    first: Array  # (K,) the balls of the pairs that must not meet
    second: Array
    sum_m: Array  # (K,) their two radii


@lru_cache(maxsize=1)
def _balls() -> _Balls:
    rest = rest_joints_m()
    made = [(part, joint, np.array(offset), radius) for part, joint, offset, radius in _TRUNK]
    made += [(part, a, t * (rest[b] - rest[a]), radius) for part, a, b, places, radius in _BONES for t in places]
    parts = np.array([part for part, *_ in made])
    radius = np.array([ball[3] for ball in made])
    pairs = [np.argwhere(np.outer(parts == a, parts == b)) for a, b in _APART]
    first, second = np.concatenate(pairs).T
    return _Balls(
        np.array([ball[1] for ball in made]), np.array([ball[2] for ball in made]),
        first, second, radius[first] + radius[second],
    )  # fmt: skip


def overlap_m(rotations: Array) -> Array:
    """(N, 24, 3, 3) -> (N,) penetration depth of the worst pair of body parts, metres; negative if free."""
    balls = _balls()
    world, joints = joints_m(rotations)
    centres = joints[:, balls.owner] + (world[:, balls.owner] @ balls.offset_m[:, :, None])[..., 0]
    x, y, z = np.moveaxis(centres, -1, 0).astype(np.float32)
    squared = sum((axis[:, balls.first] - axis[:, balls.second]) ** 2 for axis in (x, y, z))
    overlap: Array = (balls.sum_m - np.sqrt(squared)).max(1)
    return overlap
