"""The VPoser v1 decoder: 32 latent numbers to the rotations of 21 body joints (docs/network.md section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jotr_deploy.body.tensors import read_tensors
from jotr_deploy.body.torch_rotations import axis_angle_from_matrix, matrix_from_6d
from jotr_deploy.errors import BodyFileError

LATENT, HIDDEN, BODY_JOINTS = 32, 512, 21
_REMEDY = "give the folder of VPoser v1.0 from https://smpl-x.is.tue.mpg.de (it holds snapshots/*.pt)"


class VPoserDecoder(nn.Module):
    """Decoder of VPoser v1.0, always in evaluation mode (its dropout is never used)."""

    def __init__(self) -> None:
        super().__init__()
        self.bodyprior_dec_fc1 = nn.Linear(LATENT, HIDDEN)
        self.bodyprior_dec_fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.bodyprior_dec_out = nn.Linear(HIDDEN, 6 * BODY_JOINTS)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, 32) -> (B, 21, 3) axis-angle of SMPL joints 1..21, radians."""
        hidden = F.leaky_relu(self.bodyprior_dec_fc1(latent), 0.2)
        hidden = F.leaky_relu(self.bodyprior_dec_fc2(hidden), 0.2)
        six = self.bodyprior_dec_out(hidden).unflatten(-1, (BODY_JOINTS, 6))
        return axis_angle_from_matrix(matrix_from_6d(six))


def load_vposer(path: Path) -> VPoserDecoder:
    """Read the decoder from a VPoser v1 folder (newest `snapshots/*.pt`) or from one snapshot file.

    Raises:
        BodyFileError: nothing there, not loadable without running code, or other shapes.
    """
    if path.is_dir():
        snapshots = sorted([*path.glob("snapshots/*.pt"), *path.glob("*.pt")])
        if not snapshots:
            newer = any(path.glob("snapshots/*.ckpt"))
            what = "VPoser of version 2, another network" if newer else "no VPoser snapshot in this folder"
            raise BodyFileError(f"{path}: {what}", _REMEDY)
        path = snapshots[-1]
    elif not path.is_file():
        raise BodyFileError(f"{path}: no such VPoser file", _REMEDY)
    content = read_tensors(path, BodyFileError, "a VPoser snapshot", _REMEDY)
    named = content.items() if isinstance(content, Mapping) else ()
    state = {str(name).removeprefix("module."): value for name, value in named}
    decoder = VPoserDecoder()
    wrong = [
        name
        for name, value in decoder.state_dict().items()
        if not isinstance(state.get(name), Tensor) or state[name].shape != value.shape
    ]
    if wrong:
        raise BodyFileError(f"{path}: not a VPoser v1 decoder (missing or misshapen: {', '.join(wrong)})", _REMEDY)
    if not all(torch.isfinite(state[name]).all() for name in decoder.state_dict()):
        raise BodyFileError(f"{path}: weights of the decoder hold NaN or infinity", _REMEDY)
    decoder.load_state_dict({name: state[name] for name in decoder.state_dict()})
    return decoder
