"""People that a bundle's own networks find where there is nobody: in drawn outdoor pictures, and in films.

    jotr-deploy fetch people
    python benchmarks/false_people.py clip.mp4 --pictures 128 --seed 1000

Drawn pictures have exact truth; half of them are empty. In films the people found by BlazePose, which must have been
fetched, are the truth; one found twice counts as false once. A film that BlazePose misses somebody in misleads this.
Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jotr_deploy.bundle import open_bundle
from jotr_deploy.datasets.synthetic.places import Places
from jotr_deploy.evaluation.end_to_end import HALF_VISIBLE, open_people
from jotr_deploy.evaluation.held_out_scenes import LEAST_HEIGHT_PX
from jotr_deploy.evaluation.matching import clipped, match
from jotr_deploy.runtime.finding.blazepose.landmarks import BlazeLandmarks
from jotr_deploy.runtime.finding.blazepose.person_detector import BlazeDetector
from jotr_deploy.runtime.finding.blazepose.source import BlazePose, BlazePosePeople
from jotr_deploy.runtime.finding.fetched_networks import fetched_people
from jotr_deploy.runtime.finding.people_source import Finder
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.detector_samples import draw_picture


@dataclass
class Tally:
    """Counts over pictures."""

    name: str
    pictures: int = 0
    people: int = 0  # that should be found
    found: int = 0
    false: int = 0

    def add(self, found_px: Array, scores: Array, true_px: Array, wanted: Array) -> None:
        """Count boxes (N, 4) found in a picture with true ones (M, 4), of which the `wanted` (M,) should be found."""
        pairs = match(found_px, scores, true_px)
        self.pictures += 1
        self.people += int(wanted.sum())
        self.found += int(wanted[pairs[:, 1]].sum())
        self.false += len(found_px) - len(pairs)

    def __str__(self) -> str:
        share = f"{self.found} of {self.people}, {self.found / self.people:.1%}" if self.people else "-"
        return f"| {self.name} | {self.pictures} | {share} | {self.false / max(self.pictures, 1):.2f} |"


def drawn(finder: Finder, seed: int, pictures: int) -> Iterator[Tally]:
    """Outdoor pictures, with people and without."""
    for name, empty in (("drawn outdoors", 0.0), ("drawn outdoors, nobody there", 1.0)):
        tally = Tally(name)
        for number in range(pictures):
            drawing = draw_picture(seed, number, Places(outdoors=1.0, empty=empty))
            people, boxes_px = finder.find(drawing.image_bgr)
            true_px = drawing.boxes_px
            seen_px = np.bincount(drawing.person[drawing.person >= 0], minlength=len(true_px))
            tall = true_px[:, 3] - true_px[:, 1] >= LEAST_HEIGHT_PX
            wanted = tall & (seen_px >= HALF_VISIBLE * drawing.silhouette_px)
            tally.add(boxes_px, people.scores, clipped(true_px, drawing.image_bgr), wanted)
        yield tally


def filmed(finder: Finder, film: Path, crop_factor: float) -> Tally:
    """Film, compared with what BlazePose finds; crop boxes with crop boxes."""
    fetched, tally = fetched_people(), Tally(film.name)
    assert fetched is not None
    with open_session(fetched.detector, device="cpu") as one, open_session(fetched.landmarks, device="cpu") as two:
        known = BlazePosePeople(BlazePose(BlazeDetector(one), BlazeLandmarks(two)), film=True, crop_factor=crop_factor)
        with open_source(film) as source:
            for frame in source:
                true = known(frame.image_bgr, frame.name, frame.index)
                people = finder(frame.image_bgr, frame.name, frame.index)
                tally.add(people.boxes_px, people.scores, true.boxes_px, np.ones(len(true), np.bool_))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description="Count people found where there is nobody.")
    parser.add_argument("films", nargs="*", type=Path)
    parser.add_argument("--bundle", default="starter")
    parser.add_argument("--pictures", type=int, default=0, help="how many outdoor pictures to draw, and as many empty")
    parser.add_argument("--seed", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.films and fetched_people() is None:
        parser.error("the networks have not been fetched; get them with: jotr-deploy fetch people")
    bundle = open_bundle(Path(arguments.bundle))
    print("| pictures | number | people found | false a picture |\n|---|---|---|---|")
    with open_people(bundle, device="cpu") as finder:
        for tally in drawn(finder, arguments.seed, arguments.pictures) if arguments.pictures else ():
            print(tally, flush=True)
        for film in arguments.films:
            print(filmed(finder, film, bundle.manifest.model.crop_factor), flush=True)


if __name__ == "__main__":
    main()
