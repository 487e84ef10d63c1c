"""Which files of a bundle are opened, and what is said of the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jotr_deploy.bundle import Bundle, open_bundle, write_manifest
from jotr_deploy.errors import BundleError, JotrDeployError
from jotr_deploy.evaluation.mesh_files import open_files


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """The tiny bundle with three more files: a copy, an engine that cannot be opened, and the ONNX it was made of."""
    path = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, path)
    opened = open_bundle(path)
    mesh = opened.entry("mesh")
    more = []
    for name, precision, backend in (
        ("mesh.fp16.onnx", "fp16", "onnx"),
        ("mesh.fp16.tensorrt.onnx", "fp16", "tensorrt"),
        ("mesh.fp16.engine", "fp16", "tensorrt"),
    ):
        shutil.copy(path / mesh.name, path / name)
        more.append(mesh.model_copy(update={"name": name, "precision": precision, "backend": backend}))
    write_manifest(path, opened.manifest.model_copy(update={"files": (*opened.manifest.files, *more)}))
    return open_bundle(path)


def test_one_file(bundle: Bundle) -> None:
    with open_files(bundle, device="cpu", threads=1) as files:
        assert [file.entry.name for file in files.all] == ["mesh.onnx"]
        assert (files.reference, files.compared, files.not_run) == (None, (), {})
    with open_files(bundle, "mesh.fp16.onnx", device="cpu", threads=1) as files:
        assert [file.entry.name for file in files.all] == ["mesh.fp16.onnx"]
        assert files.measured.device == "cpu"


@pytest.mark.parametrize("name", [None, "mesh.onnx", "mesh.fp16.onnx"])
def test_every_file(bundle: Bundle, name: str | None) -> None:
    with open_files(bundle, name, every=True, device="cpu", threads=1) as files:
        assert files.measured.entry.name == (name or "mesh.onnx")
        assert files.reference is not None
        assert files.reference.entry.name == "mesh.onnx"
        assert [file.entry.name for file in files.compared] == ["mesh.fp16.onnx"]
        assert sorted(file.entry.name for file in files.all) == ["mesh.fp16.onnx", "mesh.onnx"]
        assert files.all[0] is files.measured
        assert list(files.not_run) == ["mesh.fp16.tensorrt.onnx", "mesh.fp16.engine"]
        assert files.not_run["mesh.fp16.tensorrt.onnx"] == "made for the parser of tensorrt, not to be run"
        assert files.not_run["mesh.fp16.engine"]


def test_a_changed_file_is_not_compared(bundle: Bundle) -> None:
    path = bundle.path / "mesh.fp16.onnx"
    path.write_bytes(path.read_bytes() + b"x")
    with open_files(bundle, every=True, device="cpu", threads=1) as files:
        assert files.not_run["mesh.fp16.onnx"] == f"{path}: the file has changed since it was made (sha256 differs)"
        assert files.compared == ()


def test_refusals(bundle: Bundle) -> None:
    with pytest.raises(BundleError) as unknown, open_files(bundle, "other.onnx"):
        pass
    assert unknown.value.cause == f"{bundle.path}: the bundle has no other.onnx of role mesh"
    with pytest.raises(JotrDeployError) as engine, open_files(bundle, "mesh.fp16.engine", device="cpu"):
        pass
    assert engine.value.remedy
    fp16 = tuple(entry for entry in bundle.manifest.files if entry.precision != "fp32")
    without = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": fp16}))
    with pytest.raises(BundleError) as reference, open_files(without, every=True, device="cpu", threads=1):
        pass
    assert reference.value.cause == f"{bundle.path}: the bundle has no fp32 mesh file to compare the others with"
