"""Synthetic errors of 2-D joints, like those of a pose network, for training and evaluation with true joints.

Normal errors are those of a good pose network. The kinds of the published training (docs/network.md)
are those of one that is often quite wrong: every joint is jittered, missed, taken for its mirror image, taken from
another person, or good. There an error of size s lies at object keypoint similarity s from where it belongs.
"""

from __future__ import annotations

import numpy as np

from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX, mirrored_order, to_smpl30
from jotr_deploy.support.aliases import Array

KINDS = ("jitter", "miss", "inversion", "swap", "good")
JITTER, MISS, INVERSION, SWAP, GOOD = range(len(KINDS))
# The spread of annotators for each COCO-17 joint, relative to the root of the person's area.
SIGMA = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
TRIES = np.array([500, 2000, 500, 500, 125])
"""Points tried for each kind, for miss and swap around each centre, before the kind is given up."""
FIRST_TRIES = 24

DEVIATION, HIDDEN_FACTOR, NOT_FOUND = 2.5 / 128, 3.0, 0.15
"""Normal errors: standard deviation of each coordinate as a share of the crop's side; factor for hidden joints, which a
pose network guesses; and how many of the joints are not found at all. A small network trained on synthetic scenes is
off by 2.8 and 6.9 px in a crop of 128, without the worst tenth."""

OVERLAPPING_IOU = 0.1
"""IoU of boxes from which people can be taken for each other."""
COCO17_IN_SMPL30 = [SMPL30_INDEX[name] for name in SKELETONS["coco17"]]

_JOINTS = len(SIGMA)
_MIRROR = np.array(mirrored_order(SKELETONS["coco17"]))
_PAIRED = np.arange(_JOINTS) != _MIRROR
_FACE, _UPPER, _LOWER = slice(0, 5), slice(5, 11), slice(11, 17)
# Candidate columns: own joint, own mirrored joint, then those of others.
_OWN, _MIRRORED, _OTHERS = 0, 1, 2


def distance_px(similarity: float, area_px2: float) -> Array:
    """(17,) distance at which each joint has this object keypoint similarity, for a person of this area."""
    distance: Array = np.sqrt(-2 * area_px2 * (2 * SIGMA) ** 2 * np.log(similarity))
    return distance


def error_probabilities(valid_joints: int, overlaps: int) -> Array:
    """(5, 17) probability of each of `KINDS` for each COCO-17 joint, columns sum to 1.

    Args:
        valid_joints: number of known joints of the person; the fewer, the more errors.
        overlaps: number of people whose boxes overlap the person's.
    """
    table = np.zeros((len(KINDS), _JOINTS))
    table[JITTER, [0, 13, 14, 15, 16]], table[JITTER, 1:11], table[JITTER, 11:13] = (
        (0.15, 0.20, 0.25) if valid_joints <= 10 else (0.10, 0.15, 0.20)
    )
    face, ends, other = (0.02, 0.05, 0.10) if valid_joints > 10 else (0.10, 0.13, 0.15)
    if valid_joints <= 5:
        face, ends, other = 0.15, 0.20, 0.25
    table[MISS] = other
    table[MISS, _FACE], table[MISS, [5, 6, 15, 16]] = face, ends
    table[INVERSION, _FACE], table[INVERSION, _UPPER], table[INVERSION, _LOWER] = 0.01, 0.03, 0.06
    crowded = (valid_joints <= 10 and overlaps > 0) or (valid_joints <= 15 and overlaps >= 3)
    table[SWAP, _FACE], table[SWAP, _UPPER], table[SWAP, _LOWER] = (0.02, 0.15, 0.10) if crowded else (0.01, 0.06, 0.03)
    table[GOOD] = 1 - table.sum(0)
    return table


def joints_with_normal_errors(
    rng: np.random.Generator, joints_px: Array, visible: Array, inside: Array, side_px: float,
    deviation: float = DEVIATION, not_found: float = NOT_FOUND,
) -> Array:  # fmt: skip
    """Joints of one person, each with a normal error, and a share of them missing.

    Args:
        rng: draws the errors; as many numbers, whatever is visible.
        joints_px: (30, 2) true joints.
        visible: (30,) bool; the others have errors larger by `HIDDEN_FACTOR`.
        inside: (30,) bool, those in the picture, hidden or not; the others are not found.
        side_px: of the person's square crop box.
        deviation: of each coordinate of a visible joint, as a share of that side.
        not_found: share of the joints in the picture that are missing.

    Returns:
        (30, 3) x, y, confidence 0 or 1; joints not in COCO-17 are zero, except midpoints.
    """
    deviation_px = deviation * side_px * np.where(visible, 1, HIDDEN_FACTOR)[COCO17_IN_SMPL30, None]
    found_px = joints_px[COCO17_IN_SMPL30] + deviation_px * rng.standard_normal((_JOINTS, 2))
    found = inside[COCO17_IN_SMPL30] & (rng.random(_JOINTS) >= not_found)
    return as_given(found_px, found)


def detected_joints(
    rng: np.random.Generator, joints_px: Array, labelled: Array, given: Array, area_px2: float, others_px: Array
) -> Array:
    """Joints of one person with errors of the published kinds, see `disturb_joints`.

    Args:
        rng: draws the errors.
        joints_px: (30, 2) true joints.
        labelled: (30,) bool, those in the picture, hidden or not: their number decides the frequency of errors.
        given: (30,) bool, those that the network finds.
        area_px2: of the person's tight box.
        others_px: (K, 17, 2) COCO-17 joints of the people who overlap.

    Returns:
        (30, 3) x, y, confidence 0 or 1; joints not in COCO-17, or without a possible error, are zero.
    """
    found_px = disturb_joints(rng, joints_px[COCO17_IN_SMPL30], labelled[COCO17_IN_SMPL30], area_px2, others_px)
    found = given[COCO17_IN_SMPL30] & found_px.any(-1)
    return as_given(found_px, found)


def as_given(joints_px: Array, found: Array) -> Array:
    """Joints for the network, (30, 3), from COCO-17 joints (17, 2) of one person and flags of those found (17,)."""
    return to_smpl30(np.concatenate([np.where(found[:, None], joints_px, 0), found[:, None]], 1)[None], "coco17")[0]


def disturb_joints(
    rng: np.random.Generator, joints_px: Array, visible: Array, area_px2: float, others_px: Array,
    others_known: Array | None = None,
) -> Array:  # fmt: skip
    """Joints of one person with synthetic errors.

    A kind of error for which no point can be found is left out and the other probabilities are renormalised; a joint
    without any is (0, 0).

    Args:
        rng: all randomness.
        joints_px: (17, 2) true COCO-17 joints in crop pixels. Distances grow with the root of `area_px2`, so any scale
            will do, as long as all arguments have the same.
        visible: (17,) bool, the joints that are known; the others are perturbed too, but no joint is taken
            for a mirror image that is not known.
        area_px2: area of the person's tight box in the same frame.
        others_px: (K, 17, 2) joints of the people whose boxes overlap the person's (IoU of 0.1 or more); K may be 0.
        others_known: (K, 17) bool, which of them are known; without it all.

    Returns:
        (17, 2) float32 in the frame of `joints_px`.
    """
    candidates, present = _candidates(joints_px, visible, others_px, others_known)
    table = error_probabilities(int(np.count_nonzero(visible)), len(others_px))
    # A race: kinds in the order of exponential waiting times. The first possible one is then distributed by the
    # probabilities renormalised over the possible ones, without having to find all of these.
    order = np.argsort(rng.standard_exponential(table.shape) / table, axis=0)
    reach = np.stack([distance_px(similarity, area_px2) for similarity in (0.85, 0.5, 0.1)], 1)
    out = np.zeros((_JOINTS, 2))
    missing = np.arange(_JOINTS)
    for place in range(len(KINDS)):
        # Any survivor of many tries is distributed like the first one: most joints need only a few.
        for tries in (FIRST_TRIES, None):
            if not len(missing):
                break
            found, points = _try(rng, order[place], missing, candidates, present, reach, tries)
            out[missing[found]] = points[found]
            missing = missing[~found]
    return out.astype(np.float32)


def _candidates(joints_px: Array, visible: Array, others_px: Array, others_known: Array | None) -> tuple[Array, Array]:
    """Places where each joint may be seen by mistake: (17, 2 + 2 K, 2), and flags of those that exist."""
    own, others = np.asarray(joints_px, np.float64), np.asarray(others_px, np.float64).reshape(-1, _JOINTS, 2)
    candidates = np.stack([own, own[_MIRROR], *others, *others[:, _MIRROR]], 1)
    present = np.repeat(_PAIRED[:, None], candidates.shape[1], 1)
    present[:, _OWN] = present[:, _OTHERS : _OTHERS + len(others)] = True
    present[:, _MIRRORED] &= np.asarray(visible, bool)[_MIRROR]
    if others_known is not None and len(others):
        known = np.asarray(others_known, bool).T
        present[:, _OTHERS:] &= np.concatenate([known, known[_MIRROR]], 1)
    return candidates, present


def _try(
    rng: np.random.Generator, kind_of: Array, joints: Array, candidates: Array, present: Array, reach: Array,
    tries: int | None,
) -> tuple[Array, Array]:  # fmt: skip
    """Search for a point of the given kind for each of these joints: (P,) found, (P, 2) the point.

    `tries` limits the attempts for all joints; without it each kind has its own limit.
    """
    kind, candidates, present, reach = kind_of[joints], candidates[joints], present[joints], reach[joints]
    each = np.arange(len(joints))[:, None]
    allowed = present & _centres(present.shape[1])[kind]
    centres = allowed.sum(1)
    limit = TRIES[kind] * centres - (0 if tries else FIRST_TRIES)
    attempts = tries or max(int(limit.max()), 1)

    pick = (rng.random((len(joints), attempts)) * centres[:, None]).astype(np.int64)
    centre = np.argsort(~allowed, axis=1, kind="stable")[each, pick]
    low = np.choose(kind, [reach[:, 0], reach[:, 1], 0, 0, 0])[:, None]
    high = np.choose(kind, [reach[:, 1], reach[:, 2], reach[:, 1], reach[:, 1], reach[:, 0]])[:, None]
    radius = low + (high - low) * rng.random(pick.shape)
    angle = 2 * np.pi * rng.random(pick.shape)
    points = candidates[each, centre] + radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)

    gap = points[:, :, None] - candidates[:, None]
    gap = np.sqrt(gap[..., 0] ** 2 + gap[..., 1] ** 2)
    keep_off = np.where((kind == MISS)[:, None], reach[:, 1:2], radius)
    column = np.arange(present.shape[1])
    counts = present & ((kind != SWAP)[:, None] | (column < _OTHERS))
    free = gap > keep_off[..., None]
    free |= ~counts[:, None] | (column == centre[..., None])
    survivors = free.all(2) & (np.arange(attempts) < limit[:, None])
    first = survivors.argmax(1)
    return survivors.any(1), points[each[:, 0], first]


def _centres(columns: int) -> Array:
    """(5, columns) candidates around which each kind of error lies."""
    table = np.zeros((len(KINDS), columns), bool)
    table[[JITTER, GOOD], _OWN] = True
    table[MISS] = True
    table[INVERSION, _MIRRORED] = True
    table[SWAP, _OTHERS:] = True
    return table
