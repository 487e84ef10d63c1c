"""Cascaded regressors of root rotation, pose latent, shape and camera (docs/network.md section 9)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jotr_deploy.body.vposer import LATENT
from jotr_deploy.config import ModelConfig

POSE_TOKEN, SHAPE_TOKEN, CAMERA_TOKEN = 0, 1, 2


class Cascade(nn.ModuleList):
    """One linear map a decoder layer; each adds to the result of the one before, which it also sees."""

    def __init__(self, layers: int, width: int, outputs: int) -> None:
        super().__init__(nn.Linear(width + (outputs if layer else 0), outputs) for layer in range(layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """(L, B, C) -> (B, outputs)."""
        out: Tensor = self[0](tokens[0])
        for layer, token in zip(list(self)[1:], tokens[1:], strict=True):
            out = out + layer(torch.cat([token, out], -1))
        return out


class Parameters(NamedTuple):
    """Raw outputs of the heads."""

    root_6d: Tensor  # (B, 6)
    latent: Tensor  # (B, 32) of the pose prior
    betas: Tensor  # (B, 10)
    cam: Tensor  # (B, 3)


class Heads(nn.Module):
    """The four cascades."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layers, width = config.decoder_layers, config.d_model
        self.root, self.latent = Cascade(layers, width, 6), Cascade(layers, width, LATENT)
        self.betas, self.cam = Cascade(layers, width, 10), Cascade(layers, width, 3)

    def forward(self, tokens: Tensor) -> Parameters:
        """Decoder tokens (L, B, 18, C) -> parameters."""
        pose = tokens[:, :, POSE_TOKEN]
        return Parameters(
            self.root(pose),
            self.latent(pose),
            self.betas(tokens[:, :, SHAPE_TOKEN]),
            self.cam(tokens[:, :, CAMERA_TOKEN]),
        )
