"""The joints of a body as exact functions of pose and shape, without computing vertices.

A joint is a weighted sum of vertices, and a vertex a weighted sum of the motions of skinning joints. Summing over the
vertices first, joint k is a sum of `y_kj = G_j b_kj + S_kj p_j` over the few skinning joints j that move its vertices:
G_j and p_j are rotation and position of j, S_kj the share of j in k, b_kj a point in the frame of j at rest, which
depends on the shape and, where the body has pose blend shapes, slightly on the pose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jotr_deploy.errors import BundleError
from jotr_deploy.skeletons import SMPL30, SMPL_PARENTS
from jotr_deploy.support.aliases import Array

JOINTS = len(SMPL_PARENTS)
BETAS = 10
LEAST_SHARE = 1e-6
"""Share of a skinning joint in a joint below which it is ignored."""

_PARENT = np.array([max(parent, 0) for parent in SMPL_PARENTS])


class BodyArrays(NamedTuple):
    """Arrays for skinning a body with V vertices; metres, in the body's own frame."""

    template_m: Array  # (V, 3) rest vertices
    shape_directions_m: Array  # (V, 3, 10)
    pose_directions_m: Array  # (V, 3, 207), or (V, 3, 0) without pose blend shapes
    rest_m: Array  # (24, 3) rest joints
    rest_directions_m: Array  # (24, 3, 10)
    weights: Array  # (V, 24) of the skinning
    regressor: Array  # (30, V) of the 30-joint set

    @classmethod
    def from_graph(cls, weights: Mapping[str, Array], where: str) -> BodyArrays:
        """Read the arrays back from the weights of an exported body, by name.

        Raises:
            BundleError: arrays are missing, or do not fit together.
        """
        try:
            template = weights["body.template"].reshape(3, -1).T
            directions = weights["body.directions"].reshape(-1, 3, len(template)).transpose(2, 1, 0)
            rest_directions = weights["body.rest_directions"].reshape(BETAS, JOINTS, 3).transpose(1, 2, 0)
            arrays = cls(
                template,
                directions[..., :BETAS],
                directions[..., BETAS:],
                weights["body.rest"].reshape(JOINTS, 3),
                rest_directions,
                weights["body.weights"].reshape(JOINTS, len(template)).T,
                weights["body.regressor_30"].reshape(len(template), len(SMPL30)).T,
            )
            if arrays.pose_directions_m.shape[2] not in (0, 9 * (JOINTS - 1)):
                raise ValueError("the numbers of directions do not match")
        except (KeyError, ValueError) as error:
            raise BundleError(
                f"{where}: the body inside cannot be read back ({error})", "export it again, or run with --no-align"
            ) from None
        return cls(*(np.asarray(array, np.float64) for array in arrays))

    def behind_joints(self) -> BodyArrays:
        """The body reduced to the vertices that its joints are sums of."""
        used = self.regressor.any(0)
        return self._replace(
            template_m=self.template_m[used],
            shape_directions_m=self.shape_directions_m[used],
            pose_directions_m=self.pose_directions_m[used],
            weights=self.weights[used],
            regressor=self.regressor[:, used],
        )


class Pairs(NamedTuple):
    """The P pairs of a joint k and a skinning joint j with a share in it, for K joints."""

    skinning: Array  # (P,) j
    share: Array  # (P, 1) S_kj
    point_m: Array  # (P * 3,) b_kj for the mean shape at rest
    shape_directions: Array  # (10, P * 3)
    pose_directions: Array  # (207 or 0, P * 3)
    total: Array  # (K, P) one where a pair belongs to a joint


class Placed(NamedTuple):
    """Poses of the skinning joints of N people, and their contributions to K joints."""

    rotation: Array  # (N, 24, 3, 3) world rotations G
    place_m: Array  # (N, 24, 3) p
    parts_m: Array  # (N, P, 3) y


class Chain:
    """The joints of a body and their derivatives.

    `observed` are the joints of the 30-joint set to compare, `active` the skinning joints that may rotate.
    """

    def __init__(self, body: BodyArrays, observed: tuple[int, ...], active: tuple[int, ...]) -> None:
        body = body.behind_joints()  # a fifth of the vertices, in the bodies known so far
        self.observed, self.active = np.array(observed), np.array(active)
        self.parent = _PARENT
        self._rest_m = body.rest_m
        self._rest_directions = body.rest_directions_m.reshape(-1, BETAS).T.copy()
        self.bone_directions = body.rest_directions_m - body.rest_directions_m[_PARENT]  # (24, 3, 10)
        self.bone_directions[0] = body.rest_directions_m[0]
        below = _below()
        self._above = below.T.copy()
        share = np.einsum("kv,vj->kj", body.regressor, body.weights)
        self.pairs = _pairs(body, share, self.observed)
        self._all = _pairs(body, share, np.arange(len(SMPL30)))
        seen = share[self.observed]
        self.share_below = seen @ below[self.active].T  # (K, A) share of a joint that depends on an active one
        self.carried = seen @ below.T  # (K, 24) share of a joint that a bone carries
        hangs = self.pairs.total[:, None] * below[self.active][:, self.pairs.skinning]
        self.collect = hangs.reshape(-1, len(self.pairs.skinning))  # (K * A, P)

    def place(self, local: Array, betas: Array) -> Placed:
        """Place the observed joints of people; sum `parts_m` with `pairs.total`.

        Args:
            local: (N, 24, 3, 3) rotations, each in its parent's frame.
            betas: (N, 10).
        """
        rotation, place_m = self._skeleton(local, betas)
        return Placed(rotation, place_m, _parts(self.pairs, rotation, place_m, local, betas))

    def joints_m(self, local: Array, betas: Array) -> Array:
        """(N, 30, 3) joints of the 30-joint set, in the body's own frame."""
        rotation, place_m = self._skeleton(local, betas)
        joints: Array = self._all.total @ _parts(self._all, rotation, place_m, local, betas)
        return joints

    def _skeleton(self, local: Array, betas: Array) -> tuple[Array, Array]:
        """World rotations (N, 24, 3, 3) and positions (N, 24, 3)."""
        rest_m = self._rest_m + (betas @ self._rest_directions).reshape(-1, JOINTS, 3)
        rotation = local.copy()
        for level in _LEVELS:
            rotation[:, level] = rotation[:, _PARENT[level]] @ local[:, level]
        bone_m = rest_m - rest_m[:, _PARENT]
        turned = (rotation[:, _PARENT] @ bone_m[..., None])[..., 0]
        turned[:, 0] = rest_m[:, 0]
        return rotation, self._above @ turned


def _parts(pairs: Pairs, rotation: Array, place_m: Array, local: Array, betas: Array) -> Array:
    """(N, P, 3) contribution of each pair to its joint."""
    point_m = pairs.point_m + betas @ pairs.shape_directions
    if len(pairs.pose_directions):
        point_m = point_m + (local[:, 1:] - np.eye(3)).reshape(len(local), -1) @ pairs.pose_directions
    point_m = point_m.reshape(len(betas), -1, 3)
    parts: Array = (rotation[:, pairs.skinning] @ point_m[..., None])[..., 0] + pairs.share * place_m[:, pairs.skinning]
    return parts


def _pairs(body: BodyArrays, share: Array, joints: Array) -> Pairs:
    at, skinning = np.nonzero(np.abs(share[joints]) > LEAST_SHARE)
    of, size = joints[at], len(at)
    weights = body.regressor[of] * body.weights[:, skinning].T  # (P, V)
    own = share[of, skinning]
    total = np.zeros((len(joints), size))
    total[at, np.arange(size)] = 1

    def folded(directions: Array) -> Array:  # (V, 3, D) -> (P, 3, D)
        return (weights @ directions.reshape(len(directions), -1)).reshape(size, 3, -1)

    point_m = weights @ body.template_m - own[:, None] * body.rest_m[skinning]
    shape = folded(body.shape_directions_m) - own[:, None, None] * body.rest_directions_m[skinning]
    pose = folded(body.pose_directions_m) if body.pose_directions_m.shape[2] else np.zeros((size, 3, 0))
    shape, pose = (directions.reshape(3 * size, -1).T.copy() for directions in (shape, pose))
    return Pairs(skinning, own[:, None], point_m.ravel(), shape, pose, total)


def _below() -> Array:
    """(24, 24) one where the second joint descends from the first, itself included."""
    below = np.eye(JOINTS)
    for joint, parent in enumerate(SMPL_PARENTS[1:], 1):
        below[:, joint] += below[:, parent]
    return below


def _levels() -> list[Array]:
    """The joints grouped by depth in the tree, without the root."""
    depth = [0]
    for parent in SMPL_PARENTS[1:]:
        depth.append(depth[parent] + 1)
    return [np.flatnonzero(np.array(depth) == level) for level in range(1, max(depth) + 1)]


_LEVELS = _levels()
