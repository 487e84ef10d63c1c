"""`run --fit` and `load(fit=)`: results and pictures, several people at once, films, and what is refused."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from feature_bundle import feature_bundle
from onnx import helper, numpy_helper
from outcome import Outcome, tree
from pictures import noise, picture, video, write
from toy_scene import BINS, CHANNELS, KERNELS, SIDE

import jotr_deploy as jd
from jotr_deploy.body.smpl import stand_in
from jotr_deploy.bundle import FEATURES_AGAIN, Bundle, open_bundle, replace_file
from jotr_deploy.errors import FitError, JotrDeployError
from jotr_deploy.fitting import fitter, options, picture_fitter
from jotr_deploy.fitting.bank import Features, save_bank
from jotr_deploy.fitting.bundle_fitter import BundleFitter
from jotr_deploy.fitting.kernels import decimate, save_kernels
from jotr_deploy.fitting.options import FitOptions, Stage, Weights
from jotr_deploy.people import LAYOUT, People, PeopleFit
from jotr_deploy.runtime import fitting_stage
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.support.choices import FITS
from jotr_deploy.visual.result_files import read_people

pytestmark = pytest.mark.slow

Cli = Callable[..., Outcome]
BOXES = np.array([[5, 5, 45, 55], [20, 8, 70, 58]])
MOVED = ("pose_rad", "betas", "translation_m", "joints_m", "vertices_m")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return feature_bundle(tiny_bundle, tmp_path_factory.mktemp("features"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset `default` of a few steps from one start, by features and anchor, which lower any energy."""
    stages = (Stage(3, ("root", "translation")), Stage(4, ("root", "body")))
    weights = Weights(joints=0.0, hinge=0.0)
    few = FitOptions(stages=stages, rate=0.01, mirror="none", objective="softmax", weights=weights)
    monkeypatch.setitem(options.PRESETS, "default", few)


@pytest.fixture
def model(bundle: Bundle) -> Iterator[jd.Model]:
    with jd.load(bundle, fit="default", device="cpu", camera="published") as model:
        yield model


def same_fit(a: PeopleFit | None, b: PeopleFit | None) -> None:
    assert a is not None
    assert b is not None
    for field in fields(PeopleFit):
        np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


def same(a: People, b: People) -> None:
    for name in LAYOUT:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    same_fit(a.fit, b.fit)


def near(a: People, b: People) -> None:
    """Equal but for what a batch of another size may change: 0.5 mm at most."""
    assert a.fit is not None
    assert b.fit is not None
    np.testing.assert_array_equal(a.fit.accepted, b.fit.accepted)
    np.testing.assert_allclose(a.fit.energy_after, b.fit.energy_after, atol=1e-6)
    np.testing.assert_allclose(a.vertices_m, b.vertices_m, atol=0.0005)
    np.testing.assert_allclose(a.translation_m, b.translation_m, atol=0.0005)


# ── the library ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_people_are_fitted_from_the_pose_before_alignment(bundle: Bundle, model: jd.Model) -> None:
    with jd.load(bundle, align=False, device="cpu", camera="published") as plain:
        raw = plain(noise(), boxes=BOXES)
    found = model(noise(), boxes=BOXES)
    assert raw.fit is None
    fit = found.fit
    assert fit is not None
    assert not model.align
    assert fit.tried.all()
    assert fit.accepted.any()
    assert ((fit.energy_after < fit.energy_before) == fit.accepted).all()
    assert set(fit.terms_before) == {"features", "joints", "hinge", "shape", "anchor"}
    assert fit.occlusion.shape == (2, SIDE, SIDE)
    for name in LAYOUT:
        before, after = getattr(raw, name), getattr(found, name)
        if name not in MOVED:
            np.testing.assert_array_equal(after, before, err_msg=name)
        np.testing.assert_array_equal(after[~fit.accepted], before[~fit.accepted], err_msg=name)
    for k in np.flatnonzero(fit.accepted):
        assert not np.array_equal(found.pose_rad[k], raw.pose_rad[k])
    assert {used["role"] for used in model.files_used} == {"mesh", "features", "kernels", "bank"}


def test_the_same_again(model: jd.Model) -> None:
    same(model(noise(), boxes=BOXES), model(noise(), boxes=BOXES))


def test_the_extractor_sees_the_square_of_the_mesh_network(model: jd.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    whole = BundleFitter.seen

    def remembered(self: BundleFitter, images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return whole(self, images)

    monkeypatch.setattr(BundleFitter, "seen", remembered)
    found = model(noise(), boxes=BOXES)
    people = Detections(found.boxes_px, found.keypoints_px, found.scores, found.track_ids)
    np.testing.assert_array_equal(seen[0], make_crops(noise(), people, 4 * SIDE).image)
    assert len(seen) == 1


def test_fitted_people_are_placed_before_the_cameras_of_the_picture(bundle: Bundle, model: jd.Model) -> None:
    own = model(noise(), boxes=BOXES)
    with jd.load(bundle, fit="default", device="cpu", fov_deg=50) as placed:
        scene = placed(noise(), boxes=BOXES)
    assert len(set(scene.focal_px.tolist())) == 1
    same_fit(scene.fit, own.fit)
    np.testing.assert_array_equal(scene.pose_rad[:, 1:], own.pose_rad[:, 1:])


def test_several_pictures_at_once_are_those_one_by_one(
    model: jd.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        picture(tmp_path / f"{index}.png", noise(index))
    boxes = {f"{index}.png": BOXES[: 2 - index % 2].tolist() for index in range(3)}
    write(tmp_path / "boxes.json", boxes)
    calls: list[int] = []
    monkeypatch.setattr(model.fitter, "_told", lambda people, done, total: calls.append(people) if done == 1 else None)
    found = [people for _, people in model.stream(tmp_path, boxes=tmp_path / "boxes.json")]
    assert calls == [5]
    assert [len(people) for people in found] == [2, 1, 2]
    monkeypatch.setattr(fitting_stage, "AT_ONCE", 1)
    again = [people for _, people in model.stream(tmp_path, boxes=tmp_path / "boxes.json")]
    assert calls == [5, 2, 1, 2]
    for together, alone in zip(found, again, strict=True):
        near(together, alone)


def test_on_film_a_person_begins_where_the_frame_before_ended(model: jd.Model, tmp_path: Path) -> None:
    """The same picture twice: the second fit continues the first, to a lower energy than from the start."""
    still = cv2_film(tmp_path / "still.avi", [noise()] * 2)
    boxes = write(tmp_path / "boxes.json", [{"image_id": k, "bbox": [5, 5, 40, 50], "score": 1} for k in range(2)])
    (_, first), (_, second) = model.stream(still, boxes=boxes)
    assert first.fit is not None
    assert second.fit is not None
    assert (first.fit.warm.tolist(), second.fit.warm.tolist()) == ([False], [True])
    assert first.track_ids.tolist() == second.track_ids.tolist() == [1]
    np.testing.assert_array_equal(first.fit.energy_before, second.fit.energy_before)
    assert second.fit.energy_after < first.fit.energy_after
    again = [people for _, people in model.stream(still, boxes=boxes)]
    same(first, again[0])
    same(second, again[1])


def cv2_film(path: Path, frames: list[np.ndarray]) -> Path:
    """A film without loss."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 12, (frames[0].shape[1], frames[0].shape[0]))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def test_nobody_is_an_ordinary_result(model: jd.Model) -> None:
    found = model(noise(), boxes=np.zeros((0, 4)))
    assert len(found) == 0
    assert found.fit is not None
    assert found.fit.occlusion.shape == (0, SIDE, SIDE)


def test_somebody_outside_the_picture_stays_and_disturbs_nobody(bundle: Bundle, model: jd.Model) -> None:
    boxes = np.array([BOXES[0], [500, 500, 560, 580]])
    found, alone = model(noise(), boxes=boxes), model(noise(), boxes=boxes[:1])
    fit = found.fit
    assert fit is not None
    assert (fit.tried.tolist(), fit.outside.tolist()) == ([True, False], [False, True])
    near(found[:1], alone)
    with jd.load(bundle, align=False, device="cpu", camera="published") as plain:
        np.testing.assert_array_equal(found.vertices_m[1], plain(noise(), boxes=boxes).vertices_m[1])


def behind(model: jd.Model) -> None:
    """Let the mesh network put the second of two people behind the camera."""
    recover = model.mesh

    class Behind:
        session, crop_side = recover.session, recover.crop_side

        def __call__(self, *given: Any) -> People:
            people = recover(*given)
            place = people.translation_m.copy()
            place[1, 2] = -3
            return replace(people, translation_m=place)

    model.mesh = Behind()  # type: ignore[assignment]


def test_somebody_behind_the_camera_stays_and_disturbs_nobody(model: jd.Model) -> None:
    alone = model(noise(), boxes=BOXES[:1])
    behind(model)
    found = model(noise(), boxes=BOXES)
    assert found.fit is not None
    assert (found.fit.tried.tolist(), found.fit.outside.tolist()) == ([True, False], [False, False])
    assert found.translation_m[1, 2] == -3
    near(found[:1], alone)


def test_what_the_library_refuses(bundle: Bundle) -> None:
    with pytest.raises(JotrDeployError, match="fit and align contradict each other"):
        jd.load(bundle, fit="default", align=True, device="cpu")
    with pytest.raises(JotrDeployError, match="fit: 'best' is not known"):
        jd.load(bundle, fit="best")


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a picture, and boxes of two people in it."""
    picture(tmp_path / "photo.png")
    write(tmp_path / "boxes.json", BOXES.tolist())
    return tmp_path


def test_a_run_keeps_what_the_fit_did(cli: Cli, bundle: Bundle, place: Path) -> None:
    arguments = ("run", bundle.path, place / "photo.png", "--boxes", place / "boxes.json", "--fit", "default")
    said = cli(*arguments, "--save-fit", "-o", place / "out", "--device", "cpu")
    assert said.code == 0, said
    assert "fit default: a lower energy for 2 of 2 meshes; alignment to joints is off during a fit" in said.out
    assert {"photo.npz", "photo.json", "photo_overlay.jpg", "photo_fit.jpg"} == set(tree(place / "out"))
    stored = read_people(place / "out" / "photo.npz")
    told = json.loads((place / "out" / "photo.json").read_text())["fit"]
    fit = stored.people.fit
    assert fit is not None
    assert (told["preset"], told["accepted"], told["no_better"], told["outside"]) == ("default", 2, 0, 0)
    assert {file["role"]: file["sha256"] for file in told["files"]} == {
        role: bundle.entry(role).sha256 for role in ("features", "kernels", "bank")
    }
    assert {name: value for name, value in told.items() if name != "people"} == stored.facts["fit"]
    assert [used["role"] for used in stored.facts["networks"]] == ["mesh", "features", "kernels", "bank"]
    for k, person in enumerate(told["people"]):
        assert (person["frame"], person["fit"]["energy_before"]) == (0, fit.energy_before[k])
        assert person["fit"]["terms_after"] == {name: values[k] for name, values in fit.terms_after.items()}
        bits = np.frombuffer(base64.b64decode(person["fit"]["occlusion"]["bits"]), np.uint8)
        np.testing.assert_array_equal(np.unpackbits(bits)[: SIDE * SIDE].reshape(SIDE, SIDE), fit.occlusion[k])
    again = cli(*arguments, "-o", place / "again", "--device", "cpu")
    assert again.code == 0
    assert read_people(place / "again" / "photo.npz").people.fit is not None
    same_fit(read_people(place / "again" / "photo.npz").people.fit, fit)


def test_why_people_are_unchanged_is_said(
    cli: Cli, bundle: Bundle, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of boxes cannot have somebody outside the picture, joints of an earlier run can."""
    real = picture_fitter.cells_inside

    def second_outside(*given: Any) -> np.ndarray:
        cells = real(*given)
        cells[1] = False
        return cells

    monkeypatch.setattr(picture_fitter, "cells_inside", second_outside)
    said = cli("run", bundle.path, place / "photo.png", "--boxes", place / "boxes.json", "--fit", "default",
               "-o", place / "out", "--device", "cpu", "--save-fit")  # fmt: skip
    assert said.code == 0
    assert "a lower energy for 1 of 2 meshes; 1 returned unchanged: 1 outside the picture" in said.out
    people = json.loads((place / "out" / "photo.json").read_text())["fit"]["people"]
    assert [person["fit"]["energy_before"] is None for person in people] == [False, True]


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--fit", "nix"], "--fit: 'nix' is not known"),
        (["--fit", "default"], "{}: no fit is possible, the bundle has no features file"),
    ],
)
def test_bench_refuses_a_fit_before_it_opens_a_network(
    cli: Cli, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], cause: str
) -> None:
    monkeypatch.setattr("jotr_deploy.profiling.benchmark.open_networks", lambda *_: pytest.fail("a network is opened"))
    assert cli("bench", tiny_bundle, *options).mistake[0] == cause.format(tiny_bundle)


def test_a_run_that_finds_nobody(cli: Cli, bundle: Bundle, place: Path) -> None:
    write(place / "boxes.json", {"photo.png": []})
    said = cli("run", bundle.path, place / "photo.png", "--boxes", place / "boxes.json", "--fit", "default",
               "--save-fit", "-o", place / "out", "--device", "cpu")  # fmt: skip
    assert said.code == 0, said
    assert "fit default: nobody to fit" in said.out
    fit = read_people(place / "out" / "photo.npz").people.fit
    assert fit is not None
    assert len(fit) == 0
    assert set(fit.terms_before) == set(fit.terms_after) != set()


def test_a_film_with_pictures_of_the_fit(cli: Cli, bundle: Bundle, place: Path) -> None:
    video(place / "clip.mp4", 2)
    said = cli("run", bundle.path, place / "clip.mp4", "--people", "frame", "--fit", "default", "--save-fit",
               "--smooth", "one-euro", "-o", place / "out", "--device", "cpu")  # fmt: skip
    assert said.code == 0, said
    assert "clip_fit.mp4" in tree(place / "out")
    told = json.loads((place / "out" / "clip.json").read_text())["fit"]
    assert [(person["frame"], person["track_id"]) for person in told["people"]] == [(0, 1), (1, 1)]


def other_body(path: Path) -> None:
    save_kernels(replace(decimate(stand_in(), KERNELS), body="0" * 64), path)


def other_size(path: Path) -> None:
    save_bank(Features(torch.rand(KERNELS + 1, BINS, CHANNELS), torch.rand(1, CHANNELS)), 400.0, path)


def not_finite(path: Path) -> None:
    save_bank(Features(torch.full((KERNELS, BINS, CHANNELS), torch.nan), torch.rand(1, CHANNELS)), 400.0, path)


def gives_nan(path: Path) -> None:
    """An extractor of the right shapes whose features are no numbers."""
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 4 * SIDE, 4 * SIDE])
    seen = helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["batch", CHANNELS, SIDE, SIDE])
    weight = numpy_helper.from_array(np.full((CHANNELS, 3, 4, 4), np.nan, np.float32), "weight")
    node = helper.make_node("Conv", ["image", "weight"], ["features"], strides=[4, 4])
    graph = helper.make_graph([node], "nan", [image], [seen], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize(
    ("role", "make", "cause"),
    [
        ("kernels", other_body, "{}: its kernels were made from another body than that of its mesh"),
        ("bank", other_size, f"{{}}: the feature bank is ({KERNELS + 1}, {BINS}, {CHANNELS}) for {KERNELS} kernels"),
        ("bank", not_finite, "{}: the feature bank holds NaN or infinity"),
        ("features", gives_nan, "{}/features.onnx: its features contain NaN or infinity"),
    ],
)
def test_files_that_no_fit_can_be_done_with(
    cli: Cli, bundle: Bundle, place: Path, role: str, make: Callable[[Path], None], cause: str
) -> None:
    shutil.copytree(bundle.path, place / "changed")
    copy = open_bundle(place / "changed")
    entry = copy.entry(role)

    def written(path: Path) -> Any:
        make(path)
        return entry

    replace_file(copy, entry.name, written)
    before = tree(place)
    said = cli("run", copy.path, place / "photo.png", "--boxes", place / "boxes.json", "--fit", "default",
               "-o", place / "out", "--device", "cpu")  # fmt: skip
    assert said.mistake == (cause.format(copy.path), FEATURES_AGAIN)
    assert tree(place) == before
    plain = cli("run", copy.path, place / "photo.png", "--boxes", place / "boxes.json", "-o", place / "out")
    assert plain.code == 0


def test_a_bundle_without_features(cli: Cli, tiny_bundle: Path, place: Path) -> None:
    before = tree(place)
    said = cli("run", tiny_bundle, place / "photo.png", "--people", "frame", "--fit", "default", "-o", place / "out")
    assert said.mistake == (f"{tiny_bundle}: no fit is possible, the bundle has no features file", FEATURES_AGAIN)
    assert tree(place) == before


def test_without_pytorch(cli: Cli, bundle: Bundle, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitter.importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    before = tree(place)
    said = cli("run", bundle.path, place / "photo.png", "--people", "frame", "--fit", "default", "-o", place / "out")
    assert said.mistake == ("the fit needs torch", "pip install '.[fit]' in a clone of jotr-deploy")
    assert tree(place) == before


@pytest.mark.parametrize(
    ("given", "cause", "remedy"),
    [
        (["--fit", "best"], "--fit: 'best' is not known", "give one of default, release_natural, release_advocc"),
        (["--save-fit"], "--save-fit needs --fit", "add --fit default, or leave --save-fit out"),
        (
            ["--fit", "default", "--align"],
            "--fit and --align contradict each other: a fit starts from the unaligned pose",
            "leave one of them out",
        ),
    ],
)
def test_options_that_are_refused(
    cli: Cli, bundle: Bundle, place: Path, given: list[str], cause: str, remedy: str
) -> None:
    before = tree(place)
    said = cli("run", bundle.path, place / "photo.png", "--people", "frame", *given, "-o", place / "out")
    assert said.mistake == (cause, remedy)
    assert tree(place) == before


def test_a_picture_whose_fit_fails_is_skipped(
    cli: Cli, bundle: Bundle, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three pictures fitted together, the black one fails."""
    (place / "photos").mkdir()
    for index in range(3):
        picture(place / "photos" / f"{index}.png", noise(index) * (index != 1))
    whole = BundleFitter.seen

    def seen(self: BundleFitter, images: np.ndarray) -> np.ndarray:
        if not images.any((1, 2, 3)).all():
            raise FitError("black", "light")
        return whole(self, images)

    monkeypatch.setattr(BundleFitter, "seen", seen)
    said = cli("run", bundle.path, place / "photos", "--people", "frame", "--fit", "default", "--keep-going",
               "-o", place / "out", "--device", "cpu")  # fmt: skip
    assert said.code == 0
    told = json.loads((place / "out" / "photos.json").read_text())
    assert (told["skipped"], told["fit"]["accepted"]) == (["1.png: black"], 2)
    assert [person["frame"] for person in told["fit"]["people"]] == [0, 2]


def test_the_presets_of_the_command_line_are_those_of_the_fit() -> None:
    assert set(FITS) == set(options.PRESETS)
