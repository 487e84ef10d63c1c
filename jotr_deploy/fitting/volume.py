"""Body as a volume of Gaussians: their positions and widths, and the joints, by pose and shape."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from jotr_deploy.body.joint_regression import JointsBody
from jotr_deploy.body.lbs import SkinnedBody, pose_offsets, shape_vertices, skin
from jotr_deploy.body.planar import levels
from jotr_deploy.body.smpl import PARENTS, BodyModel
from jotr_deploy.body.torch_rotations import matrix_from_axis_angle
from jotr_deploy.errors import FitError
from jotr_deploy.fitting.gaussian_precision import PRECISION, blended_precision, polar_precision
from jotr_deploy.fitting.kernels import LIMB_BONES, Kernels, fingerprint
from jotr_deploy.support.aliases import Array

Turning = Literal["blended", "polar"]


class Posed(NamedTuple):
    """Volume in a pose, in the axes of the camera but without the translation, metres."""

    centres_m: Tensor  # (B, K, 3)
    precision: Tensor  # () or (B, K, 3, 3)
    limb_directions: Tensor  # (B, 9, 3) unit vectors, from the proximal to the distal joint


class BodyVolume(nn.Module):
    """Gaussians of a body as a function of its pose and shape, in double precision.

    It costs little compared with rendering. In double precision a person's numbers do not depend on how many others are
    posed in the same call, except for a last bit that rounding to single precision removes.
    """

    template: Tensor
    shape_directions: Tensor
    pose_directions: Tensor
    weights: Tensor
    rest_joints: Tensor
    joint_directions: Tensor
    limbs: Tensor
    bones: Tensor
    rest_precision: Tensor

    def __init__(
        self,
        body: BodyModel,
        kernels: Kernels,
        precision: float | Array = PRECISION,
        turning: Turning = "blended",
    ) -> None:
        """Bind kernels to their body.

        Args:
            body: that the kernels were made from.
            kernels: of that body.
            precision: 1 / m^2, one for all, or (K, 3, 3) symmetric matrices of the body at rest.
            turning: how matrices follow the pose: as the paper blends them, or by one rotation for each kernel.

        Raises:
            FitError: kernels of another body, or precisions that are not positive.
        """
        super().__init__()
        if kernels.body != fingerprint(body):
            raise FitError(
                "the kernels were made from another body", "make them from this one: fitting.kernels.decimate"
            )
        self.register_buffer("rest_precision", _checked_precision(precision, len(kernels)))
        self.turning = turning
        plain = SkinnedBody(body).double()
        chosen = torch.from_numpy(kernels.indices)
        self.register_buffer("template", plain.v_template[chosen])
        self.register_buffer("shape_directions", plain.shapedirs[chosen])
        self.register_buffer("pose_directions", plain.posedirs[chosen])
        self.register_buffer("weights", plain.weights[chosen])
        self.register_buffer("rest_joints", plain.J_regressor @ plain.v_template)
        self.register_buffer("joint_directions", torch.einsum("jv,vck->jck", plain.J_regressor, plain.shapedirs))
        self.register_buffer("limbs", torch.from_numpy(kernels.limbs))
        self.register_buffer("bones", torch.tensor(LIMB_BONES))
        self.joints = JointsBody(plain).double()
        self.uses_pose = bool(plain.posedirs.any())
        matrices = self.rest_precision if self.is_turned else self.rest_precision * torch.eye(3)
        self.lowest_precision = float(torch.linalg.eigvalsh(matrices).min())

    @property
    def count(self) -> int:
        """K, the number of kernels."""
        return len(self.template)

    @property
    def is_turned(self) -> bool:
        """True if the precisions are matrices, which follow the pose."""
        return self.rest_precision.ndim == 3

    def forward(self, pose_rad: Tensor, betas: Tensor) -> Posed:
        """(B, 24, 3) axis-angle, (B, 10) -> the volume; double precision in and out."""
        rotations = matrix_from_axis_angle(pose_rad)
        rest_joints = shape_vertices(self.rest_joints, self.joint_directions, betas)
        turns, places = chained(rotations, rest_joints)
        vertices = shape_vertices(self.template, self.shape_directions, betas)
        if self.uses_pose:
            vertices = vertices + pose_offsets(self.pose_directions, rotations)
        centres = skin(vertices, self.weights, turns, places - (turns @ rest_joints[..., None])[..., 0])
        bones = places.index_select(1, self.bones[:, 1]) - places.index_select(1, self.bones[:, 0])
        return Posed(centres, self._precision(turns), nn.functional.normalize(bones, dim=-1))

    def _precision(self, turns: Tensor) -> Tensor:
        if not self.is_turned:
            return self.rest_precision
        turn = blended_precision if self.turning == "blended" else polar_precision
        return turn(self.rest_precision, self.weights, turns)


def chained(rotations: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 24, 3, 3) of each joint against its parent, (B, 24, 3) at rest -> its rotation and place in the body's frame.

    All joints at one depth of the tree are computed at once: one by one, the overhead of the calls dominates.
    """
    parents = torch.tensor(PARENTS[1:], device=rotations.device)
    bones = torch.cat([rest_joints[:, :1], rest_joints[:, 1:] - rest_joints.index_select(1, parents)], 1)
    last = rotations.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*rotations.shape[:2], 1, 4)
    steps = torch.cat([torch.cat([rotations, bones[..., None]], -1), last], -2)
    root, *deeper = levels()
    above, motions = root, [steps[:, root.start : root.stop]]
    for level in deeper:
        chosen = parents[level.start - 1 : level.stop - 1] - above.start
        motions.append(motions[-1].index_select(1, chosen) @ steps[:, level.start : level.stop])
        above = level
    motion = torch.cat(motions, 1)
    return motion[..., :3, :3], motion[..., :3, 3]


def _checked_precision(precision: float | Array, count: int) -> Tensor:
    matrices = torch.from_numpy(np.asarray(precision, np.float64))
    if matrices.shape not in ((), (count, 3, 3)):
        raise FitError(
            f"the precisions of the kernels are {tuple(matrices.shape)}", f"give one number, or ({count}, 3, 3)"
        )
    lowest = matrices if matrices.ndim == 0 else torch.linalg.eigvalsh(matrices)
    if not bool((lowest > 0).all()):  # NaN is not above zero either
        raise FitError("a kernel's precision is not positive", "give positive numbers, 1 / m^2")
    return matrices
