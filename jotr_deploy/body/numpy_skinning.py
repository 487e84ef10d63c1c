"""Linear blend skinning in NumPy, for what runs without PyTorch; equal to `body/lbs.py` but for the last bits."""

from __future__ import annotations

import numpy as np

from jotr_deploy.body.faces import VERTICES
from jotr_deploy.body.smpl import BETAS, JOINTS, PARENTS, BodyModel
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.support.aliases import Array


class PosedBody:
    """A body as a function of pose and shape (Loper et al. 2015, equations 2 to 10)."""

    def __init__(self, body: BodyModel) -> None:
        self.body = body
        regressor = body.J_regressor.astype(np.float64)
        self._rest_m = regressor @ body.v_template  # (24, 3)
        self._rest_directions = np.einsum("jv,vck->jck", regressor, body.shapedirs)  # (24, 3, 10)
        directions = np.concatenate([body.shapedirs, body.posedirs], 2)
        self._directions = directions.reshape(3 * VERTICES, -1)  # (20670, 217)

    def __call__(self, pose_rad: Array, betas: Array) -> Array:
        """Pose and shape people.

        Args:
            pose_rad: (N, 24, 3) axis-angle, root first; N may be 0.
            betas: (N, 10).

        Returns:
            (N, 6890, 3) float32 metres, in the body's own frame: y up, without a translation.
        """
        pose_rad, betas = np.reshape(pose_rad, (-1, JOINTS, 3)), np.reshape(betas, (-1, BETAS))
        out = np.empty((len(betas), VERTICES, 3), np.float32)
        for person in range(len(betas)):  # by themselves: memory stays small, nobody's numbers depend on the others
            out[person] = self._one(matrix_from_axis_angle(pose_rad[person]), betas[person])
        return out

    def _one(self, rotations: Array, betas: Array) -> Array:
        coefficients = np.concatenate([betas, (rotations[1:] - np.eye(3)).ravel()]).astype(np.float32)
        shaped = self.body.v_template + (self._directions @ coefficients).reshape(VERTICES, 3)
        motions = joint_motions(rotations, self._rest_m + self._rest_directions @ betas).reshape(JOINTS, 12)
        blended = (self.body.weights @ motions.astype(np.float32)).reshape(VERTICES, 3, 4)
        moved: Array = (blended[..., :3] @ shaped[..., None])[..., 0] + blended[..., 3]
        return moved


def joint_motions(rotations: Array, rest_m: Array) -> Array:
    """(24, 3, 3) of every joint against its parent, (24, 3) rest locations -> (24, 3, 4) what moves its vertices."""
    turned, joints = rotations.copy(), rest_m.copy()
    for joint, parent in enumerate(PARENTS[1:], 1):
        joints[joint] = joints[parent] + turned[parent] @ (rest_m[joint] - rest_m[parent])
        turned[joint] = turned[parent] @ rotations[joint]
    shift = joints - (turned @ rest_m[..., None])[..., 0]
    return np.concatenate([turned, shift[..., None]], -1)
