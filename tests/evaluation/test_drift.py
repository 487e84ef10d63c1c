"""Files against the fp32 file."""

from __future__ import annotations

import numpy as np
import pytest
from fake_scenes import truth

from jotr_deploy.evaluation.drift import file_drift
from jotr_deploy.evaluation.error_statistics import bootstrap_interval
from jotr_deploy.evaluation.measured_joints import BODY_PARTS
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.evaluation.metrics import distances_mm
from jotr_deploy.support.aliases import Array


def samples(joints_m: Array, errors_mm: Array) -> Samples:
    count = len(joints_m)
    joints_mm = np.broadcast_to(np.asarray(errors_mm, float)[:, None], (count, 14))
    visible, gap_m = np.ones((count, 14), bool), np.zeros((count, 14, 3))
    return Samples(joints_m, joints_mm, joints_mm, np.zeros(count), visible, np.ones(count), gap_m)


def test_the_same_network_does_not_drift() -> None:
    own = samples(truth(np.random.default_rng(0), 5).joints_m, np.arange(5))
    row = file_drift("b", "fp16", "cpu", own, own, 0)
    assert (row.name, row.precision, row.device) == ("b", "fp16", "cpu")
    assert (row.mean_mm, row.p95_mm, row.mpjpe_change_mm, row.interval_mm, row.not_finite) == (0, 0, 0, (0, 0), 0)
    assert row.parts_mm == dict.fromkeys(BODY_PARTS, 0)


def test_known_distances() -> None:
    joints = truth(np.random.default_rng(0), 21).joints_m
    moved = joints.copy()
    moved[:, list(BODY_PARTS["legs"]), 2] += 0.015
    moved[20, :, 0] += 1
    reference, found = samples(joints, np.zeros(21)), samples(moved, np.full(21, 2.5))
    row = file_drift("b", "fp16", "cpu", found, reference, 0)
    person = distances_mm(moved, joints).mean(1)
    assert row.mean_mm == round(person.mean(), 3)
    assert row.p95_mm == round(float(np.percentile(person, 95)), 3) == 4.0  # eight legs' joints of thirty
    assert row.parts_mm["legs"] == pytest.approx(15 + (np.hypot(1000, 15) - 15) / 21, abs=2e-3)
    assert row.parts_mm["head"] == pytest.approx(1000 / 21, abs=2e-3)
    assert (row.mpjpe_change_mm, row.interval_mm) == (2.5, (2.5, 2.5))


def test_broken_people_are_counted_and_left_out() -> None:
    joints = truth(np.random.default_rng(0), 4).joints_m
    broken = joints.copy()
    broken[2, 5, 1] = np.nan
    row = file_drift("b", "fp16", "cpu", samples(broken, np.ones(4)), samples(joints, np.zeros(4)), 0)
    assert (row.mean_mm, row.mpjpe_change_mm, row.not_finite) == (0, 1, 1)
    broken[:] = np.inf
    row = file_drift("b", "fp16", "cpu", samples(broken, np.ones(4)), samples(joints, np.zeros(4)), 0)
    assert (row.mean_mm, row.p95_mm, row.mpjpe_change_mm, row.interval_mm, row.not_finite) == (*[None] * 4, 4)
    assert set(row.parts_mm.values()) == {None}


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    interval = bootstrap_interval(values, 7)
    assert interval is not None
    low, high = interval
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert bootstrap_interval(values, 7) == interval
    assert bootstrap_interval(values, 8) != interval
    assert bootstrap_interval(np.zeros(0), 7) is None
