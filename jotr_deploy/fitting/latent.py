"""Latent of a pose prior for a given pose: VPoser's decoder, solved for its input."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from jotr_deploy.body.torch_rotations import matrix_from_axis_angle
from jotr_deploy.body.vposer import BODY_JOINTS, LATENT, VPoserDecoder

_STEPS = 30
_DAMPING = 1e-2
_RIDGE = 1e-4
"""Weight of the latent's square beside that of the rotation matrices: a third of a degree for a trained decoder."""


def latent_of(decoder: VPoserDecoder, pose_rad: Tensor) -> Tensor:
    """(B, 24, 3) -> (B, 32): a likely latent, from zero by Levenberg and Marquardt, whose body is close to this pose.

    The latent nearest to a pose is of little use: some directions hardly change the body, and along them it lies far
    out, many times as far as another latent a fraction of a degree away. The length of the latent, which the energy has
    a term of, would then say nothing of the pose.
    """
    wanted = matrix_from_axis_angle(pose_rad[:, 1 : 1 + BODY_JOINTS]).flatten(1).double()
    decoder = copy.deepcopy(decoder).double()

    def residual(latent: Tensor, target: Tensor) -> Tensor:
        apart = matrix_from_axis_angle(decoder(latent[None])).flatten() - target
        return torch.cat([apart, _RIDGE**0.5 * latent])

    jacobian, residuals = vmap(jacfwd(residual)), vmap(residual)
    latent = torch.zeros(len(wanted), LATENT, dtype=wanted.dtype, device=wanted.device)
    damping = torch.full((len(wanted), 1, 1), _DAMPING, dtype=wanted.dtype, device=wanted.device)
    eye = torch.eye(LATENT, dtype=wanted.dtype, device=wanted.device)
    with torch.no_grad():
        before = residuals(latent, wanted)
        for _ in range(_STEPS if len(wanted) else 0):
            slope = jacobian(latent, wanted)
            step = torch.linalg.solve(slope.mT @ slope + damping * eye, slope.mT @ before[..., None])[..., 0]
            after = residuals(latent - step, wanted)
            better = (after * after).sum(1) < (before * before).sum(1)
            latent = torch.where(better[:, None], latent - step, latent)
            before = torch.where(better[:, None], after, before)
            damping = torch.where(better[:, None, None], damping / 4, damping * 4)
    return latent
