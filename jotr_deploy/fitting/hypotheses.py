"""Second start of a fit: the person mirrored in depth, which looks almost the same from far away."""

from __future__ import annotations

import torch
from torch import Tensor

from jotr_deploy.body.torch_rotations import axis_angle_from_matrix, matrix_from_axis_angle
from jotr_deploy.skeletons import SMPL30, mirrored_order

_OTHER_SIDE = list(mirrored_order(SMPL30[:24]))


def mirrored_in_depth(pose_rad: Tensor) -> Tensor:
    """(B, 24, 3) axis-angle -> pose with the joints mirrored in z about the root.

    The root turns by Z R S, with Z = diag(1, 1, -1) and S = diag(-1, 1, 1), and the body is flipped from left to right.
    Exact for a body that is symmetric at rest. The release uses S R Z, which is the same only for an upright torso.
    """
    root = matrix_from_axis_angle(pose_rad[:, 0])
    sides = pose_rad.new_tensor([-1.0, 1.0, 1.0])
    depths = pose_rad.new_tensor([1.0, 1.0, -1.0])
    turned = axis_angle_from_matrix(depths[:, None] * root * sides)
    flipped = pose_rad[:, _OTHER_SIDE] * pose_rad.new_tensor([1.0, -1.0, -1.0])
    return torch.cat([turned[:, None], flipped[:, 1:]], 1)
