"""The pipeline stage that aligns recovered people to their 2-D joints."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from jotr_deploy.errors import BundleError
from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.people import People
from jotr_deploy.runtime.body_session import Body
from jotr_deploy.runtime.motion.alignment.chain import JOINTS, BodyArrays, Chain
from jotr_deploy.runtime.motion.alignment.gauss_newton import ACTIVE, OBSERVED, Start, fit
from jotr_deploy.runtime.motion.alignment.guards import (
    CONFIDENT,
    LEAST_JOINTS,
    acceptable,
    joint_error,
    without_swapped,
)
from jotr_deploy.runtime.motion.smoothing import Shapes
from jotr_deploy.support.aliases import Array

SHAPE_DEVIATION, TRACK_DEVIATION = 1.5, 0.3
"""Deviation of the shape from the network's, and at least from the mean of the person's track: the error of a mean over
n frames is that of one frame divided by the root of n."""
AGREE_M = 0.002
"""Tolerance between the joints computed here and those of the body in the bundle; arrays stored as float16 differ by a
tenth of that."""


class Aligner:
    """Aligns the people of a frame to their joints: root, limbs, position and shape, with the smallest change needed.

    Each person is moved in their own camera (`focal_px`, `principal_px`), whichever it is. People who would not fit
    better, or only after a change larger than the network's errors explain, stay exactly as recovered, as do people
    without joints. In the result `aligned` marks the people moved, `joint_error` has their errors.

    In a film a person's shape is held near the mean over their track.
    """

    def __init__(self, body: Body, fps: float | None = None) -> None:
        """`body` as returned by `open_body`; `fps`: frame numbers per second of a film, None for still pictures.

        Raises:
            BundleError: the body cannot be read back from the bundle.
        """
        self._body = body
        self._chain = Chain(BodyArrays.from_graph(body.weights, str(body.session.path)), OBSERVED, ACTIVE)
        self._shapes = Shapes(fps) if fps else None
        _check_agreement(self._chain, body)

    def anew(self, fps: float | None = None) -> Aligner:
        """An aligner with the same body for another film, with nobody known yet, or for still pictures."""
        other = copy(self)
        other._shapes = Shapes(fps) if fps else None
        return other

    def __call__(self, people: People, frame: int = 0) -> People:
        """Align the N people of a frame; frame numbers of a film must increase."""
        with np.errstate(all="ignore"):  # people in the plane of their camera, or with invalid positions
            body_px = project_px(people.joints_camera_m.astype(np.float64), people.focal_px, people.principal_px)
        side_px = (people.boxes_px[:, 2] - people.boxes_px[:, 0]).astype(np.float64)
        joints_px = without_swapped(people.keypoints_px, body_px, side_px)
        before = joint_error(joints_px, body_px, side_px)
        betas, deviation = self._known_shapes(people)
        at = np.flatnonzero(_may_be_fitted(people, joints_px, before))
        found = fit(
            self._chain,
            Start(
                people.pose_rad[at], betas[at], people.translation_m[at], people.focal_px[at],
                people.principal_px[at], side_px[at], joints_px[at], deviation[at],
            ),
        )  # fmt: skip
        sound = acceptable(found)
        at, pose_rad, found_betas = at[sound], found.pose_rad[sound], found.betas[sound]
        vertices_m, joints_m = self._body(pose_rad, found_betas)
        values = {
            "pose_rad": pose_rad, "betas": found_betas, "translation_m": found.translation_m[sound],
            "joints_m": joints_m, "vertices_m": vertices_m,
        }  # fmt: skip
        moved_px = project_px(joints_m + values["translation_m"][:, None], people.focal_px[at], people.principal_px[at])
        after = joint_error(joints_px[at], moved_px, side_px[at])
        better = after < before[at]
        errors = np.nan_to_num(np.column_stack([before, before]), posinf=0)
        errors[at[better], 1] = after[better]
        aligned = np.zeros(len(people), bool)
        aligned[at[better]] = True
        changed = {name: getattr(people, name).copy() for name in values} if better.any() else {}
        for name, array in changed.items():
            array[at[better]] = values[name][better]
        result = replace(people, aligned=aligned, joint_error=errors, **changed)
        self._remember(result, frame)
        return result

    def _known_shapes(self, people: People) -> tuple[Array, Array]:
        """Initial shapes (N, 10), and their deviations (N,)."""
        betas = people.betas.astype(np.float64)
        deviation = np.full(len(people), SHAPE_DEVIATION)
        if self._shapes is not None:
            times = np.array([self._shapes.times_seen(track) for track in people.track_ids.tolist()], np.int64)
            known = np.flatnonzero(times)
            betas[known] = self._shapes.of(people.track_ids[known].tolist())
            deviation = np.maximum(SHAPE_DEVIATION / np.sqrt(1 + times), np.minimum(deviation, TRACK_DEVIATION))
        return betas, deviation

    def _remember(self, people: People, frame: int) -> None:
        if self._shapes is not None:
            seen = np.flatnonzero(people.aligned & (people.track_ids >= 0))
            self._shapes.see(frame, people.track_ids[seen].tolist(), people.betas[seen])


def _may_be_fitted(people: People, joints_px: Array, error: Array) -> Array:
    """(N,) bool: enough joints, before the camera, and finite."""
    enough = (joints_px[:, list(OBSERVED), 2] >= CONFIDENT).sum(1) >= LEAST_JOINTS
    finite = np.isfinite(people.pose_rad).all((1, 2)) & np.isfinite(people.betas).all(1) & np.isfinite(error)
    depth_m = people.joints_camera_m[..., 2].min(1) if len(people) else np.zeros(0)
    return np.asarray(enough & finite & (depth_m > 0))


def _check_agreement(chain: Chain, body: Body) -> None:
    """Check that the chain and the body's network pose a body alike."""
    pose_rad = 0.3 * np.sin(np.arange(3.0 * JOINTS)).reshape(1, JOINTS, 3)
    betas = np.cos(np.arange(10.0))[None]
    joints_m = chain.joints_m(matrix_from_axis_angle(pose_rad), betas)
    if not np.abs(joints_m - joints_m[:, :1] - body(pose_rad, betas)[1]).max() < AGREE_M:
        raise BundleError(
            f"{body.session.path}: the body inside poses differently from its arrays",
            "export it again, or run with --no-align",
        )
