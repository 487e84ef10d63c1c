"""GLB files, read back: by trimesh where a picture stands still, by hand where a clip plays."""

from __future__ import annotations

import errno
import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from crowd import FACES, crowd

from jotr_deploy.errors import OutputError
from jotr_deploy.geometry.scene_frame import scene_translation_m
from jotr_deploy.people import People
from jotr_deploy.visual import gltf
from jotr_deploy.visual.gltf import write_glb
from jotr_deploy.visual.result_files import PeopleFile

SIZE = (640, 480)
LEFT, RIGHT = (40, 100, 240, 300), (400, 100, 500, 200)


def recording(frames, count=None, fps=10.0):
    """The people of numbered frames as a file of people holds them."""
    people = People.concatenate(list(frames.values()))
    frame = np.repeat(np.array(list(frames), np.int64), [len(part) for part in frames.values()])
    numbers = np.arange(max(frames, default=-1) + 1 if count is None else count)
    return PeopleFile(people, frame, numbers, FACES.astype(np.int32), "clip", SIZE, fps, ("stand-in body",), 256)


def moving(people, step):
    """The people a little different, frame by frame."""
    moved = People(**{**vars(people), "vertices_m": people.vertices_m * np.float32(1 + 0.1 * step)})
    moved.translation_m[:, 0] += 0.05 * step
    return moved


@dataclass
class Glb:
    header: dict[str, Any]
    binary: bytes

    @classmethod
    def read(cls, path):
        data = path.read_bytes()
        magic, version, size, text_size, text_kind = struct.unpack_from("<4sIII4s", data)
        assert (magic, version, size, text_kind) == (b"glTF", 2, len(data), b"JSON")
        assert text_size % 4 == 0
        header, rest = json.loads(data[20 : 20 + text_size]), data[20 + text_size :]
        if rest:
            binary_size, kind = struct.unpack_from("<I4s", rest)
            assert (binary_size, kind) == (len(rest) - 8, b"BIN\0")
            assert binary_size % 4 == 0
        assert header.get("buffers", [{"byteLength": 0}]) == [{"byteLength": max(len(rest) - 8, 0)}]
        return cls(header, rest[8:])

    def array(self, accessor):
        about = self.header["accessors"][accessor]
        view = self.header["bufferViews"][about["bufferView"]]
        columns = {"SCALAR": 1, "VEC3": 3}[about["type"]]
        dtype = {5126: np.float32, 5125: np.uint32}[about["componentType"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteLength"] == about["count"] * columns * 4
        assert view["byteOffset"] + view["byteLength"] <= len(self.binary)
        array = np.frombuffer(self.binary, dtype, about["count"] * columns, view["byteOffset"]).reshape(-1, columns)
        assert array.min(0).tolist() == about["min"]
        assert array.max(0).tolist() == about["max"]
        return array if columns > 1 else array[:, 0]

    def values(self, node, path):
        """Times and values of one animated property, or None."""
        for animation in self.header.get("animations", []):
            for channel in animation["channels"]:
                if channel["target"] == {"node": node, "path": path}:
                    sampler = animation["samplers"][channel["sampler"]]
                    return self.array(sampler["input"]), self.array(sampler["output"]), sampler["interpolation"]
        return None

    def shown(self, time_s):
        """(name, vertices) of every mesh a viewer shows at this time, in the frame of the root node."""
        result = []
        for number, node in enumerate(self.header["nodes"]):
            if "mesh" not in node:
                continue
            times, scales, kind = self.values(number, "scale")
            assert kind == "STEP"
            assert np.all(np.diff(times) > 0)
            before = np.flatnonzero(times <= time_s + 1e-6)
            if scales[before[-1] if len(before) else 0, 0] == 1:
                result.append((node["name"], self.posed(number, time_s)))
        return result

    def posed(self, number, time_s):
        (primitive,) = self.header["meshes"][self.header["nodes"][number]["mesh"]]["primitives"]
        vertices = self.array(primitive["attributes"]["POSITION"]).astype(np.float64)
        animated = self.values(number, "weights")
        if animated is None:
            assert "targets" not in primitive
            return vertices
        times, weights, kind = animated
        assert kind == "LINEAR"
        weights = weights.reshape(len(times), len(primitive["targets"]))
        for k, target in enumerate(primitive["targets"]):
            vertices += np.interp(time_s, times, weights[:, k]) * self.array(target["POSITION"])
        return vertices


def test_a_still_picture_holds_every_person_before_one_camera(tmp_path):
    people = crowd([LEFT, RIGHT], z_m=[40.0, 44.0])
    write_glb(tmp_path / "people.glb", recording({0: people}))
    scene = trimesh.load(tmp_path / "people.glb", process=False)
    expected = (people.vertices_m + scene_translation_m(people, SIZE)[:, None]) * (1, -1, -1)
    meshes = [trimesh.transform_points(scene.geometry[g].vertices, t) for t, g in map(scene.graph.get, ordered(scene))]
    np.testing.assert_allclose(meshes, expected, atol=1e-4)
    for geometry in scene.geometry.values():
        np.testing.assert_array_equal(geometry.faces, FACES)
        assert geometry.volume > 0
        np.testing.assert_allclose(geometry.vertex_normals, people.vertices_m[0] / 0.5, atol=0.02)
    Glb.read(tmp_path / "people.glb")


def ordered(scene):
    return sorted(name for name in scene.graph.nodes_geometry)


@pytest.mark.parametrize(
    ("frames", "count"),
    [({}, 0), ({0: People.none()}, 1), ({0: People.none(), 1: People.none()}, 2)],
    ids=["no frame", "a picture", "a clip"],
)
def test_nobody_is_a_valid_file_without_meshes(tmp_path, frames, count):
    write_glb(tmp_path / "people.glb", recording(frames, count))
    header = Glb.read(tmp_path / "people.glb").header
    assert "meshes" not in header
    assert all(value != [] for value in header.values())
    assert len(trimesh.load(tmp_path / "people.glb").geometry) == 0


@pytest.mark.parametrize("run_frames", [2, 64])
@pytest.mark.parametrize("ids", [[3, 8], [-1, -1]], ids=["tracked", "untracked"])
def test_a_clip_shows_every_frame_at_its_time(tmp_path, monkeypatch, run_frames, ids):
    monkeypatch.setattr(gltf, "RUN_FRAMES", run_frames)
    both, left = crowd([LEFT, RIGHT], track_ids=ids), crowd([LEFT], track_ids=ids[:1])
    frames = {1: left, 2: both, 3: both, 4: both, 5: left, 7: both}
    frames = {index: moving(people, index) for index, people in frames.items()}
    clip = recording(frames, count=9)
    write_glb(tmp_path / "clip.glb", clip)

    glb = Glb.read(tmp_path / "clip.glb")
    names = ["track 3", "track 8"] if ids[0] >= 0 else ["person 0", "person 1"]
    in_scene = clip.people.vertices_m + scene_translation_m(clip.people, SIZE)[:, None]
    for index in range(9):
        rows = np.flatnonzero(clip.frame == index)
        shown = sorted(glb.shown(index / 10.0), key=lambda item: item[0])
        assert [name for name, _ in shown] == names[: len(rows)]
        for (_, vertices), row in zip(shown, rows, strict=True):
            np.testing.assert_allclose(vertices, in_scene[row], atol=1e-4)


def test_one_person_is_one_mesh_in_one_colour(tmp_path):
    frames = {index: moving(crowd([LEFT, RIGHT], track_ids=[1, 2]), index) for index in range(5)}
    write_glb(tmp_path / "clip.glb", recording(frames))
    header = Glb.read(tmp_path / "clip.glb").header
    assert len(header["meshes"]) == len(header["materials"]) == 2
    assert [len(mesh["primitives"][0]["targets"]) for mesh in header["meshes"]] == [4, 4]
    assert header["asset"]["extras"]["labels"] == ["stand-in body"]


def test_who_comes_later_is_hidden_where_animations_do_not_play(tmp_path):
    frames = {0: crowd([LEFT], track_ids=0), 1: crowd([LEFT, RIGHT], track_ids=[0, 1])}
    write_glb(tmp_path / "clip.glb", recording(frames))
    nodes = Glb.read(tmp_path / "clip.glb").header["nodes"]
    assert [node.get("scale") for node in nodes if "mesh" in node] == [None, [0.0, 0.0, 0.0]]


def test_frames_without_a_rate_follow_each_second(tmp_path):
    frames = {index: moving(crowd([LEFT]), index) for index in range(3)}
    write_glb(tmp_path / "clip.glb", recording(frames, fps=0.0))
    times, _, _ = Glb.read(tmp_path / "clip.glb").values(0, "weights")
    assert times.tolist() == [0, 1, 2]


def test_a_clip_beyond_what_a_glb_can_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(gltf, "MAX_BYTES", 300_000)
    with pytest.raises(OutputError) as caught:
        write_glb(tmp_path / "clip.glb", recording({index: crowd([LEFT]) for index in range(3)}))
    assert caught.value.cause == f"{tmp_path / 'clip.glb'}: 3 meshes do not fit in a GLB, which ends at 4 GiB"
    assert caught.value.remedy == "take fewer frames with --every, or a shorter clip"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("owner", "function"), [(Path, "open"), (shutil, "copyfileobj"), (Path, "replace")])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, owner, function):
    def full_disk(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner, function, full_disk)
    with pytest.raises(OutputError) as caught:
        write_glb(tmp_path / "people.glb", recording({0: crowd([LEFT])}))
    assert caught.value.cause == f"{tmp_path / 'people.glb'}: cannot be written (No space left on device)"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_regular_file(tmp_path):
    (tmp_path / "file").write_text("a regular file")
    with pytest.raises(OutputError, match="cannot be written"):
        write_glb(tmp_path / "file" / "people.glb", recording({0: crowd([LEFT])}))


@pytest.mark.parametrize("people", [crowd([(10, 10, 50, 50), (60, 10, 90, 40)]), People.none()], ids=["two", "nobody"])
def test_an_answer_in_memory_is_the_file(tmp_path, people):
    still = recording({0: people}, fps=0.0)
    write_glb(tmp_path / "a.glb", still)
    assert gltf.glb_bytes(still) == (tmp_path / "a.glb").read_bytes()
