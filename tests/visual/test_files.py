"""Files of people: round trips, foreign files, and disks that fail."""

from __future__ import annotations

import errno
import json
import shutil
import tracemalloc
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from crowd import BALL, FACES, crowd

from jotr_deploy.errors import OutputError, SourceError
from jotr_deploy.people import LATER, LAYOUT, People, PeopleFit
from jotr_deploy.visual.result_files import PUBLISHED, PeopleWriter, read_people, write_obj

BOX = (10, 5, 74, 69)
ABOUT = {
    "faces": FACES,
    "source": "clip with ünïcode.mp4",
    "image_size_px": (640, 480),
    "fps": 12.5,
    "labels": ["stand-in body", "untrained"],
    "crop_side": 256,
}


def write(path, frames, **about):
    with PeopleWriter(path, **{**ABOUT, **about}) as writer:
        for index, people in frames:
            writer.append(index, people)


def same(a, b):
    for field in fields(People):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@pytest.fixture
def good(tmp_path):
    """A small file of two frames, three people."""
    path = tmp_path / "good.npz"
    write(path, [(0, crowd([BOX])), (1, crowd([BOX, BOX], z_m=30.0))])
    return path


@pytest.mark.parametrize(
    "counts",
    [
        {},  # no frame at all
        {0: 0},  # nobody in the only frame
        {0: 2},  # a still picture
        {0: 1, 1: 0, 2: 2},  # somebody is away
        {3: 1, 7: 1},  # not every frame was processed
    ],
    ids=str,
)
def test_what_was_written_is_read(tmp_path, counts):
    frames = {index: crowd([BOX] * count, z_m=30.0 + index, track_ids=index) for index, count in counts.items()}
    write(tmp_path / "people.npz", frames.items())
    assert [file.name for file in tmp_path.iterdir()] == ["people.npz"]

    result = read_people(tmp_path / "people.npz")
    same(result.people, People.concatenate(list(frames.values())))
    assert result.frame.tolist() == [index for index, count in counts.items() for _ in range(count)]
    assert result.frames == len(counts)
    for index in range(9):
        same(result.at(index), frames.get(index, People.none()))
    np.testing.assert_array_equal(result.faces, FACES)
    assert (result.source, result.image_size_px, result.fps) == ("clip with ünïcode.mp4", (640, 480), 12.5)
    assert (result.labels, result.crop_side) == (("stand-in body", "untrained"), 256)


def test_the_format_is_plain_arrays_of_these_names_and_types(good):
    with np.load(good, allow_pickle=False) as archive:
        stored = {name: (archive[name].dtype.kind, archive[name].shape) for name in archive.files}
    people = {name: (np.dtype(dtype).kind, (3, *shape)) for name, (shape, dtype) in LAYOUT.items()}
    about = {
        **{"frame": ("i", (3,)), "numbers": ("i", (2,)), "faces": ("i", (13776, 3)), "format": ("i", ())},
        **{"source": ("U", ()), "image_size_px": ("i", (2,)), "fps": ("f", ())},
        **{"labels": ("U", (2,)), "crop_side": ("i", ()), "names": ("U", (0,)), "times_s": ("f", (2,))},
        **{"mesh_sha256": ("U", ()), "bundle": ("U", ()), "facts": ("U", ())},
    }
    assert stored == {**people, **about}


def fit_of(count, seed=0):
    rng = np.random.default_rng(seed)
    flags = [rng.random(count) < 0.5 for _ in range(5)]
    terms = [{name: rng.random(count) for name in ("features", "anchor")} for _ in range(2)]
    return PeopleFit(*flags, rng.random(count), np.full(count, np.nan), *terms, rng.random((count, 6, 6)) < 0.5)


@pytest.mark.parametrize("vertices", [False, True])
@pytest.mark.parametrize("counts", [(0,), (2, 0, 1), (1,)])
def test_a_fit_is_kept(tmp_path, counts, vertices):
    frames = [replace(crowd([BOX] * count), fit=fit_of(count, count)) for count in counts]
    write(tmp_path / "people.npz", enumerate(frames), vertices=vertices)
    result = read_people(tmp_path / "people.npz")
    for index, expected in enumerate(frames):
        found = result.at(index).fit
        for field in fields(PeopleFit):
            name = field.name
            np.testing.assert_equal(getattr(found, name), getattr(expected.fit, name), err_msg=name)
    with np.load(tmp_path / "people.npz", allow_pickle=False) as archive:
        assert archive["fit_terms"].tolist() == ["features", "anchor"]
        assert archive["fit_terms_before"].shape == (sum(counts), 2)
        assert archive["fit_occlusion"].shape == (sum(counts), 6, 6)


def test_a_fit_of_some_frames_alone_is_refused(tmp_path):
    frames = [(0, replace(crowd([BOX]), fit=fit_of(1))), (1, crowd([BOX]))]
    with pytest.raises(ValueError, match="the fit of frame 1 is not like that of the frames before"):
        write(tmp_path / "people.npz", frames)
    assert not list(tmp_path.iterdir())


def test_pictures_are_known_by_their_names(tmp_path):
    path = tmp_path / "people.npz"
    with PeopleWriter(path, **ABOUT) as writer:
        writer.append(0, crowd([BOX]), "a.jpg")
        writer.append(2, People.none(), "ünïcode c.png")
    assert read_people(path).names == ("a.jpg", "ünïcode c.png")


def test_the_camera_is_told_and_what_earlier_versions_did_not_write_is_as_it_was_then(good, tmp_path):
    assert read_people(good).camera == (PUBLISHED,)
    with PeopleWriter(tmp_path / "told.npz", **ABOUT) as writer:
        writer.append(0, crowd([BOX]))
        writer.facts = {"camera": ["--fov 60"]}
    told = read_people(tmp_path / "told.npz")
    assert told.camera == ("--fov 60",)
    np.testing.assert_array_equal(told.places_m(told.people), told.people.translation_m)
    with np.load(good, allow_pickle=False) as archive:
        earlier = {name: archive[name] for name in archive.files if name not in LATER}
    np.savez(tmp_path / "earlier.npz", **earlier)
    before = read_people(tmp_path / "earlier.npz").people
    assert not before.aligned.any()
    assert not before.joint_error.any()
    np.testing.assert_array_equal(before.vertices_m, read_people(good).people.vertices_m)


@pytest.mark.parametrize(
    ("told", "found_by"),
    [
        (None, ""),
        ([], ""),
        ([{"role": "mesh", "name": "mesh.onnx", "sha256": "0" * 64}], ""),
        (
            [
                {"role": "detector", "name": "blazepose/detector.onnx", "sha256": "12" * 32},
                {"role": "pose", "name": "pose.onnx", "sha256": "ab" * 32},
            ],
            "blazepose/detector.onnx (121212121212), pose.onnx (abababababab)",
        ),
        ("pose.onnx", ""),
        ([1, {"role": "pose", "name": "a\x1b[2J\n"}], "a\\x1b[2J\\n (None)"),
    ],
)
def test_who_found_the_people_is_told_with_hashes(tmp_path, told, found_by):
    with PeopleWriter(tmp_path / "told.npz", **ABOUT) as writer:
        writer.append(0, crowd([BOX]))
        writer.facts = {"networks": told}
    assert read_people(tmp_path / "told.npz").found_by == found_by


def test_no_labels_and_no_rate(tmp_path):
    write(tmp_path / "people.npz", [(0, People.none())], labels=[], fps=0)
    result = read_people(tmp_path / "people.npz")
    assert (result.labels, result.fps) == ((), 0.0)


def test_the_same_people_give_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        write(tmp_path / name, [(0, crowd([BOX]))])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_memory_does_not_grow_with_the_clip(tmp_path):
    tracemalloc.start()
    write(tmp_path / "people.npz", ((index, crowd([BOX])) for index in range(150)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "people.npz").stat().st_size > 150 * 6890 * 12
    assert peak < 6_000_000


@pytest.mark.parametrize("frames", [(1, 1), (2, 0)])
def test_frames_go_forward(tmp_path, frames):
    with pytest.raises(ValueError, match=f"^frame {frames[1]} does not come after frame {frames[0]}$"):
        write(tmp_path / "people.npz", [(index, People.none()) for index in frames])


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_leaves_nothing_behind_and_the_older_file(good, stop):
    before = good.read_bytes()

    def frames():
        yield 0, crowd([BOX])
        raise stop

    with pytest.raises(stop):
        write(good, frames())
    assert good.read_bytes() == before
    assert list(good.parent.iterdir()) == [good]


def write_npz(path):
    write(path, [(0, crowd([BOX]))])


def write_meshes(path):
    write_obj(path, crowd([BOX]).vertices_camera_m, FACES)


WRITERS = pytest.mark.parametrize("writer", [write_npz, write_meshes], ids=["npz", "obj"])


@WRITERS
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/people.out", "No such file or directory"),
        ("file/people.out", "Not a directory"),
        ("folder", "Is a directory"),
    ],
)
def test_a_place_that_cannot_be_written(tmp_path, writer, place, reason):
    (tmp_path / "file").write_text("a regular file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as caught:
        writer(tmp_path / place)
    assert caught.value.cause == f"{tmp_path / place}: cannot be written ({reason})"
    assert caught.value.remedy == "choose a writable folder that exists and has free space"
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "folder"]


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def fill_disk_at_open(monkeypatch, number):
    """The disk is full from the `number`-th file that is opened for writing."""
    opened = []
    really_open = Path.open

    def open_unless_full(self, mode="r", *rest, **options):
        opened.extend([self] if mode[0] in "wax" else [])
        return full_disk() if len(opened) > number else really_open(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", open_unless_full)


@pytest.mark.parametrize(
    ("writer", "fail"),
    [
        (write_npz, lambda patch: fill_disk_at_open(patch, 0)),  # the first frame
        (write_npz, lambda patch: fill_disk_at_open(patch, 20)),  # putting the columns together
        (write_npz, lambda patch: patch.setattr(shutil, "copyfileobj", full_disk)),
        (write_npz, lambda patch: patch.setattr(zipfile.ZipFile, "close", full_disk)),
        (write_npz, lambda patch: patch.setattr(Path, "replace", full_disk)),
        (write_meshes, lambda patch: fill_disk_at_open(patch, 0)),
        (write_meshes, lambda patch: patch.setattr(Path, "replace", full_disk)),
    ],
    ids=["npz frame", "npz column", "npz copy", "npz close", "npz rename", "obj open", "obj rename"],
)
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, writer, fail):
    path = tmp_path / "people.out"
    path.write_text("older")
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises(OutputError) as caught:
            writer(path)
    assert caught.value.cause == f"{path}: cannot be written (No space left on device)"
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: without(a, "numbers"), "numbers is not a file in the archive"),
        (lambda a: without(a, "format"), "format is not a file in the archive"),
        (lambda a: {**a, "betas": a["betas"][:, :5]}, "People.betas is (3, 5), expected (3, 10)"),
        (lambda a: {**a, "frame": a["frame"][::-1]}, "the rows do not follow the frames"),
        (lambda a: {**a, "frame": a["frame"][:2]}, "the rows do not follow the frames"),
        (lambda a: {**a, "faces": a["faces"].T}, "faces is (3, 13776), expected (F, 3)"),
        (lambda a: {**a, "times_s": a["times_s"][:1]}, "times_s is (1,), expected (2,)"),
        (lambda a: {**a, "facts": np.array("[]")}, "facts is not a JSON object"),
        (lambda a: {**a, "facts": np.array("{")}, "Expecting property name"),
        (lambda a: {**a, "facts": np.array("[" * 5000)}, "recursion"),
        (lambda a: {**a, "format": np.array(0)}, "format 0"),
        (lambda a: without(a, "mesh_sha256"), "mesh_sha256 is not a file in the archive"),
        (lambda a: without(a, "faces"), "faces is not a file in the archive"),
        (lambda a: {**without(a, "vertices_m"), "format": np.array(1)}, "vertices_m is not a file in the archive"),
        (lambda a: {"joints": np.zeros(3)}, "format is not a file in the archive"),
    ],
)
def test_arrays_that_do_not_make_a_file_of_people(good, change, reason):
    with np.load(good) as archive:
        arrays = change(dict(archive))
    np.savez(good, **arrays)
    with pytest.raises(SourceError) as caught:
        read_people(good)
    assert reason in caught.value.cause
    assert caught.value.cause.startswith(f"{good}: not a result of `jotr-deploy run`, or damaged (")
    assert caught.value.remedy == "give a .npz file of people that jotr-deploy wrote, or write it again"
    assert "\n" not in caught.value.cause


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.9, 0.9999])
def test_a_truncated_file(good, share):
    whole = good.read_bytes()
    good.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SourceError, match="not a result of `jotr-deploy run`, or damaged"):
        read_people(good)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_a_changed_byte(good, share):
    content = bytearray(good.read_bytes())
    content[int(share * len(content))] ^= 0x40
    good.write_bytes(bytes(content))
    with pytest.raises(SourceError, match="not a result of `jotr-deploy run`, or damaged"):
        read_people(good)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", json.dumps({}).encode(), b"\x80\x04N."])
def test_a_foreign_file(tmp_path, content):
    path = tmp_path / "people.npz"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="not a result of `jotr-deploy run`, or damaged"):
        read_people(path)


def test_a_single_array_is_not_a_file_of_people(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(SourceError, match="not a result of `jotr-deploy run`, or damaged"):
        read_people(tmp_path / "array.npy")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SourceError) as caught:
        read_people(tmp_path / "people.npz")
    assert caught.value.cause == f"{tmp_path / 'people.npz'}: cannot be read (No such file or directory)"
    assert caught.value.remedy == "give a .npz file of people that jotr-deploy wrote"


def test_a_newer_format_says_upgrade(tmp_path):
    np.savez(tmp_path / "people.npz", format=np.array(3), something=np.array("new"))
    with pytest.raises(SourceError) as caught:
        read_people(tmp_path / "people.npz")
    assert caught.value.cause == (
        f"{tmp_path / 'people.npz'}: a file of people of format 3, this version reads up to 2"
    )
    assert caught.value.remedy == "upgrade: git pull, then pip install . in a clone of jotr-deploy"


def test_obj_objects_stand_upright_before_the_viewer(tmp_path):
    people = crowd([BOX, BOX], z_m=[40.0, 44.0])
    write_obj(tmp_path / "people.obj", people.vertices_camera_m, FACES)
    mesh = trimesh.load(tmp_path / "people.obj", process=False, force="mesh")
    expected = people.vertices_camera_m * (1, -1, -1)
    np.testing.assert_allclose(mesh.triangles, expected[:, FACES].reshape(-1, 3, 3), atol=2e-6)
    assert mesh.volume == pytest.approx(2 * 4 / 3 * np.pi * 0.5**3, rel=0.01)


def test_obj_text(tmp_path):
    triangle = np.array([[0, 1, 2], [1, 1, 2], [0, 0.5, 2]])
    write_obj(tmp_path / "people.obj", np.stack([triangle, triangle + 1]), np.array([[0, 1, 2]]))
    assert (tmp_path / "people.obj").read_text().splitlines() == [
        "# jotr-deploy: metres, x right, y up, z towards the camera",
        *("o person_0", "v 0.000000 -1.000000 -2.000000", "v 1.000000 -1.000000 -2.000000"),
        *("v 0.000000 -0.500000 -2.000000", "f 1 2 3"),
        *("o person_1", "v 1.000000 -2.000000 -3.000000", "v 2.000000 -2.000000 -3.000000"),
        *("v 1.000000 -1.500000 -3.000000", "f 4 5 6"),
    ]


def test_obj_of_nobody_is_a_file_without_objects(tmp_path):
    write_obj(tmp_path / "people.obj", np.zeros((0, len(BALL), 3)), FACES)
    assert (tmp_path / "people.obj").read_text().count("\n") == 1
