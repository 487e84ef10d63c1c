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


def latent_of(decoder: VPoserDecoder, pose_rad: Tensor) -> Tensor:
    """(B, 24, 3) -> (B, 32): the latent, from zero by Levenberg and Marquardt, whose body is nearest to this pose.

    For a pose that came from the decoder, as JOTR's do, this recovers its latent unless it meets another minimum.
    """
    wanted = matrix_from_axis_angle(pose_rad[:, 1 : 1 + BODY_JOINTS]).flatten(1).double()
    decoder = copy.deepcopy(decoder).double()

    def residual(latent: Tensor, target: Tensor) -> Tensor:
        return matrix_from_axis_angle(decoder(latent[None])).flatten() - target

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
