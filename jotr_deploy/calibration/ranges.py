"""Ranges of activations: histograms over calibration crops, and four methods to choose a range from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from jotr_deploy.calibration.eight_bit_formats import INT8, Codes
from jotr_deploy.runtime.sessions.onnxruntime import CPU, load
from jotr_deploy.support.aliases import Array, Progress
from jotr_deploy.support.choices import CalibrationMethod

Feeds = Mapping[str, Array]

BINS = 2048
PERCENTILE = 99.99
_LEVELS = 128  # of the absolute value of an integer
_STEP = 16  # bins between two candidate ranges


@dataclass(frozen=True)
class Histogram:
    """The absolute values of one tensor over all crops."""

    largest: float
    counts: Array  # (BINS,) int64, equal bins from 0 to `largest`

    def range_by(self, method: CalibrationMethod, codes: Codes = INT8) -> float:
        """Absolute value that the largest code stands for; larger values are clipped to it."""
        if not self.counts.any() or self.largest == 0:
            return 0.0
        return self.largest * SHARES[method](self.counts.astype(np.float64), codes)


def collect(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Sequence[Feeds],
    progress: Progress = lambda step, done, total: None,
) -> dict[str, Histogram]:
    """Run the network over all crops, twice: once for the largest values, once for the histograms.

    Args:
        model: fp32, as `sites` saw it.
        tensors: activations of it.
        batches: inputs by name.
        progress: called with a step, batches done and all batches.
    """
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors)
    session = load(probed.SerializeToString(), [CPU])
    largest, counts = np.zeros(len(tensors)), np.zeros((len(tensors), BINS), np.int64)
    for done, feeds in enumerate(batches):
        progress("ranges", done, 2 * len(batches))
        largest = np.maximum(largest, [np.abs(value).max(initial=0) for value in session.run(None, dict(feeds))])
    for done, feeds in enumerate(batches, len(batches)):
        progress("histograms", done, 2 * len(batches))
        for row, value, end in zip(counts, session.run(None, dict(feeds)), largest, strict=True):
            if end > 0:
                row += np.histogram(np.abs(value), BINS, (0, end))[0]
    return {name: Histogram(float(end), row) for name, end, row in zip(tensors, largest, counts, strict=True)}


def _all(counts: Array, codes: Codes) -> float:
    return 1.0


def _percentile(counts: Array, codes: Codes) -> float:
    """Range up to the bin that contains the percentile."""
    below = np.cumsum(counts) / counts.sum()
    return float(np.searchsorted(below, PERCENTILE / 100) + 1) / BINS


def _mse(counts: Array, codes: Codes) -> float:
    """Range with the least squared error from rounding and clipping."""
    middles = np.arange(BINS) + 0.5

    def error(end: int) -> float:
        step = end / codes.largest
        rounded = codes.nearest(middles / step).astype(np.float64) * step
        return float((counts * (middles - rounded) ** 2).sum())

    return min(_candidates(), key=error) / BINS


def _entropy(counts: Array, codes: Codes) -> float:
    """Range whose quantised histogram diverges least from the clipped one (Kullback-Leibler).

    Zeros are ignored, since ReLU makes any number of them. Steps are equal, as for integers.
    """
    counts = counts.copy()
    counts[0] = counts[1]
    if not counts.any():
        return 1.0

    def divergence(end: int) -> float:
        kept = counts[:end].copy()
        kept[-1] += counts[end:].sum()
        group = np.arange(end) * _LEVELS // end
        filled = counts[:end] > 0
        sums, sizes = np.bincount(group, counts[:end], _LEVELS), np.bincount(group, filled, _LEVELS)
        coarse = np.where(filled, (sums / np.maximum(sizes, 1))[group], 0)
        if not coarse.any():
            return np.inf
        p, q = kept / kept.sum(), coarse / coarse.sum()
        some = (p > 0) & (q > 0)
        lost = p[(p > 0) & (q == 0)].sum()  # mass without a counterpart
        return float((p[some] * np.log(p[some] / q[some])).sum() + lost * np.log(BINS))

    return min(_candidates(), key=divergence) / BINS


def _candidates() -> range:
    return range(BINS, _LEVELS - 1, -_STEP)  # the widest first: it wins ties


SHARES: Mapping[CalibrationMethod, Callable[[Array, Codes], float]] = {
    "minmax": _all,
    "entropy": _entropy,
    "percentile": _percentile,
    "mse": _mse,
}
"""Functions for the share of the largest absolute value that the range keeps, by method."""
