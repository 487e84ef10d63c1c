"""Values that a file gives a network: what passes can be built, what does not is named."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from jotr_deploy.config import ModelConfig, first_fault
from jotr_deploy.model.jotr import JOTR

EDGES: dict[str, list[Any]] = {
    "backbone_depth": [10, 152, 9, "x"],
    "backbone_width": [1, 3, 1024, 0, -1, 10**30],
    "d_model": [4, 12, 8192, 0, -8, 6],
    "heads": [1, 3, 256, 0, -4, None],
    "ffn_fusion": [1, 0, -1],
    "ffn_voxel": [1, 0, 2.5],
    "encoder_layers": [1, 3, 0, 10**9],
    "decoder_layers": [1, 3, 0, []],
    "crop_side": [16, 48, 2048, 0, -32, 10**9],
    "crop_factor": [1, 1.1, 4, 0.9, 4.1, float("nan"), "x"],
    "voxel_grid": [1, 3, 64, 0, -2],
    "dropout": [0, 1, -0.1, float("nan"), float("inf")],
}


def built(**values: Any) -> bool:
    """Whether the values pass; those that do are built, without memory for their weights."""
    try:
        config = ModelConfig.model_validate(values)
    except ValidationError:
        return False
    with torch.device("meta"):
        JOTR(config, None)
    return True


@pytest.mark.slow
def test_what_passes_can_be_built_whatever_the_pair() -> None:
    pairs = [
        {**dict.fromkeys((a, b)), a: x, b: y}
        for a, b in itertools.combinations(EDGES, 2)
        for x in EDGES[a]
        for y in EDGES[b]
        if not (a == "backbone_depth" and x == 152)
    ]
    cheap = {"backbone_depth": 10, "encoder_layers": 1, "decoder_layers": 1}
    assert 20 < sum(built(**cheap | pair) for pair in pairs) < len(pairs) / 2


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"heads": 0}, "heads: Input should be greater than or equal to 1"),
        ({"heads": 3}, "d_model 256 must be a multiple of heads (3) and of 4"),
        ({"voxel_grid": 0, "crop_side": 0}, "crop_side: Input should be greater than or equal to 16"),
        ({"crop_side": 300}, "crop_side 300 must be 16 or 32 times voxel_grid (8): the last stage keeps or halves the "
                             "resolution"),
        ({"dropout": float("nan")}, "dropout: Input should be less than or equal to 1"),
        ({"colour": 1}, "colour: Extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as error:
        ModelConfig.model_validate(values)
    assert first_fault(error.value) == fault


def test_the_published_network_passes() -> None:
    assert ModelConfig() == ModelConfig.model_validate({})
