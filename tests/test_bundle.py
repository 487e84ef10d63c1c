"""The bundle: a manifest that never lies about its files, and directories that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from outcome import full_disk, tree

from jotr_deploy.bundle import (
    FORMAT,
    MANIFEST,
    Error,
    FileEntry,
    Licence,
    Manifest,
    new_directory,
    open_bundle,
    replace_file,
    replace_files,
    sha256_of,
    starter_path,
    to_write,
    write_manifest,
)
from jotr_deploy.config import ModelConfig
from jotr_deploy.errors import BundleError, OutputError

AGAIN = "export it again: jotr-deploy export CHECKPOINT -o BUNDLE"
PLACE = "choose a writable folder that exists and has free space"
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def manifest(**changes: Any) -> Manifest:
    return Manifest(**{"model": ModelConfig(), "source_sha256": "00", "files": (), **changes})


def bundle_in(folder: Path, *names: str, **changes: Any) -> Path:
    """A bundle of one-line mesh files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    files = tuple(FileEntry(role="mesh", name=name, sha256=sha256_of(folder / name)) for name in names)
    write_manifest(folder, manifest(**{"files": files, **changes}))
    return folder


def refusal(call: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(BundleError) as error:
        call(*arguments)
    return error.value.cause, error.value.remedy


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = manifest(
        model=ModelConfig(backbone_depth=18, heads=4),
        labels=("stand-in body",),
        licences=(Licence(asset="SMPL", terms="research", redistributable=False),),
        files=(
            FileEntry(
                role="mesh", name="mesh.onnx", sha256="ab", precision="fp32", backend="onnx", batch="dynamic",
                recipe={"sampling": "function", "scope": ["a", 1]}, built_with={"onnx": "1"},
                error_mm=Error(mean=0.01, max=0.02),
            ),
            FileEntry(role="faces", name="faces.npy", sha256="cd"),
        ),
    )  # fmt: skip
    write_manifest(tmp_path, written)
    first = (tmp_path / "bundle.json").read_bytes()
    assert open_bundle(tmp_path).manifest == written
    write_manifest(tmp_path, open_bundle(tmp_path).manifest)
    assert (tmp_path / "bundle.json").read_bytes() == first


def test_there_is_no_time_in_a_manifest() -> None:
    text = manifest().model_dump_json()
    assert not [word for word in ("time", "date", "created", "host", "seconds") if word in text]


def test_files_by_role_and_name(tmp_path: Path) -> None:
    bundle = open_bundle(bundle_in(tmp_path, "mesh.onnx", "mesh.int8.onnx"))
    assert bundle.file("mesh") == tmp_path / "mesh.onnx", "the first listed"
    assert bundle.file("mesh", "mesh.int8.onnx") == tmp_path / "mesh.int8.onnx"
    assert refusal(bundle.file, "faces") == (f"{tmp_path}: the bundle has no faces file", AGAIN)
    cause = f"{tmp_path}: the bundle has no x.onnx of role mesh"
    assert refusal(bundle.file, "mesh", "x.onnx") == (cause, "it has mesh.onnx, mesh.int8.onnx")


def test_a_file_is_checked_every_time_it_is_asked_for(tmp_path: Path) -> None:
    bundle = open_bundle(bundle_in(tmp_path, "mesh.onnx"))
    bundle.file("mesh")
    (tmp_path / "mesh.onnx").write_text("mesh.onny")
    assert refusal(bundle.file, "mesh") == (
        f"{tmp_path}/mesh.onnx: the file has changed since it was made (sha256 differs)", AGAIN,
    )  # fmt: skip
    (tmp_path / "mesh.onnx").unlink()
    assert refusal(bundle.file, "mesh") == (f"{tmp_path}: mesh.onnx is listed in the manifest but missing", AGAIN)
    (tmp_path / "mesh.onnx").mkdir()
    assert refusal(bundle.file, "mesh") == (f"{tmp_path}: mesh.onnx is listed in the manifest but missing", AGAIN)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    bundle = open_bundle(bundle_in(tmp_path, "mesh.onnx"))
    monkeypatch.setattr("jotr_deploy.bundle.sha256_of", closed)
    cause = f"{tmp_path}/mesh.onnx: cannot be read (Permission denied)"
    assert refusal(bundle.file, "mesh") == (cause, "check its permissions")


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256_of(tmp_path / "empty") == EMPTY_SHA256
    content = bytes(range(256)) * 10_000  # more than one block
    (tmp_path / "large").write_bytes(content)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("version", "aligns"), [(1, False), (2, True)])
def test_a_manifest_of_an_older_format_is_read_with_defaults_and_written_as_the_newest(
    tmp_path: Path, version: int, aligns: bool
) -> None:
    starter = json.loads((starter_path() / MANIFEST).read_text())
    assert (starter["format"], starter["align"], starter["model"].pop("crop_factor")) == (FORMAT, True, 1.1)
    if version == 1:
        del starter["align"]
    (tmp_path / MANIFEST).write_text(json.dumps({**starter, "format": version}))
    earlier = open_bundle(tmp_path).manifest
    assert (earlier.format, earlier.align, earlier.model.crop_factor) == (version, aligns, 1.1)
    write_manifest(tmp_path, earlier)
    written = json.loads((tmp_path / MANIFEST).read_text())
    assert (written["format"], written["align"], written["model"]["crop_factor"]) == (FORMAT, aligns, 1.1)


@pytest.mark.parametrize(
    ("content", "cause", "remedy"),
    [
        (b"", "{m}: not readable (it is an empty file)",
         "download or copy it again, and compare its size with that of the original"),
        (b"\xff\xfe", "{m}: not readable ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)",
         AGAIN),
        (b"null", "{m}: manifest: Input should be a valid dictionary or instance of Manifest", AGAIN),
        (b"{}", "{m}: model: Field required", AGAIN),
        ({"format": 5, "anything": 1}, "{b}: bundle format 5, this version reads up to 4",
         "upgrade: git pull, then pip install . in a clone of jotr-deploy"),
        ({"format": 0}, "{m}: format: Input should be 1, 2, 3 or 4", AGAIN),
        ({"format": "new"}, "{m}: format: Input should be 1, 2, 3 or 4", AGAIN),
        ({"colour": "red"}, "{m}: colour: Extra inputs are not permitted", AGAIN),
        ({"model": {"heads": 3}},
         "{m}: model: d_model 256 must be a multiple of heads (3) and of 4", AGAIN),
        ({"model": {"crop_factor": 0.5}},
         "{m}: model.crop_factor: Input should be greater than or equal to 1", AGAIN),
        ({"files": [{"role": "mesh", "name": "mesh.onnx"}]}, "{m}: files.0.sha256: Field required", AGAIN),
        ({"files": [{"role": "cook", "name": "x", "sha256": "x"}]},
         "{m}: files.0.role: Input should be 'mesh', 'faces', 'detector', 'pose', 'features', 'kernels' or 'bank'",
         AGAIN),
    ],
)  # fmt: skip
def test_manifests_that_are_refused(tmp_path: Path, content: Any, cause: str, remedy: str) -> None:
    if isinstance(content, dict):
        content = json.dumps({**json.loads(manifest().model_dump_json()), **content}).encode()
    (tmp_path / "bundle.json").write_bytes(content)
    assert refusal(open_bundle, tmp_path) == (cause.format(b=tmp_path, m=tmp_path / "bundle.json"), remedy)


def fill(path: Path, replace: bool = False, failure: BaseException | None = None) -> None:
    with new_directory(path, replace) as new:
        bundle_in(new, "new.onnx")
        if failure is not None:
            raise failure


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bundle"
    with new_directory(path) as new:
        assert not path.exists()
        bundle_in(new, "new.onnx")
    assert set(tree(tmp_path)) == {"deep", "deep/bundle", "deep/bundle/bundle.json", "deep/bundle/new.onnx"}
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("failure", "expected"),
    [(OSError(28, "No space left on device"), OutputError), (ValueError("a bug"), ValueError),
     (KeyboardInterrupt(), KeyboardInterrupt)],
)  # fmt: skip
def test_a_failure_changes_nothing(
    tmp_path: Path, before: bool, failure: BaseException, expected: type[BaseException]
) -> None:
    path = tmp_path / "deep" / "bundle"
    if before:
        bundle_in(path, "old.onnx")
    there = tree(tmp_path)
    with pytest.raises(expected) as error:
        fill(path, replace=True, failure=failure)
    assert tree(tmp_path) == there
    if isinstance(error.value, OutputError):
        assert (error.value.cause, error.value.remedy) == (
            f"{path}: cannot be written (No space left on device)",
            PLACE,
        )


def test_what_is_replaced_comes_back_when_the_new_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle_in(tmp_path / "bundle", "old.onnx")
    there = tree(tmp_path)
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda a, b: full_disk() if a.name == "new" else rename(a, b))
    with pytest.raises(OutputError):
        fill(path, replace=True)
    assert tree(tmp_path) == there


@pytest.mark.parametrize("by", ["itself", "link", "dots"])
def test_replacing(tmp_path: Path, by: str) -> None:
    path = bundle_in(tmp_path / "bundle", "old.onnx")
    (tmp_path / "link").symlink_to(path)
    name = {"itself": path, "link": tmp_path / "link", "dots": path / ".." / "bundle"}[by]
    fill(name, replace=True)
    assert set(tree(path)) == {"bundle.json", "new.onnx"}
    assert {entry.name for entry in tmp_path.iterdir()} == {"bundle", "link"}


@pytest.mark.parametrize(
    ("kind", "replace", "cause", "remedy"),
    [
        ("bundle", False, "already exists", "choose another -o, or add --force to replace the bundle"),
        ("folder", True, "already exists and is not a bundle", "choose another -o"),
        ("file", True, "already exists and is not a bundle", "choose another -o"),
    ],
)
def test_what_is_taken_is_refused_before_any_work(
    tmp_path: Path, kind: str, replace: bool, cause: str, remedy: str
) -> None:
    path = tmp_path / "taken"
    {"bundle": bundle_in, "folder": Path.mkdir, "file": Path.touch}[kind](path)
    there = tree(tmp_path)
    with pytest.raises(OutputError) as error:
        fill(path, replace, ZeroDivisionError())
    assert (error.value.cause, error.value.remedy) == (f"{path}: {cause}", remedy)
    assert tree(tmp_path) == there


def test_a_copied_bundle_is_a_bundle(tmp_path: Path) -> None:
    shutil.copytree(bundle_in(tmp_path / "a", "mesh.onnx"), tmp_path / "b")
    assert open_bundle(tmp_path / "b").file("mesh") == tmp_path / "b" / "mesh.onnx"


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A bundle in the place of the one inside the package, and an empty current folder."""
    path = bundle_in(tmp_path / "package" / "starter", "mesh.onnx")
    monkeypatch.setattr("jotr_deploy.bundle.starter_path", lambda: path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return path


def test_the_word_starter_names_the_bundle_inside_the_package(starter: Path) -> None:
    assert open_bundle(Path("starter")).path == starter


def test_a_directory_called_starter_wins(starter: Path) -> None:
    bundle_in(Path("starter"), "other.onnx")
    assert open_bundle(Path("starter")).path == Path("starter")


def test_a_folder_called_starter_that_is_no_bundle_does_not(starter: Path) -> None:
    Path("starter").mkdir()
    assert open_bundle(Path("starter")).path == starter


def test_the_starter_lies_beside_the_code() -> None:
    assert starter_path().parent.name == "jotr_deploy"


def test_a_bundle_is_added_to_where_it_is(tmp_path: Path) -> None:
    path = bundle_in(tmp_path / "b", "mesh.onnx")
    with to_write(path) as bundle:
        assert bundle.path == path


def making(content: str, role: str = "detector", failure: BaseException | None = None) -> Any:
    def make(path: Path) -> FileEntry:
        path.write_text(content)
        if failure is not None:
            raise failure
        return FileEntry(role=role, name="", sha256="")  # type: ignore[arg-type]

    return make


def listed(path: Path) -> list[tuple[str, str]]:
    """Role and name of what a bundle lists; each is intact, and there is nothing else."""
    bundle = open_bundle(path)
    for entry in bundle.manifest.files:
        bundle.file(entry.role, entry.name)
    assert set(tree(path)) == {"bundle.json", *(entry.name for entry in bundle.manifest.files)}
    return [(entry.role, entry.name) for entry in bundle.manifest.files]


def test_a_file_is_replaced_in_place(tmp_path: Path) -> None:
    bundle = replace_file(open_bundle(bundle_in(tmp_path, "mesh.onnx")), "d.onnx", making("one"))
    bundle = replace_file(bundle, "d.onnx", making("two"))
    assert bundle == open_bundle(tmp_path)
    assert listed(tmp_path) == [("mesh", "mesh.onnx"), ("detector", "d.onnx")]
    assert bundle.file("detector").read_text() == "two"


def test_files_come_and_go_at_once(tmp_path: Path) -> None:
    bundle = replace_file(open_bundle(bundle_in(tmp_path, "mesh.onnx")), "d.onnx", making("one"))
    terms = (Licence(asset="x", terms="MIT", redistributable=True),)
    files = {"d.engine": making("two"), "p.onnx": making("three", "pose")}
    bundle = replace_files(bundle, files, ["d.onnx"], terms)
    assert bundle == open_bundle(tmp_path)
    assert listed(tmp_path) == [("mesh", "mesh.onnx"), ("detector", "d.engine"), ("pose", "p.onnx")]
    assert bundle.manifest.licences == terms
    assert replace_files(bundle, {}, ["p.onnx"]).manifest.licences == terms
    assert listed(tmp_path) == [("mesh", "mesh.onnx"), ("detector", "d.engine")]


@pytest.mark.parametrize("failing", ["d.onnx", "p.onnx"])
def test_if_one_of_several_cannot_be_made_all_is_as_it_was(tmp_path: Path, failing: str) -> None:
    bundle = replace_file(open_bundle(bundle_in(tmp_path, "mesh.onnx")), "d.onnx", making("one"))
    before = tree(tmp_path)
    files = {name: making("new", failure=OSError(28, "No space left on device") if name == failing else None)
             for name in ("d.onnx", "p.onnx")}  # fmt: skip
    with pytest.raises(OutputError) as error:
        replace_files(bundle, files, ["mesh.onnx"])
    assert (error.value.cause, error.value.remedy) == (
        f"{tmp_path / failing}: cannot be written (No space left on device)", PLACE,
    )  # fmt: skip
    assert tree(tmp_path) == before


def test_an_old_file_that_cannot_be_removed_is_out_of_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = replace_file(open_bundle(bundle_in(tmp_path, "mesh.onnx")), "d.onnx", making("one"))
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda p, **o: full_disk() if p.name == "d.onnx" else unlink(p, **o))
    with pytest.raises(OutputError, match=r"d\.onnx: cannot be written"):
        replace_files(bundle, {"d.engine": making("two")}, ["d.onnx"])
    assert [entry.name for entry in open_bundle(tmp_path).manifest.files] == ["mesh.onnx"]


@pytest.mark.parametrize("role", ["detector", "pose"])
def test_networks_of_others_have_a_verb_of_their_own(tmp_path: Path, role: str) -> None:
    bundle = open_bundle(bundle_in(tmp_path, "mesh.onnx"))
    add = f"put it in: jotr-deploy add BUNDLE --{role} FILE"
    assert refusal(bundle.file, role) == (f"{tmp_path}: the bundle has no {role} file", add)
    bundle = replace_file(bundle, "n.onnx", making("one", role))
    (tmp_path / "n.onnx").unlink()
    assert refusal(bundle.file, role) == (f"{tmp_path}: n.onnx is listed in the manifest but missing", add)


@pytest.mark.parametrize(
    ("name", "facts", "remedy"),
    [
        ("mesh.int8.onnx", ("int8", "onnx"), "make it again: jotr-deploy calibrate BUNDLE --synthetic 256"
         " --precision int8"),
        ("mesh.fp8.onnx", ("fp8", "onnx"), "make it again: jotr-deploy calibrate BUNDLE --synthetic 256"
         " --precision fp8"),
        ("mesh.fp16.onnx", ("fp16", "onnx"), "make it again: jotr-deploy build-engine BUNDLE --network mesh"
         " --backend onnxruntime --precision fp16"),
        ("mesh.int8.onnxruntime.onnx", ("int8", "onnx"), "make it again: jotr-deploy build-engine BUNDLE"
         " --network mesh --backend onnxruntime --precision int8"),
        ("mesh.int8.openvino.onnx", ("int8", "openvino"), "make it again: jotr-deploy build-engine BUNDLE"
         " --network mesh --backend openvino --precision int8"),
        ("mesh.fp16.attention.sm90.engine", ("fp16", "tensorrt"), "make it again: jotr-deploy build-engine BUNDLE"
         " --network mesh --backend tensorrt --precision fp16 --attention"),
        ("mesh.other.onnx", (None, "onnx"), AGAIN),
        ("mesh.other.onnx", ("fp16", "a stranger's"), AGAIN),
    ],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_derived_file_is_made_again_by_the_verb_that_made_it(
    tmp_path: Path, name: str, facts: tuple[str | None, str], remedy: str, damage: str
) -> None:
    precision, backend = facts
    path = bundle_in(tmp_path / "b", "mesh.onnx", name)
    first, derived = open_bundle(path).manifest.files
    derived = derived.model_copy(update={"precision": precision, "backend": backend})
    write_manifest(path, manifest(files=(first, derived)))
    bundle = open_bundle(path)
    if damage == "changed":
        (path / name).write_text("x")
        cause = f"{path / name}: the file has changed since it was made (sha256 differs)"
    else:
        (path / name).unlink()
        cause = f"{path}: {name} is listed in the manifest but missing"
        with pytest.raises(BundleError) as caught, to_write(path, tmp_path / "copy"):
            pass
        assert (caught.value.cause, caught.value.remedy) == (cause, remedy)
    assert refusal(bundle.file, "mesh", name) == (cause, remedy)


def test_a_calibrated_file_is_made_again_with_its_bits(tmp_path: Path) -> None:
    path = bundle_in(tmp_path, "mesh.onnx", "mesh.int8.onnx")
    first, derived = open_bundle(path).manifest.files
    facts = {"precision": "int8", "backend": "onnx", "recipe": {"weight_bits": 7}}
    write_manifest(path, manifest(files=(first, derived.model_copy(update=facts))))
    (path / "mesh.int8.onnx").unlink()
    _, remedy = refusal(open_bundle(path).file, "mesh", "mesh.int8.onnx")
    assert remedy.endswith("calibrate BUNDLE --synthetic 256 --precision int8 --weight-bits 7")


@pytest.mark.parametrize(
    ("damage", "use"),
    [
        (lambda s: (s / "mesh.onnx").write_text("x"), lambda _: open_bundle(Path("starter")).file("mesh")),
        (lambda s: (s / "mesh.onnx").unlink(), lambda _: open_bundle(Path("starter")).file("mesh")),
        (lambda s: (s / "bundle.json").write_text("{"), lambda _: open_bundle(Path("starter"))),
        (lambda s: (s / "bundle.json").write_text("{}"), lambda _: open_bundle(Path("starter"))),
        (lambda s: (s / "mesh.onnx").unlink(), lambda copy: copied(Path("starter"), copy)),
        (lambda s: (s / "mesh.onnx").write_text("x"), lambda copy: copied(Path("starter"), copy)),
    ],
    ids=["changed", "missing", "no JSON", "no manifest", "missing in a copy", "changed in a copy"],
)
def test_a_damaged_starter_is_installed_again(starter: Path, tmp_path: Path, damage: Any, use: Any) -> None:
    damage(starter)
    cause, remedy = refusal(use, tmp_path / "copy")
    assert remedy == "install the package again"
    assert "copy" not in cause


def copied(path: Path, copy: Path) -> None:
    with to_write(path, copy) as bundle:
        bundle.file("mesh")


class Closed:
    """A file whose bytes cannot be read."""

    def __enter__(self) -> Closed:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, _: int) -> bytes:
        raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("fails", ["opening", "reading"])
def test_a_file_that_cannot_be_read_is_not_a_copy_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    file, opened = bundle_in(tmp_path / "b", "mesh.onnx") / "mesh.onnx", Path.open

    def closed(path: Path, *arguments: Any, **options: Any) -> Any:
        if path != file:
            return opened(path, *arguments, **options)
        return Closed().read(0) if fails == "opening" else Closed()

    monkeypatch.setattr(Path, "open", closed)
    expected = f"{file}: cannot be read (Permission denied)", "check its permissions"
    assert refusal(copied, file.parent, tmp_path / "copy") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_copy_that_cannot_be_written_is_not_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = bundle_in(tmp_path / "b", "mesh.onnx"), Path.open

    def full(self: Path, *arguments: Any, **options: Any) -> Any:
        return full_disk() if "wb" in arguments else opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError) as caught:
        copied(path, tmp_path / "copy")
    assert str(caught.value) == f"{tmp_path / 'copy'}: cannot be written (No space left on device)\n{PLACE}"


def test_the_starter_is_not_changed(starter: Path) -> None:
    with pytest.raises(BundleError) as caught, to_write(Path("starter")):
        pass
    assert str(caught.value) == "starter: the bundle inside this package cannot be changed\ngive -o DIR to write a copy"


def test_a_copy_is_added_to_and_appears_whole(starter: Path, tmp_path: Path) -> None:
    (starter / "not listed").touch()
    with to_write(Path("starter"), tmp_path / "copy") as bundle:
        assert not (tmp_path / "copy").exists()
        assert open_bundle(bundle.path).file("mesh").read_bytes() == (starter / "mesh.onnx").read_bytes()
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["bundle.json", "mesh.onnx"]


def test_what_is_wrong_in_a_copy_is_said_of_the_bundle(starter: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught, to_write(starter, tmp_path / "copy") as bundle:
        bundle.entry("mesh", "none.onnx")
    assert caught.value.cause == f"{starter}: the bundle has no none.onnx of role mesh"


def test_what_fails_leaves_no_copy(starter: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    with pytest.raises(RuntimeError), to_write(Path("starter"), tmp_path / "copy"):
        raise RuntimeError
    assert tree(tmp_path) == before


def test_without_a_bundle_inside_the_package_the_word_is_a_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("jotr_deploy.bundle.starter_path", lambda: tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"^starter: no such folder\ncheck the path$"):
        open_bundle(Path("starter"))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0"


@pytest.mark.parametrize(
    ("given", "what", "remedy"),
    [
        ("b/bundle.json", "not a bundle (it is JSON text)", "give its folder: {p}/b"),
        ("b/mesh.onnx", "not a bundle (it is plain text)", "give its folder: {p}/b"),
        ("b.zip", "not a bundle (it is a gzip archive)", "unpack it and give the file inside"),
        (".", "not a bundle (no bundle.json)", "give the folder inside it: {p}/b"),
        ("empty", "not a bundle (no bundle.json)", "make one: jotr-deploy export CHECKPOINT -o BUNDLE; or use the "
         "bundle of this package: starter"),
        ("none", "no such folder", "check the path, or use starter, the bundle inside this package"),
        ("b.zip/none", "no such folder", "check the path, or use starter, the bundle inside this package"),
    ],
)  # fmt: skip
def test_what_is_given_in_place_of_a_bundle(tmp_path: Path, given: str, what: str, remedy: str) -> None:
    (tmp_path / "empty").mkdir()
    bundle_in(tmp_path / "b", "mesh.onnx")
    (tmp_path / "b.zip").write_bytes(b"\x1f\x8b")
    path = tmp_path / given
    assert refusal(open_bundle, path) == (f"{path}: {what}", remedy.format(p=tmp_path))


def test_a_pointer_in_place_of_a_file(tmp_path: Path) -> None:
    bundle_in(tmp_path, "mesh.onnx")
    bundle = open_bundle(tmp_path)
    (tmp_path / "mesh.onnx").write_bytes(LFS)
    pointer = "it is a Git LFS pointer (the file itself was not downloaded)"
    assert refusal(bundle.file, "mesh") == (
        f"{tmp_path / 'mesh.onnx'}: the file has changed since it was made: {pointer}",
        "get the file itself: git lfs pull",
    )  # fmt: skip
    (tmp_path / "bundle.json").write_bytes(LFS)
    assert refusal(open_bundle, tmp_path) == (
        f"{tmp_path / 'bundle.json'}: not readable ({pointer})", "get the file itself: git lfs pull",
    )  # fmt: skip


def test_a_manifest_with_a_mark_of_its_encoding_is_read(tmp_path: Path) -> None:
    bundle_in(tmp_path, "mesh.onnx")
    (tmp_path / "bundle.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "bundle.json").read_bytes())
    assert open_bundle(tmp_path).has("mesh")
