"""The stages of a stream that need its frames in order: tracking, placing and aligning, smoothing.

What comes before them depends on no frame beyond the current block (`FrameSource.block`), so that parts of a film can
be recovered apart, and pass these stages together afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from jotr_deploy.people import People
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.motion.smoothing import Smoother
from jotr_deploy.runtime.motion.tracking import Tracker
from jotr_deploy.runtime.sources.frame_source import Failed, Frame
from jotr_deploy.support.spans import Spans

Known = TypeVar("Known")
Found = TypeVar("Found")
Finish = Callable[[Frame, People], People]
Recovered = Generator[tuple[Frame, People], None, None]


class OrderedStages:
    """These stages for one stream, each of which may be absent."""

    def __init__(
        self, tracker: Tracker | None, finish: Finish | None, smoother: Smoother | None, spans: Spans | None = None
    ) -> None:
        """`finish` is `runtime.motion.scene_placement.Standing`; all keep the state of one stream."""
        self._tracker, self._finish, self._smoother, self._spans = tracker, finish, smoother, spans or Spans()

    def __call__(self, recovered: Recovered, failed: Failed | None = None) -> Recovered:
        """The frames of a stream after these stages, in order; `failed` as for `Pipeline.stream`."""
        if self._tracker is not None:
            recovered = each(self._tracked, recovered, failed)
        if self._finish is not None:
            recovered = each(self._finish, recovered, failed)
        return recovered if self._smoother is None else self._smoothed(self._smoother, recovered)

    def _tracked(self, frame: Frame, people: People) -> People:
        assert self._tracker is not None
        with self._spans("track", frame.index):
            return with_track_ids(self._tracker, frame, people)

    def _smoothed(self, smoother: Smoother, recovered: Recovered) -> Recovered:
        with closing(recovered):
            for frame, people in recovered:
                with self._spans("smooth", frame.index):
                    ready = smoother.push(frame, people)
                yield from ready
        yield from smoother.flush()


def with_track_ids(tracker: Tracker, frame: Frame, people: People) -> People:
    """The people of the next frame with the ids that a tracker gives them."""
    seen = Detections(people.boxes_px, people.keypoints_px, people.scores, people.track_ids)
    return replace(people, track_ids=tracker(seen, frame.index, frame.time_s).track_ids)


def each(
    stage: Callable[[Frame, Known], Found], frames: Iterator[tuple[Frame, Known]], failed: Failed | None
) -> Generator[tuple[Frame, Found], None, None]:
    """Apply a stage to every frame; closing the result closes `frames`."""
    try:
        for frame, known in frames:
            try:
                found = stage(frame, known)
            except Exception as error:
                if failed is None:
                    raise
                failed(frame, error)
                continue
            yield frame, found
    finally:
        if isinstance(frames, Generator):
            frames.close()
