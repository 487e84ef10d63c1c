"""The fit of a bundle as a stage of the pipeline: whole pictures and their people in, people out.

Like `fitting.fitter`, this module itself needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jotr_deploy.bundle import Bundle
from jotr_deploy.fitting.fitter import cells_inside, open_fitter
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops, make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.sources.frame_source import size_of
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.choices import FitChoice

if TYPE_CHECKING:
    from jotr_deploy.fitting.fit import Bodies

Told = Callable[[int, int, int], None]
"""Called with the people of a fit, the steps done, and all of them."""


class PictureFitter:
    """Fits the people of pictures; `runtime.fitting_stage.Fitter` describes the call."""

    def __init__(
        self,
        bundle: Bundle,
        chosen: FitChoice,
        device: str = "auto",
        threads: int | None = None,
        told: Told = lambda people, done, total: None,
    ) -> None:
        """Open the files of a fit; arguments and errors are those of `fitting.fitter.open_fitter`."""
        self.preset, self._told = chosen.preset, told
        self._fitter = open_fitter(bundle, chosen.preset, device, threads, vposer=chosen.vposer)
        self.files_used = self._fitter.files_used

    def __call__(self, pictures: Sequence[tuple[Array, People]], before: People | None = None) -> list[People]:
        """The people of each picture after the fit."""
        people = People.concatenate([each for _, each in pictures])
        crops, inside = _joined([self._cut(image, each) for image, each in pictures])
        known = None if before is None else self._known(people, before)

        def told(done: int, total: int) -> None:
            self._told(len(people), done, total)

        fits = self._fitter(crops, people, inside, known, told)
        ends = np.cumsum([len(each) for _, each in pictures])
        fitted = fits.recorded()
        return [fitted[end - len(each) : end] for end, (_, each) in zip(ends.tolist(), pictures, strict=True)]

    def _known(self, people: People, before: People) -> Bodies:
        """Pose and place of each of the people in the frame before, NaN of those who were not there."""
        place = {track: k for k, track in enumerate(before.track_ids.tolist()) if track >= 0}
        found = np.array([place.get(track, -1) for track in people.track_ids.tolist()], np.int64)
        pose, translation = np.full((len(people), 24, 3), np.nan), np.full((len(people), 3), np.nan)
        pose[found >= 0] = before.pose_rad[found[found >= 0]]
        translation[found >= 0] = before.translation_m[found[found >= 0]]
        return self._fitter.bodies_of(pose, people.betas, translation)

    def close(self) -> None:
        """Free the extractor."""
        self._fitter.close()

    def _cut(self, image_bgr: Array, people: People) -> tuple[Crops, Array]:
        """The mesh network's crops at the extractor's resolution, and the cells of them that lie in the picture."""
        found = Detections(people.boxes_px, people.keypoints_px, people.scores, people.track_ids)
        inside = cells_inside(people.boxes_px, size_of(image_bgr), self._fitter.cells)
        return make_crops(image_bgr, found, self._fitter.side), inside


def _joined(parts: Sequence[tuple[Crops, Array]]) -> tuple[Crops, Array]:
    fields = ("image", "joints", "joints_mask", "boxes_px")
    crops = Crops(*(np.concatenate([np.asarray(getattr(each, name)) for each, _ in parts]) for name in fields))
    return crops, np.concatenate([inside for _, inside in parts])
