"""The 30 joints of a skinned body without its vertices: the regressor is folded into the sums of the skinning.

A joint is a weighted sum of vertices, and a vertex a weighted sum of joint motions applied to sums over shape and pose.
Summed over the vertices first, what is left per joint and motion is one row of numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jotr_deploy.body.lbs import SkinnedBody, joint_transforms
from jotr_deploy.body.torch_rotations import matrix_from_axis_angle


class JointsBody(nn.Module):
    """The second result of `SkinnedBody`, and nothing of it that has the size of the mesh."""

    rest: Tensor
    rest_directions: Tensor
    rows: Tensor
    directions: Tensor
    shares: Tensor

    def __init__(self, plain: SkinnedBody, regressor: Tensor | None = None) -> None:
        """Fold a body; `regressor` (K, 6890) gives other joints than the 30-joint set."""
        super().__init__()
        of_vertices = (plain.regressor_30 if regressor is None else regressor).double()
        self.count = len(of_vertices)
        self.uses_pose = bool(plain.posedirs.any())
        regressor, template = plain.J_regressor.double(), plain.v_template.double()
        directions = plain.shapedirs.double()
        rest_directions = torch.einsum("jv,vck->kjc", regressor, directions)
        if self.uses_pose:
            directions = torch.cat([directions, plain.posedirs.double()], 2)
        # How much of vertex v, moved by skinning joint j, is in joint k of the K; k and j as one axis.
        share = torch.einsum("kv,vj->kjv", of_vertices, plain.weights.double()).flatten(0, 1)
        folded = {
            "rest": regressor @ template,  # (24, 3)
            "rest_directions": rest_directions.flatten(1),  # (10, 72)
            "rows": (share @ template).flatten(),  # (K * 24 * 3,)
            "directions": (share @ directions.flatten(1)).unflatten(1, (3, -1)).permute(2, 0, 1).flatten(1),
            "shares": share.sum(1).unflatten(0, (self.count, 24)),
        }
        for name, value in folded.items():
            self.register_buffer(name, value.float().contiguous(), persistent=False)

    def forward(self, pose: Tensor, betas: Tensor) -> Tensor:
        """(B, 24, 3) axis-angle, (B, 10) -> the joints (B, K, 3), metres, in the body's own frame."""
        rotations = matrix_from_axis_angle(pose)
        coefficients = betas
        if self.uses_pose:
            identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
            coefficients = torch.cat([betas, (rotations[:, 1:] - identity).flatten(1)], 1)
        rest = (betas @ self.rest_directions).unflatten(1, (-1, 3)) + self.rest
        rotation, shift = joint_transforms(rotations, rest)
        rows = (self.rows + coefficients @ self.directions).unflatten(1, (self.count, 24, 3))
        return torch.einsum("bjrc,bkjc->bkr", rotation, rows) + self.shares @ shift
