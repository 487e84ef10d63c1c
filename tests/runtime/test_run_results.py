"""The `.npz` of a run: small without meshes, which its bundle makes again, and what it says about the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outcome import tree

from jotr_deploy.bundle import STARTER, open_bundle, sha256_of, starter_path
from jotr_deploy.errors import BundleError
from jotr_deploy.people import LAYOUT
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.runtime.sources.opening import VideoWriter
from jotr_deploy.visual.result_files import read_people

pytestmark = pytest.mark.slow

SCENE = starter_path().parent / "visual" / "scene.jpg"
SCENE_KEYPOINTS = SCENE.with_name("scene_keypoints.json")
LIMIT_M = 1e-4


def result_of(tmp_path: Path, source: Path, name: str, **options: Any) -> Path:
    run(open_bundle(Path(STARTER)), str(source), tmp_path / name, RunOptions(overlay=False, **options))
    return tmp_path / name / f"{source.stem}.npz"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people who come nearer from the far end, and drift."""
    import cv2

    scene, path = cv2.imread(str(SCENE)), tmp_path_factory.mktemp("clip") / "clip.mp4"
    height, width = scene.shape[:2]
    with VideoWriter(path, 10) as writer:
        for scale in (0.3, 0.5, 0.8, 1.0):
            moved = np.array([[scale, 0, 20], [0, scale, 30]], np.float32)
            writer.write(cv2.warpAffine(scene, moved, (width, height), borderMode=cv2.BORDER_REPLICATE))
    return path


@pytest.mark.parametrize("smooth", [None, "one-euro", "two-sided"])
def test_meshes_made_later_are_those_of_the_run(tmp_path: Path, clip: Path, smooth: Any) -> None:
    kept = read_people(result_of(tmp_path, clip, "kept", vertices=True, smooth=smooth))
    made = read_people(result_of(tmp_path, clip, "made", smooth=smooth))
    assert len(kept.people) >= 4
    for name in set(LAYOUT) - {"vertices_m"}:
        np.testing.assert_array_equal(getattr(made.people, name), getattr(kept.people, name), err_msg=name)
    apart_m = np.linalg.norm(made.people.vertices_m - kept.people.vertices_m, axis=-1)
    assert apart_m.max() < LIMIT_M
    np.testing.assert_array_equal(made.faces, kept.faces)
    np.testing.assert_allclose(made.times_s, [0, 0.1, 0.2, 0.3], atol=1e-3)


def test_a_picture_of_two_people_is_small_and_says_what_was_used(tmp_path: Path) -> None:
    path = result_of(tmp_path, SCENE, "out", keypoints=SCENE_KEYPOINTS, glb=True, obj=True)
    result = read_people(path)
    assert len(result.people) == 2
    assert path.stat().st_size < 60_000
    bundle = open_bundle(Path(STARTER))
    assert result.bundle == str(bundle.path)
    assert result.mesh_sha256 == sha256_of(bundle.path / "mesh.onnx")
    assert np.isnan(result.times_s).tolist() == [True]
    (network,) = result.facts["networks"]  # joints were given: no other was used
    assert network == {"role": "mesh", "name": "mesh.onnx", "sha256": result.mesh_sha256}
    assert {name: result.facts[name] for name in ("frames", "people", "skipped", "ended")} == {
        "frames": 1, "people": 2, "skipped": [], "ended": None,
    }  # fmt: skip
    assert set(tree(path.parent)) == {"scene.npz", "scene.json", "scene.glb", "scene.obj"}  # no trace of their meshes


def test_networks_that_found_people_are_named_and_frames_left_out_too(tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(SCENE.read_bytes())
    (folder / "2.jpg").write_bytes(b"no picture")
    facts = read_people(result_of(tmp_path, folder, "out", keep_going=True, max_people=1)).facts
    assert [network["role"] for network in facts["networks"]] == ["mesh", "detector", "pose"]
    assert [each.split(":")[0] for each in facts["skipped"]] == ["2.jpg"]
    assert (facts["people"], facts["max_people"], facts["smooth"]) == (1, 1, None)


def test_view_makes_meshes_with_the_bundle_it_is_given(tmp_path: Path, cli: Any, tiny_bundle: Path) -> None:
    pytest.importorskip("viser")
    path = result_of(tmp_path, SCENE, "out", keypoints=SCENE_KEYPOINTS)
    cause, _ = cli("view", path, "--bundle", tiny_bundle, "--port", "0").mistake
    assert cause.startswith(f"{tiny_bundle}: another network than the one that made {path}")
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "bundle": np.array("/gone"), "mesh_sha256": np.array("0" * 64)})
    cause, remedy = cli("view", path, "--port", "0").mistake
    assert cause == f"{path}: holds no vertices, and its bundle cannot be used (/gone: no such folder)"
    assert "--bundle DIR" in remedy


def test_a_bundle_without_a_body_says_what_it_cannot_do(tmp_path: Path) -> None:
    from jotr_deploy.bundle import write_manifest

    bundle = open_bundle(Path(STARTER))
    files = [each for each in bundle.manifest.files if each.role != "faces"]
    other = [each.model_copy(update={"sha256": "0" * 64}) if each.role == "mesh" else each for each in files]
    (tmp_path / "bare").mkdir()
    write_manifest(tmp_path / "bare", bundle.manifest.model_copy(update={"files": tuple(other)}))
    path = result_of(tmp_path, SCENE, "out", keypoints=SCENE_KEYPOINTS)
    with pytest.raises(BundleError) as caught:
        read_people(path, tmp_path / "bare")
    assert caught.value.cause == f"{tmp_path / 'bare'}: exported with --no-body, it makes no meshes"
