"""Results without meshes: what their bundle makes of them, and which bundle that may be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jotr_deploy.body.exported import ExportedBody
from jotr_deploy.bundle import STARTER, Bundle, open_bundle, sha256_of, write_manifest
from jotr_deploy.errors import BundleError, JotrDeployError, SourceError
from jotr_deploy.people import LAYOUT, People
from jotr_deploy.runtime.body_session import open_body
from jotr_deploy.visual.gltf import write_glb
from jotr_deploy.visual.result_files import FORMAT, PeopleFile, PeopleWriter, read_people

REMEDY = (
    "name the bundle it was made with (view: --bundle DIR; Python: read_people(path, bundle)), "
    "or run again with --vertices"
)
COUNTS = {0: 2, 3: 0, 4: 1}
NO_MESHES = [name for name in LAYOUT if name != "vertices_m"]


@pytest.fixture
def bundle() -> Bundle:
    return open_bundle(Path(STARTER))


def people_of(bundle: Bundle, count: int, seed: int = 0) -> People:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {n: rng.uniform(0, 1, (count, *shape)).astype(t) for n, (shape, t) in LAYOUT.items()}
    with open_body(bundle, threads=1) as body:
        arrays["vertices_m"], arrays["joints_m"] = body(arrays["pose_rad"], arrays["betas"])
    return People(**arrays)


def written(path: Path, bundle: Bundle, vertices: bool, hint: str | None = None) -> dict[int, People]:
    starter = open_bundle(Path(STARTER))
    frames = {number: people_of(starter, count, number) for number, count in COUNTS.items()}
    with PeopleWriter(
        path, faces=np.load(starter.file("faces")), source="clip.mp4", image_size_px=(64, 48), fps=10.0, labels=("a",),
        crop_side=128, vertices=vertices, mesh_sha256=bundle.entry("mesh", "mesh.onnx").sha256,
        bundle=str(bundle.path) if hint is None else hint,
    ) as writer:  # fmt: skip
        for number, people in frames.items():
            writer.append(number, people, time_s=None if number == 3 else number / 8)
        writer.facts = {"skipped": ["größe 1"], "networks": []}
    return frames


@pytest.fixture
def posed(tmp_path: Path, bundle: Bundle) -> PeopleFile:
    written(tmp_path / "people.npz", bundle, vertices=False)
    return read_people(tmp_path / "people.npz")


def assert_same(found: People, expected: People) -> None:
    for name in NO_MESHES:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.vertices_m, expected.vertices_m, atol=1e-6)


@pytest.mark.parametrize("vertices", [True, False])
def test_with_and_without_meshes_the_same_is_read(tmp_path: Path, bundle: Bundle, vertices: bool) -> None:
    path = tmp_path / "people.npz"
    frames = written(path, bundle, vertices)
    result = read_people(path)
    assert_same(result.people, People.concatenate(list(frames.values())))
    np.testing.assert_array_equal(result.faces, np.load(bundle.file("faces")))
    for number, people in frames.items():
        assert_same(result.at(number), people)
    assert (path.stat().st_size < 20_000) != vertices
    with np.load(path) as archive:
        assert {name in archive for name in ("vertices_m", "faces")} == {vertices}
    np.testing.assert_array_equal(result.times_s, [0, np.nan, 0.5])
    assert [result.time_s(number) for number in (0, 3, 4, 5)] == [0, 0.3, 0.5, 0.5]
    assert result.facts == {"skipped": ["größe 1"], "networks": []}


def test_format_1_is_read_as_before(tmp_path: Path, bundle: Bundle) -> None:
    people = people_of(bundle, 2)
    np.savez(
        tmp_path / "old.npz", **{name: getattr(people, name) for name in LAYOUT}, frame=np.array([1, 4]),
        numbers=np.array([0, 1, 4]), names=np.zeros(0, np.str_), faces=np.array([[0, 1, 2]], np.int32),
        format=np.array(1), source=np.array("clip.mp4"), image_size_px=np.array([64, 48]), fps=np.array(10.0),
        labels=np.array(["stand-in body"]), crop_side=np.array(256),
    )  # fmt: skip
    for bundle_given in (None, tmp_path / "no bundle"):  # it holds its meshes
        result = read_people(tmp_path / "old.npz", bundle_given)
        np.testing.assert_array_equal(result.people.vertices_m, people.vertices_m)
        assert (result.faces.tolist(), result.labels, result.crop_side) == ([[0, 1, 2]], ("stand-in body",), 256)
        assert [result.time_s(number) for number in (0, 4)] == [0, 0.4]
        assert (result.mesh_sha256, result.bundle, result.facts) == ("", "", {})


@pytest.mark.parametrize(
    "index",
    [slice(1, None), slice(0, 0), [2, 0], [], np.array([True, False, True]), np.array([-1])],
    ids=str,
)
def test_chosen_people_make_only_their_own_meshes(posed: PeopleFile, index: Any, monkeypatch: Any) -> None:
    made: list[int] = []
    really = ExportedBody.vertices_m
    monkeypatch.setattr(ExportedBody, "vertices_m", lambda self, *a: made.append(len(a[0])) or really(self, *a))
    chosen = posed.people[index]
    assert made == []
    assert chosen.vertices_m.shape == (len(chosen), 6890, 3)
    assert chosen.vertices_camera_m.shape == (len(chosen), 6890, 3)
    assert made == [len(chosen)] * (len(chosen) > 0)  # once
    assert_same(chosen, replace(posed.people)[index])


def test_one_person_at_a_time(posed: PeopleFile) -> None:
    meshes = posed.people[:].vertices_m
    for k, person in enumerate(posed.people):
        assert person.score == posed.people.scores[k]
        np.testing.assert_allclose(person.vertices_m, meshes[k], atol=1e-6)
        np.testing.assert_allclose(person.vertices_camera_m, meshes[k] + person.translation_m, atol=1e-5)
    assert posed.people[-1].score == posed.people.scores[2]
    with pytest.raises(IndexError):
        posed.people[3]


def test_nothing_else_needs_a_bundle(tmp_path: Path, bundle: Bundle) -> None:
    gone = Bundle(tmp_path / "gone", bundle.manifest)
    path = tmp_path / "people.npz"
    frames = written(path, bundle, vertices=False, hint=str(gone.path))
    changed = dict(np.load(path))
    changed["mesh_sha256"] = np.array("0" * 64)  # not that of the package either
    np.savez(path, **changed)
    result = read_people(path)
    for name in NO_MESHES:
        expected = np.concatenate([getattr(people, name) for people in frames.values()])
        np.testing.assert_array_equal(getattr(result.people, name), expected)
    assert [person.track_id for person in result.people] == result.people.track_ids.tolist()
    assert "pose_rad" in repr(result)
    assert (len(result.at(0)), result.frames) == (2, 3)
    with pytest.raises(AttributeError, match="no attribute 'vertices'"):
        _ = result.people.vertices
    for ask in (lambda: result.faces, lambda: result.at(0).vertices_m, lambda: result.people[0].vertices_m):
        with pytest.raises(BundleError) as caught:
            ask()
        assert caught.value.cause == (
            f"{path}: holds no vertices, and its bundle cannot be used ({gone.path}: no such folder)"
        )
        assert caught.value.remedy == REMEDY


@pytest.mark.parametrize("hint", ["", "a\nb", "\x00"])
def test_a_result_that_does_not_say_where_its_bundle_was(tmp_path: Path, bundle: Bundle, hint: str) -> None:
    path = tmp_path / "people.npz"
    written(path, bundle, vertices=False, hint=hint)
    with pytest.raises(BundleError) as caught:
        _ = read_people(path).faces
    assert caught.value.cause == f"{path}: holds no vertices and does not say which bundle made it"
    assert len(read_people(path, STARTER).faces) == 13776


def test_the_bundle_of_the_package_is_found_wherever_it_is(tmp_path: Path, bundle: Bundle) -> None:
    written(tmp_path / "people.npz", bundle, vertices=False, hint="/elsewhere/jotr_deploy/starter")
    assert read_people(tmp_path / "people.npz").people.vertices_m.shape == (3, 6890, 3)


def copy_of(bundle: Bundle, folder: Path, mesh: bytes | None = None, faces: bool = True) -> Bundle:
    """The bundle in another place, perhaps with another network."""
    shutil.copytree(bundle.path, folder)
    if mesh is not None:
        (folder / "mesh.onnx").write_bytes(mesh)
    files = [
        entry.model_copy(update={"sha256": sha256_of(folder / entry.name)})
        for entry in bundle.manifest.files
        if faces or entry.role != "faces"
    ]
    write_manifest(folder, bundle.manifest.model_copy(update={"files": tuple(files)}))
    return open_bundle(folder)


@pytest.mark.parametrize("faces", [True, False], ids=["another network", "without a body"])
def test_another_bundle_is_refused(tmp_path: Path, bundle: Bundle, faces: bool) -> None:
    path, other = tmp_path / "people.npz", copy_of(bundle, tmp_path / "other", b"another", faces)
    written(path, bundle, vertices=False)
    cause = (
        f"{other.path}: another network than the one that made {path} (its mesh.onnx has another sha256)"
        if faces
        else f"{other.path}: exported with --no-body, it makes no meshes"
    )
    for given in (other, other.path, str(other.path)):
        with pytest.raises(BundleError) as caught:
            read_people(path, given)
        assert (caught.value.cause, caught.value.remedy) == (cause, REMEDY)


def test_a_bundle_that_was_moved_is_named(tmp_path: Path, bundle: Bundle) -> None:
    moved = copy_of(bundle, tmp_path / "moved")
    written(tmp_path / "people.npz", bundle, vertices=False, hint="/gone")
    for given in (moved, moved.path, str(moved.path)):
        assert read_people(tmp_path / "people.npz", given).at(4).vertices_m.shape == (1, 6890, 3)


def test_a_network_that_changed_since_is_not_used(tmp_path: Path, bundle: Bundle) -> None:
    changed = copy_of(bundle, tmp_path / "changed")
    written(tmp_path / "people.npz", changed, vertices=False)
    (changed.path / "mesh.onnx").write_bytes(b"another")
    result = read_people(tmp_path / "people.npz", changed)
    with pytest.raises(BundleError, match="the file has changed since it was made"):
        _ = result.people.vertices_m


def test_a_bundle_whose_files_are_something_else(tmp_path: Path, bundle: Bundle) -> None:
    shutil.copytree(bundle.path, tmp_path / "odd")
    for name in ("mesh.onnx", "faces.npy"):
        (tmp_path / "odd" / name).write_bytes(b"something else")
    odd = copy_of(open_bundle(tmp_path / "odd"), tmp_path / "again")
    written(tmp_path / "people.npz", odd, vertices=True)
    arrays = dict(np.load(tmp_path / "people.npz"))
    for name in ("vertices_m", "faces"):
        del arrays[name]
    np.savez(tmp_path / "people.npz", **arrays)
    result = read_people(tmp_path / "people.npz", odd)
    assert result.people[:0].vertices_m.shape == (0, 6890, 3)
    for ask, cause in (
        (lambda: result.faces, "faces.npy: not triangles ("),
        (lambda: result.people.vertices_m, "mesh.onnx: not an ONNX model"),
    ):
        with pytest.raises(JotrDeployError) as caught:
            ask()
        assert cause in caught.value.cause
        assert "\n" not in caught.value.cause


def test_what_older_files_lack_is_zero(tmp_path: Path, bundle: Bundle) -> None:
    written(tmp_path / "people.npz", bundle, vertices=False)
    arrays = dict(np.load(tmp_path / "people.npz"))
    del arrays["aligned"], arrays["joint_error"]
    np.savez(tmp_path / "older.npz", **arrays)
    assert not read_people(tmp_path / "older.npz").people.aligned.any()
    del arrays["scores"]
    np.savez(tmp_path / "older.npz", **arrays)
    with pytest.raises(SourceError, match="scores is not a file in the archive"):
        read_people(tmp_path / "older.npz")


def test_a_glb_can_be_made_later(tmp_path: Path, bundle: Bundle) -> None:
    for name, vertices in (("with", True), ("without", False)):
        written(tmp_path / f"{name}.npz", bundle, vertices)
        write_glb(tmp_path / f"{name}.glb", read_people(tmp_path / f"{name}.npz"))
    with_, without = ((tmp_path / f"{name}.glb").read_bytes() for name in ("with", "without"))
    assert abs(len(with_) - len(without)) < 1000  # bounds of arrays are written as text


def test_the_format_is_2() -> None:
    assert FORMAT == 2
