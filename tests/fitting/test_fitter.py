"""The fit of a bundle: people to people, and every bundle, picture and person that it cannot be done with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import toy_scene
from feature_bundle import feature_bundle
from toy_scene import BINS, CHANNELS, KERNELS, SIDE

from jotr_deploy.body.smpl import stand_in
from jotr_deploy.bundle import FEATURES_AGAIN, Bundle, open_bundle, replace_file
from jotr_deploy.doctor.installation import Finding, examine
from jotr_deploy.errors import BundleError, FitError, JotrDeployError, MissingDependency
from jotr_deploy.fitting import bundle_fitter, fitter
from jotr_deploy.fitting.bank import Features, save_bank
from jotr_deploy.fitting.bundle_fitter import BundleFitter, body_of
from jotr_deploy.fitting.fit import Bodies
from jotr_deploy.fitting.fitter import cells_inside, open_fitter
from jotr_deploy.fitting.kernels import decimate, fingerprint, save_kernels
from jotr_deploy.fitting.options import Stage
from jotr_deploy.geometry.camera import camera_from_box
from jotr_deploy.people import LAYOUT, People
from jotr_deploy.runtime.body_session import open_body
from jotr_deploy.runtime.crops import Crops

pytestmark = pytest.mark.slow

QUICK = (Stage(8, ("root", "translation")), Stage(12, ("root", "body")))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return feature_bundle(tiny_bundle, tmp_path_factory.mktemp("features"))


@pytest.fixture
def opened(bundle: Bundle) -> BundleFitter:
    """The fit of few steps from one start, before pictures that show `toy_scene.people(3)`."""
    made = open_fitter(bundle, device="cpu")
    made.options = replace(made.options, stages=QUICK, mirror="none")
    return made


def people_of(bundle: Bundle, bodies: Bodies) -> People:
    """Bodies as the mesh stage gives them."""
    count = len(bodies)
    with open_body(bundle) as body:
        vertices, joints = body(bodies.pose_rad.numpy(), bodies.betas.numpy())
    model = toy_scene.volume().joints
    with torch.no_grad():
        pelvis = model(bodies.pose_rad.double(), bodies.betas.double())[:, 0].float()
    boxes = np.tile(np.array([[10, 20, 10 + 4 * SIDE, 20 + 4 * SIDE]], np.float32), (count, 1))
    focal, principal = camera_from_box(boxes)
    nothing = np.zeros(count)
    return People(
        boxes_px=boxes, scores=nothing + 1, track_ids=nothing - 1, keypoints_px=np.zeros((count, 30, 3)),
        joints_used=nothing, joints_img=np.zeros((count, 15, 3)), pose_rad=bodies.pose_rad.numpy(),
        betas=bodies.betas.numpy(), cam=np.zeros((count, 3)),
        translation_m=(bodies.translation_m + pelvis).numpy(), focal_px=focal, principal_px=principal,
        joints_m=joints, vertices_m=vertices,
    )  # fmt: skip


def crops_of(people: People) -> Crops:
    count = len(people)
    image = np.zeros((count, 3, 4 * SIDE, 4 * SIDE), np.float32)
    return Crops(image, np.zeros((count, 30, 2), np.float32), np.zeros((count, 30), np.float32), people.boxes_px)


def showing(opened: BundleFitter, maps: np.ndarray) -> BundleFitter:
    """The fitter with these feature maps in place of what its extractor of random weights sees."""
    queue = iter([maps])
    opened.seen = lambda images: next(queue)  # type: ignore[method-assign, assignment]
    return opened


def true_maps(count: int = 3) -> np.ndarray:
    return toy_scene.seen(toy_scene.people(count), toy_scene.features()).numpy()


def test_people_come_nearer_to_what_is_seen(bundle: Bundle, opened: BundleFitter) -> None:
    true = toy_scene.people(3)
    start = people_of(bundle, toy_scene.disturbed(true))
    fits = showing(opened, true_maps())(crops_of(start), start)
    assert fits.tried.all()
    assert fits.accepted.all()
    assert (fits.energy_after < fits.energy_before).all()
    assert fits.occlusion.shape == (3, SIDE, SIDE)
    expected = people_of(bundle, true)

    def apart(found: People) -> Any:
        gap = found.joints_m[:, :22] + found.translation_m[:, None] - expected.joints_m[:, :22]
        return np.linalg.norm((gap - expected.translation_m[:, None])[..., :2], axis=-1).mean()

    assert apart(fits.people) < 0.85 * apart(start)
    with open_body(bundle) as body:
        vertices, joints = body(fits.people.pose_rad, fits.people.betas)
    np.testing.assert_allclose(fits.people.vertices_m, vertices, atol=5e-5)
    np.testing.assert_allclose(fits.people.joints_m, joints, atol=5e-5)
    changed = {"pose_rad", "betas", "translation_m", "joints_m", "vertices_m"}
    for field in fields(People):
        if field.name not in changed:
            np.testing.assert_array_equal(getattr(fits.people, field.name), getattr(start, field.name))


def test_nobody_is_an_ordinary_result(opened: BundleFitter) -> None:
    fits = opened(crops_of(People.none()), People.none(), np.zeros((0, SIDE, SIDE), bool))
    assert len(fits.people) == 0
    assert fits.accepted.shape == fits.energy_before.shape == (0,)
    assert fits.occlusion.shape == (0, SIDE, SIDE)


def test_who_cannot_be_fitted_stays_and_disturbs_nobody(bundle: Bundle, opened: BundleFitter) -> None:
    """Somebody behind the camera, somebody whose crop lies outside the picture, somebody of NaN, and one more."""
    bodies = toy_scene.disturbed(toy_scene.people(4))
    start = people_of(bundle, bodies)
    start.translation_m[0, 2] = -3
    start.pose_rad[2] = np.nan
    inside = np.ones((4, SIDE, SIDE), bool)
    inside[1] = False
    maps = true_maps(4)
    fits = showing(opened, maps[3:])(crops_of(start), start, inside)
    assert fits.tried.tolist() == fits.accepted.tolist() == [False, False, False, True]
    assert np.isnan(fits.energy_before).tolist() == [True, True, True, False]
    assert fits.outside.tolist() == [False, True, False, False]
    for name in LAYOUT:
        np.testing.assert_array_equal(getattr(fits.people, name)[:3], getattr(start, name)[:3])
    alone = showing(opened, maps[3:])(crops_of(start[3:]), start[3:])
    np.testing.assert_array_equal(alone.people.vertices_m, fits.people.vertices_m[3:])


def test_joints_that_are_masked_do_not_count(bundle: Bundle, opened: BundleFitter) -> None:
    start = people_of(bundle, toy_scene.people(2))
    start.keypoints_px[..., 2] = 0.9
    crops = crops_of(start)
    none = showing(opened, true_maps(2))(crops, start)
    crops.joints_mask[1] = 1  # joints in the corner of the crop
    some = showing(opened, true_maps(2))(crops, start)
    assert none.terms_before["joints"].tolist() == [0, 0]
    assert (some.terms_before["joints"] > 0).tolist() == [False, True]


def test_a_fit_takes_one_thread_of_pytorch_and_leaves_the_setting_as_it_was(
    bundle: Bundle, opened: BundleFitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, used, start = torch.get_num_threads(), [], people_of(bundle, toy_scene.people(1))
    fit = bundle_fitter.fit

    def watched(*given: Any, **options: Any) -> Any:
        used.append(torch.get_num_threads())
        return fit(*given, **options)

    monkeypatch.setattr(bundle_fitter, "fit", watched)
    torch.set_num_threads(2)
    try:
        showing(opened, true_maps(1))(crops_of(start), start)
        assert (used, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_features_that_are_no_numbers_are_refused(bundle: Bundle, opened: BundleFitter) -> None:
    start, maps = people_of(bundle, toy_scene.people(2)), true_maps(2)
    maps[1, 3, 5, 7] = np.nan
    with pytest.raises(FitError, match=r"features\.onnx: its features contain NaN or infinity"):
        showing(opened, maps)(crops_of(start), start)


def test_the_extractor_is_run_in_batches(opened: BundleFitter) -> None:
    images = np.random.default_rng(0).random((18, 3, 4 * SIDE, 4 * SIDE), np.float32)
    seen = opened.seen(images)
    assert seen.shape == (18, CHANNELS, SIDE, SIDE)
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(opened.seen(images[17:]), seen[17:], atol=1e-5)
    assert opened.seen(images[:0]).shape == (0, CHANNELS, SIDE, SIDE)


@pytest.mark.parametrize(
    ("box_px", "columns", "rows"),
    [
        ((0, 0, 160, 160), slice(None), slice(None)),
        ((-80, 0, 80, 160), slice(20, None), slice(None)),
        ((0, 60, 160, 220), slice(None), slice(None, 35)),  # the picture ends at 200
        ((500, 0, 660, 160), slice(0), slice(None)),
    ],
)
def test_cells_in_the_picture(box_px: tuple[int, ...], columns: slice, rows: slice) -> None:
    expected = np.zeros((40, 40), bool)
    expected[rows, columns] = True
    np.testing.assert_array_equal(cells_inside(np.array([box_px], np.float32), (320, 200), 40)[0], expected)


# ── bundles ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_body_of_a_bundle_is_the_one_it_was_made_with(bundle: Bundle) -> None:
    found, plain = body_of(bundle), stand_in()
    for field in fields(plain):
        np.testing.assert_allclose(getattr(found, field.name), getattr(plain, field.name), atol=1e-7)
    assert fingerprint(found) == fingerprint(plain)


def refusal(bundle: Bundle, **options: Any) -> JotrDeployError:
    with pytest.raises(JotrDeployError) as error:
        open_fitter(bundle, device="cpu", **options)
    return error.value


def test_a_bundle_without_features(tiny_bundle: Path) -> None:
    error = refusal(open_bundle(tiny_bundle))
    assert isinstance(error, BundleError)
    assert error.cause == f"{tiny_bundle}: no fit is possible, the bundle has no features file"
    assert error.remedy == FEATURES_AGAIN


def other_body(path: Path) -> None:
    kernels = decimate(stand_in(), KERNELS)
    save_kernels(replace(kernels, body="0" * 64), path)


def other_size(path: Path) -> None:
    save_bank(Features(torch.rand(KERNELS + 1, BINS, CHANNELS), torch.rand(1, CHANNELS)), 400.0, path)


def other_channels(path: Path) -> None:
    save_bank(Features(torch.rand(KERNELS, BINS, CHANNELS + 1), torch.rand(1, CHANNELS + 1)), 400.0, path)


def not_finite(path: Path) -> None:
    save_bank(Features(torch.full((KERNELS, BINS, CHANNELS), torch.nan), torch.rand(1, CHANNELS)), 400.0, path)


def words(path: Path) -> None:
    path.write_text("hello")


@pytest.mark.parametrize(
    ("role", "write", "cause"),
    [
        ("kernels", other_body, "its kernels were made from another body than that of its mesh"),
        ("bank", other_size, f"the feature bank is ({KERNELS + 1}, {BINS}, {CHANNELS}) for {KERNELS} kernels"),
        (
            "bank",
            other_channels,
            f"the feature bank has {CHANNELS + 1} and {CHANNELS + 1} channels, the feature map {CHANNELS}",
        ),
        ("bank", not_finite, "the feature bank holds NaN or infinity"),
    ],
)
def test_files_that_do_not_belong_together(
    bundle: Bundle, tmp_path: Path, role: str, write: Callable[[Path], None], cause: str
) -> None:
    changed = with_other(bundle, tmp_path, role, write)
    error = refusal(changed)
    assert isinstance(error, FitError)
    assert (error.cause, error.remedy) == (f"{changed.path}: {cause}", FEATURES_AGAIN)


@pytest.mark.parametrize(
    ("role", "cause"), [("kernels", "kernels.npz: not a file of kernels"), ("bank", "bank.npz: not a feature bank")]
)
def test_files_of_something_else(bundle: Bundle, tmp_path: Path, role: str, cause: str) -> None:
    changed = with_other(bundle, tmp_path, role, words)
    assert refusal(changed).cause.startswith(f"{changed.path}/{cause}: it is plain text")


def test_a_mesh_network_is_no_extractor(bundle: Bundle, tmp_path: Path) -> None:
    def mesh(path: Path) -> None:
        shutil.copyfile(bundle.file("mesh"), path)

    changed = with_other(bundle, tmp_path, "features", mesh)
    error = refusal(changed)
    assert error.cause.startswith(f"{changed.path}/features.onnx: no feature extractor of this project (its inputs: ")
    assert error.remedy == FEATURES_AGAIN


def with_other(bundle: Bundle, tmp_path: Path, role: str, write: Callable[[Path], None]) -> Bundle:
    """A copy of a bundle in which the file of a role is another one."""
    shutil.copytree(bundle.path, tmp_path / "changed")
    copy = open_bundle(tmp_path / "changed")
    entry = copy.entry(role)

    def make(path: Path) -> Any:
        write(path)
        return entry

    return replace_file(copy, entry.name, make)


def test_an_unknown_preset(bundle: Bundle) -> None:
    error = refusal(bundle, preset="best")
    assert error.cause == "--fit: 'best' is not known"


def test_without_pytorch_it_is_said(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitter.importlib.util, "find_spec", lambda name: None)
    error = refusal(bundle)
    assert isinstance(error, MissingDependency)
    assert error.cause == "the fit needs torch"
    assert "'.[fit]'" in error.remedy


# ── doctor ───────────────────────────────────────────────────────────────────────────────────────────────────────


def fit_finding(bundle: Bundle) -> Finding:
    (found,) = [each for each in examine(bundle.path) if each.subject == "fit to features"]
    return found


def test_doctor_says_that_a_fit_is_possible(bundle: Bundle) -> None:
    assert fit_finding(bundle) == Finding(
        "bundle", "fit to features", "ok", f"possible: {SIDE} x {SIDE} cells, features.onnx"
    )


def test_doctor_says_what_a_fit_lacks(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitter.importlib.util, "find_spec", lambda name: None)
    found = fit_finding(bundle)
    assert (found.state, found.detail) == ("note", "not possible here: the fit needs torch")
    assert "'.[fit]'" in found.remedy


@pytest.mark.parametrize("role", ["kernels", "features"])
def test_doctor_finds_files_that_cannot_be_used(bundle: Bundle, tmp_path: Path, role: str) -> None:
    def not_numbers(path: Path) -> None:
        model = onnx.load(bundle.file("features"))
        for tensor in model.graph.initializer:
            if tensor.name == "last.bias":
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(CHANNELS, np.nan, np.float32), tensor.name))
        onnx.save(model, path)

    changed = with_other(bundle, tmp_path, role, other_body if role == "kernels" else not_numbers)
    found = fit_finding(changed)
    causes = {"kernels": "made from another body", "features": "its features are not finite, or have the wrong shape"}
    assert (found.state, found.remedy) == ("problem", FEATURES_AGAIN)
    assert causes[role] in found.detail
