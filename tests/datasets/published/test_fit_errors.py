"""Which fits are near enough to what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.datasets.published.fits import fit_counts, fit_error_m
from jotr_deploy.skeletons import H36M17, SMPL30, SMPL30_INDEX

BARE = Annotation("a", Path("a.jpg"), (64, 48), np.zeros(4), np.zeros((30, 3)))
NAMES = ("L_Hip", "R_Hip", "Thorax", "Neck", "Head")


def person(**places_m: tuple[float, float, float]) -> Annotation:
    """Somebody of whom these joints were measured."""
    joints_m, known = np.zeros((30, 3)), np.zeros(30, bool)
    for name, place_m in places_m.items():
        joints_m[SMPL30_INDEX[name]], known[SMPL30_INDEX[name]] = place_m, True
    return replace(BARE, joints_m=joints_m, joints_m_known=known)


HIPS = person(L_Hip=(0.1, 0, 3), R_Hip=(-0.1, 0, 3), Head_top=(0, -0.5, 3))
FAR = (9, 9, 9)  # not compared


@pytest.mark.parametrize(
    ("fitted_m", "error_m"),
    [
        ([(0.1, 0, 3), (-0.1, 0, 3), FAR, FAR, FAR], 0.0),
        ([(0.4, 0.2, 5), (0.2, 0.2, 5), FAR, FAR, FAR], 0.0),  # moved as a whole
        ([(0.12, 0, 3), (-0.12, 0, 3), FAR, FAR, FAR], 0.02),
        ([(0.1, 0, 3.06), (-0.1, 0, 3), FAR, FAR, FAR], 0.03),  # 30 mm to each side of the mean
    ],
)
def test_joints_that_both_have_are_compared(fitted_m: list[tuple[float, ...]], error_m: float) -> None:
    assert fit_error_m(HIPS, np.array(fitted_m), NAMES) == pytest.approx(error_m, abs=1e-12)
    assert fit_counts(HIPS, np.array(fitted_m), NAMES) == (error_m < 0.025)


@pytest.mark.parametrize(("off_m", "counts"), [(0.0249, True), (0.0251, False)])
def test_the_limit_is_25_mm(off_m: float, counts: bool) -> None:
    fitted_m = np.array([(0.1 + off_m, 0, 3), (-0.1 - off_m, 0, 3)])
    assert fit_counts(HIPS, fitted_m, ("L_Hip", "R_Hip")) == counts


@pytest.mark.parametrize("somebody", [BARE, person(), person(Nose=(0, 0, 3))], ids=["2-D", "none", "others"])
def test_what_cannot_be_compared_counts(somebody: Annotation) -> None:
    fitted_m = np.full((5, 3), 7.0)
    assert fit_error_m(somebody, fitted_m, NAMES) is None
    assert fit_counts(somebody, fitted_m, NAMES)


def test_the_names_are_those_of_the_regressor_by_default() -> None:
    everything = replace(BARE, joints_m=np.zeros((30, 3)), joints_m_known=np.ones(30, bool))
    fitted_m = np.zeros((len(H36M17), 3))
    fitted_m[H36M17.index("Nose")] = (0.17, 0, 0)  # the mean goes 10 mm along: 160 mm and sixteen times 10
    assert set(H36M17) <= set(SMPL30)
    assert fit_error_m(everything, fitted_m) == pytest.approx((0.16 + 16 * 0.01) / 17)
