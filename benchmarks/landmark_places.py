"""BlazePose's joints on drawn people: their distance from those of the body, before and after they are moved.

    jotr-deploy fetch people
    python benchmarks/landmark_places.py --people 3000 --seed 779

"as marked" are the landmarks of the network, "as given" the joints that the mesh network gets (docs/joints.md), "in
training" those with the head enlarged as well (`training.found_joints`). Visible joints of people whom both passes
agree on, in millimetres at the depth of the person. Prints Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from jotr_deploy.config import ModelConfig
from jotr_deploy.datasets.joint_errors import COCO17_IN_SMPL30
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.runtime.finding.blazepose.source import SKELETON
from jotr_deploy.skeletons import SKELETONS, to_smpl30
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.found_joints import BlazeJoints, as_coco17
from jotr_deploy.training.mesh_samples import MARGIN, draw_person

NAMES = SKELETONS["coco17"]
AS_MARKED = [SKELETONS[SKELETON].index(name) for name in NAMES]
JOINTS = tuple(dict.fromkeys(name.split("_")[-1] for name in NAMES))  # both sides together
WIDE = 0.1  # share of scenes with wide poses, as in training


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure where BlazePose sees the joints of drawn people.")
    parser.add_argument("--people", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=779)
    arguments = parser.parse_args()
    print(f"{environment(1, False, load_average())}\n")
    finder = Recorder(BlazeJoints())
    side = round(ModelConfig().crop_side * MARGIN)
    rows = []
    for number in range(arguments.people):
        finder.seen = None
        person = draw_person(arguments.seed, number, side, ModelConfig().crop_factor, (finder,), WIDE)
        if finder.seen is not None:
            visible = (person.visible & person.inside)[COCO17_IN_SMPL30]
            apart = finder.seen - person.joints_px[COCO17_IN_SMPL30]
            apart_mm = 1000 * np.linalg.norm(apart, axis=-1) / px_per_m(person.joints_px, person.joints_m)
            rows.append(np.where(visible, apart_mm, np.nan))
    print(f"{len(rows)} of {arguments.people} people are found; median and 90th percentile, mm\n")
    print("| joint | as marked | as given | in training |\n|---|---|---|---|")
    apart_mm = np.stack(rows)
    for joint in JOINTS:
        these = apart_mm[..., [index for index, name in enumerate(NAMES) if name.split("_")[-1] == joint]]
        cells = [" / ".join(f"{np.nanpercentile(these[:, kind], q):.0f}" for q in (50, 90)) for kind in range(3)]
        print(f"| {joint} | {' | '.join(cells)} |")


@dataclass
class Recorder:
    """BlazePose as a `Pose` that keeps what it saw last."""

    finder: BlazeJoints
    seen: Array | None = None  # (3, 17, 2) pixels: as marked, as given, in training

    def __call__(self, image_bgr: Array, box_px: Array) -> Array:
        first, second = self.finder.passes(image_bgr, box_px)
        found = as_coco17(first, second, box_px)
        if found.any():
            marked = first.mean(second).joints
            given = to_smpl30(marked, SKELETON)[0, COCO17_IN_SMPL30]
            self.seen = np.stack([marked[0, AS_MARKED, :2], given[:, :2], found[:, :2]])
            self.seen[:, found[:, 2] == 0] = np.nan
        return found


def px_per_m(joints_px: Array, joints_m: Array) -> float:
    """Scale that maps the joints (30, 3) of a body best onto those of a picture (30, 2), by least squares."""
    flat, seen = (each - each.mean(0) for each in (joints_m[:, :2], joints_px))
    return float((flat * seen).sum() / (flat * flat).sum())


if __name__ == "__main__":
    main()
