"""Contents of the viewer as plain values: the people of a frame, their positions and colours, and the picture."""

from __future__ import annotations

import glob
import json
import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import SourceError
from jotr_deploy.geometry.scene_frame import scene_focal_px, scene_translation_m
from jotr_deploy.people import People
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_names import path_inside
from jotr_deploy.visual.overlay import draw_keypoints
from jotr_deploy.visual.palette import person_colours
from jotr_deploy.visual.result_files import PeopleFile

Image = NDArray[np.uint8]

# The longer side of a picture in the viewer. Kept as JPEG: about as many bytes as one mesh, which is kept as well.
PICTURE_SIDE_PX = 800
# Distance of the picture behind the last person, so that nobody intersects it.
BEHIND_M = 1.5
# Number of meshes, evenly from the whole clip, from which the ground is estimated.
GROUND_MESHES = 64
# Depth of the picture if there are no people.
EMPTY_DEPTH_M = 4.0


@dataclass(frozen=True)
class SceneCamera:
    """Camera shared by all people of a clip: at the origin, x right, y down, z into the scene."""

    focal_px: float
    size_px: tuple[int, int]  # width, height of the picture
    people_m: float  # depth of the people
    picture_m: float  # depth of the picture

    @property
    def fov_rad(self) -> float:
        """Vertical angle of view of the picture."""
        return 2 * math.atan(self.size_px[1] / 2 / self.focal_px)

    @property
    def aspect(self) -> float:
        """Width of the picture over its height."""
        return self.size_px[0] / self.size_px[1]

    def fov_around_rad(self, window_aspect: float) -> float:
        """Vertical angle at which a window of this aspect shows the whole picture with a narrow margin."""
        return 2 * math.atan(1.03 * math.tan(self.fov_rad / 2) * max(1.0, self.aspect / window_aspect))


@dataclass(frozen=True)
class Shown:
    """N people of one frame."""

    people: People
    names: tuple[str, ...]  # N
    colours_rgb: Array  # (N, 3) uint8, as in the overlay
    places_m: Array  # (N, 3) float32: `people.vertices_m + place` is the mesh in the scene camera, approximate


def scene_camera(recording: PeopleFile) -> SceneCamera:
    """Camera of a whole clip; one with a usual angle if there are no people."""
    width, height = (max(side, 1) for side in recording.image_size_px)
    people = recording.people
    if not len(people):
        return SceneCamera(float(max(width, height)), (width, height), EMPTY_DEPTH_M, EMPTY_DEPTH_M)
    depth_m = scene_translation_m(people, (width, height))[:, 2]
    nearest_to_all, farthest = float(np.median(depth_m)), float(depth_m.max())
    return SceneCamera(scene_focal_px(people), (width, height), nearest_to_all, farthest + BEHIND_M)


def shown_at(recording: PeopleFile, camera: SceneCamera, frame_index: int) -> Shown:
    """People of a frame in the clip's camera; may be empty."""
    people = recording.at(frame_index)
    places_m = scene_translation_m(people, camera.size_px, camera.focal_px)
    return Shown(people, person_names(people.track_ids), person_colours(people.track_ids), places_m)


def person_names(track_ids: Array) -> tuple[str, ...]:
    """`track 7`, or `person 0` for the first without a track in the frame, as in a GLB."""
    loose = np.cumsum(track_ids < 0) - 1
    pairs = zip(track_ids.tolist(), loose.tolist(), strict=True)
    return tuple(f"track {track}" if track >= 0 else f"person {place}" for track, place in pairs)


def all_names(recording: PeopleFile) -> tuple[str, ...]:
    """Names of all people of a clip, each once: tracks by number, then the positions of those without a track."""
    track_ids = recording.people.track_ids
    tracks = np.unique(track_ids[track_ids >= 0]).tolist()
    _, loose_a_frame = np.unique(recording.frame[track_ids < 0], return_counts=True)
    return (*(f"track {track}" for track in tracks), *(f"person {k}" for k in range(max(loose_a_frame, default=0))))


def ground_m(recording: PeopleFile, camera: SceneCamera) -> float:
    """Distance of the ground below the camera's axis: the median of people's lowest points; 1 without people."""
    people = recording.people
    if not len(people):
        return 1.0
    if len(people) > GROUND_MESHES:  # meshes may have to be computed
        people = people[np.linspace(0, len(people) - 1, GROUND_MESHES).astype(np.int64)]
    places_m = scene_translation_m(people, camera.size_px, camera.focal_px)
    return float(np.median(people.vertices_m[:, :, 1].max(1) + places_m[:, 1]))


def description(shown: Shown, picked: str | None) -> str:
    """Markdown about the picked person, or a line about each person."""
    people = shown.people
    if picked is not None and picked not in shown.names:
        return f"{picked} is not in this frame."
    if not len(people):
        return "Nobody is in this frame."
    if picked is None:
        rows = [
            f"| {name} | {people.scores[k]:.2f} | {people.joints_used[k]} | {shown.places_m[k, 2]:.1f} |"
            for k, name in enumerate(shown.names)
        ]
        return "\n".join(["| who | score | joints | depth, m |", "|---|---|---|---|", *rows])
    k = shown.names.index(picked)
    betas = ", ".join(f"{beta:.2f}" for beta in people.betas[k])
    facts = {
        "score": f"{people.scores[k]:.2f}",
        "joints used": f"{people.joints_used[k]} of {people.keypoints_px.shape[1]}",
        "depth": f"{shown.places_m[k, 2]:.1f} m before the scene camera",
        "own camera": f"{people.translation_m[k, 2]:.1f} m at {people.focal_px[k]:.0f} px",
        "betas": betas,
    }
    return "\n".join([f"| {picked} | |", "|---|---|", *(f"| {fact} | {value} |" for fact, value in facts.items())])


class Pictures:
    """Small pictures of a clip, read once from first to last.

    Seeking in a video is inexact, so frames are read in order, while idle, and kept as JPEG.
    """

    def __init__(self, frames: Iterator[tuple[int, Image]], numbers: Array) -> None:
        """`frames` gives (0-based index, (H, W, 3) uint8 BGR), ascending; those of `numbers` (K,) are kept."""
        self._frames, self._wanted = frames, frozenset(numbers.tolist())
        self._stop = int(numbers[-1]) + 1 if len(numbers) else 0
        self._small: dict[int, tuple[bytes, tuple[int, int]]] = {}
        self.complete = False

    def read_next(self) -> int | None:
        """Read one more picture and return its index; None, and `complete`, if no more are needed."""
        import cv2

        index, image_bgr = next(self._frames, (self._stop, None))
        while image_bgr is not None and index < self._stop and index not in self._wanted:
            index, image_bgr = next(self._frames, (self._stop, None))
        if image_bgr is None or index >= self._stop:
            self.complete = True
            return None
        height, width = image_bgr.shape[:2]
        share = min(1.0, PICTURE_SIDE_PX / max(width, height))
        side_px = max(1, round(width * share)), max(1, round(height * share))
        small = cv2.resize(image_bgr, side_px, interpolation=cv2.INTER_AREA)
        self._small[index] = cv2.imencode(".jpg", small)[1].tobytes(), (width, height)
        return index

    def has(self, frame_index: int) -> bool:
        """True if this picture was read."""
        return frame_index in self._small

    def at(self, frame_index: int) -> tuple[Image, tuple[int, int]] | None:
        """Small picture, (h, w, 3) uint8 BGR, with width and height of the original; None if not read (yet)."""
        import cv2

        if frame_index not in self._small:
            return None
        data, size_px = self._small[frame_index]
        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)), size_px


def with_joints(small_bgr: Image, size_px: tuple[int, int], people: People) -> Image:
    """Small picture with the 2-D joints of people, which are given in pixels of the original of `size_px`."""
    share = np.array([small_bgr.shape[1] / size_px[0], small_bgr.shape[0] / size_px[1]], np.float32)
    keypoints, boxes = people.keypoints_px.copy(), people.boxes_px.reshape(-1, 2, 2)
    keypoints[..., :2] = (keypoints[..., :2] + 0.5) * share - 0.5  # pixel centres are whole numbers
    boxes_px = ((boxes + 0.5) * share - 0.5).reshape(-1, 4)
    return draw_keypoints(small_bgr, replace(people, keypoints_px=keypoints, boxes_px=boxes_px))


def find_result(path: Path) -> Path:
    """Result file: the path itself, or the only one in a directory of `run`.

    Raises:
        SourceError: the directory contains none or several.
    """
    if not path.is_dir():
        return path
    found = sorted(file for file in path.glob("*.npz") if _holds_people(file))
    if len(found) == 1:
        return found[0]
    if not found:
        raise SourceError(f"{path}: no file of people in this directory", "give the -o of jotr-deploy run, or its .npz")
    names = ", ".join(file.name for file in found[:3]) + (", ..." if len(found) > 3 else "")
    raise SourceError(f"{path}: {len(found)} files of people in this directory ({names})", "give one of them")


def _holds_people(file: Path) -> bool:
    """True if the file contains people, by the names in it: `NAME_2d.npz` contains joints only."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {"pose_rad.npy", "numbers.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def likely_sources(result: Path, recording: PeopleFile) -> list[Path]:
    """Paths where the frames of a result may be: the source given to `run`, or a file of that name near the result."""
    given = []
    with suppress(OSError, ValueError, KeyError, TypeError):  # no summary, or another kind of file
        given.append(Path(json.loads(result.with_suffix(".json").read_text())["source"]))
    near = []
    with suppress(ValueError):  # a result from elsewhere may name anything
        path_inside(Path(), re.sub(r"[*?\[\]]", "_", recording.source), below=True)
        near = [folder / recording.source for folder in (result.parent, result.parent.parent, Path())]
    return [path for path in (*given, *near) if _is_there(path)]


def _is_there(path: Path) -> bool:
    """True for a file, a folder or a match of a glob; false for a device, which would be opened."""
    with suppress(ValueError):  # a NUL
        fits = glob.iglob(str(path)) if glob.has_magic(str(path)) else ()  # noqa: PTH207
        return path.is_file() or path.is_dir() or any(Path(each).is_file() for each in fits)
    return False
