"""Bundles from strangers: nothing that a manifest or a link says reaches a file outside the bundle."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from outcome import tree
from test_file_names import FAULTS, FINE

from jotr_deploy.bundle import Bundle, FileEntry, Manifest, open_bundle, replace_files, sha256_of, to_write
from jotr_deploy.config import ModelConfig
from jotr_deploy.errors import BundleError
from jotr_deploy.support.writing import aside_of, written_aside

AGAIN = "export it again: jotr-deploy export CHECKPOINT -o BUNDLE"


def content(*names: str, **changes: Any) -> dict[str, Any]:
    """A manifest as text: a mesh file by each of the names."""
    files = [{"role": "mesh", "name": name, "sha256": "0" * 64} for name in names]
    return {"format": 1, "model": {}, "source_sha256": "0" * 64, "files": files, **changes}


def write(folder: Path, manifest: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as error:
        open_bundle(path)
    assert error.value.remedy == AGAIN
    assert str(error.value).count("\n") == 1
    assert error.value.cause.isprintable()
    return error.value.cause.removeprefix(f"{path / 'bundle.json'}: ")


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_name_in_a_manifest_is_a_bare_file_name(tmp_path: Path, name: str, fault: str) -> None:
    if "\ud800" in name:  # no text at all
        fault = "surrogates not allowed)"
    assert refusal(write(tmp_path, content("mesh.onnx", name))).endswith(fault)


@pytest.mark.parametrize("name", FINE)
def test_other_names_are_fine(tmp_path: Path, name: str) -> None:
    assert open_bundle(write(tmp_path, content(name))).entry("mesh").name == name


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("mesh.onnx", "mesh.onnx"), "files: the file name 'mesh.onnx' is listed twice"),
        (("mesh.onnx", "Mesh.ONNX"), "files: the file name 'Mesh.ONNX' is listed twice"),
        (("\u00e9.onnx", "e\u0301.onnx"), "files: the file name 'e\u0301.onnx' is listed twice"),
        (("bundle.json",), "files: the file name 'bundle.json' is that of the manifest"),
        (("Bundle.JSON",), "files: the file name 'Bundle.JSON' is that of the manifest"),
    ],
)
def test_every_file_has_a_name_of_its_own(tmp_path: Path, names: tuple[str, ...], fault: str) -> None:
    assert refusal(write(tmp_path, content(*names))) == fault


def test_the_manifest_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bundle.json")
    assert refusal(tmp_path) == "not readable (not a file)"


def test_text_that_is_shown_is_one_line(tmp_path: Path) -> None:
    text = "Müller\u00a0GmbH\n\x1b[31m\u202ered"
    licence = {"asset": text, "terms": text, "redistributable": True}
    manifest = open_bundle(write(tmp_path, content("m.onnx", labels=[text], licences=[licence]))).manifest
    shown = "Müller\u00a0GmbH\\n\\x1b[31m\\u202ered"
    assert (*manifest.labels, manifest.licences[0].asset, manifest.licences[0].terms) == (shown, shown, shown)


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────


def linked(folder: Path, target: Path) -> Bundle:
    """A bundle whose detector is a link; the manifest describes what the link leads to."""
    files = (FileEntry(role="detector", name="d.onnx", sha256=sha256_of(target)),)
    folder.mkdir()
    (folder / "d.onnx").symlink_to(target)
    return write_bundle(folder, files)


def write_bundle(folder: Path, files: tuple[FileEntry, ...]) -> Bundle:
    manifest = Manifest(model=ModelConfig(), source_sha256="", files=files)
    (folder / "bundle.json").write_text(manifest.model_dump_json())
    return open_bundle(folder)


@pytest.fixture
def keep(tmp_path: Path) -> Path:
    """A file of the user's, outside any bundle."""
    path = tmp_path / "keep.txt"
    path.write_text("precious")
    return path


def test_a_link_is_read_through(tmp_path: Path, keep: Path) -> None:
    bundle = linked(tmp_path / "b", keep)  # as stores of models by their hash have it
    assert bundle.file("detector").read_text() == "precious"
    keep.write_text("other")
    with pytest.raises(BundleError, match="has changed"):
        bundle.file("detector")


@pytest.mark.parametrize("named", ["old", "new"])
def test_a_link_is_replaced_and_removed_itself(tmp_path: Path, keep: Path, named: str) -> None:
    def make(path: Path) -> FileEntry:
        path.write_text("new")
        return FileEntry(role="detector", name="", sha256="")

    bundle = linked(tmp_path / "b", keep)
    if named == "old":
        replace_files(bundle, {}, ["d.onnx"])
        assert set(tree(bundle.path)) == {"bundle.json"}
    else:
        bundle = replace_files(bundle, {"d.onnx": make})
        assert bundle.file("detector").read_text() == "new"
        assert not bundle.file("detector").is_symlink()
    assert keep.read_text() == "precious"


def test_what_a_link_leads_to_is_not_copied(tmp_path: Path, keep: Path) -> None:
    bundle = linked(tmp_path / "b", keep)
    before = tree(tmp_path)
    with pytest.raises(BundleError) as error, to_write(bundle.path, tmp_path / "copy"):
        pass
    assert error.value.cause == f"{bundle.path / 'd.onnx'}: is a link that leads out of the bundle"
    assert error.value.remedy == "replace it with the file itself"
    assert tree(tmp_path) == before


def test_a_link_inside_a_bundle_is_copied_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one").write_text("same")
    (tmp_path / "b" / "two").symlink_to("one")
    sha256 = sha256_of(tmp_path / "b" / "one")
    write_bundle(tmp_path / "b", tuple(FileEntry(role="mesh", name=name, sha256=sha256) for name in ("one", "two")))
    (tmp_path / "link").symlink_to("b")
    with to_write(tmp_path / "link", tmp_path / "copy"):
        pass
    shutil.rmtree(tmp_path / "b")
    assert open_bundle(tmp_path / "copy").file("mesh", "two").read_text() == "same"


def test_a_name_from_elsewhere_is_refused_where_it_becomes_a_path(tmp_path: Path, keep: Path) -> None:
    entry = FileEntry(role="mesh", name="../keep.txt", sha256=sha256_of(keep))
    unchecked = Manifest.model_construct(model=ModelConfig(), source_sha256="", files=(entry,))
    (tmp_path / "b").mkdir()
    for use in (
        lambda bundle: bundle.file("mesh"),
        lambda bundle: replace_files(bundle, {}, ["../keep.txt"]),
        lambda bundle: replace_files(bundle, {"../keep.txt": Path.touch}),
    ):
        with pytest.raises(BundleError, match="has a path separator"):
            use(Bundle(tmp_path / "b", unchecked))
    assert keep.read_text() == "precious"


def test_a_link_where_a_file_is_written_aside_is_not_written_through(tmp_path: Path, keep: Path) -> None:
    aside_of(tmp_path / "bundle.json").symlink_to(keep)
    with written_aside(tmp_path / "bundle.json") as aside:
        aside.write_text("new")
    assert keep.read_text() == "precious"
    assert (tmp_path / "bundle.json").read_text() == "new"
    aside_of(tmp_path / "x").symlink_to(tmp_path / "nowhere")
    with written_aside(tmp_path / "x") as aside:
        aside.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.json", "keep.txt", "x"]
