"""A network small enough to trace in seconds, and what tests build from it."""

from __future__ import annotations

from pathlib import Path

from jotr_deploy.config import ModelConfig

TINY = ModelConfig(
    backbone_depth=10, backbone_width=8, d_model=32, heads=4, ffn_fusion=32, ffn_voxel=32,
    encoder_layers=1, decoder_layers=3, crop_side=64, voxel_grid=4,
)  # fmt: skip

SMALL = TINY.model_copy(update={"decoder_layers": 2})
"""The fewest layers that still sample: what has to be traced anew is traced in two thirds of the time."""


def tiny_checkpoint(folder: Path) -> Path:
    """A checkpoint of this package without a body, `tiny.pt`."""
    from jotr_deploy.model.checkpoint import save_checkpoint
    from jotr_deploy.model.initialise import initialise
    from jotr_deploy.model.jotr import JOTR

    save_checkpoint(folder / "tiny.pt", initialise(JOTR(TINY, None)))
    return folder / "tiny.pt"
