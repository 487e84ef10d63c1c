"""Anatomical movements of a human body and their limits.

The body's own frame: x to the person's left, y up, z forward, arms stretched sideways in the rest pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jotr_deploy.body.smpl import JOINTS, PARENTS, stand_in
from jotr_deploy.support.aliases import Array

# An arm that hangs is the zero of every shoulder movement; the rest pose holds it sideways.
HANGING_DEG = 90.0


@dataclass(frozen=True)
class Movement:
    """One anatomical movement, shared among joints that lie along the body."""

    joints: tuple[int, ...]  # for movements of a limb those of the left side; the right side's follow
    axis: int  # 0, 1, 2 for x, y, z of the rest pose
    sign: int  # +1 where a positive movement of the left side is a positive rotation
    low_deg: float
    high_deg: float


# In order of composition: of two movements of a joint the earlier one is outside, nearer to the trunk. The limits are
# those of a healthy adult, a little inside where the skinning of a mannequin tears.
TRUNK: dict[str, Movement] = {
    "tilt": Movement((0,), 0, 1, -50, 110),  # the pelvis, forward
    "lean": Movement((0,), 2, -1, -45, 45),  # the pelvis, to the left
    "bend": Movement((3, 6, 9), 0, 1, -25, 65),  # the spine, forward
    "side": Movement((3, 6, 9), 2, -1, -32, 32),
    "twist": Movement((3, 6, 9), 1, 1, -45, 45),
    "nod": Movement((12, 15), 0, 1, -40, 45),
    "tip": Movement((12, 15), 2, -1, -30, 30),
    "turn": Movement((12, 15), 1, 1, -70, 70),
}
LIMBS: dict[str, Movement] = {
    "shrug": Movement((13,), 2, 1, -5, 30),
    "protract": Movement((13,), 1, -1, -12, 22),
    "arm_flex": Movement((16,), 0, -1, -45, 175),  # forward and up
    "arm_abd": Movement((16,), 2, 1, -35, 130),  # sideways and up
    "arm_roll": Movement((16,), 0, 1, -85, 75),  # inwards, about the upper arm
    "elbow": Movement((18,), 1, -1, 0, 145),
    "pronate": Movement((18, 20), 0, 1, -60, 60),
    "wrist_dev": Movement((20,), 1, -1, -20, 20),
    "wrist_bend": Movement((20,), 2, -1, -45, 45),
    "hip_flex": Movement((1,), 0, -1, -28, 125),
    "hip_abd": Movement((1,), 2, 1, -22, 48),
    "hip_rot": Movement((1,), 1, 1, -32, 45),  # toes outwards
    "knee": Movement((4,), 0, 1, 0, 148),
    "dorsi": Movement((7,), 0, -1, -45, 32),  # toes up
    "foot_roll": Movement((7,), 2, 1, -12, 12),
    "toe": Movement((10,), 0, -1, -5, 40),  # toes up
}
RIGHT_OF = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21}
# Angle from which the shoulder blade follows the upper arm, and its share of the rest of the movement.
SCAPULA_FROM_DEG, SCAPULA_SHARE = 50.0, 0.18


def pose_matrices(trunk_deg: dict[str, Array], limbs_deg: dict[str, Array]) -> Array:
    """Joint rotations of movements in degrees, each limited to its range.

    Args:
        trunk_deg: for names of `TRUNK` (N,).
        limbs_deg: for names of `LIMBS` (N, 2), left and right; at least one. Absent movements are zero: the body
            stands upright with hanging arms.

    Returns:
        (N, 24, 3, 3), the pelvis relative to an upright body that looks along z.
    """
    count = len(next(iter(limbs_deg.values())))
    rotations = np.tile(np.eye(3), (count, JOINTS, 1, 1))
    still = np.zeros((count, 2))
    limited = {name: np.clip(limbs_deg.get(name, still), m.low_deg, m.high_deg) for name, m in LIMBS.items()}
    _raise_shoulder_blades(limited)
    for name, movement in TRUNK.items():
        if name in trunk_deg:
            angle = movement.sign * np.clip(trunk_deg[name], movement.low_deg, movement.high_deg)
            _turn(rotations, list(movement.joints), movement.axis, angle[:, None] / len(movement.joints))
    for name, angles in limited.items():
        movement = LIMBS[name]
        # A mirrored body turns the other way about y and z, the same way about x.
        signs = movement.sign * np.array([1, 1 if movement.axis == 0 else -1])
        turns = signs * (angles - (HANGING_DEG if name == "arm_abd" else 0)) / len(movement.joints)
        for joint in movement.joints:
            _turn(rotations, [joint, RIGHT_OF[joint]], movement.axis, turns)
    return rotations


def _raise_shoulder_blades(limbs_deg: dict[str, Array]) -> None:
    """The shoulder blade turns up with a raised arm."""
    flex, abd = (np.radians(limbs_deg[name]) for name in ("arm_flex", "arm_abd"))
    raised = np.degrees(np.arccos(np.clip(np.cos(abd) * np.cos(flex), -1, 1)))
    limbs_deg["shrug"] = limbs_deg["shrug"] + SCAPULA_SHARE * np.maximum(raised - SCAPULA_FROM_DEG, 0)


def _turn(rotations: Array, joints: list[int], axis: int, degrees: Array) -> None:
    """Multiply the rotations of some joints from the right by turns of (N, len(joints)) degrees about one axis."""
    radians = np.radians(degrees)[..., None]
    cos, sin = np.cos(radians), np.sin(radians)
    u, v = (axis + 1) % 3, (axis + 2) % 3
    before = rotations[:, joints]
    after = before.copy()
    after[..., u] = cos * before[..., u] + sin * before[..., v]
    after[..., v] = cos * before[..., v] - sin * before[..., u]
    rotations[:, joints] = after


@lru_cache(maxsize=1)
def rest_joints_m() -> Array:
    """(24, 3) joints of the stand-in body at rest."""
    body = stand_in()
    return (body.J_regressor.astype(np.float64)) @ body.v_template


def joints_m(rotations: Array) -> tuple[Array, Array]:
    """(N, 24, 3, 3) -> world rotations (N, 24, 3, 3) and joints (N, 24, 3) about the pelvis."""
    rest = rest_joints_m()
    world, joints = np.empty_like(rotations), np.zeros((len(rotations), JOINTS, 3))
    world[:, 0] = rotations[:, 0]
    for joint in range(1, JOINTS):
        parent = PARENTS[joint]
        world[:, joint] = world[:, parent] @ rotations[:, joint]
        joints[:, joint] = joints[:, parent] + world[:, parent] @ (rest[joint] - rest[parent])
    return world, joints
