"""The crop factor of the manifest reaches every square crop box: of results, calibration, evaluation and training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import noise, person, picture, write

import jotr_deploy as jd
from jotr_deploy.bundle import MANIFEST, open_bundle, starter_path
from jotr_deploy.calibration.calibration_crops import crops_of_pictures, synthetic_crops
from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.evaluation.protocols import SyntheticOptions, evaluate_synthetic
from jotr_deploy.evaluation.published.set_people import given_of
from jotr_deploy.profiling.timed_picture import default_scene, open_scene
from jotr_deploy.runtime.finding.people_networks import open_people_networks
from jotr_deploy.training.mesh_samples import SceneSamples
from jotr_deploy.training.published.augmented_crops import draw_variation

FACTOR, USUAL = 1.65, 1.1


def with_factor(bundle: Path, folder: Path, factor: float) -> Path:
    """A copy of a bundle whose manifest says another factor."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["model"]["crop_factor"] = factor
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def wide(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_factor(tiny_bundle, tmp_path_factory.mktemp("wide") / "bundle", FACTOR)


def sides_px(people: Any) -> np.ndarray:
    assert len(people)
    return np.asarray(people.boxes_px[:, 2] - people.boxes_px[:, 0])


JOINTS = np.concatenate([np.random.default_rng(0).uniform(10, 50, (2, 17, 2)), np.full((2, 17, 1), 0.9)], -1)
BOXES = np.array([[5, 5, 25, 35], [10, 10, 40, 20]])


def streamed(model: jd.Model, photo: Path, **files: Path) -> Any:
    ((_, people),) = model.stream(photo, **files)
    return people


@pytest.mark.parametrize(
    "recovered",
    [
        lambda model, photo: model(photo),  # the whole frame
        lambda model, photo: model(photo, boxes=BOXES),
        lambda model, photo: model(photo, keypoints=JOINTS),
        lambda model, photo: model(photo, boxes=BOXES, keypoints=JOINTS),
        lambda model, photo: streamed(model, photo, keypoints=write(photo.with_name("k.json"), [person(photo.name)])),
        lambda model, photo: streamed(
            model, photo,
            boxes=write(photo.with_name("b.json"), [{"image_id": photo.name, "category_id": 1,
                                                     "bbox": [9, 9, 30, 20], "score": 1}]),
        ),
    ],
    ids=["frame", "boxes", "joints", "boxes and joints", "a file of joints", "a file of boxes"],
)  # fmt: skip
def test_people_of_a_picture(
    tiny_bundle: Path, wide: Path, tmp_path: Path, recovered: Callable[[jd.Model, Path], Any]
) -> None:
    photo, found = picture(tmp_path / "photo.png", noise()), []
    for bundle in (tiny_bundle, wide):
        with jd.load(bundle, people="frame", device="cpu") as model:
            found.append(recovered(model, photo))
    usual, larger = found
    np.testing.assert_allclose(sides_px(larger) / sides_px(usual), FACTOR / USUAL, rtol=1e-5)
    assert np.abs(larger.pose_rad - usual.pose_rad).max() > 0  # the network has seen another crop


def test_people_found_by_networks_in_runs_and_timings(tmp_path: Path) -> None:
    bundle = open_bundle(with_factor(starter_path(), tmp_path / "starter", FACTOR))
    with default_scene() as (photo, _):
        with jd.load(bundle, people="detector", device="cpu", align=False) as model:
            larger = sides_px(model(photo))
        with jd.load(people="detector", device="cpu", align=False) as model:
            np.testing.assert_allclose(larger / sides_px(model(photo)), FACTOR / USUAL, rtol=1e-5)
    with open_people_networks(bundle) as networks, open_scene(None, None, bundle.manifest.model, networks) as scene:
        np.testing.assert_allclose(sides_px(scene.people), larger, rtol=1e-5)


def test_calibration(tiny_bundle: Path, wide: Path, tmp_path: Path) -> None:
    picture(tmp_path / "photo.png", noise())
    write(tmp_path / "k.json", [person("photo.png")])
    joints = []
    for bundle in map(open_bundle, (tiny_bundle, wide)):
        pictures = crops_of_pictures(bundle, tmp_path / "photo.png", tmp_path / "k.json", 1)
        drawn = synthetic_crops(1, bundle.manifest.model)
        joints.append([crops.feeds["joints"] for crops in (pictures, drawn)])
    middle = open_bundle(tiny_bundle).manifest.model.crop_side / 8  # grid cells
    (usual, _), (larger, _) = joints
    there = np.abs(usual).sum(-1) > 0
    np.testing.assert_allclose((larger - middle)[there] * FACTOR / USUAL, (usual - middle)[there], atol=0.01)
    assert np.abs(joints[1][1] - joints[0][1]).max() > 0.1


def test_evaluation(tiny_bundle: Path, wide: Path) -> None:
    usual, larger = (
        evaluate_synthetic(open_bundle(bundle), SyntheticOptions(scenes=1, threads=1)) for bundle in (tiny_bundle, wide)
    )
    assert usual.protocol.box.endswith("times 1.1")
    assert larger.protocol.box.endswith("times 1.65")
    assert usual.errors != larger.errors


def test_evaluation_on_a_published_set() -> None:
    found_px = np.random.default_rng(0).uniform(30, 60, (17, 3))
    someone = Annotation("a", Path("a.jpg"), (120, 100), np.zeros(4), np.zeros((30, 3)), found_px=found_px)
    usual, larger = (sides_px(given_of([someone], factor)) for factor in (USUAL, FACTOR))
    np.testing.assert_allclose(larger / usual, FACTOR / USUAL, rtol=1e-5)


def test_training() -> None:
    usual, larger = (SceneSamples(7, 64, factor, 0.0).sample(3) for factor in (USUAL, FACTOR))
    from_pelvis = [sample["joints_img"][:, :2] - sample["joints_img"][:1, :2] for sample in (usual, larger)]
    np.testing.assert_allclose(from_pelvis[1] * FACTOR / USUAL, from_pelvis[0], atol=1e-4)
    assert (usual["image"] != larger["image"]).any()
    margins = [draw_variation(np.random.default_rng(0), factor).margin for factor in (USUAL, FACTOR)]
    assert margins[1] / margins[0] == pytest.approx(FACTOR / USUAL)
