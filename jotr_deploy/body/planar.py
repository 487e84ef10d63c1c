"""Skinning in an equal but faster form: vertices as three planes, the kinematic chain by tree level.

For inference. What depends on the body alone is multiplied out once; directions that are all zero are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import PARENTS
from jotr_deploy.body.torch_rotations import matrix_from_axis_angle


def levels() -> list[range]:
    """Joints of the tree by depth; in SMPL's order each level is a run of indices."""
    depth = [0]
    for parent in PARENTS[1:]:
        depth.append(depth[parent] + 1)
    return [range(depth.index(d), len(depth) - depth[::-1].index(d)) for d in range(max(depth) + 1)]


class PlanarBody(nn.Module):
    """`SkinnedBody` with x, y and z of all vertices as three planes, and the kinematic chain by tree level."""

    template: Tensor
    directions: Tensor
    rest: Tensor
    rest_directions: Tensor
    weights: Tensor
    regressor_30: Tensor

    def __init__(self, plain: SkinnedBody) -> None:
        super().__init__()
        self.stand_in = plain.stand_in
        self.uses_pose = bool(plain.posedirs.any())
        directions = torch.cat([plain.shapedirs, plain.posedirs], 2) if self.uses_pose else plain.shapedirs
        regressor = plain.J_regressor.double()
        self.register_buffer("template", plain.v_template.T.flatten().contiguous())  # (3V,)
        self.register_buffer("directions", directions.permute(2, 1, 0).flatten(1).contiguous())  # (K, 3V)
        self.register_buffer("rest", (regressor @ plain.v_template.double()).float())  # (24, 3)
        rest_directions = torch.einsum("jv,vck->kjc", regressor, plain.shapedirs.double())
        self.register_buffer("rest_directions", rest_directions.flatten(1).float())  # (10, 72)
        self.register_buffer("weights", plain.weights.T.contiguous())  # (24, V)
        self.register_buffer("regressor_30", plain.regressor_30.T.contiguous())  # (V, 30)

    def forward(self, pose: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Vertices and joints, as `SkinnedBody.forward` gives them."""
        rotations = matrix_from_axis_angle(pose)
        coefficients = betas
        if self.uses_pose:
            coefficients = torch.cat([betas, (rotations[:, 1:] - torch.eye(3)).flatten(1)], 1)
        x, y, z = (self.template + coefficients @ self.directions).unflatten(1, (3, 1, -1)).unbind(1)  # (B, 1, V)
        rest = (betas @ self.rest_directions).unflatten(1, (-1, 3)) + self.rest
        blended = self._motions(rotations, rest).flatten(2).transpose(1, 2) @ self.weights  # (B, 12, V)
        by_x, by_y, by_z, shift = blended.unflatten(1, (4, 3)).unbind(1)  # each (B, 3, V)
        planes = by_x * x + by_y * y + by_z * z + shift
        return planes.transpose(1, 2), (planes @ self.regressor_30).transpose(1, 2)

    def _motions(self, rotations: Tensor, rest: Tensor) -> Tensor:
        """(B, 24, 3, 3), (B, 24, 3) -> (B, 24, 4, 3): columns of every joint's rotation, then its shift."""
        root, *deeper = levels()
        world, place = rotations[:, root.start : root.stop], rest[:, root.start : root.stop, :, None]
        worlds, places, above = [world], [place], root
        for level in deeper:
            parents = torch.tensor([PARENTS[joint] for joint in level])
            bone = rest[:, level.start : level.stop] - rest.index_select(1, parents)
            world, place = world.index_select(1, parents - above.start), place.index_select(1, parents - above.start)
            place = place + world @ bone[..., None]
            world = world @ rotations[:, level.start : level.stop]
            worlds.append(world)
            places.append(place)
            above = level
        rotation, joints = torch.cat(worlds, 1), torch.cat(places, 1)
        return torch.cat([rotation, joints - rotation @ rest[..., None]], 3).transpose(2, 3)
