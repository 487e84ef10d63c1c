"""The bundle inside this package: whole, small, free, and as good as its card says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jotr_deploy.bundle import FIT_ROLES, Bundle, open_bundle, starter_path
from jotr_deploy.evaluation.held_out_scenes import SEED, held_out
from jotr_deploy.evaluation.protocols import SyntheticOptions, evaluate_synthetic
from jotr_deploy.fitting.fitter import open_fitter
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.sessions import open_session

CARD = (starter_path() / "CARD.md").read_text()


@pytest.fixture(scope="module")
def starter() -> Bundle:
    return open_bundle(Path("starter"))


def test_everything_is_there_and_small(starter: Bundle) -> None:
    for role in ("mesh", "detector", "pose", "faces", *FIT_ROLES):
        assert starter.file(role).is_file()
    assert sum(path.stat().st_size for path in starter.path.iterdir()) <= 16e6
    listed = {entry.name for entry in starter.manifest.files}
    assert {path.name for path in starter.path.iterdir()} == listed | {"bundle.json", "CARD.md"}


def test_it_may_be_passed_on_and_says_that_it_is_trained(starter: Bundle) -> None:
    assert all(licence.redistributable for licence in starter.manifest.licences)
    assert not any("untrained" in label for label in starter.manifest.labels)


def test_people_are_fitted_to_its_features(starter: Bundle) -> None:
    """At least somebody of two scenes; the energy falls for exactly those, and the others stay as they are."""
    changed = []
    with open_session(starter.file("mesh"), device="cpu") as session, open_fitter(starter, device="cpu") as fitter:
        mesh = MeshNetwork(session)
        for index in range(2):
            scene = held_out(SEED, index, starter.manifest.model.crop_factor)
            given = scene.given[scene.counted]
            people = mesh(make_crops(scene.image_bgr, given, mesh.crop_side), given)
            fits = fitter(make_crops(scene.image_bgr, given, fitter.side), people)
            same = (fits.people.pose_rad == people.pose_rad).all((1, 2))
            np.testing.assert_array_equal(fits.accepted, fits.energy_after < fits.energy_before)
            np.testing.assert_array_equal(fits.accepted, ~same)
            changed += fits.accepted.tolist()
    assert any(changed)


@pytest.mark.slow
def test_the_card_is_reproduced(starter: Bundle) -> None:
    command = re.search(r"jotr-deploy eval starter --pixels --seed (\d+) --scenes (\d+)", CARD)
    assert command
    seed, scenes = map(int, command.groups())
    result = evaluate_synthetic(starter, SyntheticOptions(seed=seed, scenes=scenes, pixels=True))
    assert result.pixels is not None
    rows = {f"true boxes, noisy joints, {who}": found for who, found in result.errors.people.items()}
    rows |= {f"from pixels, {who}": found for who, found in result.pixels.errors.people.items()}
    for name, found in rows.items():
        row = re.search(rf"^\| {name} \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", CARD, re.MULTILINE)
        assert row, name
        assert found.people == int(row[1]), name
        figures = [found.mpjpe_mm, found.pa_mpjpe_mm, found.pve_mm]
        np.testing.assert_allclose(figures, [float(row[k]) for k in (2, 3, 4)], atol=0.6, err_msg=name)
    for figure, said in (
        (result.pixels.detector.recall, r"detector\s+finds\s+([\d.]+)\s%"),
        (result.pixels.people.recall, r"recall\s+is\s+([\d.]+)\s%"),
        (result.pixels.people.precision, r"precision\s+is\s+([\d.]+)\s%"),
    ):
        stated = re.search(said, CARD)
        assert stated, said
        assert figure == pytest.approx(float(stated[1]) / 100, abs=0.0006)


@pytest.mark.slow
def test_engines_are_made_of_weights_that_are_stored_as_halves(cli: Callable[..., Any], tmp_path: Path) -> None:
    result = cli("build-engine", "starter", "--backend", "onnxruntime", "-o", tmp_path / "copy")
    assert result.code == 0, result.err
    for precision in ("fp32", "fp16", "bf16"):
        assert cli("build-engine", "starter", "--precision", precision, "--check-only").code == 0


def test_two_people_in_a_picture(starter: Bundle, cli: Callable[..., Any], tmp_path: Path) -> None:
    scene = Path(__file__).parents[1] / "jotr_deploy" / "visual" / "scene.jpg"
    result = cli("run", "starter", scene, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    assert "2 people" in result.out + result.err
