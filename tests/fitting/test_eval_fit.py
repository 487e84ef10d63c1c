"""`eval --fit` through the command line: a bundle with features of random weights, scenes without a renderer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_scenes import fake_scene
from feature_bundle import feature_bundle
from outcome import Outcome

from jotr_deploy.bundle import FEATURES_AGAIN
from jotr_deploy.evaluation import protocols
from jotr_deploy.fitting import fitter, options
from jotr_deploy.fitting.bundle_fitter import BundleFitter
from jotr_deploy.fitting.options import PRESETS, Stage
from jotr_deploy.support.choices import FITS

pytestmark = pytest.mark.slow

Cli = Callable[..., Outcome]
SMALL = ("--scenes", 5, "--device", "cpu", "--threads", 1)
PATCHES = ("--occlusion", 120, "--stride", 120)
FIT = ("--fit", "default")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return feature_bundle(tiny_bundle, tmp_path_factory.mktemp("features")).path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of few steps on scenes that are not drawn."""
    monkeypatch.setattr(protocols, "held_out", fake_scene)
    stages = (Stage(2, ("root", "translation")), Stage(2, ("root", "body")))
    monkeypatch.setitem(options.PRESETS, "default", replace(PRESETS["default"], stages=stages, mirror="none"))


def found_by(cli: Cli, *arguments: Any) -> Any:
    outcome = cli("eval", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.fixture(autouse=True)
def features_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit everybody, although the random features of these tests contradict every start."""
    monkeypatch.setitem(PRESETS, "default", replace(PRESETS["default"], least_agreement=-1.0))


def test_the_start_is_what_is_measured_without_a_fit(cli: Cli, bundle: Path) -> None:
    plain = found_by(cli, bundle, *SMALL, *PATCHES, "--visible-joints", "--drift")
    fitted = found_by(cli, bundle, *SMALL, *PATCHES, "--visible-joints", "--drift", *FIT)
    before = fitted["before_fit"]
    assert list(before) == ["errors", "not_finite", "pixels", "drift", "visible_joints"]
    for key in before:
        assert before[key] == plain[key]
    (row,), (start,) = fitted["occlusion"]["sizes"][0]["files"], plain["occlusion"]["sizes"][0]["files"]
    assert row["before_fit"] == start
    assert fitted["occlusion"]["worst_before_fit"] == plain["occlusion"]["worst"]
    counts, people = fitted["fit"], plain["errors"]["people"]["all"]["people"]
    assert (counts["people"], counts["tried"]) == (people, people)
    assert counts["accepted"] > 0
    assert fitted["errors"] != plain["errors"]
    assert row["worst"] != start["worst"]
    assert fitted["protocol"]["fit"].startswith("preset default, ")
    assert (plain["fit"], plain["before_fit"], plain["protocol"]["fit"]) == (None, None, None)
    joints = row["visible_joints"]["worst"]
    assert list(joints) == ["all", "visible"]
    assert joints["visible"]["joints"] < joints["all"]["joints"] == 14 * people
    assert 0 <= joints["visible"]["pckh"] <= 1


def test_equal_options_give_equal_bytes_and_batches_do_not_matter(cli: Cli, bundle: Path, monkeypatch: Any) -> None:
    first, again = (cli("eval", bundle, *SMALL, *FIT, "--json").out for _ in range(2))
    assert first == again
    monkeypatch.setattr("jotr_deploy.evaluation.collector.MAX_BATCH", 1)
    alone = found_by(cli, bundle, *SMALL, *FIT)
    for name, row in json.loads(first)["errors"]["people"].items():
        for key, value in row.items():
            assert alone["errors"]["people"][name][key] == (value and pytest.approx(value, abs=0.5))


def test_the_tables(cli: Cli, bundle: Path) -> None:
    outcome = cli("eval", bundle, *SMALL, *PATCHES, *FIT, "--visible-joints")
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.out.split())
    assert "mesh.onnx on cpu, after the fit, millimetres" in text
    assert "Before and after the fit, mm; it changed " in text
    assert "people MPJPE fitted PA-MPJPE fitted PVE fitted" in text
    assert "joints n in all MPJPE fitted PA-MPJPE fitted PCKh fitted" in text
    assert "file patch clean fitted worst fitted PA-MPJPE fitted" in text
    assert "file patch joints worst fitted PA-MPJPE fitted PCKh fitted" in text
    assert outcome.out.splitlines()[-1].endswith(
        f"jotr-deploy eval {bundle} --seed 1000 --scenes 5 --fit default --visible-joints "
        "--occlusion 120 --stride 120 --json > eval.json"
    )


def test_nobody(cli: Cli, bundle: Path) -> None:
    found = found_by(cli, bundle, "--scenes", 1, "--device", "cpu", "--threads", 1, *PATCHES, *FIT, "--visible-joints")
    assert found["fit"] == {"people": 0, "tried": 0, "accepted": 0, "mirrored": 0}
    nothing = {"people": 0, "joints": 0, "mpjpe_mm": None, "pa_mpjpe_mm": None, "pckh": None}
    assert found["visible_joints"] == found["before_fit"]["visible_joints"] == {"all": nothing, "visible": nothing}
    assert found["occlusion"]["sizes"][0]["files"][0]["before_fit"]["worst"]["mpjpe_mm"] is None


def test_presets_are_those_of_the_fit() -> None:
    assert set(FITS) == set(PRESETS)


@pytest.mark.parametrize(
    ("arguments", "cause", "remedy"),
    [
        (("--fit", "best"), "--fit: 'best' is not known", "give one of default, release_natural, release_advocc"),
        (
            (*FIT, "--align"),
            "--fit and --align contradict each other: a fit starts from the unaligned pose",
            "leave one of them out",
        ),
    ],
)
def test_refusals(cli: Cli, bundle: Path, arguments: tuple[str, ...], cause: str, remedy: str) -> None:
    assert cli("eval", bundle, *SMALL, *arguments).mistake == (cause, remedy)


def test_a_bundle_without_features(cli: Cli, tiny_bundle: Path) -> None:
    cause = f"{tiny_bundle}: no fit is possible, the bundle has no features file"
    assert cli("eval", tiny_bundle, *SMALL, *FIT).mistake == (cause, FEATURES_AGAIN)


def test_without_pytorch(cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = fitter.importlib.util.find_spec
    monkeypatch.setattr(fitter.importlib.util, "find_spec", lambda name, *more: None if name == "torch" else find(name))
    cause, remedy = cli("eval", bundle, *SMALL, *FIT).mistake
    assert cause == "the fit needs torch"
    assert "'.[fit]'" in remedy


def test_features_that_are_no_numbers(cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = BundleFitter.seen
    monkeypatch.setattr(BundleFitter, "seen", lambda self, images: seen(self, images) * np.nan)
    cause, _ = cli("eval", bundle, *SMALL, *FIT).mistake
    assert cause.endswith("features.onnx: its features contain NaN or infinity")
