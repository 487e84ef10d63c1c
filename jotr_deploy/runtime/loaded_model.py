"""A bundle loaded to recover people: one object for any number of pictures and films."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from jotr_deploy.body.faces import read_faces
from jotr_deploy.bundle import Bundle, FileEntry
from jotr_deploy.errors import BundleError, JotrDeployError, SessionError, SourceError, at_least_1, choice
from jotr_deploy.people import People
from jotr_deploy.runtime.body_session import Body, open_body
from jotr_deploy.runtime.crop_graph import open_cropper
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.given_people import checked_image, given_people, known_people
from jotr_deploy.runtime.finding.people_networks import (
    NetworkFile,
    PeopleNetworks,
    networks_by,
    own_networks,
)
from jotr_deploy.runtime.finding.people_source import (
    BoxPeople,
    KeypointPeople,
    PeopleBy,
    PeopleSource,
    open_people_source,
)
from jotr_deploy.runtime.finding.region import MostPeople, WithinRegion
from jotr_deploy.runtime.fitting_stage import Fitter, FittingStage
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.motion.alignment.aligner import Aligner
from jotr_deploy.runtime.motion.scene_placement import Standing
from jotr_deploy.runtime.motion.smoothing import Mode, Smoother, open_smoother
from jotr_deploy.runtime.motion.tracking import Tracker
from jotr_deploy.runtime.ordered_stages import OrderedStages, Recovered
from jotr_deploy.runtime.pipeline import Pipeline
from jotr_deploy.runtime.prefetch import Begun
from jotr_deploy.runtime.sessions import Opener, open_for
from jotr_deploy.runtime.sessions.cuda_session import CudaSession
from jotr_deploy.runtime.sources.frame_source import Failed, Frame, FrameSource, size_of
from jotr_deploy.runtime.sources.images import read_image
from jotr_deploy.runtime.sources.scene_camera import CameraChoice
from jotr_deploy.runtime.undistorted import Undistorted, follow_lens, undistorted_arrays
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.choices import DEVICES
from jotr_deploy.support.spans import Spans

if TYPE_CHECKING:
    from jotr_deploy.runtime.finding.detection import Detector
    from jotr_deploy.runtime.finding.pose import PoseNetwork
    from jotr_deploy.runtime.joint_files.coordinates import JointsIn

USUAL_FPS = 25.0
"""Assumed for a film that does not state its frame rate."""


class Model:
    """A loaded bundle. Pictures and streams are independent: no state is carried from one to the next.

    Not re-entrant: give every thread a model of its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        file: str | None = None,
        device: str = "auto",
        threads: int | None = None,
        tf32: bool = False,
        people: PeopleBy = "auto",
        spans: Spans | None = None,
        align: bool | None = None,
        camera: CameraChoice | None = None,
        fit: Callable[[], Fitter] | None = None,
        opener: Opener | None = None,
    ) -> None:
        """The arguments of `load`; `spans` records the duration of each stage, `fit` opens what fits the people.

        `opener` opens every network, instead of `open_session`.
        """
        choice("people", people, get_args(PeopleBy))
        choice("device", device, DEVICES)
        at_least_1("threads", threads)
        self.bundle, self.people, self.spans = bundle, people, spans or Spans()
        if fit is not None and align:
            raise JotrDeployError(
                "fit and align contradict each other: a fit starts from the unaligned pose", "leave one of them out"
            )
        self.align = fit is None and (bundle.manifest.align if align is None else align)
        self.camera = camera or CameraChoice()
        self._file, self._device, self._threads, self._tf32 = file, device, threads, tf32
        self._opener = opener or partial(open_for, tf32=tf32)
        self._crop_factor = bundle.manifest.model.crop_factor
        with ExitStack() as stack:
            # Read and opened beside the mesh network, which shortens the way to the first mesh.
            opening = Begun(self._opened_body, "body") if self.align else None
            self._body_begun = None if opening is None else stack.enter_context(opening)
            session = self._opener("mesh", bundle.file("mesh", file), device, threads)
            self.mesh = MeshNetwork(stack.enter_context(session))
            if self.mesh.crop_side != bundle.manifest.model.crop_side:
                raise BundleError(
                    f"{bundle.path}: the manifest has crops of {bundle.manifest.model.crop_side} px, "
                    f"{bundle.entry('mesh', file).name} takes {self.mesh.crop_side} px",
                    "export it again: jotr-deploy export CHECKPOINT -o BUNDLE",
                )
            self._crop = stack.enter_context(open_cropper(session))
            self.fitter = None if fit is None else fit()
            if self.fitter is not None:
                stack.callback(self.fitter.close)
            self._open = stack.pop_all()
        self._closed = False
        self._networks: dict[Path, tuple[NetworkFile, Detector | PoseNetwork]] = {}

    def __call__(
        self,
        image: Any,
        *,
        people: People | Detections | None = None,
        boxes: Any = None,
        keypoints: Any = None,
        skeleton: str | None = None,
        finder: PeopleSource | None = None,
        file: bytes | None = None,
    ) -> People:
        """Recover every person in one picture.

        Args:
            image: path of a picture, turned upright by its EXIF data, or (H, W, 3) uint8 in BGR order.
            people: those of another result for this picture, whose crops and joints are reused: the same model
                reproduces its people, another model recovers its own. Instead of boxes and keypoints.
            boxes: (N, 4) x0 y0 x1 y1 in pixels, tight around each person, instead of finding people. The bundle's pose
                network finds joints in them, whose extent gives the crop; without one it is the square around each
                box, a tenth larger. `People.boxes_px` are such crops, too large to be boxes: pass `people` instead.
            keypoints: (N, J, 3) x, y in pixels and confidence, instead of finding joints. People with too few joints
                for a box are left out, unless `boxes` are given too.
            skeleton: joint order, such as "coco17"; by the number of joints if not given.
            finder: people source to use instead of `people_source()`.
            file: content of the file that an array was decoded from, whose EXIF data may tell the camera.

        Raises:
            SourceError: not a picture.
            KeypointFileError: boxes or keypoints of the wrong shape.
        """
        self._require_open()
        read = isinstance(image, (str, Path))
        image_bgr = read_image(Path(image), upright=True) if read else checked_image(image)
        name, path = (Path(image).name, Path(image)) if read else ("", None)
        image_bgr = self.camera.undistorted(image_bgr)
        if not (people is None and boxes is None and keypoints is None):
            given = self._given(image_bgr, people, boxes, keypoints, skeleton)

            def finder(image_bgr: Array, name: str, frame: int) -> Detections:
                return given

        return self._pipeline(finder or self.people_source())(image_bgr, name, path=path or file)

    def stream(
        self,
        source: str | Path | int | FrameSource,
        *,
        every: int = 1,
        smooth: Mode | None = None,
        keypoints: Path | str | None = None,
        boxes: Path | str | None = None,
        skeleton: str | None = None,
        roi_px: tuple[int, int, int, int] | None = None,
        max_people: int | None = None,
        joints_in: JointsIn = "auto",
        overlap: bool | None = None,
        failed: Failed | None = None,
    ) -> Generator[tuple[Frame, People], None, None]:
        """Recover every person in every frame, in order; people in films and camera streams are tracked.

        Args:
            source: picture, folder, glob, film, number of a camera or URL, or an opened source, which stays open.
            every: process every Nth frame.
            smooth: "one-euro" or "two-sided", for films and cameras.
            keypoints: file or folder of 2-D joints, see `run --keypoints`.
            boxes: file of boxes, see `run --boxes`.
            skeleton: joint order of the keypoint file; by its content if not given.
            roi_px: x0 y0 x1 y1; keep only people in this region of the picture.
            max_people: keep at most this many people per frame, highest score first.
            joints_in: coordinates of the file: "auto", "pixels", "normalised" or "unrotated".
            overlap: work on several frames at once; None where it helps.
            failed: called with a frame that could not be processed, which is then left out, and the error; without it
                the error is raised.

        Raises:
            SourceError, KeypointFileError: a source or file that cannot be used.
            JotrDeployError: an invalid argument.
        """
        from jotr_deploy.runtime.joint_files.coordinates import JOINTS_IN
        from jotr_deploy.runtime.sources.opening import open_source

        self._require_open()
        if not isinstance(source, (str, Path, int, FrameSource)):
            raise SourceError(
                f"cannot stream from {type(source).__name__}",
                "give a path, a camera number, a URL or a FrameSource; for one array call the model",
            )
        if smooth is not None:
            choice("smooth", smooth, get_args(Mode))
        choice("joints_in", joints_in, JOINTS_IN)
        at_least_1("every", every)
        at_least_1("max_people", max_people)
        with ExitStack() as stack:
            if not isinstance(source, FrameSource):
                source = stack.enter_context(open_source(str(source), every=every, upright=True))
            finder = self.people_source(source, keypoints, boxes, skeleton, roi_px, max_people, joints_in)
            yield from stack.enter_context(closing(self.recover(source, finder, smooth, overlap, failed)))

    def recover(
        self,
        source: FrameSource,
        finder: PeopleSource,
        smooth: Mode | None = None,
        overlap: bool | None = None,
        failed: Failed | None = None,
    ) -> Generator[tuple[Frame, People], None, None]:
        """`stream` for an opened source, with a people source of its own; the other arguments are those of `stream`."""
        pipeline = self._pipeline(finder, source)
        source = self._undistorted(source, finder)
        tracker = _tracker(source) if source.moving and not _tracked(finder) else None
        overlap = self._overlap(source, overlap)
        return pipeline.stream(source, overlap, failed, tracker, self._smoother(source, smooth))

    def recover_part(
        self, source: FrameSource, finder: PeopleSource, overlap: bool | None = None, failed: Failed | None = None
    ) -> Recovered:
        """`recover` for part of a source: people as the networks give them, for `in_order`."""
        pipeline = self._pipeline(finder, source)
        source = self._undistorted(source, finder)
        return pipeline.recovered(source, self._overlap(source, overlap), failed)

    def in_order(
        self, source: FrameSource, recovered: Recovered, smooth: Mode | None = None, failed: Failed | None = None
    ) -> Recovered:
        """All frames of a source that `recover_part` gave, tracked, placed, aligned and smoothed as by `recover`."""
        tracker = _tracker(source) if source.moving else None
        return OrderedStages(tracker, self._standing(source), self._smoother(source, smooth), self.spans)(
            recovered, failed
        )

    def _undistorted(self, source: FrameSource, finder: PeopleSource) -> FrameSource:
        if not self.camera.bends:
            return source
        follow_lens(finder, self.camera)
        return Undistorted(source, self.camera)

    def _overlap(self, source: FrameSource, overlap: bool | None) -> bool:
        if overlap is not None:
            return overlap
        # On the CPU networks use every core already, so overlapping makes them wait for one another. Frames of a
        # camera would wait between the stages and be late.
        return isinstance(self.mesh.session, CudaSession) and source.kind != "stream"

    def people_source(
        self,
        source: FrameSource | None = None,
        keypoints: Path | str | None = None,
        boxes: Path | str | None = None,
        skeleton: str | None = None,
        roi_px: tuple[int, int, int, int] | None = None,
        max_people: int | None = None,
        joints_in: JointsIn = "auto",
    ) -> PeopleSource:
        """A people source for one stream, or for one picture without `source`; the arguments are those of `stream`."""
        keypoints = None if keypoints is None else Path(keypoints)
        boxes = None if boxes is None else Path(boxes)
        people = self.people if keypoints is None and boxes is None else "auto"
        by_network = boxes is None and people in ("auto", "blazepose", "detector")
        files = [] if keypoints is not None else self._finding if by_network else self._pose
        finder = open_people_source(
            source, keypoints, boxes, skeleton, self._opened(files), people, self.spans, joints_in,
            crop_factor=self._crop_factor,
        )  # fmt: skip
        if roi_px is not None:
            finder = WithinRegion(finder, roi_px)
        return finder if max_people is None else MostPeople(finder, max_people)

    def draw(self, image: Any, people: People) -> Array:
        """The picture with every mesh drawn over it: (H, W, 3) uint8 BGR, a copy.

        Args:
            image: a path or an array, as for the call; lens distortion of the camera is removed in the result.
            people: what the call returned for it.
        """
        from jotr_deploy.visual.overlay import draw_people

        image_bgr = read_image(Path(image), upright=True) if isinstance(image, (str, Path)) else checked_image(image)
        return draw_people(self.camera.undistorted(image_bgr), people, self.faces, caption=self.caption)

    @cached_property
    def faces(self) -> Array:
        """(F, 3) triangles of the body, counter-clockwise from outside; none in a bundle without them."""
        if not self.bundle.has("faces"):
            return np.zeros((0, 3), np.int32)
        return read_faces(self.bundle)

    @property
    def labels(self) -> tuple[str, ...]:
        """Warnings that belong beside every result, such as "stand-in body"."""
        return self.bundle.manifest.labels

    @property
    def caption(self) -> str | None:
        """The labels as a line below a picture; None if there are none."""
        return " · ".join(self.labels) or None

    @property
    def skeleton(self) -> str | None:
        """Joint order of the networks that have found people so far; None if none were used."""
        return PeopleNetworks.of(network for _, network in self._networks.values()).skeleton

    @property
    def files_used(self) -> list[dict[str, str]]:
        """Files whose networks have been used so far, each with "role", "name" and "sha256"."""
        mesh = self.bundle.entry("mesh", self._file)
        used: list[FileEntry | NetworkFile] = [mesh, *(file for file, _ in self._networks.values())]
        fitted = [] if self.fitter is None else self.fitter.files_used
        return [{"role": each.role, "name": each.name, "sha256": each.sha256} for each in used] + fitted

    def close(self) -> None:
        """Free the networks; the model cannot be used afterwards."""
        self._closed = True
        self._open.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _given(self, image_bgr: Array, people: Any, boxes: Any, keypoints: Any, skeleton: str | None) -> Detections:
        """People given by the caller; the picture is undistorted, and `people` refer to it."""
        if people is not None:
            return known_people(people, boxes, keypoints)
        pose = self._opened(self._pose).pose if keypoints is None else None
        if self.camera.bends:
            boxes, keypoints = undistorted_arrays(self.camera, boxes, keypoints, size_of(image_bgr))
        return given_people(image_bgr, boxes, keypoints, skeleton, pose, crop_factor=self._crop_factor)

    def _require_open(self) -> None:
        if self._closed:
            raise SessionError("the model is closed", "use it inside its `with` block, or load it again")

    def _pipeline(self, finder: PeopleSource, source: FrameSource | None = None) -> Pipeline:
        """The pipeline for one source, or for one picture."""
        fit = None
        if self.fitter is not None:
            moving, block = (False, None) if source is None else (source.moving, source.block)
            follow = partial(_tracker, source) if source is not None and moving and not _tracked(finder) else None
            fit = FittingStage(self.fitter, moving, self.spans, block, follow)
        return Pipeline(self.mesh, finder, self.spans, self._crop, self._standing(source), fit)

    def _standing(self, source: FrameSource | None) -> Standing:
        fps = (source.fps or USUAL_FPS) if source is not None and source.moving else None
        return Standing(self.camera, self._aligner.anew(fps) if self.align else None, self.spans)

    def _smoother(self, source: FrameSource, mode: Mode | None) -> Smoother | None:
        if mode is None:
            return None
        if not source.moving:
            logging.getLogger("jotr_deploy").warning("%s: still pictures are not smoothed", source.name)
            return None
        return open_smoother(mode, self._body, source.fps or USUAL_FPS)

    def _opened(self, files: list[NetworkFile]) -> PeopleNetworks:
        """The networks of these files, each opened when first used."""
        for file in files:
            if file.path not in self._networks:
                network = self._open.enter_context(file.open(self._device, self._threads, self._tf32, self._opener))
                self._networks[file.path] = file, network
        return PeopleNetworks.of(self._networks[file.path][1] for file in files)

    @cached_property
    def _finding(self) -> list[NetworkFile]:
        """Files of the networks that find people where no joints or boxes are given."""
        return networks_by(self.people, self.bundle, self._device)

    @cached_property
    def _pose(self) -> list[NetworkFile]:
        """File of the bundle's pose network, which finds the joints of people whose boxes are known."""
        return own_networks(self.bundle, ("pose",), self._device)

    @cached_property
    def _aligner(self) -> Aligner:
        return Aligner(self._body)

    @cached_property
    def _body(self) -> Body:
        return self._open.enter_context(self._opened_body()) if self._body_begun is None else self._body_begun()

    def _opened_body(self) -> Body:
        return open_body(self.bundle, self._threads, self._opener)


def _tracker(source: FrameSource) -> Tracker:
    return Tracker(source.fps or USUAL_FPS, source.every)


def _tracked(finder: PeopleSource) -> bool:
    """True if people already have track ids."""
    while isinstance(finder, (WithinRegion, MostPeople)):
        finder = finder.people_source
    return isinstance(finder, (BoxPeople, KeypointPeople)) and bool((finder.file.people.track_ids >= 0).any())
