"""Natural poses from hand-made rules: families of whole-body postures, varied within the joints' limits.

The lower body and each arm have families of their own, drawn with weights and combined; the trunk varies with both.
A pose that pushes one part of the body through another is drawn again.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from jotr_deploy.datasets.synthetic.anatomy import LIMBS, TRUNK, joints_m, pose_matrices
from jotr_deploy.datasets.synthetic.contact import overlap_m
from jotr_deploy.geometry.rotations import axis_angle_from_matrix
from jotr_deploy.support.aliases import Array

# Degrees of a movement: (mean, spread shared by both sides, spread of each side); mean may be (left, right). A movement
# that is not listed has its value of `_LOWER_REST` or `_ARM_REST`.
Table = dict[str, tuple["float | tuple[float, float]", float, float]]

# Soft parts give way by this much before it counts as one limb in another.
TOUCH_M = 0.02
TRIES = 8
SPREAD_LIMIT = 2.0

_LOWER_REST: Table = {
    "hip_flex": (2, 3, 3), "hip_abd": (3, 2, 2), "hip_rot": (7, 5, 5), "knee": (5, 4, 4), "dorsi": (0, 2, 3),
    "foot_roll": (0, 2, 3), "toe": (0, 2, 2),
}  # fmt: skip
# Family: weight, how the body is held ("feet", "left" foot, "knees", "seat", "air"), table.
_LOWER: dict[str, tuple[float, str, Table]] = {
    "stand": (3.0, "feet", {}),
    "wide": (1.0, "feet", {"hip_abd": (15, 5, 3), "knee": (10, 8, 5), "hip_flex": (7, 6, 4), "hip_rot": (12, 6, 5)}),
    "at_ease": (1.5, "feet", {"hip_flex": ((0, 15), 2, 5), "knee": ((3, 26), 2, 6), "hip_rot": ((6, 20), 3, 7),
                              "hip_abd": ((0, 9), 2, 3)}),
    "walk": (2.5, "feet", {}),
    "run": (1.2, "air", {}),
    "step_up": (0.7, "feet", {"hip_flex": ((55, 5), 8, 5), "knee": ((62, 12), 10, 5)}),
    "lunge": (0.7, "feet", {"hip_flex": ((66, -16), 12, 6), "knee": ((72, 28), 14, 10), "hip_abd": (2, 3, 3)}),
    "squat_half": (0.7, "feet", {"hip_flex": (50, 14, 6), "knee": (62, 16, 6), "hip_abd": (14, 6, 4),
                                 "hip_rot": (14, 6, 5)}),
    "crouch": (0.7, "feet", {"hip_flex": (100, 9, 5), "knee": (118, 10, 5), "hip_abd": (18, 7, 4),
                             "hip_rot": (12, 6, 5)}),
    "bend_down": (0.9, "feet", {"hip_flex": (52, 20, 4), "knee": (14, 10, 5), "hip_abd": (6, 4, 3)}),
    "kneel": (0.5, "knees", {"hip_flex": (8, 8, 4), "knee": (92, 10, 3), "dorsi": (-38, 4, 3)}),
    "kneel_one": (0.6, "feet", {"hip_flex": ((88, 2), 6, 5), "knee": ((90, 92), 8, 6), "dorsi": ((0, -10), 5, 10),
                                "toe": ((0, 30), 2, 5)}),
    "one_leg": (0.6, "left", {"hip_flex": ((3, 75), 3, 16), "knee": ((6, 75), 3, 24), "hip_abd": ((0, 6), 3, 5)}),
    "kick": (0.5, "left", {"hip_flex": ((4, 55), 4, 20), "knee": ((12, 22), 5, 12), "hip_abd": ((2, 10), 3, 12),
                           "dorsi": ((0, -15), 3, 8)}),
    "jump": (0.5, "air", {"hip_flex": (22, 16, 12), "knee": (38, 22, 16), "hip_abd": (9, 6, 5), "dorsi": (-25, 8, 5)}),
    "sit": (2.5, "seat", {"hip_flex": (86, 7, 4), "knee": (86, 13, 8), "hip_abd": (8, 6, 5), "hip_rot": (2, 5, 5)}),
    "sit_back": (0.6, "seat", {"hip_flex": (70, 8, 5), "knee": (45, 14, 12), "hip_abd": (8, 6, 5)}),
    "free": (1.0, "feet", {"hip_flex": (25, 18, 22), "knee": (38, 20, 22), "hip_abd": (10, 8, 9),
                           "hip_rot": (8, 10, 12)}),
    # Of wide scenes only.
    "sit_floor": (0.0, "seat", {"hip_flex": (95, 12, 10), "knee": (60, 35, 20), "hip_abd": (12, 8, 6),
                                "hip_rot": (8, 8, 8)}),
    "cross_legged": (0.0, "seat", {"hip_flex": (92, 8, 5), "knee": (125, 8, 6), "hip_abd": (36, 6, 5),
                                   "hip_rot": (38, 5, 4)}),
    "reach_down": (0.0, "feet", {"hip_flex": (95, 14, 5), "knee": (20, 16, 8), "hip_abd": (8, 5, 4)}),
}  # fmt: skip

_ARM_REST: Table = {
    "arm_flex": (2, 5, 7), "arm_abd": (10, 4, 3), "arm_roll": (12, 8, 9), "elbow": (18, 8, 8), "pronate": (0, 12, 14),
    "wrist_bend": (0, 5, 9), "wrist_dev": (0, 3, 5), "shrug": (2, 3, 2), "protract": (0, 4, 3),
}  # fmt: skip
# Weight as what both arms do, weight as what one arm does, table. Asymmetric tables are for both arms only.
_ARMS: dict[str, tuple[float, float, Table]] = {
    "hang": (4.0, 3.0, {}),
    "swing": (0.0, 0.0, {}),  # of walking and running, as "lap" is of sitting
    "reach": (0.8, 1.2, {"arm_flex": (72, 14, 10), "arm_abd": (8, 6, 10), "arm_roll": (5, 12, 15),
                         "elbow": (25, 14, 12), "protract": (9, 4, 3)}),
    "raise": (0.9, 0.8, {"arm_flex": (155, 12, 10), "arm_abd": (18, 10, 7), "arm_roll": (0, 12, 10),
                         "elbow": (24, 14, 12)}),
    "wave": (0.2, 0.8, {"arm_flex": (15, 10, 12), "arm_abd": (72, 10, 12), "arm_roll": (-70, 8, 10),
                        "elbow": (85, 15, 20)}),
    "sideways": (0.8, 0.7, {"arm_flex": (5, 8, 8), "arm_abd": (82, 14, 9), "arm_roll": (0, 20, 12),
                            "elbow": (14, 10, 8)}),
    "on_hip": (0.8, 0.7, {"arm_flex": (-22, 4, 4), "arm_abd": (46, 5, 4), "arm_roll": (50, 6, 5), "elbow": (92, 7, 5),
                          "pronate": (20, 10, 10), "wrist_bend": (-20, 6, 6)}),
    "phone": (0.1, 0.8, {"arm_flex": (45, 8, 8), "arm_abd": (28, 6, 6), "arm_roll": (-12, 8, 8), "elbow": (136, 5, 4)}),
    "look_at_hand": (0.5, 0.6, {"arm_flex": (38, 10, 7), "arm_abd": (8, 5, 5), "arm_roll": (22, 10, 8),
                                "elbow": (92, 14, 10)}),
    "in_pocket": (0.4, 0.5, {"arm_flex": (-12, 4, 4), "arm_abd": (16, 3, 3), "arm_roll": (22, 5, 6),
                             "elbow": (38, 6, 6)}),
    "guard": (0.6, 0.3, {"arm_flex": (42, 12, 10), "arm_abd": (14, 7, 7), "arm_roll": (4, 10, 12),
                         "elbow": (112, 14, 10)}),
    "throw": (0.1, 0.6, {"arm_flex": (10, 12, 10), "arm_abd": (95, 12, 10), "arm_roll": (-55, 15, 15),
                         "elbow": (75, 20, 18)}),
    "pull_up": (0.3, 0.2, {"arm_flex": (125, 14, 10), "arm_abd": (28, 10, 8), "arm_roll": (5, 12, 10),
                           "elbow": (85, 20, 12)}),
    "behind_back": (0.3, 0.3, {"arm_flex": (-32, 5, 5), "arm_abd": (14, 4, 4), "arm_roll": (48, 8, 8),
                               "elbow": (58, 10, 8)}),
    "behind_head": (0.4, 0.2, {"arm_flex": (120, 10, 7), "arm_abd": (52, 9, 6), "arm_roll": (-20, 10, 8),
                               "elbow": (128, 8, 6)}),
    "carry": (0.7, 0.4, {"arm_flex": (22, 9, 5), "arm_abd": (9, 4, 3), "arm_roll": (10, 8, 6), "elbow": (84, 12, 7)}),
    "clasp": (0.8, 0.0, {"arm_flex": (20, 8, 3), "arm_abd": (10, 3, 2), "arm_roll": (45, 6, 4), "elbow": (60, 14, 4)}),
    "clap": (0.4, 0.0, {"arm_flex": (48, 12, 4), "arm_abd": (12, 4, 3), "arm_roll": (38, 6, 4), "elbow": (76, 12, 5)}),
    "crossed": (0.9, 0.0, {"arm_flex": ((54, 30), 4, 3), "arm_abd": (6, 2, 2), "arm_roll": (65, 4, 3),
                           "elbow": ((98, 87), 5, 3), "protract": (10, 3, 2), "wrist_bend": (0, 4, 4)}),
    "lap": (0.0, 0.0, {"arm_flex": (30, 7, 5), "arm_abd": (7, 4, 3), "arm_roll": (18, 7, 5), "elbow": (50, 10, 7)}),
    "free": (1.0, 1.5, {"arm_flex": (50, 30, 35), "arm_abd": (28, 16, 24), "arm_roll": (5, 20, 28),
                        "elbow": (60, 25, 30), "pronate": (0, 20, 25), "wrist_bend": (0, 10, 16)}),
}  # fmt: skip
SAME_FOR_BOTH_ARMS = 0.55
# Weights of wide scenes, where they differ.
_WIDE_LOWER = {
    "bend_down": 2.0, "reach_down": 1.5, "crouch": 1.5, "squat_half": 1.2, "lunge": 1.2, "kneel": 1.0, "kneel_one": 1.0,
    "sit_floor": 1.5, "cross_legged": 1.0, "free": 2.5,
}  # fmt: skip
_WIDE_ARMS = {
    "reach": (2.5, 3.0), "raise": (2.0, 2.0), "sideways": (1.2, 1.2), "pull_up": (1.0, 0.8), "throw": (0.4, 1.2),
    "free": (2.5, 3.5),
}  # fmt: skip

_TRUNK: dict[str, tuple[float, float]] = {
    "tilt": (2, 3), "lean": (0, 1.5), "bend": (4, 6), "side": (0, 4), "twist": (0, 7), "nod": (4, 11), "tip": (0, 5),
    "turn": (0, 20),
}  # fmt: skip
LIVELY, LIVELY_SPREAD = 0.2, 2.2
_WIDE_LIVELY = 0.5
# The share of the body's mass that goes with each joint, in hundredths.
_MASS = np.array([14, 6, 6, 8, 5, 5, 8, 2, 2, 8, 1, 1, 3, 3, 3, 6, 3, 3, 2, 2, 1, 1, 1, 1], np.float64)
_MIRROR = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])


def sample_poses(rng: np.random.Generator, count: int) -> Array:
    """(count, 23, 3) float32 axis-angle of SMPL joints 1..23, radians; the hands (22, 23) are zero."""
    return sample_stances(rng, count)[:, 1:]


def sample_stances(rng: np.random.Generator, count: int, wide: bool = False) -> Array:
    """(count, 24, 3) float32 axis-angle of all joints, radians.

    As `sample_poses`, and the root holds the pelvis so that the body is in balance: a rotation in the frame of an
    upright body, y up, that looks along z. Turn the body about the vertical by a rotation to the left of it. With
    `wide`, more people bend, sit on the ground, crouch, reach and twist.
    """
    lower, arms = _draw_families(rng, count, wide)
    lively = _WIDE_LIVELY if wide else LIVELY
    rotations = _draw(rng, lower, arms, lively)
    overlap = overlap_m(rotations)
    for _ in range(TRIES):
        again = np.flatnonzero(overlap > TOUCH_M)
        if not len(again):
            break
        other = _draw(rng, lower[again], arms[again], lively)
        other_overlap = overlap_m(other)
        better = other_overlap < overlap[again]
        rotations[again[better]], overlap[again[better]] = other[better], other_overlap[better]
    stances = axis_angle_from_matrix(rotations)
    mirrored = rng.random(count) < 0.5
    stances[mirrored] = stances[mirrored][:, _MIRROR] * np.array([1, -1, -1])
    stances[:, 22:] = 0
    return stances.astype(np.float32)


def _draw_families(rng: np.random.Generator, count: int, wide: bool) -> tuple[Array, Array]:
    """Numbers of the families: lower body (N,), left and right arm (N, 2)."""
    legs = {name: weight for name, (weight, _, _) in _LOWER.items()} | (_WIDE_LOWER if wide else {})
    hands = {name: weights for name, (*weights, _) in _ARMS.items()} | (_WIDE_ARMS if wide else {})
    lower = _choice(rng, list(legs.values()), count)
    both = _choice(rng, [weight for weight, _ in hands.values()], count)
    single = np.stack([_choice(rng, [weight for _, weight in hands.values()], count) for _ in range(2)], 1)
    arms = np.where(rng.random((count, 1)) < SAME_FOR_BOTH_ARMS, both[:, None], single)
    for names, arm, share in ((("walk", "run"), "swing", 0.75), (("sit",), "lap", 0.35)):
        arms[_is(lower, *names) & (rng.random(count) < share)] = list(_ARMS).index(arm)
    return lower, arms


def _is(lower: Array, *names: str) -> Array:
    """(N,) bool, true if the lower body is of one of these families."""
    return np.isin(lower, [list(_LOWER).index(name) for name in names])


def _choice(rng: np.random.Generator, weights: list[float], count: int) -> Array:
    share = np.array(weights) / sum(weights)
    return rng.choice(len(share), count, p=share)


def _draw(rng: np.random.Generator, lower: Array, arms: Array, lively_share: float) -> Array:
    """(N,), (N, 2) families -> (N, 24, 3, 3) rotations, balanced."""
    count = len(lower)
    legs_tables, arms_tables = _tables()
    limbs = {**_vary(rng, legs_tables, lower[:, None].repeat(2, 1)), **_vary(rng, arms_tables, arms)}
    lively = np.where(rng.random(count) < lively_share, LIVELY_SPREAD, 1.0)
    trunk = {name: mean + spread * lively * _noise(rng, count) for name, (mean, spread) in _TRUNK.items()}
    _gait(rng, trunk, limbs, lower, arms)
    _bend_with_the_legs(rng, trunk, limbs, lower)
    return _balance(trunk, limbs, lower)


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, Array], dict[str, Array]]:
    """Lower body and arms: for every movement (families, 4), mean left, mean right, the two spreads."""

    def table(families: list[Table], rest: Table) -> dict[str, Array]:
        rows = {name: [of.get(name, usual) for of in families] for name, usual in rest.items()}
        return {
            name: np.array([(*np.broadcast_to(mean, 2), *spreads) for mean, *spreads in entries])
            for name, entries in rows.items()
        }

    return (
        table([family for *_, family in _LOWER.values()], _LOWER_REST),
        table([family for *_, family in _ARMS.values()], _ARM_REST),
    )


def _vary(rng: np.random.Generator, tables: dict[str, Array], family: Array) -> dict[str, Array]:
    """(N, 2) family of each side -> (N, 2) degrees of every movement."""
    shared, apart = _noise(rng, (len(tables), len(family), 1)), _noise(rng, (len(tables), len(family), 2))
    sides = np.arange(2)
    return {
        name: table[family, sides] + table[family, 2] * shared[k] + table[family, 3] * apart[k]
        for k, (name, table) in enumerate(tables.items())
    }


def _noise(rng: np.random.Generator, shape: int | tuple[int, ...]) -> Array:
    return np.clip(rng.standard_normal(shape), -SPREAD_LIMIT, SPREAD_LIMIT)


def _gait(
    rng: np.random.Generator, trunk: dict[str, Array], limbs: dict[str, Array], lower: Array, arms: Array
) -> None:
    """Legs of walking and running by the phase of the stride, and arms that swing against them."""
    count = len(lower)
    run = _is(lower, "run")
    legs = _is(lower, "walk", "run")
    swing = arms[:, 0] == list(_ARMS).index("swing")
    phase = rng.uniform(0, 2 * np.pi, count)[:, None] + np.array([0, np.pi])
    vigour = rng.uniform(0.7, 1.3, count)[:, None]
    forward = np.cos(phase)  # 1: the leg is farthest in front, and on its way back
    lifted = np.maximum(-np.sin(phase), 0)  # on its way to the front
    of = {
        "hip_flex": (8 + 22 * vigour * forward + 10 * lifted, 18 + 40 * vigour * forward + 12 * lifted),
        "knee": (8 + 50 * vigour * lifted, 22 + 85 * vigour * lifted + 12 * np.maximum(forward, 0)),
        "dorsi": (-14 * np.maximum(-forward, 0) + 4 * np.maximum(forward, 0), -25 * np.maximum(-forward, 0)),
        "toe": (18 * np.maximum(-forward, 0) * (lifted == 0), 10 * np.maximum(-forward, 0)),
    }
    for name, (walking, running) in of.items():
        value = np.where(run[:, None], running, walking) + 3 * _noise(rng, (count, 2))
        limbs[name] = np.where(legs[:, None], value, limbs[name])
    of = {
        "arm_flex": (2 - 20 * vigour * forward, -2 - 42 * vigour * forward),
        "elbow": (22 - 10 * vigour * forward, 85 - 14 * forward),
        "arm_roll": (10 + 0 * forward, 18 + 0 * forward),
    }
    for name, (walking, running) in of.items():
        value = np.where(run[:, None], running, walking) + 5 * _noise(rng, (count, 2))
        limbs[name] = np.where(swing[:, None], value, limbs[name])
    amount = np.where(run, 12.0, 6.0) * vigour[:, 0] * legs
    trunk["twist"] = trunk["twist"] + amount * forward[:, 0]  # the left shoulder goes back with the left leg in front
    trunk["bend"] = trunk["bend"] + np.where(run, 6.0, 0.0)


def _bend_with_the_legs(
    rng: np.random.Generator, trunk: dict[str, Array], limbs: dict[str, Array], lower: Array
) -> None:
    """Round the back and drop the arms of people who bend down; bend the spine a little of those who crouch or sit."""
    count = len(lower)
    down = _is(lower, "bend_down", "reach_down")
    low = _is(lower, "crouch", "squat_half", "sit", "lunge")
    trunk["bend"] = trunk["bend"] + np.where(down, rng.uniform(5, 45, count), 0) + low * rng.uniform(0, 20, count)
    trunk["nod"] = trunk["nod"] - np.where(down, rng.uniform(0, 30, count), 0)
    fall = down & (rng.random(count) < 0.7)
    limbs["arm_flex"] = np.where(fall[:, None], rng.uniform(40, 105, (count, 1)) + 8 * _noise(rng, (count, 2)),
                                 limbs["arm_flex"])  # fmt: skip
    limbs["elbow"] = np.where(fall[:, None], 15 + 10 * np.abs(_noise(rng, (count, 2))), limbs["elbow"])


def _balance(trunk: dict[str, Array], limbs: dict[str, Array], lower: Array) -> Array:
    """Tilt the pelvis until the centre of mass is above the support, then lay the soles on the ground."""
    held = np.array([how for _, how, _ in _LOWER.values()])[lower]
    _, joints = joints_m(pose_matrices({**trunk, "tilt": 0 * trunk["tilt"], "lean": 0 * trunk["lean"]}, limbs))
    mass = np.einsum("j,njc->nc", _MASS / _MASS.sum(), joints)
    ball = 0.6 * joints[:, 7:9] + 0.4 * joints[:, 10:12]
    below = np.where((held == "left")[:, None], ball[:, 0], ball.mean(1))
    below = np.where((held == "knees")[:, None], 0.8 * joints[:, 4:6].mean(1) + 0.2 * joints[:, 7:9].mean(1), below)
    up = mass - below
    stands = np.isin(held, ["feet", "left", "knees"])
    tilt = np.where(stands, -np.degrees(np.arctan2(up[:, 2], up[:, 1])), 0.0)
    lean = np.where(stands, -np.degrees(np.arctan2(up[:, 0], up[:, 1])), 0.0)
    trunk = {**trunk, "tilt": trunk["tilt"] + tilt + np.where(held == "air", 6.0, 0.0), "lean": trunk["lean"] + lean}
    sole = trunk["tilt"][:, None] - limbs["hip_flex"] + limbs["knee"]
    flat = (np.isin(held, ["feet", "seat"]) & ~_is(lower, "walk"))[:, None] & (np.abs(sole) < 50)
    flat[:, 0] |= held == "left"
    limbs = {**limbs, "dorsi": np.where(flat, sole, limbs["dorsi"])}
    return pose_matrices({name: trunk[name] for name in TRUNK}, {name: limbs[name] for name in LIMBS})
