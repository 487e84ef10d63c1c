"""Network with the rounding of its calibrated file, and straight-through gradients.

Weights are rounded in their stored form, with norms folded and maps merged (`export.fused`); activations
where the file has Q/DQ pairs, with the file's scales. Gradients reach the plain weights.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from jotr_deploy.export.fused import fuse
from jotr_deploy.model.jotr import JOTR
from jotr_deploy.training.qdq_positions import Pairs, Placement
from jotr_deploy.training.run_config import TrainingError

_LOWEST, _HIGHEST = -128, 127


def fake_quantized(network: JOTR, placement: Placement) -> JOTR:
    """Fused form of a network with these modules in int8, to be made anew whenever the weights have changed.

    The result is for the current values of the weights, and for float32. Dropout is off; batch norms keep
    their running statistics.

    Raises:
        TrainingError: the placement names a module that the network does not have.
    """
    fused = fuse(network)
    known = dict(fused.named_modules())
    for scope in placement:
        if scope not in known:
            raise TrainingError(
                f"the calibrated file quantises {scope}, which the network does not have",
                "it is of another version: export and calibrate again",
            )
    for scope in sorted(placement, key=len, reverse=True):  # modules inside a block before the block
        parent, _, name = scope.rpartition(".")
        setattr(known[parent], name, _Between(known[scope], placement[scope]))
    return fused


class _Between(nn.Module):
    """Module between its Q/DQ pairs, with a rounded weight."""

    def __init__(self, plain: nn.Module, pairs: Pairs) -> None:
        super().__init__()
        self.plain, self.pairs = plain, pairs
        self.weighted = isinstance(plain, (nn.Conv2d, nn.Linear))

    def forward(self, x: Tensor) -> Tensor:
        weights = {}
        if self.weighted:
            weights["weight"] = rounded_weight(cast(Tensor, self.plain.weight), self.pairs.largest_weight)
        found: Tensor = functional_call(self.plain, weights, (rounded(x, self.pairs.before),))
        # A ReLU may come before or after: it commutes with rounding to a symmetric grid.
        return rounded(found, self.pairs.after)


def rounded(x: Tensor, scale: float | None) -> Tensor:
    """Round to multiples of the scale, -128 to 127; the gradient passes where nothing is clipped."""
    return x if scale is None else torch.fake_quantize_per_tensor_affine(x, scale, 0, _LOWEST, _HIGHEST)


def rounded_weight(weight: Tensor, largest_code: float = _HIGHEST) -> Tensor:
    """Round each output channel (the first axis), whose largest absolute value gets the code `largest_code`.

    Divided as `calibration.quantize` divides: PyTorch's own operator multiplies by the reciprocal, so that a
    weight between two codes may get a different one than in the file.
    """
    with torch.no_grad():
        largest = weight.abs().flatten(1).amax(1)
        scale = torch.where(largest > 0, largest / largest_code, 1.0).view(-1, *[1] * (weight.ndim - 1))
        codes = (weight / scale).round().clamp(-largest_code, largest_code)
    found: Tensor = _Straight.apply(weight, codes * scale)
    return found


class _Straight(torch.autograd.Function):
    """Value of the second argument with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, found: Tensor) -> Tensor:
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None
