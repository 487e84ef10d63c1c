"""Binary glTF 2.0 files (GLB) of people for any 3-D viewer: a still, or an animation for a clip.

All people are in the frame of one scene camera (docs/cameras.md), x right, y up, z towards the camera, metres. The file
contains that camera too.

A person in one frame takes 83 kB (6890 vertices of 12 bytes), so 50 000 of them fill the 4 GiB limit of a GLB.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from jotr_deploy.errors import OutputError
from jotr_deploy.geometry.raster import vertex_normals
from jotr_deploy.geometry.scene_frame import scene_focal_px
from jotr_deploy.people import LAYOUT
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.writing import written_aside
from jotr_deploy.visual.palette import person_colours
from jotr_deploy.visual.result_files import PeopleFile

# Frames in one animated mesh. Its animation needs a weight for every frame and frame, and viewers limit the number of
# morph targets of a mesh; a person in view for longer becomes several meshes, shown one after the other.
RUN_FRAMES = 64
MAX_BYTES = 2**32
# Size of a person in one frame beside the vertices: its JSON and its share of the weights.
_OVERHEAD_BYTES = 1024
# Half a turn about x: from the camera frame (y down, z into the scene) to the viewer's.
_VIEWER_FROM_CAMERA = [1.0, 0.0, 0.0, 0.0]
_FLOAT, _UINT32 = 5126, 5125
_VERTICES, _INDICES = 34962, 34963


class _Document:
    """Growing glTF document whose binary part is written straight to a file."""

    def __init__(self, binary: IO[bytes]) -> None:
        self.binary = binary
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.meshes: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.materials: list[dict[str, Any]] = []
        self.samplers: list[dict[str, Any]] = []
        self.channels: list[dict[str, Any]] = []

    def add_array(self, array: Array, target: int | None = None) -> int:
        """Store an array, (n,) scalars or (n, 3) vectors of float32 or uint32; returns its accessor."""
        start = self.binary.tell()
        self.binary.write(np.ascontiguousarray(array).data)
        view = {"buffer": 0, "byteOffset": start, "byteLength": array.nbytes}
        self.views.append(view if target is None else {**view, "target": target})
        rows = array.reshape(len(array), -1)
        self.accessors.append(
            {
                "bufferView": len(self.views) - 1,
                "componentType": _FLOAT if array.dtype == np.float32 else _UINT32,
                "count": len(array),
                "type": "VEC3" if array.ndim == 2 else "SCALAR",
                "min": rows.min(0).tolist(),
                "max": rows.max(0).tolist(),
            }
        )
        return len(self.accessors) - 1

    def animate(self, node: int, path: str, times_s: Array, values: Array, interpolation: str) -> None:
        """Let a property of a node (scale, weights) take these values at these times."""
        sampler = {
            "input": self.add_array(times_s.astype(np.float32)),
            "output": self.add_array(values.astype(np.float32)),
            "interpolation": interpolation,
        }
        self.channels.append({"sampler": len(self.samplers), "target": {"node": node, "path": path}})
        self.samplers.append(sampler)


class TooManyMeshes(OutputError):
    """More meshes than a GLB can hold."""


def write_glb(path: Path, recording: PeopleFile) -> None:
    """Write the people of a picture or clip as GLB.

    In a clip a person is a mesh with a morph target for each frame, blended from one to the next, and is hidden
    (scale 0) when absent. A person is a track, or without tracks a position in the list of people. Frames follow at
    the clip's rate, or one a second if it has none. The labels of the recording are in `asset.extras.labels`.

    Args:
        path: the file to make or replace.
        recording: its vertices must all be finite and in front of the camera.

    Raises:
        TooManyMeshes: the clip is too long for a GLB.
        OutputError: the file cannot be written; nothing is left behind.
    """
    rows, vertices = len(recording.people), LAYOUT["vertices_m"][0][0]
    if rows * (vertices * 12 + _OVERHEAD_BYTES) + recording.faces.nbytes > MAX_BYTES:
        cause = f"{path}: {rows} meshes do not fit in a GLB, which ends at 4 GiB"
        raise TooManyMeshes(cause, "take fewer frames with --every, or a shorter clip")
    with written_aside(path) as aside, tempfile.TemporaryFile(dir=path.parent) as binary:
        document = _Document(binary)
        _add_people(document, recording)
        with aside.open("wb") as file:
            _pack(file, _header(document, recording), binary)


def glb_bytes(recording: PeopleFile) -> bytes:
    """The file of `write_glb` in memory, for the people of one picture."""
    document, whole = _Document(io.BytesIO()), io.BytesIO()
    _add_people(document, recording)
    _pack(whole, _header(document, recording), document.binary)
    return whole.getvalue()


def _add_people(document: _Document, recording: PeopleFile) -> None:
    if not len(recording.people):
        return
    people, still = recording.people, recording.frames <= 1
    places_m = recording.places_m(people)
    indices = document.add_array(recording.faces.astype(np.uint32).reshape(-1), _INDICES)
    materials: dict[tuple[int, ...], int] = {}
    for person, run in _runs(recording):
        first, *others = people[run].vertices_m + places_m[run][:, None]  # of a run at once: may be computed now
        attributes = {"POSITION": document.add_array(first, _VERTICES)}
        # Fixed normals would be wrong for a moving mesh; without them a viewer computes its own.
        if still:
            attributes["NORMAL"] = document.add_array(vertex_normals(first, recording.faces), _VERTICES)
        colour = tuple(person_colours(np.array([person if person >= 0 else -1 - person]))[0].tolist())
        material = materials.setdefault(colour, len(materials))
        primitive = {"attributes": attributes, "indices": indices, "material": material}
        targets = [{"POSITION": document.add_array(mesh - first, _VERTICES)} for mesh in others]
        document.meshes.append({"primitives": [{**primitive, "targets": targets} if targets else primitive]})
        document.nodes.append({"name": _name(person), "mesh": len(document.meshes) - 1})
        if not still:
            _animate_run(document, recording, run)
    document.materials += [_material(colour) for colour in materials]


def _runs(recording: PeopleFile) -> Iterator[tuple[int, Array]]:
    """Runs of every person without a gap in processed frames, of at most RUN_FRAMES: (person, rows of the recording).

    A person is a track id, or -1 - k for the k-th person without a track in a frame.
    """
    frame, track = recording.frame, recording.people.track_ids
    place_in_clip = np.searchsorted(recording.numbers, frame)
    loose = np.flatnonzero(track < 0)
    place = np.arange(len(loose)) - np.searchsorted(frame[loose], frame[loose])
    person = track.copy()
    person[loose] = -1 - place
    for one in np.unique(person):
        rows = np.flatnonzero(person == one)
        for stretch in np.split(rows, np.flatnonzero(np.diff(place_in_clip[rows]) != 1) + 1):
            for start in range(0, len(stretch), RUN_FRAMES):
                yield int(one), stretch[start : start + RUN_FRAMES]


def _animate_run(document: _Document, recording: PeopleFile, run: Array) -> None:
    """Play the shapes of the newest node over its frames and hide it before and after."""
    node, frames = len(document.nodes) - 1, recording.frame[run]
    second = 1 / (recording.fps or 1.0)
    if len(run) > 1:
        document.animate(node, "weights", frames * second, np.eye(len(run))[:, 1:].reshape(-1), "LINEAR")
    begin, after = int(frames[0]), recording.numbers[recording.numbers > frames[-1]]  # the next frame ends it
    shown = [(0, 0.0)] * (begin > 0) + [(begin, 1.0)] + [(int(end), 0.0) for end in after[:1]]
    times, scales = np.array(shown).T
    document.animate(node, "scale", times * second, np.repeat(scales[:, None], 3, axis=1), "STEP")
    if begin > 0:
        document.nodes[node]["scale"] = [0.0, 0.0, 0.0]


def _name(person: int) -> str:
    return f"track {person}" if person >= 0 else f"person {-1 - person}"


def _material(colour_rgb: tuple[int, ...]) -> dict[str, Any]:
    """Matt material; glTF colours are linear, the palette is sRGB."""
    linear = [(channel / 255) ** 2.2 for channel in colour_rgb]
    return {"pbrMetallicRoughness": {"baseColorFactor": [*linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8}}


def _header(document: _Document, recording: PeopleFile) -> dict[str, Any]:
    """JSON part of the file; glTF allows no empty lists."""
    (width, height), focal = recording.image_size_px, scene_focal_px(recording.people)
    eye = {"yfov": 2 * math.atan(height / 2 / focal), "aspectRatio": width / height, "znear": 0.1}
    nodes = document.nodes
    people = {"name": "people", "rotation": _VIEWER_FROM_CAMERA, "children": list(range(len(nodes)))}
    root = {key: value for key, value in people.items() if value != []}
    whole = {
        "asset": {"version": "2.0", "generator": "jotr-deploy", "extras": {"labels": list(recording.labels)}},
        "scene": 0,
        "scenes": [{"nodes": [len(nodes), len(nodes) + 1]}],
        "nodes": [*nodes, root, {"name": "camera", "camera": 0}],
        "cameras": [{"type": "perspective", "perspective": eye}],
        "meshes": document.meshes,
        "materials": document.materials,
        "accessors": document.accessors,
        "bufferViews": document.views,
        "buffers": [{"byteLength": document.binary.tell()}] if document.views else [],
        "animations": [{"samplers": document.samplers, "channels": document.channels}] if document.channels else [],
    }
    return {key: value for key, value in whole.items() if value != []}


def _pack(file: IO[bytes], header: dict[str, Any], binary: IO[bytes]) -> None:
    """Write header, JSON and binary chunk; every array is a multiple of 4 bytes, so only the JSON needs padding."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    size = binary.tell()
    binary.seek(0)
    chunks = 12 + 8 + len(text) + (8 + size if size else 0)
    file.write(struct.pack("<4sII", b"glTF", 2, chunks))
    file.write(struct.pack("<I4s", len(text), b"JSON") + text)
    if size:
        file.write(struct.pack("<I4s", size, b"BIN\0"))
        shutil.copyfileobj(binary, file, 1 << 20)
