"""Sensitivity of each block to eight bits, in millimetres, and the blocks that a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from jotr_deploy.calibration.eight_bit_formats import INT8, Codes
from jotr_deploy.calibration.placement import chosen_nodes
from jotr_deploy.calibration.quantize import quantize
from jotr_deploy.errors import BundleError, JotrDeployError, VerificationError
from jotr_deploy.evaluation.metrics import mpjpe_mm
from jotr_deploy.runtime.sessions.onnxruntime import CPU, load
from jotr_deploy.support.aliases import Array, Progress

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Block:
    """One row of the table."""

    name: str
    alone_mm: float  # drift with this block in eight bits and all others in float
    bits: int  # 8, or 32 where the budget needed it


@dataclass(frozen=True)
class Search:
    """Blocks that fit into the budget."""

    blocks: tuple[Block, ...]  # the costliest first
    drift_mm: float  # mean root-relative distance of the 30 joints from fp32
    p95_mm: float  # of people
    all_mm: float  # drift with every block in eight bits

    @property
    def chosen(self) -> tuple[str, ...]:
        """The blocks in eight bits."""
        return tuple(block.name for block in self.blocks if block.bits == 8)


class DriftMeter:
    """Meter that runs networks over the held-out crops and compares them with fp32.

    Raises:
        VerificationError: on a call, an output that is not finite.
    """

    def __init__(self, reference: onnx.ModelProto, batches: Sequence[Feeds]) -> None:
        self._batches = batches
        self._reference = self._joints(reference)

    def __call__(self, model: onnx.ModelProto) -> Array:
        """(N,) mean distance of each person's 30 joints from fp32, millimetres."""
        drift: Array = mpjpe_mm(self._joints(model), self._reference)
        return drift

    def _joints(self, model: onnx.ModelProto) -> Array:
        session = load(model.SerializeToString(), [CPU])
        names = [value.name for value in session.get_outputs()]
        joints = []
        for feeds in self._batches:
            out = dict(zip(names, session.run(None, dict(feeds)), strict=True))
            wrong = [name for name, value in out.items() if not np.isfinite(value).all()]
            if wrong:
                raise VerificationError(f"output {wrong[0]} is not finite", "report this with the versions of `doctor`")
            joints.append(out["joints3d"])
        return np.concatenate(joints)


def search(
    model: onnx.ModelProto,
    largest: Mapping[str, float],
    meter: Callable[[onnx.ModelProto], Array],
    budget_mm: float,
    codes: Codes = INT8,
    progress: Progress = lambda step, done, total: None,
) -> tuple[onnx.ModelProto, Search]:
    """Quantise every block, then return the costliest to float until the drift is within the budget.

    Args:
        model: fp32, weights float32.
        largest: see `quantize`, for all blocks.
        meter: a network -> (N,) drift of each person, mm.
        budget_mm: largest mean drift.
        codes: the 8-bit type.
        progress: called with a step, steps done and all known steps.

    Raises:
        JotrDeployError: not even the cheapest block alone is within the budget; the message gives the drift reached.
        VerificationError: an output is not finite.
    """
    names = list(chosen_nodes(model))
    alone = _each_alone(model, names, largest, meter, codes, progress)
    ranked = sorted(names, key=lambda name: -alone[name])
    all_mm = None
    for kept_float in range(len(ranked)):
        progress(f"budget: {kept_float} of {len(ranked)} blocks in float", kept_float, None)
        chosen = [name for name in names if name in ranked[kept_float:]]
        quantized = quantize(model, largest, chosen, codes)
        drift = meter(quantized)
        all_mm = float(drift.mean()) if all_mm is None else all_mm
        if drift.mean() <= budget_mm:
            return quantized, _found(alone, chosen, drift, all_mm)
    raise JotrDeployError(
        f"no block fits into {budget_mm:g} mm: {ranked[-1]} alone drifts {alone[ranked[-1]]:.2g} mm, all together "
        f"{all_mm:.2g} mm, most of it in {ranked[0]} ({alone[ranked[0]]:.2g} mm)",
        "allow more with --budget-mm, try another --method, or stay with fp32",
    )


def placed(
    model: onnx.ModelProto,
    largest: Mapping[str, float],
    meter: Callable[[onnx.ModelProto], Array],
    blocks: Collection[str],
    codes: Codes = INT8,
    progress: Progress = lambda step, done, total: None,
) -> tuple[onnx.ModelProto, Search]:
    """Quantise these blocks at any cost and measure the drift; the other arguments are those of `search`.

    Raises:
        BundleError: the network has no block of a name.
        VerificationError: an output is not finite.
    """
    names = list(chosen_nodes(model))
    unknown = [name for name in blocks if name not in names]
    if unknown:
        raise BundleError(
            f"--placement: {unknown[0]} is no block of this network",
            "give a bundle of a network of the same configuration",
        )
    alone = _each_alone(model, names, largest, meter, codes, progress)
    quantized = quantize(model, largest, [name for name in names if name in blocks], codes)
    drift = meter(quantized)
    every = drift if len(set(blocks)) == len(names) else meter(quantize(model, largest, names, codes))
    return quantized, _found(alone, blocks, drift, float(every.mean()))


def _each_alone(
    model: onnx.ModelProto,
    names: Sequence[str],
    largest: Mapping[str, float],
    meter: Callable[[onnx.ModelProto], Array],
    codes: Codes,
    progress: Progress,
) -> dict[str, float]:
    """The mean drift with each block alone in eight bits, mm."""
    alone: dict[str, float] = {}
    for done, name in enumerate(names):
        progress(f"drift of {name}", done, len(names))
        alone[name] = float(meter(quantize(model, largest, [name], codes)).mean())
    return alone


def _found(alone: Mapping[str, float], chosen: Collection[str], drift: Array, all_mm: float) -> Search:
    ranked = sorted(alone, key=lambda name: -alone[name])
    blocks = tuple(Block(name, alone[name], 8 if name in chosen else 32) for name in ranked)
    return Search(blocks, float(drift.mean()), float(np.percentile(drift, 95)), all_mm)
