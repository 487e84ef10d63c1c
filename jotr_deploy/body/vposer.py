"""The VPoser v1 decoder: 32 latent numbers to the rotations of 21 body joints (docs/network.md section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jotr_deploy.body.tensors import read_tensors
from jotr_deploy.body.torch_rotations import axis_angle_from_matrix, matrix_from_6d
from jotr_deploy.errors import BodyFileError

LATENT, HIDDEN, BODY_JOINTS = 32, 512, 21
_REMEDY = "give the folder of VPoser v1.0 from https://smpl-x.is.tue.mpg.de (it holds snapshots/*.pt)"
_NEWER = "VPoser of version 2, another network"


class VPoserDecoder(nn.Module):
    """Decoder of VPoser v1.0, always in evaluation mode (its dropout is never used)."""

    def __init__(self) -> None:
        super().__init__()
        self.bodyprior_dec_fc1 = nn.Linear(LATENT, HIDDEN)
        self.bodyprior_dec_fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.bodyprior_dec_out = nn.Linear(HIDDEN, 6 * BODY_JOINTS)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, 32) -> (B, 21, 3) axis-angle of SMPL joints 1..21, radians."""
        return axis_angle_from_matrix(matrix_from_6d(self.rotations_6d(latent)))

    def rotations_6d(self, latent: Tensor) -> Tensor:
        """(B, 32) -> (B, 21, 6), the same rotations as six numbers each."""
        hidden = F.leaky_relu(self.bodyprior_dec_fc1(latent), 0.2)
        hidden = F.leaky_relu(self.bodyprior_dec_fc2(hidden), 0.2)
        return self.bodyprior_dec_out(hidden).unflatten(-1, (BODY_JOINTS, 6))


def vposer_snapshot(path: Path) -> Path:
    """The newest `snapshots/*.pt` of a VPoser v1 folder, or the file itself.

    Raises:
        BodyFileError: nothing there.
    """
    if path.is_dir():
        snapshots = sorted([*path.glob("snapshots/*.pt"), *path.glob("*.pt")])
        if not snapshots:
            newer = any(path.glob("snapshots/*.ckpt"))
            raise BodyFileError(f"{path}: {_NEWER if newer else 'no VPoser snapshot in this folder'}", _REMEDY)
        return snapshots[-1]
    if not path.is_file():
        raise BodyFileError(f"{path}: no such VPoser file", _REMEDY)
    if path.suffix == ".ckpt":
        raise BodyFileError(f"{path}: {_NEWER}", _REMEDY)
    return path


def load_vposer(path: Path) -> VPoserDecoder:
    """Read the decoder from a VPoser v1 folder or from one snapshot, see `vposer_snapshot`.

    Raises:
        BodyFileError: nothing there, not loadable without running code, other shapes, or not finite.
    """
    path = vposer_snapshot(path)
    content = read_tensors(path, BodyFileError, "a VPoser snapshot", _REMEDY)
    named = content.items() if isinstance(content, Mapping) else ()
    state = {str(name).removeprefix("module."): value for name, value in named}
    decoder = VPoserDecoder()
    wrong = [name for name, own in decoder.state_dict().items() if not _is_like(state.get(name), own)]
    if wrong:
        names = ", ".join(wrong)
        raise BodyFileError(f"{path}: not a VPoser v1 decoder (missing, misshapen or no floats: {names})", _REMEDY)
    if not all(torch.isfinite(state[name]).all() for name in decoder.state_dict()):
        raise BodyFileError(f"{path}: weights of the decoder hold NaN or infinity", _REMEDY)
    decoder.load_state_dict({name: state[name] for name in decoder.state_dict()})
    with torch.no_grad():
        poses = decoder(torch.cat([torch.zeros(1, LATENT), torch.eye(LATENT)]))
    if not torch.isfinite(poses).all():
        raise BodyFileError(f"{path}: the decoder gives NaN or infinity", _REMEDY)
    return decoder


def _is_like(value: Any, own: Tensor) -> bool:
    """True for an ordinary array of floats of the same shape; a file may also hold sparse, quantised or empty ones."""
    return (
        isinstance(value, Tensor)
        and value.shape == own.shape
        and value.is_floating_point()
        and value.layout == torch.strided
        and not value.is_meta
    )
