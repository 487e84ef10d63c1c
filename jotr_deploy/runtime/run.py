"""`run`: a source through a bundle into a directory of results that appears whole or not at all."""

from __future__ import annotations

import errno
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.bundle import MANIFEST, Bundle
from jotr_deploy.errors import OutputError
from jotr_deploy.geometry.scene import scene_translation_m
from jotr_deploy.people import People
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.image_index import image_stem
from jotr_deploy.runtime.images import write_image
from jotr_deploy.runtime.keypoint_files import write_keypoints_npz
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.people_networks import open_people_networks
from jotr_deploy.runtime.people_source import open_people_source
from jotr_deploy.runtime.pipeline import Pipeline
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.video import Frame, FrameSource, VideoWriter, open_source
from jotr_deploy.spans import Spans
from jotr_deploy.visual.files import PeopleWriter, read_people, write_obj
from jotr_deploy.visual.gltf import write_glb
from jotr_deploy.visual.overlay import draw_keypoints, draw_people
from jotr_deploy.writing import folder_made, output_errors

Array = NDArray[Any]
Progress = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class RunOptions:
    """What the user asked for beside bundle, source and directory."""

    keypoints: Path | None = None
    boxes: Path | None = None
    skeleton: str | None = None
    overlay: bool = True
    save_2d: bool = False
    obj: bool = False
    glb: bool = False
    file: str | None = None  # of role mesh in the bundle; None is the first
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class RunSummary:
    """What a run did; written as `NAME.json` beside its results."""

    source: str
    bundle: str
    labels: list[str]
    frames: int
    people: int
    people_per_frame: list[int]
    skeleton: str | None  # joint order of the networks that found people; None where none was used
    milliseconds_per_frame: dict[str, float]  # mean of every stage
    files: list[str]  # relative to the output directory


def run(
    bundle: Bundle,
    source_name: str,
    output: Path,
    options: RunOptions,
    progress: Progress = lambda done, total: None,
) -> RunSummary:
    """Recover everyone in an image, a folder, a glob or a video.

    Writes `NAME.npz` (see `visual.files`), overlays, what else the options ask for, and `NAME.json`. Until all is
    done the files lie in a hidden directory inside `output`; any failure takes it away again.

    Raises:
        JotrDeployError: a bundle, source, keypoint file or output that cannot be used.
    """
    faces = np.load(bundle.file("faces"), allow_pickle=False) if bundle.has("faces") else np.zeros((0, 3), np.int32)
    spans = Spans()
    with ExitStack() as stack:
        with spans("decode"):  # the first image is read here
            source = stack.enter_context(open_source(source_name))
        _spare_what_is_read(output, _stem(source), options)
        networks = stack.enter_context(
            open_people_networks(bundle, _roles_needed(bundle, options), options.device, options.threads)
        )
        people_source = open_people_source(source, options.keypoints, options.boxes, options.skeleton, networks)
        mesh_file = bundle.file("mesh", options.file)
        session = stack.enter_context(open_session(mesh_file, device=options.device, threads=options.threads))
        pipeline = Pipeline(MeshNetwork(session), people_source, spans)
        aside = stack.enter_context(_filled_directory(output))
        results = _Results(bundle, source, aside, faces, options, spans)
        with results:
            for done, (frame, people) in enumerate(pipeline.stream(source), 1):
                results.add(frame, people)
                progress(done, source.count)
        results.finish()
        files = sorted(path.name for path in aside.iterdir())
        counts = results.counts
        summary = RunSummary(
            source=source_name,
            bundle=str(bundle.path),
            labels=list(bundle.manifest.labels),
            frames=len(counts),
            people=sum(counts),
            people_per_frame=counts,
            skeleton=networks.skeleton,
            milliseconds_per_frame={s: round(1000 * spans.total(s) / len(counts), 3) for s in spans.seconds},
            files=[*files, f"{results.stem}.json"],
        )
        (aside / f"{results.stem}.json").write_text(json.dumps(summary.__dict__, indent=2) + "\n")
    return summary


def _roles_needed(bundle: Bundle, options: RunOptions) -> tuple[str, ...]:
    """Which networks of a bundle find people, beside what the user gave."""
    if options.keypoints is not None:
        return ()
    if options.boxes is not None:
        return ("pose",)
    return ("detector", "pose") if bundle.has("detector") else ()


class _Results:
    """Everything that is written of a run, frame by frame."""

    def __init__(
        self, bundle: Bundle, source: FrameSource, directory: Path, faces: Array, options: RunOptions, spans: Spans
    ) -> None:
        self.stem = _stem(source)
        self.counts: list[int] = []
        self._directory, self._source, self._options, self._spans = directory, source, options, spans
        self._faces, self._caption = faces, " · ".join(bundle.manifest.labels) or None
        self._joints: list[tuple[int, Detections]] = []
        self._stack = ExitStack()
        self._writer = PeopleWriter(
            directory / f"{self.stem}.npz",
            faces=faces,
            source=source.name,
            image_size_px=source.size_px,
            fps=source.fps,
            labels=bundle.manifest.labels,
            crop_side=bundle.manifest.model.crop_side,
        )
        self._videos: dict[str, VideoWriter] = {}
        self._stems = Counter(Path(name).stem for name in source.frame_names()) if source.kind == "images" else {}

    def __enter__(self) -> _Results:
        self._stack.__enter__()
        self._stack.enter_context(self._writer)
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def add(self, frame: Frame, people: People) -> None:
        """Draw and write one frame."""
        self.counts.append(len(people))
        if self._options.overlay:
            with self._spans("draw"):
                picture = draw_people(frame.image_bgr, people, self._faces, caption=self._caption)
            with self._spans("write"):
                self._picture("overlay", frame, picture)
        if self._options.save_2d:
            self._joints.append((frame.index, _detections(people)))
            self._picture("2d", frame, draw_keypoints(frame.image_bgr, people))
        with self._spans("write"):
            self._writer.append(frame.index, people)

    def finish(self) -> None:
        """Write what is made of the whole clip."""
        result = self._directory / f"{self.stem}.npz"
        if self._options.save_2d:
            write_keypoints_npz(self._directory / f"{self.stem}_2d.npz", self._joints)
        if self._options.glb:
            write_glb(self._directory / f"{self.stem}.glb", read_people(result))
        if self._options.obj:
            recording = read_people(result)
            for index in np.unique(recording.frame):
                people = recording.at(int(index))
                number = "" if recording.frames == 1 else f"_{index:06d}"
                placed_m = people.vertices_m + scene_translation_m(people, self._source.size_px)[:, None]
                write_obj(self._directory / f"{self.stem}{number}.obj", placed_m, self._faces)

    def _picture(self, kind: str, frame: Frame, picture: Array) -> None:
        if self._source.kind != "video":
            stem = Path(frame.name).stem
            shared = self._stems.get(stem, 1) > 1  # a.jpg and a.png, x/a.jpg and y/a.jpg
            number = f"_{frame.index:06d}" if shared else ""
            write_image(self._directory / f"{stem}{number}_{kind}.jpg", picture)
            return
        if kind not in self._videos:
            writer = VideoWriter(self._directory / f"{self.stem}_{kind}.mp4", self._source.fps or 25.0)
            self._videos[kind] = self._stack.enter_context(writer)
        self._videos[kind].write(picture)


def _stem(source: FrameSource) -> str:
    """What the results of a source are called: a glob without its magic, `frame` of `shots/frame_*.jpg`."""
    if source.kind != "images":
        return Path(source.name).stem
    return re.sub(r"[*?\[\]]+", "_", image_stem(source.name)).strip("_") or "images"


def _spare_what_is_read(output: Path, stem: str, options: RunOptions) -> None:
    if (output / MANIFEST).is_file():
        raise OutputError(f"{output}: is a bundle, results do not belong in it", "choose another -o")
    for given in (options.keypoints, options.boxes):
        for result in (output / f"{stem}.json", output / f"{stem}.npz"):
            if given is not None and given.resolve() == result.resolve():
                raise OutputError(f"{given}: a result of that name would replace it", "choose another -o")


def _detections(people: People) -> Detections:
    return Detections(people.boxes_px, people.keypoints_px, people.scores, people.track_ids)


@contextmanager
def _filled_directory(output: Path) -> Iterator[Path]:
    """A hidden directory inside `output`; its files move up when the block ends well, else nothing is left of it."""
    with output_errors(output), folder_made(output):
        aside = Path(tempfile.mkdtemp(prefix=".run.", dir=output))
        try:
            yield aside
            places = {file: output / file.name for file in aside.iterdir()}
            for place in places.values():
                if place.is_dir():  # before the first file moves
                    raise IsADirectoryError(errno.EISDIR, f"'{place.name}' is a folder")
            for file, place in places.items():
                file.replace(place)
        except OutputError as error:  # by the name the user knows
            raise OutputError(error.cause.replace(str(aside), str(output)), error.remedy) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
