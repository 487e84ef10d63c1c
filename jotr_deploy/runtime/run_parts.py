"""Parts of a source, recovered apart and joined to the results of a run of the whole."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.errors import SourceError
from jotr_deploy.people import LAYOUT, People
from jotr_deploy.runtime.loaded_model import Model
from jotr_deploy.runtime.ordered_stages import Recovered
from jotr_deploy.runtime.run import RunOptions, Work, reason, spare_what_is_read
from jotr_deploy.runtime.run_outputs import about_people
from jotr_deploy.runtime.sources.frame_source import Failed, Frame, FrameSource, size_of
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.runtime.sources.video_file import Video
from jotr_deploy.runtime.summary import RunSummary
from jotr_deploy.runtime.undistorted import Undistorted
from jotr_deploy.support.aliases import Array, FrameProgress
from jotr_deploy.support.spans import Spans
from jotr_deploy.visual.result_files import PeopleFile, PeopleWriter, read_people


@dataclass(frozen=True)
class Part:
    """Frames of a source from `first` to before `end`; None is the last frame, however many there are."""

    first: int
    end: int | None
    even: bool = False  # see `sources.video_file.Video`


def recover_part(
    model: Model,
    source_name: str,
    part: Part,
    options: RunOptions,
    path: Path,
    progress: FrameProgress = lambda done, total: None,
) -> int:
    """Recover the people of a part, and write them as the networks gave them; returns the number of frames.

    The file is a `.npz` of people, without track ids, neither placed, aligned nor smoothed. Its facts are what
    `joined` needs besides.

    Raises:
        JotrDeployError: as `run.run`.
    """
    start_s, spans = time.perf_counter(), Spans()
    unread: list[str] = []
    failures: list[tuple[int, str]] = []
    sizes: list[tuple[int, int, int]] = []  # first frame, width and height of those from there on
    done = 0

    def failed(frame: Frame, error: Exception) -> None:
        failures.append((frame.index, reason(frame.name, error)))

    with ExitStack() as stack:
        with spans("open"):
            source = stack.enter_context(_opened(source_name, options, unread))
        source.first, source.end = part.first, part.end
        if isinstance(source, Video):
            source.even = part.even
        model.spans = spans
        finder = model.people_source(source, roi_px=options.roi_px, max_people=options.max_people)
        about = about_people(model.bundle, source, model.faces)
        stored = not about["mesh_sha256"] or exact_meshes_wanted(options)
        writer = stack.enter_context(PeopleWriter(path, vertices=stored, **about))
        frames = model.recover_part(source, finder, options.overlap, failed if options.keep_going else None)
        with closing(frames):
            for frame, people in frames:
                writer.append(frame.index, people, frame.name, frame.time_s)
                if not sizes or sizes[-1][1:] != size_of(frame.image_bgr):
                    sizes.append((frame.index, *size_of(frame.image_bgr)))
                done += 1
                progress(done, None)
        writer.facts = {
            "sizes": sizes, "failures": sorted(failures), "unread": unread, "left_out": source.left_out,
            "damage": source.damage, "read": source.read, "seam": getattr(source, "seam", None),
            "next_seam": getattr(source, "next_seam", None),
            "seconds": time.perf_counter() - start_s, "stages": {stage: spans.total(stage) for stage in spans.stages},
        }  # fmt: skip
    return done


def exact_meshes_wanted(options: RunOptions) -> bool:
    """True if files with the very meshes are asked for; those drawn over pictures are computed again when joined."""
    return options.vertices or options.obj or options.glb or options.coco


def seams(path: Path) -> tuple[Any, Any]:
    """`Video.seam` of a part, and `Video.next_seam`."""
    facts = read_people(path).facts
    return facts["seam"], facts["next_seam"]


def joined(
    model: Model,
    source_name: str,
    parts: Sequence[Path],
    options: RunOptions,
    output: Path,
    progress: FrameProgress = lambda done, total: None,
) -> RunSummary:
    """Results of a source from all its parts in order, as `run.run` writes them for the whole.

    Raises:
        JotrDeployError: as `run.run`.
    """
    start_s = time.perf_counter()
    facts = [read_people(path).facts for path in parts]
    model.spans = Spans()
    for told in facts:
        for stage, seconds in told["stages"].items():
            model.spans.add(stage, seconds)
    start_s -= sum(told["seconds"] for told in facts)
    with ExitStack() as held_back, ExitStack() as stack:
        source = stack.enter_context(_opened(source_name, options, []))
        spare_what_is_read(output, source, source_name, options)
        model.people_source(source)  # names the networks, which another process may have used
        failures = [(index, why) for told in facts for index, why in told["failures"]]
        unread = list(dict.fromkeys(name for told in facts for name in told["unread"]))
        recovered = _recovered(model, source, parts, options)
        work = Work(
            model.bundle, source_name, source, model, options, None, progress, None, start_s, held_back, failures
        )

        def stream(failed: Failed | None) -> Recovered:
            return model.in_order(source, _told(recovered, source, facts), options.smooth, failed)

        if not any(told["read"] for told in facts):
            raise SourceError(f"{source_name}: has no frame", "give another source")
        return work.results(output, stream, unread)


def _told(recovered: Recovered, source: FrameSource, facts: Sequence[Mapping[str, Any]]) -> Recovered:
    """The same frames; then the source says what its parts have said."""
    yield from recovered
    source.read = sum(told["read"] for told in facts)
    source.left_out = {name: why for told in facts for name, why in told["left_out"].items()}
    source.damage = next((told["damage"] for told in facts if told["damage"]), None)


def _opened(source_name: str, options: RunOptions, unread: list[str]) -> FrameSource:
    source = open_source(source_name, unread if options.keep_going else None, every=options.every, upright=True)
    source.block = options.block
    return source


def _recovered(
    model: Model, source: FrameSource, parts: Sequence[Path], options: RunOptions
) -> Generator[tuple[Frame, People], None, None]:
    """The frames of all parts with their people, and with pixels only where something is drawn on them."""
    drawn = options.overlay or options.save_2d or options.save_fit
    images = _images(Undistorted(source, model.camera) if model.camera.bends else source) if drawn else None
    meshes = drawn or exact_meshes_wanted(options)
    for path in parts:
        part = read_people(path, model.bundle)
        sizes = [tuple(size) for size in part.facts["sizes"]]
        at = -1
        for place, index in enumerate(part.numbers.tolist()):
            while at + 1 < len(sizes) and sizes[at + 1][0] <= index:
                at += 1
            image = _blank(*sizes[at][1:]) if images is None else images(index)
            people = part.at(index) if meshes else _without_meshes(part, index)
            time_s = float(part.times_s[place])
            stamp = None if np.isnan(time_s) else time_s
            yield Frame(index, part.names[place], image, stamp, source.path_of(index)), people


def _images(source: FrameSource) -> Any:
    frames: Iterator[Frame] = iter(source)

    def image(index: int) -> Array:
        return next(frame.image_bgr for frame in frames if frame.index == index)

    return image


def _blank(width: int, height: int) -> Array:
    """A picture of this size that takes no memory."""
    return np.broadcast_to(np.uint8(0), (height, width, 3))


def _without_meshes(part: PeopleFile, index: int) -> People:
    people = part.at(index)
    arrays: dict[str, Any] = {name: getattr(people, name) for name in LAYOUT if name != "vertices_m"}
    none = np.broadcast_to(np.float32(0), (len(people), *LAYOUT["vertices_m"][0]))
    return People(**arrays, vertices_m=none, fit=people.fit)
