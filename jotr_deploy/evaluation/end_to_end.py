"""Evaluation from pixels alone: recall, precision, and errors of the people found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from jotr_deploy.bundle import Bundle
from jotr_deploy.errors import BundleError
from jotr_deploy.evaluation.collector import Collector
from jotr_deploy.evaluation.error_statistics import Errors, Figures, rounded
from jotr_deploy.evaluation.evaluation_result import Found, PixelResult
from jotr_deploy.evaluation.fit_stage import FitStage
from jotr_deploy.evaluation.held_out_scenes import HeldOut
from jotr_deploy.evaluation.matching import clipped, match
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.geometry.boxes import widened
from jotr_deploy.geometry.crop import JOINTS_MARGIN
from jotr_deploy.runtime.finding.people_networks import PeopleNetworks, networks_by
from jotr_deploy.runtime.finding.people_source import DetectedPeople, Finder, found_by
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.choices import PixelsBy

HALF_VISIBLE = 0.5
"""Visible share from which a person counts for recall."""


@contextmanager
def open_people(
    bundle: Bundle,
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
    people: PixelsBy = "detector",
) -> Iterator[Finder]:
    """Open the networks that find people in whole pictures: the bundle's own, or BlazePose's.

    Raises:
        BundleError: the bundle lacks one of them, BlazePose was never fetched, or a file is not intact.
        SessionError: a file cannot be opened here, or is of an unknown format.
    """
    with ExitStack() as stack:
        files = networks_by(people, bundle, device)
        networks = PeopleNetworks.of([stack.enter_context(file.open(device, threads, tf32)) for file in files])
        missing = "detector" if networks.detector is None else "pose network" if networks.skeleton is None else None
        if networks.detector is None or missing is not None:
            raise BundleError(
                f"{bundle.path}: the bundle has no {missing}, so nobody is measured from pixels alone",
                "leave --pixels out, or put one in: jotr-deploy add BUNDLE --detector FILE --pose FILE",
            )
        yield found_by(networks, crop_factor=bundle.manifest.model.crop_factor)


class FromPixels:
    """Collector that detects the people of every scene, matches them with the truth, and keeps those who count."""

    def __init__(self, source: Finder, network: MeshNetwork, fit: FitStage | None = None) -> None:
        self._source = source
        self._collector = Collector([network], fit=fit)
        self._detector, self._people = _Counted(), _Counted()
        self._found: list[Array] = []  # places in the list of all counted people

    def add(self, scene: HeldOut, counted_before: int) -> None:
        """Process a scene; `counted_before` people counted in the scenes before it."""
        if isinstance(self._source, DetectedPeople):  # BlazePose's detector alone gives no boxes of people
            self._detector.add(scene, *self._source.detector(scene.image_bgr))
        people, boxes_px = self._source.find(scene.image_bgr)
        if not isinstance(self._source, DetectedPeople):  # boxes around joints, which end inside the silhouette
            boxes_px = clipped(widened(boxes_px, JOINTS_MARGIN), scene.image_bgr)
        found, true = self._people.add(scene, boxes_px, people.scores)
        counts = scene.counted[true]
        self._collector.add(scene.image_bgr, people[found[counts]], scene.truth[true[counts]])
        self._found.append(counted_before + (np.cumsum(scene.counted) - 1)[true[counts]])

    def result(self, by_true_boxes: Samples) -> PixelResult:
        """Result over all scenes; `by_true_boxes` contains every counted person, in order."""
        (measured,) = self._collector.finish()
        return self._result(measured.samples, by_true_boxes)

    def before_fit(self, by_true_boxes: Samples) -> PixelResult | None:
        """The same figures of the network's own output, where a fit follows it."""
        (measured,) = self._collector.finish()
        return self._result(measured.before_fit.samples, by_true_boxes) if measured.before_fit else None

    def _result(self, samples: Samples, by_true_boxes: Samples) -> PixelResult:
        return PixelResult(
            detector=self._detector.found() if isinstance(self._source, DetectedPeople) else None,
            people=self._people.found(),
            errors=Errors.of(samples),
            same_people=Figures.of(by_true_boxes[np.concatenate([np.zeros(0, np.int64), *self._found])]),
        )


class _Counted:
    """Counts of boxes matched with true people, over all scenes."""

    def __init__(self) -> None:
        self._wanted = self._found_of_wanted = self._detections = self._right = 0

    def add(self, scene: HeldOut, boxes_px: Array, scores: Array) -> tuple[Array, Array]:
        """Count the boxes (N, 4) of a scene; returns their matches, as `match` does."""
        found, true = match(boxes_px, scores, clipped(scene.boxes_px, scene.image_bgr)).T
        wanted = scene.tall & (scene.truth.visible_fraction >= HALF_VISIBLE)
        self._wanted += int(wanted.sum())
        self._found_of_wanted += int(wanted[true].sum())
        self._detections += len(boxes_px)
        self._right += len(found)
        return found, true

    def found(self) -> Found:
        """Recall and precision over all scenes."""
        return Found(
            wanted=self._wanted,
            found_of_wanted=self._found_of_wanted,
            recall=_share(self._found_of_wanted, self._wanted),
            detections=self._detections,
            right=self._right,
            precision=_share(self._right, self._detections),
        )


def _share(part: int, whole: int) -> float | None:
    return rounded(part / whole) if whole else None
