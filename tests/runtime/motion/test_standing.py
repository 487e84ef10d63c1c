"""A loaded bundle with a camera and alignment: one scene for everybody, also through a lens that bends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from jotr_deploy.api import load
from jotr_deploy.bundle import STARTER, open_bundle, write_manifest
from jotr_deploy.errors import SourceError
from jotr_deploy.geometry.camera import project_px
from jotr_deploy.people import LAYOUT, People
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.runtime.sources.camera_files import lens_facts, lens_of_facts, read_camera
from jotr_deploy.runtime.sources.scene_camera import choose_camera
from jotr_deploy.verbs.view import _open_frames
from jotr_deploy.visual.result_files import read_people

SIZE = (640, 480)
BENT = np.array([-0.25, 0.08, 0.001, -0.001, 0.0])
K = np.array([[600.0, 0, 330], [0, 600, 235], [0, 0, 1]])
STANDING = np.array(
    [[0, -80], [6, -86], [-6, -86], [12, -82], [-12, -82], [26, -52], [-26, -52], [32, -16], [-32, -16], [34, 18],
     [-34, 18], [16, 22], [-16, 22], [17, 68], [-17, 68], [18, 112], [-18, 112]], np.float64,
)  # fmt: skip
PEOPLE = np.stack([STANDING + np.array([150, 220]), 0.7 * STANDING + np.array([480, 230])])
JOINTS = np.concatenate([PEOPLE, np.full((2, 17, 1), 0.9)], -1)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 255, (24, 32, 3), np.uint8), SIZE, interpolation=cv2.INTER_CUBIC)


def recovered(picture: np.ndarray, **options: Any) -> People:
    with load(STARTER, threads=1, **options) as model:
        return model(picture, keypoints=JOINTS, skeleton="coco17")


def test_everybody_stands_before_one_camera_and_on_their_joints(picture: np.ndarray) -> None:
    own = recovered(picture, camera="published", align=False)
    plain, aligned = recovered(picture, fov_deg=55, align=False), recovered(picture, fov_deg=55)
    assert not plain.aligned.any()
    assert not own.aligned.any()
    assert len(set(own.focal_px.tolist())) == 2
    for people in (plain, aligned):
        assert set(people.focal_px.tolist()) == {np.float32(320 / np.tan(np.radians(27.5)))}
        np.testing.assert_array_equal(people.principal_px, [[319.5, 239.5]] * 2)
        assert (people.translation_m[:, 2] < 10).all()
    side_px = own.boxes_px[:, 2] - own.boxes_px[:, 0]
    seen = [project_px(each.vertices_camera_m, each.focal_px, each.principal_px) for each in (own, plain)]
    assert (np.linalg.norm(seen[0] - seen[1], axis=-1).mean(1) / side_px < 0.015).all()
    assert (aligned.joint_error[aligned.aligned, 1] < aligned.joint_error[aligned.aligned, 0]).all()


def test_the_bundle_says_whether_people_are_aligned(picture: np.ndarray, tmp_path: Path) -> None:
    starter = open_bundle(Path(STARTER))
    for entry in starter.manifest.files:
        (tmp_path / entry.name).symlink_to(starter.path / entry.name)
    write_manifest(tmp_path, starter.manifest.model_copy(update={"align": False}))
    for options, expected in (({}, False), ({"align": True}, True)):
        with load(tmp_path, threads=1, **options) as model:
            assert model.align is expected
    with load(STARTER, threads=1) as model:
        assert model.align
    with load(STARTER, threads=1, align=False) as model:
        assert not model.align


def bent_camera(path: Path) -> Path:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("camera_matrix", K)
    storage.write("distortion_coefficients", BENT)
    storage.release()
    return path


def bent(points_px: np.ndarray) -> np.ndarray:
    """Where the lens shows what a pinhole would show at these pixels."""
    rays = np.concatenate([(points_px - K[:2, 2]) / 600, np.ones((*points_px.shape[:-1], 1))], -1)
    seen = cv2.projectPoints(rays.reshape(-1, 3), np.zeros(3), np.zeros(3), K, BENT)[0]
    return np.asarray(seen).reshape(points_px.shape)


def test_through_a_lens_joints_of_a_caller_and_of_a_file_are_moved_like_the_picture(
    picture: np.ndarray, tmp_path: Path
) -> None:
    camera = bent_camera(tmp_path / "camera.yml")
    taken = JOINTS.copy()
    taken[..., :2] = bent(JOINTS[..., :2])
    assert np.abs(taken - JOINTS).max() > 3
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    entries = [
        {"image_id": "a.png", "category_id": 1, "keypoints": person.ravel().tolist(), "score": 1} for person in taken
    ]
    (tmp_path / "joints.json").write_text(json.dumps(entries))
    (tmp_path / "boxes.json").write_text(json.dumps({"a.png": [[200, 100, 300, 300]]}))
    with load(STARTER, threads=1, camera=camera) as model:
        called = model(picture, keypoints=taken, skeleton="coco17")
        ((frame, read),) = model.stream(tmp_path / "a.png", keypoints=tmp_path / "joints.json")
        ((_, boxed),) = model.stream(tmp_path / "a.png", boxes=tmp_path / "boxes.json")
        undistorted = model.camera.undistorted(picture)
    np.testing.assert_array_equal(frame.image_bgr, undistorted)
    given = [24, 25, 26, 27, 28, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8]
    for people in (called, read):
        np.testing.assert_allclose(people.keypoints_px[:, given, :2], JOINTS[..., :2], atol=0.01)
    np.testing.assert_allclose(called.boxes_px, read.boxes_px, atol=0.01)
    np.testing.assert_allclose(called.translation_m, read.translation_m, atol=0.05)
    np.testing.assert_array_equal(called.principal_px, np.float32([[330, 235]] * 2))
    middle_px = (boxed.boxes_px[:, :2] + boxed.boxes_px[:, 2:])[0] / 2
    np.testing.assert_allclose(bent(middle_px[None]), [[250, 200]], atol=6)
    assert np.isfinite(read.vertices_m).all()


@pytest.mark.parametrize("bends", [True, False])
def test_the_viewer_shows_the_pictures_that_the_meshes_were_found_in(
    picture: np.ndarray, tmp_path: Path, bends: bool, tiny_bundle: Path
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    choice = choose_camera(bent_camera(tmp_path / "camera.yml")) if bends else choose_camera(fov_deg=50)
    options = RunOptions(people="frame", overlay=False, camera=choice)
    run(open_bundle(tiny_bundle), str(tmp_path / "a.png"), tmp_path / "new", options)
    result = tmp_path / "new" / "a.npz"
    (tmp_path / "camera.yml").unlink(missing_ok=True)
    for source in (None, str(tmp_path / "a.png")):
        frames = _open_frames(result, read_people(result), source, [])
        assert frames is not None
        with frames:
            (frame,) = frames
        np.testing.assert_array_equal(frame.image_bgr, choice.undistorted(picture))
        assert (frame.image_bgr != picture).any() == bends


SOUND = {"focal_px": [600, 600], "principal_px": [330, 235], "distortion": [0.1, 0, 0, 0], "size_px": [640, 480]}


def test_a_lens_comes_back_from_a_result(tmp_path: Path) -> None:
    lens = read_camera(bent_camera(tmp_path / "camera.yml"))
    kept = json.loads(json.dumps(lens_facts(lens)))
    assert lens_of_facts(kept, lens.path) == lens
    assert lens_of_facts(SOUND, lens.path).size_px == (640, 480)


@pytest.mark.parametrize(
    "facts",
    [
        *({}, [], "lens", 3, {**SOUND, "distortion": [0.1]}, {**SOUND, "distortion": None}),
        *({**SOUND, "focal_px": [0, 600]}, {**SOUND, "focal_px": [600]}, {**SOUND, "principal_px": ["a", "b"]}),
        *({**SOUND, "focal_px": [float("nan"), 600]}, {**SOUND, "size_px": [0, 480]}, {**SOUND, "size_px": [10]}),
    ],
)
def test_a_damaged_lens_is_refused(facts: Any) -> None:
    with pytest.raises(SourceError) as refusal:
        lens_of_facts(facts, Path("a.npz"))
    assert refusal.value.cause == "a.npz: the stored lens parameters are damaged"


def test_a_film_gives_the_same_through_the_stages_and_again(picture: np.ndarray) -> None:
    """A model remembers nobody from one stream to the next."""
    with load(STARTER, threads=1) as model:
        film: Any = SimpleNamespace(moving=True, fps=25.0, block=None)
        pipeline = model._pipeline(lambda *_: (_ for _ in ()).throw(AssertionError), film)
        assert pipeline.finish is not None
        people = replace(recovered(picture, camera="published", align=False), track_ids=np.array([1, 2]))
        from jotr_deploy.runtime.sources.frame_source import Frame

        first = [pipeline.finish(Frame(k, "a", picture), people) for k in range(3)]
        other = model._pipeline(pipeline.people_source, film)
        assert other.finish is not None
        again = [other.finish(Frame(k, "a", picture), people) for k in range(3)]
    for one, two in zip(first, again, strict=True):
        for name in LAYOUT:
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
