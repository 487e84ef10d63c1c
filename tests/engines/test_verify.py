"""How far a network is from its reference: rotations as rotations, millimetres as distances, NaN never passes."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import TINY

from jotr_deploy.engines.verify import (
    BATCHES,
    UNITS,
    Difference,
    difference,
    measure,
    random_crops,
    require,
    require_as_good,
)
from jotr_deploy.errors import VerificationError
from jotr_deploy.support.precisions import LIMITS, Precision

REPORT = "report this with the versions of `doctor`"


def outputs(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {
        "joints_img": (15, 3), "pose": (24, 3), "betas": (10,), "cam": (3,), "translation": (3,),
        "joints3d": (30, 3), "joints_proj": (30, 2), "vertices": (6890, 3),
    }  # fmt: skip
    return {name: rng.normal(size=(batch, *shape)).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("output", "reference", "candidate", "expected"),
    [
        ("vertices", [[[0, 0, 0], [1, 1, 1]]], [[[0.003, 0, 0.004], [1, 1, 1]]], [[5, 0]]),  # Euclidean, mm
        ("joints3d", [[[0, 0, 0]]], [[[0.001, 0.002, 0.002]]], [[3]]),
        ("translation", [[0, 0, 40]], [[0, 0, 39.9]], [100]),
        ("joints_proj", [[[1, 2]]], [[[1.5, 1]]], [[[0.5, 1]]]),  # elementwise, cells
        ("betas", [[1, -1]], [[0, 1]], [[1, 2]]),
        ("joints_img", [[[0.5, 0.5, 0.5]]], [[[0.5, 0.25, 0.5]]], [[[0, 0.25, 0]]]),
        ("pose", [[[0, 0, 0.5]]], [[[0, 0, 0.75]]], [[0.25]]),  # an angle
        ("pose", [[[np.pi, 0, 0]]], [[[-np.pi, 0, 0]]], [[0]]),  # one rotation, two vectors
        ("pose", [[[0, np.pi - 1e-4, 0]]], [[[0, -np.pi + 1e-4, 0]]], [[2e-4]]),
        ("pose", [[[0, 0, 0.1]]], [[[0, 0, 0.1 + 2 * np.pi]]], [[0]]),
    ],
)
def test_differences_have_the_unit_of_their_output(
    output: str, reference: list, candidate: list, expected: list
) -> None:
    found = difference(output, np.array(reference, np.float64), np.array(candidate, np.float64))
    assert output in UNITS
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_small_differences_of_float32_survive() -> None:
    reference = np.full((1, 1, 3), 40.0, np.float32)
    found = difference("vertices", reference, np.nextafter(reference, np.float32(41)))
    np.testing.assert_allclose(found, np.sqrt(3) * (np.nextafter(np.float32(40), np.float32(41)) - 40.0) * 1000)
    assert found > 0


def test_crops_are_valid_feeds_and_the_same_every_time() -> None:
    for batch in (1, 5):
        feeds = random_crops(TINY, batch)
        assert {name: (feed.dtype.name, feed.shape) for name, feed in feeds.items()} == {
            "image": ("float32", (batch, 3, 64, 64)),
            "joints": ("float32", (batch, 30, 2)),
            "joints_mask": ("float32", (batch, 30)),
        }
        assert 0 <= feeds["image"].min() < feeds["image"].max() <= 1
        assert 0 <= feeds["joints"].min() < feeds["joints"].max() <= TINY.heatmap_side
        assert set(np.unique(feeds["joints_mask"])) == {0, 1}
        for name, again in random_crops(TINY, batch).items():
            np.testing.assert_array_equal(feeds[name], again)
    assert not np.array_equal(random_crops(TINY, 1)["image"], random_crops(TINY, 1, seed=1)["image"])


def test_both_networks_see_the_same_crops_at_every_batch() -> None:
    seen: dict[str, list[dict[str, np.ndarray]]] = {"a": [], "b": []}

    def network(name: str, shift: float):
        def call(feeds):
            seen[name].append(dict(feeds))
            found = outputs(len(feeds["image"]))
            return {**found, "vertices": found["vertices"] + np.float32([0, shift, 0])}

        return call

    rows = measure(network("a", 0), network("b", 0.002), TINY, (2, 4))
    assert [(row.output, row.batch) for row in rows] == [(name, batch) for batch in (2, 4) for name in outputs(1)]
    for first, second in zip(seen["a"], seen["b"], strict=True):
        assert all(np.array_equal(first[name], second[name]) for name in first)
    for row in rows:
        assert row.finite
        assert (row.max, row.mean) == pytest.approx((2, 2) if row.output == "vertices" else (0, 0), abs=1e-3)


@pytest.mark.parametrize(("batch", "calls"), [(1, 7), (3, 3), (8, 1)])
def test_at_least_as_many_crops_as_asked_for(batch: int, calls: int) -> None:
    """No crop twice; the mean is over all of them, and one value that is not finite counts wherever it is."""
    seen: list[bytes] = []

    def shifted(feeds):
        seen.extend(each.tobytes() for each in feeds["image"])
        found = outputs(len(feeds["image"]))
        found["translation"] = found["translation"] + np.float32([0.003 * len(seen), 0, 0])
        return found

    (row,) = (
        row
        for row in measure(lambda feeds: outputs(len(feeds["image"])), shifted, TINY, (batch,), crops=7)
        if row.output == "translation"
    )
    assert len(set(seen)) == len(seen) == calls * batch
    assert row.mean == pytest.approx(3 * batch * (calls + 1) / 2, rel=1e-3)
    assert row.max == pytest.approx(3 * batch * calls, rel=1e-3)

    def broken_in_the_first(feeds):
        found = outputs(len(feeds["image"]))
        if not np.array_equal(feeds["image"], random_crops(TINY, batch, calls - 1)["image"]) or calls == 1:
            found["cam"].flat[0] = np.nan
        return found

    rows = measure(lambda feeds: outputs(len(feeds["image"])), broken_in_the_first, TINY, (batch,), crops=7)
    assert [row.output for row in rows if not row.finite] == ["cam"]


def test_batches_of_one_and_more() -> None:
    assert BATCHES[0] == 1
    assert len(set(BATCHES)) > 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("output", outputs(1))
def test_what_is_not_finite_is_refused_wherever_it_is(output: str, bad: float) -> None:
    def broken(feeds):
        found = outputs(len(feeds["image"]))
        found[output].flat[-1] = bad
        return found

    with np.errstate(invalid="ignore"):
        rows = measure(lambda feeds: outputs(len(feeds["image"])), broken, TINY, (1,))
    with pytest.raises(VerificationError) as refusal:
        require(rows, Precision.FP32, "mesh.onnx")
    assert refusal.value.cause == f"mesh.onnx: output {output} is not finite at batch 1"
    assert refusal.value.remedy == f"if the training diverged, give an earlier snapshot; else {REPORT}"


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("output", LIMITS[Precision.FP32])
def test_the_limit_is_the_last_value_that_passes(precision: Precision, output: str) -> None:
    kind, limit = LIMITS[precision][output]
    other = 10 * limit if kind == "mean" else 0.0  # what the limit is not about
    at = Difference(output, 3, *((limit, other) if kind == "max" else (other, limit)), True)
    above = Difference(output, 3, *((1.01 * limit, other) if kind == "max" else (other, 1.01 * limit)), True)
    require([at], precision, "mesh.onnx")
    with pytest.raises(VerificationError) as refusal:
        require([at, above], precision, "mesh.onnx")
    unit = UNITS[output]
    assert refusal.value.cause == (
        f"mesh.onnx: {output} differs from its reference by {1.01 * limit:.3g} {unit} at batch 3, "
        f"limit {limit:g} {unit} ({kind})"
    )
    assert refusal.value.remedy == f"nothing was kept; {REPORT}"


def test_every_output_has_a_unit_and_a_limit() -> None:
    limited = {*outputs(1), "boxes", "scores", "joints", "features"}
    assert set(UNITS) == {*limited, "fit", "fit, rounding"}  # whose limit depends on the features
    for limits in LIMITS.values():
        assert limits.keys() == limited


def test_the_promised_limits() -> None:
    assert LIMITS[Precision.FP32]["vertices"] == ("max", 0.1)
    assert LIMITS[Precision.FP16]["vertices"] == ("mean", 1.0)


def test_a_difference_that_is_nan_does_not_pass() -> None:
    with pytest.raises(VerificationError, match="vertices differs from its reference by nan mm at batch 1"):
        require([Difference("vertices", 1, float("nan"), float("nan"), True)], Precision.FP32, "mesh.onnx")


def test_nothing_to_compare_is_fine() -> None:
    require([], Precision.FP32, "mesh.onnx")


@pytest.mark.parametrize(
    ("mean", "calibrated", "finite", "words"),
    [
        (6.0, 6.0, True, None),
        (12.9, 6.0, True, None),  # twice that, and what float16 may be off
        (13.1, 6.0, True, "vertices differs from fp32 by 13.1 mm at batch 3, the calibrated file by 6 mm"),
        (0.9, 0.0, True, None),
        (1.1, 0.0, True, "vertices differs from fp32 by 1.1 mm"),
        (0.0, 6.0, False, "output vertices is not finite at batch 3"),
        (float("nan"), 6.0, True, "vertices differs"),
    ],
)
def test_another_form_of_int8(mean: float, calibrated: float, finite: bool, words: str | None) -> None:
    rows = [Difference("vertices", 3, mean, mean, finite)]
    own = [Difference("vertices", 3, calibrated, calibrated, True)]
    if words is None:
        require_as_good(rows, own, "the form")
        return
    with pytest.raises(VerificationError, match=words):
        require_as_good(rows, own, "the form")
