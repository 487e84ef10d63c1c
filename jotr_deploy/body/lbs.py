"""Linear blend skinning as pure functions, written from the SMPL paper (Loper et al. 2015, equations 2 to 10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jotr_deploy.body.smpl import PARENTS, BodyModel
from jotr_deploy.body.torch_rotations import matrix_from_axis_angle


def shape_vertices(template: Tensor, directions: Tensor, betas: Tensor) -> Tensor:
    """(V, 3), (V, 3, K), (B, K) -> (B, V, 3): template plus shape blend shapes (eq. 8)."""
    return template + torch.einsum("bk,vck->bvc", betas, directions)


def pose_offsets(directions: Tensor, rotations: Tensor) -> Tensor:
    """(V, 3, 207), (B, 24, 3, 3) -> (B, V, 3): pose blend shapes of R - I of joints 1..23 (eq. 9)."""
    identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    features = (rotations[:, 1:] - identity).flatten(1)
    return torch.einsum("bk,vck->bvc", features, directions)


def joint_transforms(rotations: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 24, 3, 3), (B, 24, 3) -> rotation (B, 24, 3, 3) and shift (B, 24, 3) of every joint's rigid motion.

    A vertex v that belongs to joint j alone moves to `rotation[j] @ v + shift[j]` (eq. 3 and 4): the world transform
    of the joint with its rest location removed.
    """
    world_rotation, world_joint = [rotations[:, 0]], [rest_joints[:, 0]]
    for joint in range(1, len(PARENTS)):
        parent = PARENTS[joint]
        bone = rest_joints[:, joint] - rest_joints[:, parent]
        world_joint.append(world_joint[parent] + (world_rotation[parent] @ bone[..., None])[..., 0])
        world_rotation.append(world_rotation[parent] @ rotations[:, joint])
    rotation, joints = torch.stack(world_rotation, 1), torch.stack(world_joint, 1)
    return rotation, joints - (rotation @ rest_joints[..., None])[..., 0]


def skin(vertices: Tensor, weights: Tensor, rotation: Tensor, shift: Tensor) -> Tensor:
    """(B, V, 3), (V, 24), (B, 24, 3, 3), (B, 24, 3) -> (B, V, 3): blended joint motions (eq. 2)."""
    blended_rotation = torch.einsum("vj,bjrc->bvrc", weights, rotation)
    blended_shift = torch.einsum("vj,bjr->bvr", weights, shift)
    return (blended_rotation @ vertices[..., None])[..., 0] + blended_shift


class SkinnedBody(nn.Module):
    """A body as a function of pose and shape, in the body's own frame."""

    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor
    J_regressor: Tensor
    weights: Tensor
    regressor_30: Tensor
    faces: Tensor

    def __init__(self, body: BodyModel) -> None:
        super().__init__()
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "faces"):
            self.register_buffer(name, torch.from_numpy(getattr(body, name)))
        self.register_buffer("regressor_30", torch.from_numpy(body.regressor_30()))
        self.stand_in = body.stand_in

    def forward(self, pose: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 24, 3) axis-angle, (B, 10) -> vertices (B, 6890, 3) and the 30-joint set (B, 30, 3), metres."""
        rotations = matrix_from_axis_angle(pose)
        shaped = shape_vertices(self.v_template, self.shapedirs, betas)
        rest_joints = self.J_regressor @ shaped
        rotation, shift = joint_transforms(rotations, rest_joints)
        vertices = skin(shaped + pose_offsets(self.posedirs, rotations), self.weights, rotation, shift)
        return vertices, self.regressor_30 @ vertices
