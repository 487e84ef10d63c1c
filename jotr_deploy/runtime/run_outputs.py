"""All output files of a run, written frame by frame."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.body.exported import NETWORK
from jotr_deploy.body.faces import read_faces
from jotr_deploy.bundle import Bundle
from jotr_deploy.people import People
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.joint_files.image_index import image_stem
from jotr_deploy.runtime.joint_files.npz_file import write_keypoints_npz
from jotr_deploy.runtime.loaded_model import USUAL_FPS
from jotr_deploy.runtime.sources.ffmpeg import FFmpeg, find_ffmpeg
from jotr_deploy.runtime.sources.images import write_image
from jotr_deploy.runtime.sources.opening import Frame, FrameSource, VideoWriter
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_names import as_file_name
from jotr_deploy.visual.coco_results import coco_file
from jotr_deploy.visual.gltf import TooManyMeshes, write_glb
from jotr_deploy.visual.occlusion_map import draw_occlusion
from jotr_deploy.visual.overlay import draw_keypoints, draw_people
from jotr_deploy.visual.result_files import PeopleWriter, read_people, write_obj

Pictures = dict[str, Array]
"""Drawings of a frame by kind, which is the end of the file's name."""

MOST_FPS = 240.0
"""Limit for films that are written: some files give the resolution of their clock as frame rate."""


@dataclass(frozen=True)
class Wanted:
    """Result files to write besides the `.npz`, and whether the `.npz` holds meshes."""

    vertices: bool = False
    overlay: bool = True
    overlay_scale: float = 1.0  # of its sides, at most 1
    save_2d: bool = False
    obj: bool = False
    glb: bool = False
    coco: bool = False
    save_fit: bool = False  # pictures of what hides people, as the fit has it


class Results:
    """The files of one run in a directory; a context manager, after which `finish` makes those of the whole clip."""

    def __init__(self, bundle: Bundle, source: FrameSource, directory: Path, wanted: Wanted) -> None:
        self.stem = stem_of(source)
        self._directory, self._source, self._wanted = directory, source, wanted
        faces = read_faces(bundle) if bundle.has("faces") else None
        self._faces: Array = np.zeros((0, 3), np.int32) if faces is None else faces
        self._caption = " · ".join(bundle.manifest.labels) or None
        self._joints: list[tuple[int, Detections]] = []
        self._stack = ExitStack()
        about = about_people(bundle, source, self._faces)
        # Without a network to rebuild them from, meshes are always stored.
        stored = wanted.vertices or not about["mesh_sha256"]
        self._writer = PeopleWriter(directory / f"{self.stem}.npz", vertices=stored, **about)
        self._writers = [self._writer]
        self._meshes = directory / f"{self.stem}.npz"
        if (wanted.obj or wanted.glb) and not stored:  # this run's meshes, for files made at its end
            self._meshes = directory / f".{self.stem}.meshes.npz"
            self._writers.append(PeopleWriter(self._meshes, vertices=True, **about))
        self._videos: dict[str, VideoWriter] = {}
        self._stems = Counter(as_file_name(Path(name).stem) for name in source.frame_names()) if self._stills else {}

    @property
    def _stills(self) -> bool:
        return self._source.kind in ("image", "images")

    def __enter__(self) -> Results:
        with ExitStack() as stack:
            for writer in self._writers:
                stack.enter_context(writer)
            if self._wanted.coco:
                self._coco = stack.enter_context(coco_file(self._directory / f"{self.stem}_coco.json"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def draw(self, frame: Frame, people: People) -> Pictures:
        """The requested drawings of a frame."""
        pictures = {}
        if self._wanted.overlay:
            pictures["overlay"] = draw_people(
                frame.image_bgr, people, self._faces, caption=self._caption, scale=self._wanted.overlay_scale
            )
        if self._wanted.save_2d:
            pictures["2d"] = draw_keypoints(frame.image_bgr, people)
        if self._wanted.save_fit:
            pictures["fit"] = draw_occlusion(frame.image_bgr, people, self._faces, self._caption)
        return pictures

    def add(self, frame: Frame, people: People, pictures: Pictures) -> None:
        """Write the next frame.

        Raises:
            OutputError.
        """
        for kind, picture in pictures.items():
            self._picture(kind, frame, picture)
        if self._wanted.save_2d:
            seen = Detections(people.boxes_px, people.keypoints_px, people.scores, people.track_ids)
            self._joints.append((frame.index, seen))
        if self._wanted.coco:
            self._coco(frame.name if self._stills else frame.index, people)
        for writer in self._writers:
            writer.append(frame.index, people, frame.name if self._stills else None, frame.time_s)

    def tell(self, facts: dict[str, Any]) -> None:
        """Store JSON facts about the run (networks, options) in the `.npz`; call it before the block ends."""
        self._writer.facts = facts

    def finish(self) -> list[str]:
        """Write the files that need the whole clip; returns those that cannot hold it, each with the reason.

        Raises:
            OutputError.
        """
        unwritten = []
        if self._wanted.save_2d:
            write_keypoints_npz(self._directory / f"{self.stem}_2d.npz", self._joints)
        if self._wanted.glb:
            try:
                write_glb(self._directory / f"{self.stem}.glb", read_people(self._meshes))
            except TooManyMeshes as error:  # hours of work are not thrown away for it
                unwritten.append(f"{error.cause.removeprefix(f'{self._directory}/')}: {error.remedy}")
        if self._wanted.obj:
            recording = read_people(self._meshes)
            for index in np.unique(recording.frame):
                people = recording.at(int(index))
                number = "" if recording.frames == 1 else f"_{index:06d}"
                placed_m = people.vertices_m + recording.places_m(people)[:, None]
                write_obj(self._directory / f"{self.stem}{number}.obj", placed_m, self._faces)
        if len(self._writers) > 1:
            self._meshes.unlink()
        return unwritten

    def _picture(self, kind: str, frame: Frame, picture: Array) -> None:
        if self._stills:
            stem = as_file_name(Path(frame.name).stem)
            shared = self._stems.get(stem, 1) > 1  # a.jpg and a.png, x/a.jpg and y/a.jpg
            number = f"_{frame.index:06d}" if shared else ""
            write_image(self._directory / f"{stem}{number}_{kind}.jpg", picture)
            return
        if kind not in self._videos:
            fps = min((self._source.fps or USUAL_FPS) / self._source.every, MOST_FPS)
            writer = VideoWriter(self._directory / f"{self.stem}_{kind}.mp4", fps, self._ffmpeg)
            self._videos[kind] = self._stack.enter_context(writer)
        self._videos[kind].write(picture, frame.time_s)

    @cached_property
    def _ffmpeg(self) -> FFmpeg | None:
        return find_ffmpeg()

    @property
    def film(self) -> str | None:
        """Codec of this run's films and the program that writes them; None if there are none."""
        return next((video.codec for video in self._videos.values()), None)


def about_people(bundle: Bundle, source: FrameSource, faces: Array) -> dict[str, Any]:
    """Arguments of `PeopleWriter` for the people of a source."""
    made_by = next((f.sha256 for f in bundle.manifest.files if (f.role, f.name) == ("mesh", NETWORK)), "")
    return {
        "faces": faces,
        "source": source.name,
        "image_size_px": source.size_px,
        "fps": source.fps,
        "labels": bundle.manifest.labels,
        "crop_side": bundle.manifest.model.crop_side,
        "mesh_sha256": made_by,
        "bundle": str(bundle.path.resolve()),
    }


def stem_of(source: FrameSource) -> str:
    """Base name of a source's results."""
    return stem_for(source.kind, source.name)


def stem_for(kind: str, name: str) -> str:
    """Base name of the results of a source: for a glob, without its wildcards, `frame` for `shots/frame_*.jpg`."""
    if kind != "images":
        return as_file_name(Path(name).stem)
    return as_file_name(re.sub(r"[*?\[\]]+", "_", image_stem(name)).strip("_") or "images")
