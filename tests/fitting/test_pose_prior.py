"""A fit in the latent of a pose prior, a file of VPoser's format: `--vposer` beside `--fit`, and `load(vposer=)`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_scenes import fake_scene
from feature_bundle import feature_bundle
from outcome import Outcome, tree
from pictures import noise, picture, write
from tiny import TINY

import jotr_deploy as jd
from jotr_deploy.body.vposer import LATENT, VPoserDecoder, load_vposer
from jotr_deploy.bundle import Bundle
from jotr_deploy.errors import BodyFileError, JotrDeployError
from jotr_deploy.evaluation import protocols
from jotr_deploy.export.assemble import load_stand_in
from jotr_deploy.fitting.latent import latent_of
from jotr_deploy.fitting.options import PRESETS, Stage
from jotr_deploy.people import People
from jotr_deploy.visual.result_files import read_people

pytestmark = pytest.mark.slow

Cli = Callable[..., Outcome]
BOXES = np.array([[5, 5, 45, 55], [20, 8, 70, 58]])
FIT = ("--fit", "default")
BODY = slice(1, 20)
"""Joints that a prior decides and a fit moves; wrists and hands are neither."""
REMEDY = "give the folder of VPoser v1.0 from https://smpl-x.is.tue.mpg.de (it holds snapshots/*.pt)"


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return feature_bundle(tiny_bundle, tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def vposer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as VPoser's, with the decoder of random weights that is in the bundle."""
    folder = tmp_path_factory.mktemp("vposer_v1_0")
    (folder / "snapshots").mkdir()
    torch.save(load_stand_in(TINY).model.vposer.state_dict(), folder / "snapshots" / "TR00_E096.pt")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset `default` of a few steps for everybody: the random features here contradict every start."""
    stages = (Stage(3, ("root", "translation")), Stage(6, ("root", "translation", "body")))
    monkeypatch.setitem(PRESETS, "default", replace(PRESETS["default"], stages=stages, least_agreement=-1.0))


def loaded(bundle: Bundle, vposer: Path | None) -> jd.Model:
    return jd.load(bundle, fit="default", vposer=vposer, device="cpu", camera="published")


def from_prior_rad(vposer: Path, people: People) -> np.ndarray:
    """(N,) largest component between a body pose and the prior's pose of a latent near it."""
    decoder = load_vposer(vposer)
    pose = torch.from_numpy(people.pose_rad)
    with torch.no_grad():
        near = decoder(latent_of(decoder, pose).float())[:, : BODY.stop - 1]
    return np.asarray((near - pose[:, BODY]).abs().amax((1, 2)))


# ── the library ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_poses_are_those_of_the_prior_and_not_those_of_the_anchor(bundle: Bundle, vposer: Path) -> None:
    with loaded(bundle, None) as anchored, loaded(bundle, vposer) as model:
        held = anchored(noise(), boxes=BOXES)
        found, again = (model(noise(), boxes=BOXES) for _ in range(2))
        roles = [used["role"] for used in model.files_used]
    assert roles == ["mesh", "features", "kernels", "bank", "vposer"]
    assert held.fit is not None
    assert found.fit is not None
    assert found.fit.accepted.all()
    assert (found.fit.energy_after < found.fit.energy_before).all()
    assert set(found.fit.terms_after) == {"features", "joints", "hinge", "shape", "latent"}
    assert set(held.fit.terms_after) == {"features", "joints", "hinge", "shape", "anchor"}
    np.testing.assert_array_equal(found.fit.terms_before["features"], held.fit.terms_before["features"])
    np.testing.assert_array_equal(found.pose_rad, again.pose_rad)
    np.testing.assert_array_equal(found.fit.energy_after, again.fit.energy_after)
    assert (from_prior_rad(vposer, found) < 0.02).all()
    assert (found.pose_rad[:, BODY] != held.pose_rad[:, BODY]).any((1, 2)).all()


def test_a_batch_is_its_people_one_by_one(bundle: Bundle, vposer: Path) -> None:
    with loaded(bundle, vposer) as model:
        together = model(noise(), boxes=BOXES)
        for k in range(2):
            alone = model(noise(), boxes=BOXES[k : k + 1])
            np.testing.assert_allclose(together.vertices_m[k], alone.vertices_m[0], atol=0.0005)


def test_on_film_the_latent_of_the_frame_before_is_a_place_to_begin(
    bundle: Bundle, vposer: Path, tmp_path: Path
) -> None:
    boxes = write(tmp_path / "boxes.json", [{"image_id": k, "bbox": [5, 5, 40, 50], "score": 1} for k in range(2)])
    still = film(tmp_path / "still.avi", [noise()] * 2)
    with loaded(bundle, vposer) as model:
        (_, first), (_, second) = model.stream(still, boxes=boxes)
    assert first.fit is not None
    assert second.fit is not None
    assert (first.fit.warm.tolist(), second.fit.warm.tolist()) == ([False], [True])
    assert second.fit.energy_after < first.fit.energy_after
    assert (from_prior_rad(vposer, second) < 0.02).all()


def film(path: Path, frames: list[np.ndarray]) -> Path:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 12, (frames[0].shape[1], frames[0].shape[0]))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def test_nobody_is_an_ordinary_result(bundle: Bundle, vposer: Path) -> None:
    with loaded(bundle, vposer) as model:
        found = model(noise(), boxes=np.zeros((0, 4)))
    assert found.fit is not None
    assert len(found) == len(found.fit) == len(found.fit.terms_after["latent"]) == 0


def test_a_prior_without_a_fit_is_refused(bundle: Bundle, vposer: Path) -> None:
    with pytest.raises(JotrDeployError, match="vposer needs fit") as error:
        jd.load(bundle, vposer=vposer)
    assert error.value.remedy == "add fit default, or leave vposer out"


# ── the latent ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_directions_that_do_not_turn_the_body_do_not_lengthen_the_latent(vposer: Path) -> None:
    """A decoder with 16 directions that hardly do anything, as trained ones have."""
    decoder = load_vposer(vposer)
    with torch.no_grad():
        decoder.bodyprior_dec_fc1.weight *= 4
        decoder.bodyprior_dec_fc1.weight[:, 16:] *= 1e-3
        latent = torch.randn(2, LATENT, generator=torch.Generator().manual_seed(1))
        latent[:, 16:] *= 20
        pose = torch.zeros(2, 24, 3)
        pose[:, 1:22] = decoder(latent)
        found = latent_of(decoder, pose).float()
        assert (found.norm(dim=1) < 0.2 * latent.norm(dim=1)).all()
        torch.testing.assert_close(decoder(found), pose[:, 1:22], atol=0.06, rtol=0)


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a picture, and boxes of two people in it."""
    picture(tmp_path / "photo.png")
    write(tmp_path / "boxes.json", BOXES.tolist())
    return tmp_path


def run(cli: Cli, bundle: Bundle, place: Path, *given: Any) -> Outcome:
    boxes = place / "boxes.json"
    return cli(
        "run", bundle.path, place / "photo.png", "--boxes", boxes, "-o", place / "out", "--device", "cpu", *given
    )


def test_a_run_says_which_prior_it_used(cli: Cli, bundle: Bundle, vposer: Path, place: Path) -> None:
    said = run(cli, bundle, place, *FIT, "--vposer", vposer)
    assert said.code == 0, said
    digest = hashlib.sha256((vposer / "snapshots" / "TR00_E096.pt").read_bytes()).hexdigest()
    assert f"fit default in the latent of TR00_E096.pt ({digest[:12]}): a lower energy for 2 of 2 meshes" in said.out
    assert "licence VPoser v1.0 pose prior: non-commercial research" in said.out
    used = {"role": "vposer", "name": "TR00_E096.pt", "sha256": digest}
    assert json.loads((place / "out" / "photo.json").read_text())["fit"]["files"][-1] == used
    stored = read_people(place / "out" / "photo.npz")
    assert stored.facts["fit"]["files"][-1] == stored.facts["networks"][-1] == used
    assert stored.people.fit is not None
    assert "latent" in stored.people.fit.terms_after
    plain = run(cli, bundle, place, *FIT)
    assert "VPoser" not in plain.out
    assert "latent" not in plain.out


def test_an_evaluation_says_which_prior_it_used(
    cli: Cli, bundle: Bundle, vposer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "held_out", fake_scene)
    small = ("eval", bundle.path, "--scenes", 5, "--device", "cpu", "--threads", 1, *FIT)
    held, found = (json.loads(cli(*small, *more, "--json").out) for more in ((), ("--vposer", vposer)))
    digest = hashlib.sha256((vposer / "snapshots" / "TR00_E096.pt").read_bytes()).hexdigest()
    latent = f"preset default, in the latent of TR00_E096.pt (sha256 {digest}), "
    assert found["protocol"]["fit"].startswith(latent)
    assert "latent" not in held["protocol"]["fit"]
    assert found["before_fit"] == held["before_fit"]
    assert found["errors"] != held["errors"]
    assert f"--fit default --vposer {vposer} --json" in cli(*small, "--vposer", vposer).out


class Marked:
    """Pickled code that leaves a file behind where it is run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("code was run"),)


@pytest.mark.parametrize("verb", ["run", "eval", "bench"])
def test_what_is_no_vposer_file(
    cli: Cli, bundle: Bundle, place: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("jotr_deploy.profiling.benchmark.open_networks", lambda *_: pytest.fail("a network is opened"))
    torch.save({**VPoserDecoder().state_dict(), "more": Marked()}, place / "code.pt")
    before = tree(place)
    given = ("photo.png", "--people", "frame", "-o", "out") if verb == "run" else ()
    for name, cause in (("nix.pt", "no such VPoser file"), ("code.pt", "holds pickled code (")):
        said = cli(verb, bundle.path, *given, *FIT, "--vposer", name)
        assert said.mistake[0].startswith(f"{name}: {cause}")
    wrong = cli(verb, bundle.path, *given, "--vposer", "code.pt")
    assert wrong.mistake == ("--vposer needs --fit", "add --fit default, or leave --vposer out")
    assert tree(place) == before


def changed(change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: change(value) for name, value in VPoserDecoder().state_dict().items()}


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("empty.pt", {}, "not a VPoser v1 decoder (missing, misshapen or no floats: "),
        ("sparse.pt", changed(torch.Tensor.to_sparse), "not a VPoser v1 decoder ("),
        ("whole.pt", changed(torch.Tensor.long), "not a VPoser v1 decoder ("),
        ("nowhere.pt", changed(lambda value: value.to("meta")), "not a VPoser v1 decoder ("),
        ("nan.pt", changed(lambda value: value * torch.nan), "weights of the decoder hold NaN or infinity"),
        ("huge.pt", changed(lambda value: torch.full_like(value, 1e38)), "the decoder gives NaN or infinity"),
        ("V02_05.ckpt", {}, "VPoser of version 2, another network"),
    ],
)
def test_decoders_that_are_refused(tmp_path: Path, name: str, content: Any, cause: str) -> None:
    torch.save(content, tmp_path / name)
    with pytest.raises(BodyFileError) as error:
        load_vposer(tmp_path / name)
    assert error.value.cause.startswith(f"{tmp_path / name}: {cause}")
    assert error.value.remedy == REMEDY
