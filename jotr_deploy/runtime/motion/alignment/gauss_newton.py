"""Maximum a posteriori fit of a body to 2-D joints, given the network's estimate: a few damped Gauss-Newton steps.

The unknowns are rotations of the root and of fifteen joints, position and shape; all people are solved at once.
The prior is the network's result, with standard deviations as large as the network's errors were. The noise of the 2-D
joints is estimated first, for each person: out of a few levels the one at which joints and prior agree best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jotr_deploy.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from jotr_deploy.runtime.motion.alignment.chain import BETAS, Chain, Placed
from jotr_deploy.skeletons import MEASURED_IN_SMPL30, SMPL30_INDEX
from jotr_deploy.support.aliases import Array


def _both(name: str, deviation_rad: tuple[float, float, float]) -> dict[int, tuple[float, float, float]]:
    return {SMPL30_INDEX[f"{side}_{name}"]: deviation_rad for side in "LR"}


# Errors (root mean square, radians about x, y, z of the parent's frame; the root's in the camera's) of the starter
# network on synthetic people, given joints as good as a real pose network's and noisier ones. Wrists, ankles, hands and
# toes stay as they are: the given joints do not constrain them.
DEVIATION_RAD: dict[int, tuple[float, float, float]] = {
    SMPL30_INDEX["Pelvis"]: (0.135, 0.25, 0.086),
    **_both("Hip", (0.25, 0.137, 0.105)),
    **dict.fromkeys((SMPL30_INDEX[name] for name in ("Torso", "Spine", "Chest")), (0.05, 0.052, 0.03)),
    **_both("Knee", (0.31, 0.01, 0.01)),
    **dict.fromkeys((SMPL30_INDEX[name] for name in ("Neck", "Head")), (0.11, 0.19, 0.06)),
    **_both("Thorax", (0.016, 0.093, 0.07)),
    **_both("Shoulder", (0.40, 0.31, 0.235)),
    **_both("Elbow", (0.113, 0.436, 0.13)),
}
OBSERVED, ACTIVE = MEASURED_IN_SMPL30, tuple(DEVIATION_RAD)
# Joints that bend about one axis in one direction: (joint, axis, sign of flexion).
HINGES = (
    (SMPL30_INDEX["L_Knee"], 0, 1),
    (SMPL30_INDEX["R_Knee"], 0, 1),
    (SMPL30_INDEX["L_Elbow"], 1, -1),
    (SMPL30_INDEX["R_Elbow"], 1, 1),
)
_HINGE = np.array([3 * ACTIVE.index(joint) + axis for joint, axis, _ in HINGES])
_FLEXION = np.array([sign for *_, sign in HINGES])
_TURNS = 3 * len(ACTIVE)
_X, _Z = _TURNS, _TURNS + 2
_UNKNOWNS = _TURNS + 3 + BETAS
_DIAGONAL = np.arange(_UNKNOWNS)


@dataclass(frozen=True)
class Settings:
    """Settings of the fit. Joint errors are fractions of the crop's side."""

    noise: tuple[float, ...] = (0.0075, 0.015, 0.03, 0.06)  # candidates for the error of a confident joint
    used: tuple[float, ...] = (0.006, 0.0075, 0.03, 0.06)  # the values assumed for them: the offset between joint
    # definitions, which looks like noise, is followed
    turn: float = 0.55  # times DEVIATION_RAD; more follows the joints closer, and jitters more in a film
    xy_m: float = 0.3
    log_z: float = 0.1
    hinge_rad: float = 0.02
    hinge_free_rad: tuple[float, float] = (np.radians(-3.0), np.radians(155.0))
    outlier: float = 0.06  # an error that counts half, clipped to the next two in sigmas
    outlier_sigmas: tuple[float, float] = (2.0, 6.0)
    least_confidence: float = 0.05
    steps: int = 2
    longest_rad: float = 0.6  # largest rotation of a joint in one step
    damping: float = 1e-3


SETTINGS = Settings()


class Start(NamedTuple):
    """N people as estimated by the network, and their data."""

    pose_rad: Array  # (N, 24, 3) axis-angle, root first, in camera axes
    betas: Array  # (N, 10)
    translation_m: Array  # (N, 3) pelvis of the 30-joint set in the camera frame
    focal_px: Array  # (N,)
    principal_px: Array  # (N, 2)
    side_px: Array  # (N,) of the crop
    joints_px: Array  # (N, 30, 3) x, y, confidence
    betas_deviation: Array  # (N,) standard deviation of the true shape


class Fit(NamedTuple):
    """The result for N people."""

    pose_rad: Array  # (N, 24, 3)
    betas: Array  # (N, 10)
    translation_m: Array  # (N, 3)
    turned_rad: Array  # (N, A) rotation of each active joint
    moved_m: Array  # (N, 3)
    confidence: Array  # (N, K) of the observed joints, as weighted
    trust: Array  # (N, K) 1 where joint and body agree, half at the size of an outlier, towards 0 beyond
    cost: Array  # (N,)
    start_cost: Array  # (N,)


class _State(NamedTuple):
    """The state of N people during the fit."""

    local: Array  # (N, 24, 3, 3)
    betas: Array  # (N, 10)
    root_m: Array  # (N, 3) the body's own origin in the camera frame


class _Seen(NamedTuple):
    """A state with its residuals and cost."""

    placed: Placed
    depth_m: Array  # (N, K)
    ray: Array  # (N, K, 2) x / z, y / z of the observed joints
    error: Array  # (N, K, 2) from the given joints, as a fraction of the side
    change: Array  # (N, D) of the unknowns from the start
    over_rad: Array  # (N, 4) excess of the hinges beyond their free range
    weight: Array  # (N, K) of the joints in the next step
    trust: Array  # (N, K)
    cost: Array  # (N,)


def fit(chain: Chain, start: Start, settings: Settings = SETTINGS) -> Fit:
    """Fit people to their joints, all at once; N may be 0.

    People without a joint of sufficient confidence stay where they are, but for rounding.
    """
    if not len(start.pose_rad):
        joints, nothing = np.zeros((0, len(OBSERVED))), np.zeros(0)
        turned_rad, moved_m = np.zeros((0, len(ACTIVE))), np.zeros((0, 3))
        return Fit(
            start.pose_rad, start.betas, start.translation_m, turned_rad, moved_m, joints, joints, nothing, nothing
        )  # fmt: skip
    problem = _Problem(chain, start, settings)
    state, seen, start_cost = problem.solve()
    return Fit(
        axis_angle_from_matrix(state.local),
        state.betas,
        state.root_m + chain.joints_m(state.local, state.betas)[:, 0],
        np.linalg.norm(seen.change[:, :_TURNS].reshape(-1, len(ACTIVE), 3), axis=-1),
        state.root_m - problem.start.root_m,
        problem.confidence,
        seen.trust,
        seen.cost,
        start_cost,
    )


class _Problem:
    """The people of one call: everything that stays constant between steps."""

    def __init__(self, chain: Chain, start: Start, settings: Settings) -> None:
        self._chain, self._settings = chain, settings
        pose_rad, betas = np.asarray(start.pose_rad, np.float64), np.asarray(start.betas, np.float64)
        side_px = np.asarray(start.side_px, np.float64)
        local = matrix_from_axis_angle(pose_rad)
        pelvis_m = chain.joints_m(local, betas)[:, 0]
        self.start = _State(local, betas, np.asarray(start.translation_m, np.float64) - pelvis_m)
        self._back = np.swapaxes(local[:, chain.active], -1, -2)
        self._bent_rad = np.stack([pose_rad[:, joint, axis] for joint, axis, _ in HINGES], 1) * _FLEXION
        given = np.asarray(start.joints_px, np.float64)[:, chain.observed]
        self.confidence = np.where(given[..., 2] >= settings.least_confidence, np.minimum(given[..., 2], 1), 0)
        self._goal = (given[..., :2] - np.asarray(start.principal_px, np.float64)[:, None]) / side_px[:, None, None]
        self._focal = (np.asarray(start.focal_px, np.float64) / side_px)[:, None]
        fixed = [
            *(settings.turn * np.ravel(list(DEVIATION_RAD.values()))),
            settings.xy_m,
            settings.xy_m,
            settings.log_z,
        ]
        deviation = np.empty((len(betas), _UNKNOWNS))
        deviation[:, : _TURNS + 3], deviation[:, _TURNS + 3 :] = fixed, np.asarray(start.betas_deviation)[:, None]
        self._precision = deviation**-2  # (N, D)
        self._sigma = np.full((len(betas), 1), settings.used[0])

    def solve(self) -> tuple[_State, _Seen, Array]:
        """The last state, its residuals, and the cost (N,) at the start."""
        state = self.start
        jacobian, error = self._linearised(state)
        self._sigma = self._likeliest_noise(jacobian, error)
        seen = self._look(state)
        start_cost, damping = seen.cost, np.full((len(seen.cost), 1), self._settings.damping)
        for step in range(self._settings.steps):
            if step:
                jacobian = self._jacobian(seen, state)
            moved = self._moved(state, self._step(seen, jacobian, damping))
            found = self._look(moved)
            better = found.cost <= seen.cost
            if better.all():
                state, seen = moved, found
                continue
            state, seen = _where(better, moved, state), _where(better, found, seen)  # others take a smaller step next
            damping = np.where(better[:, None], damping, 10 * np.maximum(damping, 1e-2))
        return state, seen, start_cost

    def _look(self, state: _State) -> _Seen:
        placed = self._chain.place(state.local, state.betas)
        joints_m = self._chain.pairs.total @ placed.parts_m + state.root_m[:, None]
        ray = joints_m[..., :2] / joints_m[..., 2:]
        error = ray * self._focal[..., None] - self._goal
        turned = axis_angle_from_matrix(state.local[:, self._chain.active] @ self._back)
        moved = state.root_m - self.start.root_m
        moved[:, 2] = np.log(state.root_m[:, 2] / self.start.root_m[:, 2])
        change = np.concatenate([turned.reshape(-1, _TURNS), moved, state.betas - self.start.betas], 1)
        low, high = self._settings.hinge_free_rad
        bent = self._bent_rad + change[:, _HINGE] * _FLEXION
        over = np.minimum(bent - low, 0) + np.maximum(bent - high, 0)
        squares = (error * error).sum(-1) / self._sigma**2
        least, most = self._settings.outlier_sigmas
        reach = np.clip(self._settings.outlier / self._sigma, least, most) ** 2
        trust = reach / (reach + squares)  # Geman-McClure
        cost = (self.confidence * squares * trust).sum(1) + (change * change * self._precision).sum(1)
        cost += (over**2).sum(1) / self._settings.hinge_rad**2
        weight = self.confidence * (trust / self._sigma) ** 2
        return _Seen(placed, joints_m[..., 2], ray, error, change, over, weight, trust, cost)

    def _linearised(self, state: _State) -> tuple[Array, Array]:
        seen = self._look(state)
        return self._jacobian(seen, state), seen.error

    def _jacobian(self, seen: _Seen, state: _State) -> Array:
        """(N, 2K, D) Jacobian of the observed joints, in fractions of the side, with respect to the unknowns."""
        people, joints = seen.depth_m.shape
        per_m = self._focal / seen.depth_m
        out = np.empty((people, joints, 2, _UNKNOWNS))
        out[..., :_TURNS] = self._by_turns(seen, per_m)
        out[:, :, 0, _X], out[:, :, 1, _X], out[:, :, 0, _X + 1], out[:, :, 1, _X + 1] = per_m, 0, 0, per_m
        out[..., _Z] = -(per_m * state.root_m[:, 2:])[..., None] * seen.ray
        by_betas = self._by_betas(seen.placed)
        out[..., _Z + 1 :] = (by_betas[:, :, :2] - seen.ray[..., None] * by_betas[:, :, 2:]) * per_m[..., None, None]
        return out.reshape(people, 2 * joints, _UNKNOWNS)

    def _by_turns(self, seen: _Seen, per_m: Array) -> Array:
        """(N, K, 2, 3A) by rotations in the parent's frame: each moves the joint's descendants across the lever."""
        chain, placed = self._chain, seen.placed
        people, joints, active = *per_m.shape, len(chain.active)
        lever = (chain.collect @ placed.parts_m).reshape(people, joints, active, 3)
        lever = lever - chain.share_below[..., None] * placed.place_m[:, None, chain.active]
        x, y, z = np.moveaxis(lever, -1, 0)
        scale, u, v = per_m[..., None], seen.ray[..., :1], seen.ray[..., 1:]
        turn = np.empty((people, active, joints, 2, 3))
        by_axis = turn.transpose(3, 4, 0, 2, 1)
        by_axis[0, 0], by_axis[0, 1], by_axis[0, 2] = -scale * u * y, scale * (z + u * x), -scale * y
        by_axis[1, 0], by_axis[1, 1], by_axis[1, 2] = -scale * (z + v * y), scale * v * x, scale * x
        frame = placed.rotation[:, chain.parent[chain.active]]
        frame[:, ACTIVE.index(0)] = np.eye(3)
        by_parent = turn.reshape(people, active, 2 * joints, 3) @ frame
        return by_parent.reshape(people, active, joints, 2, 3).transpose(0, 2, 3, 1, 4).reshape(people, joints, 2, -1)

    def _by_betas(self, placed: Placed) -> Array:
        """(N, K, 3, 10) metres, by shape: the points of the pairs, and the bones that carry them."""
        chain, people = self._chain, len(placed.rotation)
        bones = placed.rotation[:, chain.parent] @ chain.bone_directions
        bones[:, 0] = chain.bone_directions[0]
        own = placed.rotation[:, chain.pairs.skinning] @ chain.pairs.shape_directions.T.reshape(-1, 3, BETAS)
        own = own.reshape(people, -1, 3 * BETAS)
        moved = chain.pairs.total @ own + chain.carried @ bones.reshape(people, -1, 3 * BETAS)
        return moved.reshape(people, -1, 3, BETAS)

    def _likeliest_noise(self, jacobian: Array, error: Array) -> Array:
        """(N, 1) joint error to assume: the noise at which the start makes these joints most likely.

        With noise s the errors are normal with covariance J P J' + s^2 / confidence, P the prior's; both sides are
        weighted by the confidence. `eigh` would serve every s at once, but OpenBLAS spreads it over all cores, and then
        waits for those that the networks are using.
        """
        confident = np.sqrt(np.repeat(self.confidence, 2, 1))
        scaled = jacobian * confident[..., None]
        error = error.reshape(len(error), -1) * confident
        noise = np.array(self._settings.noise) ** 2
        expected = (scaled / self._precision[:, None]) @ np.swapaxes(scaled, 1, 2)
        spread = expected[:, None] + noise[:, None, None] * np.eye(error.shape[1])  # (N, noise, 2K, 2K)
        squares = (np.linalg.solve(spread, error[:, None, :, None])[..., 0] * error[:, None]).sum(-1)
        unseen = (confident == 0).sum(1)[:, None] * np.log(noise)
        surprise = squares + np.linalg.slogdet(spread)[1] - unseen
        chosen: Array = np.array(self._settings.used)[surprise.argmin(1)][:, None]
        return chosen

    def _step(self, seen: _Seen, jacobian: Array, damping: Array) -> Array:
        """(N, D) the damped Gauss-Newton step."""
        weighted = jacobian * np.repeat(seen.weight, 2, 1)[..., None]
        hessian = np.swapaxes(weighted, 1, 2) @ jacobian
        gradient = (seen.error.reshape(len(jacobian), 1, -1) @ weighted)[:, 0] + seen.change * self._precision
        hinge = self._settings.hinge_rad**-2
        hessian[:, _DIAGONAL, _DIAGONAL] += self._precision
        hessian[:, _HINGE, _HINGE] += (seen.over_rad != 0) * hinge
        gradient[:, _HINGE] += seen.over_rad * _FLEXION * hinge
        hessian[:, _DIAGONAL, _DIAGONAL] *= 1 + damping
        step: Array = np.linalg.solve(hessian, -gradient[..., None])[..., 0]
        return step

    def _moved(self, state: _State, step: Array) -> _State:
        turn = step[:, :_TURNS].reshape(len(step), -1, 3)
        length = np.linalg.norm(turn, axis=-1, keepdims=True)
        turn = turn * np.minimum(1, self._settings.longest_rad / np.maximum(length, 1e-9))
        local, active = state.local.copy(), self._chain.active
        local[:, active] = matrix_from_axis_angle(turn) @ local[:, active]
        root_m = state.root_m + step[:, _X : _Z + 1]
        root_m[:, 2] = state.root_m[:, 2] * np.exp(np.clip(step[:, _Z], -0.2, 0.2))
        return _State(local, state.betas + step[:, _Z + 1 :], root_m)


def _where(chosen: Array, new: Any, old: Any) -> Any:
    """A tuple of arrays (or of such tuples), with the rows of `new` where chosen and those of `old` elsewhere."""
    parts = (
        _where(chosen, a, b) if isinstance(a, tuple) else np.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        for a, b in zip(new, old, strict=True)
    )
    return type(new)(*parts)
