"""Trained features in a bundle: the same in every engine, all or nothing, ignored by who does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_bundle import SMALL, feature_bundle, trained, write_weights
from tiny import TINY

from jotr_deploy.api import load
from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.errors import BundleError, FitError, VerificationError
from jotr_deploy.export import features as module
from jotr_deploy.export.assemble import load_stand_in
from jotr_deploy.export.features import OWN_TERMS, add_features, licence_of
from jotr_deploy.export.to_bundle import export_bundle
from jotr_deploy.fitting.bank import load_bank
from jotr_deploy.fitting.fitter import open_fitter
from jotr_deploy.runtime.sessions import open_session

pytestmark = pytest.mark.slow

FILES = {"features": "features.onnx", "kernels": "kernels.npz", "bank": "bank.npz"}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return feature_bundle(tiny_bundle, tmp_path_factory.mktemp("features"))


def image() -> np.ndarray:
    return np.random.default_rng(0).random((3, 3, SMALL.side, SMALL.side), np.float32)


def test_what_a_bundle_has_then(bundle: Bundle, tiny_bundle: Path) -> None:
    assert {role: bundle.entry(role).name for role in FILES} == FILES
    entry = bundle.entry("features")
    assert (entry.precision, entry.backend, entry.batch) == ("fp32", "onnx", "dynamic")
    for role in FILES:
        assert bundle.file(role).is_file()
    (licence,) = (each for each in bundle.manifest.licences if each.asset == "features")
    assert (licence.terms, licence.redistributable) == (OWN_TERMS, True)
    before = open_bundle(tiny_bundle).manifest
    assert [entry for entry in bundle.manifest.files if entry.role not in FILES] == list(before.files)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_engine_gives_what_pytorch_gives(bundle: Bundle, backend: str) -> None:
    pytest.importorskip(backend)
    with torch.inference_mode():
        expected = trained().network(torch.from_numpy(image())).numpy()
    with open_session(bundle.file("features"), backend, device="cpu") as session:
        for count in (1, 3):
            found = session({"image": image()[:count]})["features"]
            np.testing.assert_allclose(found, expected[:count], atol=2e-4)


def test_halved_weights_are_half_the_file_and_nearly_the_same(
    bundle: Bundle, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    added = add_features(open_bundle(tmp_path / "bundle"), write_weights(tmp_path), halved=True)
    assert added.least_cosine > 0.999
    assert added.bundle.file("features").stat().st_size < 0.8 * bundle.file("features").stat().st_size
    assert added.bundle.entry("features").recipe == {"weights": "float16"}


def test_new_features_take_the_place_of_the_old(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    foreign = write_weights(tmp_path, origin=("MSCOCO",))
    added = add_features(open_bundle(tmp_path / "bundle"), foreign, clutter=2)
    assert set(added.replaced) == set(FILES.values())
    assert sorted(entry.name for entry in added.bundle.manifest.files) == sorted(
        entry.name for entry in bundle.manifest.files
    )
    (licence,) = (each for each in added.bundle.manifest.licences if each.asset == "features")
    assert licence == licence_of(("MSCOCO",))
    assert not licence.redistributable
    features, precision = load_bank(added.bundle.file("bank"))
    assert features.clutter.shape[0] == 2
    assert precision == pytest.approx(trained().precision)


def test_features_of_another_body_are_refused_and_nothing_is_changed(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    before = sorted((path.name, path.read_bytes()) for path in (tmp_path / "bundle").iterdir())
    weights = write_weights(tmp_path, rest_m=trained().rest_m + np.float32(0.02))
    with pytest.raises(FitError) as refusal:
        add_features(open_bundle(tmp_path / "bundle"), weights)
    assert refusal.value.cause == f"{weights}: trained with another body than the bundle's (35 mm apart at rest)"
    assert sorted((path.name, path.read_bytes()) for path in (tmp_path / "bundle").iterdir()) == before


def test_a_file_that_differs_from_pytorch_is_refused(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    before = (tmp_path / "bundle" / "bundle.json").read_bytes()
    monkeypatch.setattr(module, "least_cosine", lambda network, proto: float("nan"))
    with pytest.raises(VerificationError, match=r"cosine nan, limit 0\.9999"):
        add_features(open_bundle(tmp_path / "bundle"), write_weights(tmp_path))
    assert (tmp_path / "bundle" / "bundle.json").read_bytes() == before
    assert not (tmp_path / "bundle" / "features.onnx").exists()


def test_export_puts_them_in(tmp_path: Path) -> None:
    weights = write_weights(tmp_path)
    exported = export_bundle(load_stand_in(TINY), tmp_path / "bundle", features=weights)
    assert "features" in [licence.asset for licence in exported.licences]
    with open_fitter(open_bundle(tmp_path / "bundle"), device="cpu") as opened:
        assert (opened.side, opened.cells) == (SMALL.side, SMALL.cells)


def test_export_without_a_body_takes_none(cli: Any, tmp_path: Path) -> None:
    said = cli("export", "--stand-in", "--no-body", "--features", "w.pt", "-o", tmp_path / "bundle")
    assert said.code == 2
    assert "--features" in said.err


def test_who_does_not_fit_gets_the_same_people(bundle: Bundle, tiny_bundle: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (80, 60, 3), np.uint8)
    found = []
    for path in (bundle.path, tiny_bundle):
        with load(path, device="cpu") as model:
            found.append(model(picture, boxes=np.array([[5, 5, 50, 70]])))
    np.testing.assert_array_equal(found[0].vertices_m, found[1].vertices_m)
    assert len(found[0]) == 1


def test_add_by_the_command_line(cli: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path)
    said = cli("add", tiny_bundle, "--features", weights, "-o", tmp_path / "copy", "--json")
    assert said.code == 0
    assert json.loads(said.out)["least_cosine"] > 0.9999
    assert open_bundle(tmp_path / "copy").has("features")
    refused = cli("add", tiny_bundle, "--features", weights, "--detector", "d.onnx")
    assert refused.code == 2
    assert "--features is given with options of other networks" in refused.err
    missing = cli("add", tiny_bundle, "--features", tmp_path / "none.pt", "-o", tmp_path / "other")
    assert missing.code == 2
    assert "none.pt: no such file" in missing.err


def test_a_bundle_without_a_body_takes_none(tmp_path: Path) -> None:
    export_bundle(load_stand_in(TINY, with_body=False), tmp_path / "bundle")
    with pytest.raises(BundleError, match="exported with --no-body"):
        add_features(open_bundle(tmp_path / "bundle"), write_weights(tmp_path))
