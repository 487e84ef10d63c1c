"""From image to `People`: find people, cut crops, recover meshes; for one picture or a stream of them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Cropper, make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.people_source import PeopleSource
from jotr_deploy.runtime.fitting_stage import FittingStage
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.motion.smoothing import Smoother
from jotr_deploy.runtime.motion.tracking import Tracker
from jotr_deploy.runtime.ordered_stages import Finish, OrderedStages, each
from jotr_deploy.runtime.prefetch import ahead
from jotr_deploy.runtime.sources.frame_source import Failed, Frame, FrameSource
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.spans import Spans


class Pipeline:
    """The stages, called in turn; each can be used alone.

    >>> factor = bundle.manifest.model.crop_factor
    >>> with open_session(bundle.file("mesh")) as session, open_source("photo.jpg") as source:
    ...     joints = open_people_source(source, keypoints=Path("photo.json"), crop_factor=factor)
    ...     pipeline = Pipeline(MeshNetwork(session), joints)
    ...     for frame, people in pipeline.stream(source):
    ...         print(frame.name, len(people))  # doctest: +SKIP
    """

    def __init__(
        self,
        mesh: MeshNetwork,
        people_source: PeopleSource,
        spans: Spans | None = None,
        crop: Cropper = make_crops,
        finish: Finish | None = None,
        fit: FittingStage | None = None,
    ) -> None:
        """`fit` and then `finish` are the stages after the network; see `runtime.motion.scene_placement`."""
        self.mesh, self.people_source = mesh, people_source
        self.spans, self.crop, self.finish, self.fit = spans or Spans(), crop, finish, fit

    def __call__(self, image_bgr: Array, name: str = "", frame: int = 0, path: Path | bytes | None = None) -> People:
        """Recover every person in a (H, W, 3) uint8 image; name and number only matter for files of joints or boxes."""
        taken = Frame(frame, name, image_bgr, path=path)
        people = self._recover(taken, self.people_source(image_bgr, name, frame))
        return self._finish(taken, people if self.fit is None else self.fit(taken, people))

    def stream(
        self,
        source: FrameSource,
        overlap: bool = False,
        failed: Failed | None = None,
        tracker: Tracker | None = None,
        smoother: Smoother | None = None,
    ) -> Generator[tuple[Frame, People], None, None]:
        """Every frame of a source with its people, in order.

        Args:
            source: of the frames.
            overlap: reading, finding people and recovering meshes run in a thread each, on different frames, while the
                caller uses earlier ones. The results are bit-identical.
            failed: called with a frame that raised, which is then left out; without it the error is raised.
            tracker: numbers the people of this stream; use a new one for every stream, as it keeps state.
            smoother: likewise, for smoothing.
        """
        recovered = self.recovered(source, overlap, failed)
        stages = OrderedStages(tracker, self.finish, smoother, self.spans)
        whole = stages(recovered, failed)
        if overlap:
            whole = ahead(whole, "mesh")
        with closing(whole):
            yield from whole

    def recovered(
        self, source: FrameSource, overlap: bool = False, failed: Failed | None = None
    ) -> Generator[tuple[Frame, People], None, None]:
        """`stream` without the stages that need all frames in order, see `OrderedStages`: people without ids."""

        def find(frame: Frame, _: None) -> Detections:
            return self.people_source(frame.image_bgr, frame.name, frame.index)

        frames: Iterator[tuple[Frame, None]] = self._read(source)
        if overlap and source.kind != "stream":  # a stream has a thread of its own, and only its newest frame counts
            frames = ahead(frames, "decode")
        found = each(find, frames, failed)
        if overlap:
            found = ahead(found, "people")
        recovered = each(self._recover, found, failed)
        if self.fit is not None:
            in_turn = self.fit.moving  # each frame may begin where the one before has ended
            recovered = each(self.fit, recovered, failed) if in_turn else self.fit.together(recovered, failed)
        return recovered

    def _read(self, source: FrameSource) -> Generator[tuple[Frame, None], None, None]:
        frames = iter(source)
        while True:
            start_s = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            if source.kind != "stream":  # there it would measure waiting
                self.spans.record("decode", frame.index, start_s)
            yield frame, None

    def _recover(self, frame: Frame, people: Detections) -> People:
        with self.spans("crop", frame.index):
            crops = self.crop(frame.image_bgr, people, self.mesh.crop_side)
        with self.spans("network", frame.index):
            return self.mesh(crops, people)

    def _finish(self, frame: Frame, people: People) -> People:
        return people if self.finish is None else self.finish(frame, people)
