"""How the stand-in body moves: skinning weights, joint regressor, shape directions."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import splu

from .relax import Body
from .shape import MIRROR_JOINT, PARENTS, Array

BLEND_M = (.05, .045, .045, .05, .030, .030, .05, .022, .022, .05, .014, .014, .03, .04, .04, .03, .04, .04,
           .026, .026, .018, .018, .012, .012)  # fmt: skip
WEIGHT_STEPS = 256
REGRESSOR_VERTICES = 64


def part_of(points: Array) -> Array:
    """(N,) the joint whose bone owns each point: planes through the joints, cut where a body bends."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    part = np.select([y < -0.115, y < 0.010, y < 0.090], [0, 3, 6], 9)
    part[(y > 0.10) & (x > 0.07)] = 13
    part[(y > 0.255 - 0.5 * (z + 0.03)) & (x < 0.075)] = 12
    part[y > 0.338 - 0.35 * z] = 15
    arm = (y > 0.12) & (y < 0.33) & (x > 0.150 + 0.25 * (0.27 - y))
    part = np.where(arm, np.select([x < 0.435, x < 0.680, x < 0.765], [16, 18, 20], 22), part)
    leg = (y < -0.43 + 1.3 * x) & (y < -0.21)
    part = np.where(leg, np.select([y > -0.700, y > -1.080, z < 0.090], [1, 4, 7], 10), part)
    right = points[:, 0] < -1e-6
    return np.where(right, np.array(MIRROR_JOINT)[part], part)


def diffuse(body: Body, values: Array, length_m: Array) -> Array:
    """Heat flow of values (V, K) along the skin, over about `length_m` (V,): never from one leg to the other."""
    rows, columns, entries = [], [], []
    area = np.zeros(len(body.points))
    for i in range(3):
        apex, a, b = body.faces[:, i], body.faces[:, (i + 1) % 3], body.faces[:, (i + 2) % 3]
        u, v = body.points[a] - body.points[apex], body.points[b] - body.points[apex]
        double_area = np.linalg.norm(np.cross(u, v), axis=1)
        flow = np.maximum((u * v).sum(1) / double_area / 2, 0) * (length_m[a] * length_m[b]) / 2
        rows += [a, b, a, b]
        columns += [b, a, a, b]
        entries += [-flow, -flow, flow, flow]
        np.add.at(area, apex, double_area / 6)
    size = (len(area), len(area))
    stiffness = coo_matrix((np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))), size)
    solve = splu((diags(area) + stiffness).tocsc()).solve
    for _ in range(2):
        values = solve(area[:, None] * values)
    return values


def symmetric(body: Body, weights: Array) -> Array:
    """The mean of the weights (V, 24) and their mirror image."""
    mean: Array = (weights + weights[body.mirror][:, MIRROR_JOINT]) / 2
    return mean


def soft_parts(body: Body, joints: Array, widen: float = 1.0) -> Array:
    """(V, 24) smooth memberships, rows sum to 1; near each joint as soft as BLEND_M says, times `widen`."""
    distance2 = ((body.points[:, None] - joints) ** 2).sum(-1)
    nearness = np.exp(-distance2 / (2 * 0.07**2)) + 1e-12
    length = widen * (nearness @ np.array(BLEND_M)) / nearness.sum(1)
    weights = np.maximum(diffuse(body, np.eye(24)[part_of(body.points)], length), 0)
    return symmetric(body, weights / weights.sum(1, keepdims=True))


def skinning_weights(soft: Array) -> Array:
    """At most four joints a vertex, multiples of 1/256 that sum to exactly 1 (exact even in float16)."""
    fifth = np.sort(soft, axis=1)[:, -5:-4]  # left and right are equal on the midline: both stay or both go
    kept = np.where((soft > fifth) & (soft > 0.015), soft, 0)
    steps = np.floor(WEIGHT_STEPS * kept / kept.sum(1, keepdims=True))
    steps[np.arange(len(steps)), steps.argmax(1)] += WEIGHT_STEPS - steps.sum(1)
    weights: Array = steps / WEIGHT_STEPS
    return weights


def joint_regressor(body: Body, soft: Array, joints: Array) -> Array:
    """(24, V) each joint as a weighted mean of the ring of skin around it, as even as the joint's place allows."""
    regressor = np.zeros((24, len(body.points)))
    for joint in [j for j in range(24) if j <= MIRROR_JOINT[j]]:
        ring = soft[:, joint] * soft[:, PARENTS[joint]] if joint else soft[:, 0] ** 2
        if joint == MIRROR_JOINT[joint]:
            near = np.argsort(-np.where(body.points[:, 0] >= 0, ring, 0), kind="stable")[: REGRESSOR_VERTICES // 2]
            near = np.unique(np.r_[near, body.mirror[near]])
        else:
            near = np.argsort(-ring, kind="stable")[:REGRESSOR_VERTICES]
        exact = 1e3 * np.vstack([(body.points[near] - joints[joint]).T / 0.1, np.ones(len(near))])
        even = np.full(len(near), 1 / len(near))
        share, _ = nnls(np.vstack([exact, np.eye(len(near))]), np.r_[0, 0, 0, 1e3, even])
        row = np.zeros(len(body.points))
        row[near] = share / share.sum()
        if joint == MIRROR_JOINT[joint]:
            row = (row + row[body.mirror]) / 2
        regressor[joint] = row
        regressor[MIRROR_JOINT[joint]] = row[body.mirror]
    return regressor


# ---------------------------------------------------------------------------------------------------- shape directions
TRUNK, ARMS, LEGS, EVERY = (0, 3, 6, 9, 12), (16, 17, 18, 19), (1, 2, 4, 5), tuple(range(24))
SHAPE_DIRECTIONS: list[tuple[str, float, list[tuple[tuple[int, ...], tuple[float, float, float]]]]] = [
    # name, root mean square effect in mm, then: parts and how they stretch along x, y, z
    ("height", 10.0, [(EVERY, (1, 1, 1))]),
    ("girth", 8.0, [(TRUNK, (1, 0, 1)), ((13, 14), (0.5, 0, 1)), (ARMS, (0, 1, 1)), (LEGS, (1, 0, 1))]),
    ("leg length", 8.0, [(LEGS, (0, 1, 0)), ((7, 8, 10, 11), (0, 0, 0.5))]),
    ("arm length", 7.0, [(ARMS, (1, 0, 0)), ((20, 21, 22, 23), (0.5, 0, 0))]),
    ("shoulder width", 6.0, [((13, 14), (1, 0, 0)), ((9,), (0.6, 0, 0)), (ARMS, (-0.12, 0.3, 0.3))]),
    ("hip width", 6.0, [((0,), (1, 0, 0.3)), ((1, 2), (0.2, 0, 0.2)), ((3,), (0.3, 0, 0))]),
    ("belly and chest depth", 5.5, [((3, 6), (0.2, 0, 1)), ((0, 9, 13, 14), (0, 0, 0.8)), ((1, 2), (0, 0, 0.3))]),
    ("head size", 5.0, [((15,), (1, 1, 1)), ((12,), (0.4, 0, 0.4))]),
    ("limb girth", 5.0, [(ARMS, (0, 1, 1)), (LEGS, (1, 0, 1)), ((0,), (0.25, 0, 0)), ((20, 21), (0, 0.5, 0.5))]),
    ("torso length", 7.0, [((0, 3, 6, 9), (0, 1, 0))]),
]


def shape_directions(body: Body, wide: Array, joints: Array) -> Array:
    """(V, 3, 10) metres per unit of beta: every part stretches about its joint and carries its children along."""
    directions = np.zeros((len(body.points), 3, len(SHAPE_DIRECTIONS)))
    for index, (_, rms_mm, stretches) in enumerate(SHAPE_DIRECTIONS):
        stretch = np.zeros((24, 3))
        for parts, axes in stretches:
            stretch[list(parts)] = axes
        shift = np.zeros((24, 3))
        for joint in range(1, 24):
            parent = PARENTS[joint]
            shift[joint] = shift[parent] + stretch[parent] * (joints[joint] - joints[parent])
        moved = np.einsum("vj,vjc->vc", wide, shift + stretch * (body.points[:, None] - joints))
        directions[..., index] = moved * (rms_mm / 1000 / np.sqrt((moved**2).sum(1).mean()))
    return directions
