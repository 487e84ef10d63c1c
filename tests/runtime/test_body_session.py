"""The body out of a bundle's network: the network's own meshes from its own poses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from jotr_deploy.bundle import STARTER, Bundle, open_bundle, sha256_of
from jotr_deploy.errors import BundleError
from jotr_deploy.runtime.body_session import open_body
from jotr_deploy.runtime.sessions import open_session


def feeds(crop_side: int, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    return {
        "image": rng.random((count, 3, crop_side, crop_side), np.float32),
        "joints": rng.uniform(0, crop_side / 4, (count, 30, 2)).astype(np.float32),
        "joints_mask": (rng.uniform(size=(count, 30)) < 0.8).astype(np.float32),
    }


@pytest.fixture(params=["starter", "tiny"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return open_bundle(Path(STARTER) if request.param == "starter" else request.getfixturevalue("tiny_bundle"))


@pytest.mark.parametrize("count", [1, 3])
def test_the_networks_meshes_from_the_networks_poses(bundle: Bundle, count: int) -> None:
    with open_session(bundle.file("mesh", "mesh.onnx"), device="cpu", threads=1) as network:
        out = network(feeds(bundle.manifest.model.crop_side, count))
    with open_body(bundle, threads=1) as body:
        vertices_m, joints_m = body(out["pose"], out["betas"])
    assert (vertices_m.dtype, joints_m.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(vertices_m, out["vertices"], atol=1e-5)
    np.testing.assert_allclose(joints_m, out["joints3d"], atol=1e-5)


def test_nobody_and_the_same_again() -> None:
    rng = np.random.default_rng(0)
    with open_body(open_bundle(Path(STARTER)), threads=1) as body:
        vertices_m, joints_m = body(np.zeros((0, 24, 3)), np.zeros((0, 10)))
        assert (vertices_m.shape, joints_m.shape) == ((0, 6890, 3), (0, 30, 3))
        pose_rad, betas = rng.normal(0, 0.5, (2, 24, 3)), rng.normal(0, 1, (2, 10))
        for one, other in zip(body(pose_rad, betas), body(pose_rad, betas), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_pelvis_is_the_origin_whatever_the_pose() -> None:
    rng = np.random.default_rng(1)
    with open_body(open_bundle(Path(STARTER)), threads=1) as body:
        _, joints_m = body(rng.normal(0, 1, (4, 24, 3)), rng.normal(0, 1, (4, 10)))
    np.testing.assert_array_equal(joints_m[:, 0], 0)


def changed(tmp_path: Path, change: object) -> Bundle:
    """The starter bundle with another network."""
    original = open_bundle(Path(STARTER))
    folder = shutil.copytree(original.path, tmp_path / "bundle")
    model = onnx.load(folder / "mesh.onnx")
    change(model)
    onnx.save(model, folder / "mesh.onnx")
    entries = tuple(
        entry.model_copy(update={"sha256": sha256_of(folder / entry.name)}) for entry in original.manifest.files
    )
    return Bundle(folder, original.manifest.model_copy(update={"files": entries}))


def without_body(model: onnx.ModelProto) -> None:
    kept = [each for each in model.graph.output if each.name in ("joints_img", "pose", "betas", "cam")]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def mixed_with_the_picture(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if "vertices" in node.output:
            node.input[0] = "joints"


@pytest.mark.parametrize(
    ("change", "cause", "remedy"),
    [
        (without_body, "exported with --no-body, it makes no meshes", "export it again without --no-body"),
        (mixed_with_the_picture, "its body needs more than pose and shape", "export it again"),
    ],
)
def test_networks_without_a_body_of_their_own(tmp_path: Path, change: object, cause: str, remedy: str) -> None:
    bundle = changed(tmp_path, change)
    with pytest.raises(BundleError) as error:
        open_body(bundle)
    assert error.value.cause == f"{bundle.path / 'mesh.onnx'}: {cause}"
    assert error.value.remedy == remedy


def test_a_bundle_without_the_network() -> None:
    bundle = open_bundle(Path(STARTER))
    others = tuple(entry for entry in bundle.manifest.files if entry.role != "mesh")
    with pytest.raises(BundleError, match=r"has no mesh\.onnx of role mesh"):
        open_body(Bundle(bundle.path, bundle.manifest.model_copy(update={"files": others})))
