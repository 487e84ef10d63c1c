"""`run`: process a source with a bundle into a directory of results, which appears whole or not at all."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.bundle import MANIFEST, Bundle
from jotr_deploy.errors import JotrDeployError, OutputError, SourceError, first_line
from jotr_deploy.people import People
from jotr_deploy.runtime.finding.people_source import PeopleBy, file_use, require_one_way
from jotr_deploy.runtime.fitting_stage import Fitter
from jotr_deploy.runtime.joint_files.coordinates import JointsIn
from jotr_deploy.runtime.joint_files.usage import FileUse
from jotr_deploy.runtime.live_preview import Watcher, small_overlay, smaller
from jotr_deploy.runtime.loaded_model import Model
from jotr_deploy.runtime.motion.smoothing import Mode
from jotr_deploy.runtime.ordered_stages import Recovered
from jotr_deploy.runtime.prefetch import DEPTH, Behind
from jotr_deploy.runtime.run_outputs import Pictures, Results, Wanted, stem_of
from jotr_deploy.runtime.sources.camera_files import lens_facts
from jotr_deploy.runtime.sources.captures import shown
from jotr_deploy.runtime.sources.frame_source import BLOCK_FRAMES, Failed, Frame, FrameSource
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.runtime.sources.scene_camera import PUBLISHED, CameraChoice
from jotr_deploy.runtime.summary import Alignment, FitOutcome, RunSummary
from jotr_deploy.support.aliases import Array, FrameProgress
from jotr_deploy.support.file_names import name_fault
from jotr_deploy.support.spans import Spans
from jotr_deploy.support.writing import folder_made, output_errors, uninterrupted

RESULTS = Path("jotr-results")
"""Parent of the results directories of runs without an output directory."""


@dataclass(frozen=True)
class RunOptions(Wanted):
    """Options of a run besides bundle, source and output directory."""

    keypoints: Path | None = None
    boxes: Path | None = None
    skeleton: str | None = None
    joints_in: JointsIn = "auto"  # coordinates of the file
    people: PeopleBy = "auto"
    every: int = 1
    roi_px: tuple[int, int, int, int] | None = None  # x0, y0, x1, y1: people elsewhere do not count
    max_people: int | None = None
    smooth: Mode | None = None  # of videos and streams
    align: bool | None = None  # people to their joints; None leaves it to the bundle
    camera: CameraChoice = CameraChoice()  # noqa: RUF009
    keep_going: bool = False  # frames that fail are reported and skipped
    block: int = BLOCK_FRAMES  # of films and pictures, see `FrameSource.block`
    overlap: bool | None = None  # stages of several frames at once; None where it helps
    file: str | None = None  # mesh file of the bundle; None is the first
    device: str = "auto"
    threads: int | None = None
    tf32: bool = False  # on CUDA in ONNX Runtime
    partial: bool = True  # results up to Ctrl-C are kept
    write: bool = True  # results; without it frames are processed and discarded


def run(
    bundle: Bundle,
    source_name: str,
    output: Path | None,
    options: RunOptions,
    progress: FrameProgress = lambda done, total: None,
    spans: Spans | None = None,
    watcher: Watcher | None = None,
    fit: Callable[[], Fitter] | None = None,
    model: Model | None = None,
) -> RunSummary:
    """Recover every person in an image, a folder, a glob, a video, a camera or a URL.

    Writes `NAME.npz` (see `visual.result_files`), overlays, other files as the options ask, and `NAME.json`. Until all
    is done the files are in a hidden directory inside `output`, which is removed on any failure. After Ctrl-C, or
    when a camera or stream ends early, the results so far are completed and kept.

    Args:
        bundle: opened.
        source_name: see `open_source`.
        output: results directory; by default a new one, `jotr-results/NAME`.
        options: see there.
        progress: called after every frame.
        spans: receives the timing of every stage.
        watcher: is shown every frame with its people.
        fit: opens what fits the people, as `api.fitter_of` gives it.
        model: as `open_model` opens it for these options; by default one is opened, and closed at the end.

    Raises:
        JotrDeployError: a bundle, source, keypoint file or output that cannot be used.
        KeyboardInterrupt: before any frame was finished, or if `options.partial` is False.
    """
    require_one_way(options.people, options.keypoints, options.boxes)
    start_s, spans = time.perf_counter(), spans or Spans()
    with ExitStack() as held_back, ExitStack() as stack:
        with spans("open"):  # the first image is read here
            unread: list[str] | None = [] if options.keep_going else None
            source = stack.enter_context(open_source(source_name, unread, every=options.every, upright=True))
        source.block = None if source.block is None else options.block
        if options.write:
            output = new_results_folder(stem_of(source)) if output is None else output
            spare_what_is_read(output, source, source_name, options)
        model = model or stack.enter_context(open_model(bundle, options, fit))
        model.spans = spans
        finder = model.people_source(
            source, options.keypoints, options.boxes, options.skeleton, options.roi_px, options.max_people,
            options.joints_in,
        )  # fmt: skip
        work = Work(
            bundle, source_name, source, model, options, file_use(finder), progress, watcher, start_s, held_back
        )
        stream = partial(model.recover, source, finder, options.smooth, options.overlap)
        summary = work.results(output if options.write else None, stream, () if unread is None else unread)
    return summary


def open_model(bundle: Bundle, options: RunOptions, fit: Callable[[], Fitter] | None = None) -> Model:
    """The model of runs with these options."""
    return Model(
        bundle, file=options.file, device=options.device, threads=options.threads, tf32=options.tf32,
        people=options.people, align=options.align, camera=options.camera, fit=fit,
    )  # fmt: skip


Stream = Callable[[Failed | None], Recovered]
"""People in the frames of a source, in order; the argument is called with frames that fail, or None."""


@dataclass
class Work:
    """Settings and destinations with which a run makes its results from a stream of people."""

    bundle: Bundle
    source_name: str  # as given
    source: FrameSource
    model: Model
    options: RunOptions
    use: FileUse | None = None  # of a file of joints or boxes
    progress: FrameProgress = lambda done, total: None
    watcher: Watcher | None = None
    start_s: float = field(default_factory=time.perf_counter)
    held_back: ExitStack = field(default_factory=ExitStack)  # ends when everything is closed; Ctrl-C waits for it
    failures: list[tuple[int, str]] = field(default_factory=list)  # frames that failed, and why

    def results(self, output: Path | None, stream: Stream, unread: Sequence[str] = ()) -> RunSummary:
        """Process the stream, and write its results if there is a directory for them.

        Args:
            output: directory.
            stream: of people.
            unread: filled by the source with names of frames that cannot be read.
        """
        model, options, spans = self.model, self.options, self.model.spans
        summary = RunSummary(shown(self.source_name), str(self.bundle.path), list(self.bundle.manifest.labels))
        if model.fitter is not None:
            summary.fit = FitOutcome(model.fitter.preset, model.fitter.files_used)
        with ExitStack() as stack:
            aside = None if output is None else stack.enter_context(_filled_directory(output))
            results = None if aside is None else Results(self.bundle, self.source, aside, options)
            with results or nullcontext():
                _work(self, stream, results, summary)
                if self.use is not None:
                    self.use.check_somebody()
                summary.close(self.source, self.use)
                self.held_back.enter_context(uninterrupted())  # until the files are in place and everything is closed
                summary.skeleton = model.skeleton
                summary.networks = _networks_that_found_people(model)
                summary.skipped += [f"{name}: cannot be read" for name in unread]
                if results is not None:
                    results.tell(_facts(summary, model, options))
            if results is not None:
                summary.unwritten = results.finish()
                summary.film = results.film
            summary.milliseconds_per_frame = {
                stage: round(1000 * spans.total(stage) / summary.frames, 3) for stage in spans.stages
            }
            summary.seconds = round(time.perf_counter() - self.start_s, 3)
            if aside is not None and output is not None:
                name = f"{stem_of(self.source)}.json"
                summary.files = [*sorted(path.name for path in aside.iterdir()), name]
                summary.earlier = _left_of_a_run_before(output, name, summary.files)
                (aside / name).write_text(json.dumps(summary.as_dict(), indent=2) + "\n")
                summary.output = str(output)
        return summary


def _networks_that_found_people(model: Model) -> list[dict[str, Any]]:
    """Role, file and sha256 of the detector and pose network used."""
    return [
        {"role": used["role"], "file": used["name"], "sha256": used["sha256"]}
        for used in model.files_used
        if used["role"] in ("detector", "pose")
    ]


def _facts(summary: RunSummary, model: Model, options: RunOptions) -> dict[str, Any]:
    """Networks and options used, for the `.npz`; unchanged when a run is repeated from its joints."""
    fields = ("source", "frames", "people", "tracks", "skeleton", "skipped", "left_out", "damage", "dropped", "ended",
            "camera")  # fmt: skip
    chosen = ("every", "roi_px", "max_people", "smooth")
    lens = options.camera.file if options.camera.bends else None
    return {
        "networks": model.files_used,
        "lens": None if lens is None else lens_facts(lens),  # its distortion is already removed from all pixels
        **{name: getattr(summary, name) for name in fields},
        **{name: getattr(options, name) for name in chosen},
        "alignment": None if summary.alignment is None else asdict(summary.alignment),
        "fit": None if summary.fit is None else summary.fit.without_people(),
    }


def new_results_folder(name: str) -> Path:
    """`jotr-results/NAME`, or the first of NAME-2, NAME-3 ... that is still empty."""
    for number in itertools.count(1):
        folder = RESULTS / (name if number == 1 else f"{name}-{number}")
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return folder
    raise AssertionError("numbers do not end")


def reason(frame_name: str, error: Exception) -> str:
    """One line about a frame that failed."""
    why = error.cause if isinstance(error, JotrDeployError) else first_line(error)
    logging.getLogger("jotr_deploy").warning("%s: skipped (%s)", frame_name, why)
    return why if why.startswith(frame_name) else f"{frame_name}: {why}"


def _work(work: Work, stream: Stream, results: Results | None, summary: RunSummary) -> None:
    """Process every frame and write its results, until the source ends or Ctrl-C."""
    model, source, options = work.model, work.source, work.options
    failures: list[Exception] = []
    ids: set[int] = set()
    errors = [np.zeros((0, 2))]  # of the people aligned

    def failed(frame: Frame, error: Exception) -> None:
        failures.append(error)
        work.failures.append((frame.index, reason(frame.name, error)))

    frames = stream(failed if options.keep_going else None)
    # Frames are drawn, then written, while the next ones are recovered. Those of a camera are not queued: they would
    # be late.
    depth = 0 if source.kind == "stream" else DEPTH
    with Behind("write", depth) as writing, Behind("draw", depth) as drawing:
        try:
            with closing(frames):
                for frame, people in frames:
                    with uninterrupted():
                        drawing(partial(_put_out, model, results, work.watcher, writing, frame, people))
                        summary.see(frame, people)
                        ids.update(people.track_ids[people.track_ids >= 0].tolist())
                        errors.append(people.joint_error[people.aligned])
                        camera = options.camera(frame)
                        name = PUBLISHED if camera is None else camera.source
                        if name not in summary.camera:
                            summary.camera.append(name)
                    work.progress(len(summary.people_per_frame), source.count)
        except KeyboardInterrupt:
            if not summary.people_per_frame or not options.partial:
                raise
            summary.ended = "interrupted"
    summary.skipped = [why for _, why in sorted(work.failures)]
    summary.frames, summary.people = len(summary.people_per_frame), sum(summary.people_per_frame)
    summary.tracks = len(ids)
    if model.align:
        summary.alignment = _alignment(np.concatenate(errors), summary.people)
    if source.fault is not None:
        summary.ended = source.fault.cause
    if summary.frames == 0:
        raise (failures or [source.fault or SourceError(f"{source.name}: has no frame", "give another source")])[0]


def _put_out(
    model: Model, results: Results | None, watcher: Watcher | None, writing: Behind, frame: Frame, people: People
) -> None:
    """Draw and show a frame, and have it written."""
    pictures: Pictures = {}
    if results is not None:
        with model.spans("draw", frame.index):
            pictures = results.draw(frame, people)
    if watcher is not None and watcher.watched:
        with model.spans("show", frame.index):
            watcher.show(_seen(model, frame, people, pictures))
    if results is not None:
        writing(partial(_write, model, results, frame, people, pictures))


def _write(model: Model, results: Results, frame: Frame, people: People, pictures: Pictures) -> None:
    with model.spans("write", frame.index):
        results.add(frame, people, pictures)


def _seen(model: Model, frame: Frame, people: People, pictures: Pictures) -> Array:
    """The overlay that is written anyway, or one drawn for the watcher alone."""
    if "overlay" in pictures:
        return smaller(pictures["overlay"])
    return small_overlay(frame.image_bgr, people, model.faces, model.caption)


def _alignment(errors: Array, people: int) -> Alignment:
    if not len(errors):
        return Alignment(0, people)
    before, after = (round(100 * float(each), 2) for each in errors.mean(0))
    return Alignment(len(errors), people - len(errors), before, after)


def spare_what_is_read(output: Path, source: FrameSource, source_name: str, options: RunOptions) -> None:
    """Refuse an output directory where results would overwrite, or be taken for, what is read."""
    stem = stem_of(source)
    if (output / MANIFEST).is_file():
        raise OutputError(f"{output}: is a bundle, where results do not belong", "choose another -o")
    pictures = Path(source_name) if Path(source_name).is_dir() else Path(source_name).parent
    if source.kind == "images" and pictures.resolve() == output.resolve():
        raise OutputError(
            f"{output}: the next run would read its overlays as pictures of the source", "choose another -o"
        )
    for given in (options.keypoints, options.boxes):
        for end in (".json", ".npz", "_2d.npz", "_coco.json", "_trace.json"):
            result = output / f"{stem}{end}"
            if given is not None and given.resolve() == result.resolve():
                raise OutputError(f"{given}: a result of that name would overwrite it", "choose another -o")


def _left_of_a_run_before(output: Path, name: str, files: list[str]) -> list[str]:
    """Existing files listed in an earlier summary of that name that the new results do not replace."""
    try:
        listed = {file for file in json.loads((output / name).read_text())["files"] if not name_fault(file)}
        return sorted(file for file in listed - set(files) if (output / file).is_file())
    except (OSError, ValueError, KeyError, TypeError):  # no such file, or a different kind of file
        return []


@contextmanager
def _filled_directory(output: Path) -> Iterator[Path]:
    """A hidden directory inside `output`; its files move up on success, otherwise it is removed."""
    with output_errors(output), folder_made(output):
        aside = Path(tempfile.mkdtemp(prefix=".run.", dir=output))
        try:
            yield aside
            places = {file: output / file.name for file in aside.iterdir()}
            for place in places.values():
                if place.is_dir():  # before the first file moves
                    raise IsADirectoryError(errno.EISDIR, f"'{place.name}' is a folder")
            # The summary comes last: where it is, everything is.
            for file, place in sorted(places.items(), key=lambda each: (each[0].suffix == ".json", each[0].name)):
                file.replace(place)
        except OutputError as error:  # report the name the user knows
            raise OutputError(error.cause.replace(str(aside), str(output)), error.remedy) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
