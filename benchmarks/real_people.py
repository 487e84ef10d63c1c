"""People found by the fetched networks: in videos and pictures, against joint files, and in drawn scenes with truth.

    jotr-deploy fetch people
    python benchmarks/real_people.py clip.mp4 group.jpg --joints clip.mp4 package.json --scenes 48 --seed 31337

A joint file is one that `jotr-deploy run --keypoints` reads: annotated by hand, or written by another program such as
the package that the networks come from. Everybody in it is compared with the nearest person found; a person found near
nobody in the file counts as false, so the file must be complete. Videos are tracked frame by frame; `--stills`
treats every frame as a separate picture. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.config import ModelConfig
from jotr_deploy.evaluation.held_out_scenes import HeldOut, held_out
from jotr_deploy.geometry.crop import VALID_CONFIDENCE
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.blazepose.landmarks import BlazeLandmarks
from jotr_deploy.runtime.finding.blazepose.person_detector import BlazeDetector
from jotr_deploy.runtime.finding.blazepose.source import BlazePose, BlazePosePeople
from jotr_deploy.runtime.finding.fetched_networks import fetched_people
from jotr_deploy.runtime.finding.people_source import KeypointPeople
from jotr_deploy.runtime.joint_files.keypoint_file import read_keypoints
from jotr_deploy.runtime.motion.tracking import Tracker
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.skeletons import MEASURED_IN_SMPL30
from jotr_deploy.support.aliases import Array

MEASURED = list(MEASURED_IN_SMPL30)
CROP_FACTOR = ModelConfig().crop_factor
NEAR = 0.15
"""Limit of a match: median distance of the joints of one person, as a share of the longer side of their box."""
LEAST_VISIBLE, WHOLE = 0.5, 0.9
"""Visible share of a drawn person who should be found, and of one not partly occluded or outside the picture."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure who is found in films, pictures and drawn scenes.")
    parser.add_argument("sources", nargs="*", type=Path, metavar="FILM_OR_PICTURE")
    parser.add_argument("--joints", nargs=2, action="append", default=[], metavar=("SOURCE", "JOINTS"))
    parser.add_argument("--every", type=int, default=1, help="compare with the joints on one frame in so many")
    parser.add_argument("--stills", action="store_true", help="take the frames of films as pictures")
    parser.add_argument("--scenes", type=int, default=0, help="how many scenes to draw")
    parser.add_argument("--seed", type=int, action="append", help="of the scenes, from 1000 on; several may be given")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, help="write the numbers as well")
    arguments = parser.parse_args()
    where = environment(arguments.threads, False, load_average())
    print(f"{where}\n")
    fetched = fetched_people()
    if fetched is None:
        parser.error("the networks have not been fetched; get them with: jotr-deploy fetch people")
    joints = {Path(source): Path(file) for source, file in arguments.joints}
    sources = list(dict.fromkeys([*arguments.sources, *joints]))
    with (
        open_session(fetched.detector, device="cpu", threads=arguments.threads) as detector,
        open_session(fetched.landmarks, device="cpu", threads=arguments.threads) as landmarks,
    ):
        networks = BlazePose(BlazeDetector(detector), BlazeLandmarks(landmarks))
        seen = [watched(networks, path, joints.get(path), arguments.every, arguments.stills) for path in sources]
        print_seen(seen)
        drawn = [drawn_people(networks, seed, arguments.scenes) for seed in arguments.seed or [31337]]
        print_drawn([each for each in drawn if each.pictures])
    if arguments.json:
        numbers = {"environment": asdict(where), "sources": [each.summary for each in seen]}
        numbers["drawn"] = [asdict(each) for each in drawn if each.pictures]
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")


@dataclass
class Seen:
    """People found in a film or a picture."""

    name: str
    people: list[int] = field(default_factory=list)  # of each frame
    ids: Counter[int] = field(default_factory=Counter)  # frames of each
    times_ms: list[float] = field(default_factory=list)
    false: int | None = None  # found, but near nobody in the joint file
    missed: int | None = None
    apart_percent: list[Array] = field(default_factory=list)  # joints from those of the file

    @property
    def summary(self) -> dict[str, Any]:
        """Figures for a table, or a file."""
        apart = np.concatenate([np.zeros(0), *self.apart_percent])
        return {
            "name": self.name,
            "frames": len(self.people),
            "frames_by_people": {str(people): count for people, count in sorted(Counter(self.people).items())},
            "frames_by_id": {str(track): count for track, count in sorted(self.ids.items())},
            "ms_per_frame": {"mean": float(np.mean(self.times_ms)), "median": float(np.median(self.times_ms))},
            "false": self.false,
            "missed": self.missed,
            "joints_percent": [float(np.percentile(apart, share)) for share in (50, 90)] if len(apart) else None,
        }


def watched(networks: BlazePose, path: Path, joints: Path | None, every: int, stills: bool) -> Seen:
    """People found in one source; with a joint file also their distance from it."""
    seen = Seen(path.name)
    with open_source(path) as source:
        moving = source.kind == "video"
        known = None if joints is None else KeypointPeople(read_keypoints(joints), source, crop_factor=CROP_FACTOR)
        finder, tracker = (
            BlazePosePeople(networks, film=moving and not stills, crop_factor=CROP_FACTOR),
            Tracker(source.fps or 1),
        )
        for frame in source:
            start_s = time.perf_counter()
            people = finder(frame.image_bgr, frame.name, frame.index)
            seen.times_ms.append(1000 * (time.perf_counter() - start_s))
            seen.people.append(len(people))
            if moving and not stills:
                seen.ids.update(tracker(people, frame.index, frame.time_s).track_ids.tolist())
            if known is not None and frame.index % every == 0:
                compare(seen, people, known(frame.image_bgr, frame.name, frame.index))
    return seen


def compare(seen: Seen, people: Detections, known: Detections) -> None:
    """Compare people of a frame with those of a file: joints known in both, in % of the side of the crop."""
    sides_px = np.maximum(known.boxes_px[:, 2] - known.boxes_px[:, 0], 1)
    there = known.keypoints_px[:, MEASURED, 2] > VALID_CONFIDENCE
    pairs = nearest(people.keypoints_px[:, MEASURED, :2], known.keypoints_px[:, MEASURED, :2], there, sides_px)
    seen.false = (seen.false or 0) + len(people) - len(pairs)
    seen.missed = (seen.missed or 0) + len(known) - len(pairs)
    for found, one in pairs:
        apart_px = people.keypoints_px[found, MEASURED, :2] - known.keypoints_px[one, MEASURED, :2]
        side_px = people.boxes_px[found, 2] - people.boxes_px[found, 0]
        seen.apart_percent.append(100 * np.linalg.norm(apart_px, axis=-1)[there[one]] / side_px)


def nearest(found_px: Array, known_px: Array, there: Array, sides_px: Array) -> list[tuple[int, int]]:
    """Match people (N, J, 2) with people (M, J, 2), each once, nearest first, by joints that are `there` (M, J)."""
    apart = np.full((len(found_px), len(known_px)), np.inf)
    for one in np.flatnonzero(there.any(1)):
        joints = np.linalg.norm(found_px[:, there[one]] - known_px[one, there[one]], axis=-1)
        apart[:, one] = np.median(joints, axis=-1) / sides_px[one]
    pairs = []
    while apart.size and apart.min() < NEAR:
        row, column = np.unravel_index(apart.argmin(), apart.shape)
        pairs.append((int(row), int(column)))
        apart[row], apart[:, column] = np.inf, np.inf
    return pairs


@dataclass
class Drawn:
    """People found in drawn scenes of a seed."""

    seed: int
    pictures: int = 0
    people: int = 0  # at least half visible and 64 px tall
    found: int = 0
    partly: int = 0  # of them, partly behind another, a thing or the edge
    partly_found: int = 0
    false: int = 0  # found where there is nobody, not even small or hidden

    @property
    def line(self) -> str:
        """Row of the table."""
        shares = ((self.found, self.people), (self.partly_found, self.partly))
        words = " | ".join(f"{found} of {all_}, {100 * found / max(all_, 1):.1f} %" for found, all_ in shares)
        return f"| {self.seed} | {self.pictures} | {words} | {self.false / self.pictures:.2f} |"


def drawn_people(networks: BlazePose, seed: int, scenes: int) -> Drawn:
    """People found in drawn scenes."""
    drawn, finder = Drawn(seed), BlazePosePeople(networks, crop_factor=CROP_FACTOR)
    for index, scene in enumerate(_scenes(seed, scenes)):
        people = finder(scene.image_bgr, f"{seed}-{index}", index)
        seen = scene.truth.joints_visible[:, MEASURED]
        sides_px = (scene.boxes_px[:, 2:] - scene.boxes_px[:, :2]).max(1)
        pairs = nearest(people.keypoints_px[:, MEASURED, :2], scene.joints_px[:, MEASURED], seen, sides_px)
        there = np.isin(np.arange(len(scene.boxes_px)), [one for _, one in pairs])
        asked = scene.tall & (scene.truth.visible_fraction >= LEAST_VISIBLE)
        partly = asked & (scene.truth.visible_fraction < WHOLE)
        drawn.pictures += 1
        drawn.people, drawn.found = drawn.people + int(asked.sum()), drawn.found + int((asked & there).sum())
        drawn.partly += int(partly.sum())
        drawn.partly_found += int((partly & there).sum())
        drawn.false += len(people) - len(pairs)
    return drawn


def _scenes(seed: int, count: int) -> Iterator[HeldOut]:
    return (held_out(seed, index, CROP_FACTOR) for index in range(count))


def print_seen(seen: list[Seen]) -> None:
    """Print the table of videos and pictures."""
    if not seen:
        return
    print("| source | frames by people | frames by id | false | missed | joints apart, % median / p90 | ms a frame |")
    print("|---|---|---|---|---|---|---|")
    for each in (one.summary for one in seen):
        people, ids = (
            ", ".join(f"{what}: {count}" for what, count in each[name].items()) or "-"
            for name in ("frames_by_people", "frames_by_id")
        )
        false, missed = ("-" if each[name] is None else each[name] for name in ("false", "missed"))
        apart = (
            "-" if each["joints_percent"] is None else " / ".join(f"{share:.2f}" for share in each["joints_percent"])
        )
        taken = f"{each['ms_per_frame']['mean']:.1f} (median {each['ms_per_frame']['median']:.1f})"
        print(f"| {each['name']} | {people} | {ids} | {false} | {missed} | {apart} | {taken} |")
    print("\nJoints: those of COCO-17, % of the side of the crop. Time: detection and pose.\n")


def print_drawn(drawn: list[Drawn]) -> None:
    """Print the table of drawn scenes."""
    if not drawn:
        return
    print("| seed | pictures | found | partly hidden ones found | false a picture |\n|---|---|---|---|---|")
    for each in drawn:
        print(each.line)
    print(
        f"\nPeople at least {LEAST_VISIBLE:.0%} visible and 64 px tall; partly hidden: less than {WHOLE:.0%} visible."
    )


if __name__ == "__main__":
    main()
