"""The stage between the mesh network and the placement of people: a fit to what the picture shows, where asked for.

What fits is handed in (`fitting.picture_fitter`), as this layer knows nothing of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol

from jotr_deploy.people import People
from jotr_deploy.runtime.motion.tracking import Tracker
from jotr_deploy.runtime.ordered_stages import Recovered, with_track_ids
from jotr_deploy.runtime.sources.frame_source import Failed, Frame, apart
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.spans import Spans

AT_ONCE = 16
"""People of still pictures that are fitted together: a fit of one is mostly overhead."""
MOST_BYTES = 1 << 28
"""Pictures that wait for it, at most."""


class Fitter(Protocol):
    """Fits people to their pictures."""

    preset: str
    files_used: list[dict[str, str]]  # each with "role", "name" and "sha256"

    def __call__(self, pictures: Sequence[tuple[Array, People]], before: People | None = None) -> list[People]:
        """The people of each (H, W, 3) uint8 BGR picture after the fit, with `People.fit`.

        A descent may begin at the pose and place that a person of the same track id has in `before`.
        """
        ...

    def close(self) -> None:
        """Free the networks."""
        ...


class FittingStage:
    """Fits the people of one stream, or of one picture."""

    def __init__(
        self,
        fitter: Fitter,
        moving: bool = False,
        spans: Spans | None = None,
        block: int | None = None,
        follow: Callable[[], Tracker] | None = None,
    ) -> None:
        """`moving` is for a film, in which a descent may begin at the pose of the frame before.

        People of a film are known again by the ids they have, or by those of trackers from `follow`, one for each block
        (`FrameSource.block`); the ids in the result are those they came with.
        """
        self._fitter, self.moving, self._spans = fitter, moving, spans or Spans()
        self._block, self._follow = block, follow
        self._before: People | None = None
        self._last: int | None = None  # frame
        self._tracker: Tracker | None = None

    def __call__(self, frame: Frame, people: People) -> People:
        """The people of a frame after the fit."""
        if not self.moving:
            return self._fit([(frame, people)])[0]
        if self._last is None or apart(frame.index, self._last, self._block):
            self._before, self._tracker = None, None if self._follow is None else self._follow()
        self._last = frame.index
        known = people if self._tracker is None else with_track_ids(self._tracker, frame, people)
        (fitted,) = self._fit([(frame, known)])
        if fitted.fit is not None:
            self._before = fitted[fitted.fit.accepted]
        return replace(fitted, track_ids=people.track_ids)

    def together(self, recovered: Recovered, failed: Failed | None) -> Recovered:
        """Still pictures after the fit, in order, the people of several at once."""
        waiting: list[tuple[Frame, People]] = []
        with closing(recovered):
            while True:
                try:
                    following = next(recovered, None)
                except Exception:  # the pictures before this one are fine
                    yield from self._all(waiting, failed)
                    raise
                if following is not None and waiting and apart(following[0].index, waiting[0][0].index, self._block):
                    yield from self._all(waiting, failed)
                    waiting = []
                if following is not None:
                    waiting.append(following)
                if following is None or _enough(waiting):
                    yield from self._all(waiting, failed)
                    waiting = []
                if following is None:
                    return

    def _all(self, frames: list[tuple[Frame, People]], failed: Failed | None) -> Recovered:
        """These frames after the fit; one by one where that fails, to know which of them it is."""
        try:
            fitted = self._fit(frames)
        except Exception:
            yield from self._one_by_one(frames, failed)
        else:
            yield from zip((frame for frame, _ in frames), fitted, strict=True)

    def _one_by_one(self, frames: list[tuple[Frame, People]], failed: Failed | None) -> Recovered:
        for frame, people in frames:
            try:
                fitted = self(frame, people)
            except Exception as error:
                if failed is None:
                    raise
                failed(frame, error)
            else:
                yield frame, fitted

    def _fit(self, frames: list[tuple[Frame, People]]) -> list[People]:
        if not frames:
            return []
        with self._spans("fit", frames[0][0].index):
            return self._fitter([(frame.image_bgr, people) for frame, people in frames], self._before)


def _enough(waiting: list[tuple[Frame, People]]) -> bool:
    people = sum(len(people) for _, people in waiting)
    return people >= AT_ONCE or sum(frame.image_bgr.nbytes for frame, _ in waiting) >= MOST_BYTES
