"""Histograms of activations and the four ways to read a range from them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from jotr_deploy.calibration.eight_bit_formats import FP8
from jotr_deploy.calibration.ranges import BINS, Histogram, collect
from jotr_deploy.support.choices import CALIBRATION_METHODS, CalibrationMethod

MODEL = (
    '<ir_version: 9, opset_import: ["" : 19]> g (float[batch,4] x) => (float[batch,4] z) { y = Neg (x) z = Relu (y) }'
)


def histogram(values: np.ndarray) -> Histogram:
    largest = float(np.abs(values).max(initial=0))
    return Histogram(largest, np.histogram(np.abs(values), BINS, (0, largest or 1))[0])


def test_collected(rng: np.random.Generator) -> None:
    batches = [{"x": rng.normal(0, size, (3, 4)).astype(np.float32)} for size in (1, 100, 0)]
    steps: list[tuple[str, int, int]] = []
    found = collect(parser.parse_model(MODEL), ("y", "z"), batches, lambda *step: steps.append(step))
    everything = np.concatenate([batch["x"] for batch in batches])
    assert found["y"].largest == np.abs(everything).max()
    np.testing.assert_array_equal(found["y"].counts, histogram(everything).counts)
    assert found["z"].largest == pytest.approx(-everything.min())
    assert found["z"].counts.sum() == everything.size
    assert [done for _, done, _ in steps] == [0, 1, 2, 3, 4, 5]
    assert {total for _, _, total in steps} == {6}


def test_nothing_collected() -> None:
    found = collect(parser.parse_model(MODEL), ("y",), [])
    assert found["y"].largest == 0
    assert all(found["y"].range_by(method) == 0 for method in CALIBRATION_METHODS)


@pytest.mark.parametrize(("method", "least"), [("minmax", 0.99), ("percentile", 0.98), ("mse", 0.98), ("entropy", 0.9)])
def test_uniform_values_keep_their_range(method: CalibrationMethod, least: float, rng: np.random.Generator) -> None:
    assert least <= histogram(rng.uniform(-1, 1, 100_000)).range_by(method) <= 1


@pytest.mark.parametrize(("method", "share"), [("percentile", 0.1), ("mse", 0.7), ("entropy", 0.1)])
def test_one_outlier(method: CalibrationMethod, share: float, rng: np.random.Generator) -> None:
    values = np.concatenate([rng.normal(size=100_000), [100.0]])
    assert histogram(values).range_by(method) <= share * 100


def test_floating_codes_keep_a_far_outlier_that_integers_clip(rng: np.random.Generator) -> None:
    found = histogram(np.concatenate([rng.normal(size=100_000), [20.0]]))
    assert found.range_by("mse") < 15 < found.range_by("mse", FP8) <= 20


@pytest.mark.parametrize("method", ["entropy", "mse"])
def test_zeros_do_not_narrow_the_range(method: CalibrationMethod, rng: np.random.Generator) -> None:
    half = np.maximum(rng.normal(size=200_000), 0)
    assert histogram(half).range_by(method) > 2.0


def test_always_zero() -> None:
    assert {histogram(np.zeros(5)).range_by(method) for method in CALIBRATION_METHODS} == {0}
