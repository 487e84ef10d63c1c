"""Distance of the joints of raw meshes, projected, from the joints that the mesh network was given, on real films.

    jotr-deploy fetch people
    jotr-deploy run starter clip.mp4 --save-2d -o found
    python benchmarks/projected_joints.py --film clip.mp4 found/clip_2d.npz --bundle starter

The joints are found once and kept as a joint file; any file that `jotr-deploy run --keypoints` reads will do, such as
one placed by hand. Nothing is aligned. Prints Markdown: for every joint the distance in % of the side of the crop, and
its mean offset to the person's left and downwards, which tells a bias from a spread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from jotr_deploy.api import load
from jotr_deploy.geometry.camera import project_px
from jotr_deploy.people import People
from jotr_deploy.skeletons import MEASURED_IN_SMPL30, SMPL30, SMPL30_INDEX
from jotr_deploy.support.aliases import Array

MEASURED = list(MEASURED_IN_SMPL30)
CONFIDENT = 0.5
"""Least confidence of the joints that count; midpoints are left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the projected joints of raw meshes with those given.")
    parser.add_argument("--bundle", type=Path, default=Path("starter"))
    parser.add_argument("--film", nargs=2, action="append", required=True, metavar=("FILM", "JOINTS"))
    arguments = parser.parse_args()
    every = []
    print("| film | meshes | median / p90 | mean of the medians of the joints |\n|---|---|---|---|")
    with load(arguments.bundle, threads=1, align=False) as model:
        for film, joints in arguments.film:
            seen = [offsets_percent(people) for people in people_of(model.stream(film, keypoints=joints))]
            every += seen
            print(f"| {Path(film).name} | {sum(map(len, seen))} | {spread(np.concatenate(seen))} |")
    offsets = np.concatenate(every)
    print(f"| all | {len(offsets)} | {spread(offsets)} |\n")
    print("| joint | number | median / p90 | to their left | down |\n|---|---|---|---|---|")
    for column, joint in enumerate(MEASURED):
        known = offsets[:, column][~np.isnan(offsets[:, column, 0])]
        if len(known):
            gaps = np.percentile(np.linalg.norm(known, axis=-1), (50, 90))
            left, down = np.median(known, axis=0)
            print(f"| {SMPL30[joint]} | {len(known)} | {gaps[0]:.2f} / {gaps[1]:.2f} | {left:+.2f} | {down:+.2f} |")
    print(f"\nJoints of confidence {CONFIDENT} or more, % of the side of the crop. Camera: guessed. No alignment.")


def people_of(frames: object) -> list[People]:
    return [people for _, people in frames if len(people)]  # type: ignore[attr-defined]


def offsets_percent(people: People) -> Array:
    """(P, 17, 2) offsets of the mesh's joints from those given, to the person's left and down; NaN where unsure."""
    seen_px = project_px(people.joints_camera_m, people.focal_px, people.principal_px)[:, MEASURED]
    given = people.keypoints_px[:, MEASURED]
    side_px = (people.boxes_px[:, 2] - people.boxes_px[:, 0])[:, None, None]
    offsets = 100 * (seen_px - given[..., :2]) / side_px
    offsets[given[..., 2] < CONFIDENT] = np.nan
    hips = people.joints_camera_m[:, [SMPL30_INDEX["L_Hip"], SMPL30_INDEX["R_Hip"]], 0]
    offsets[..., 0] *= np.sign(hips[:, :1] - hips[:, 1:])
    return np.asarray(offsets)


def spread(offsets: Array) -> str:
    """Median and p90 over all joints, and the mean over joints of the median of each."""
    gaps = np.linalg.norm(offsets, axis=-1)
    each = np.nanmedian(gaps, axis=0)
    return f"{np.nanpercentile(gaps, 50):.2f} / {np.nanpercentile(gaps, 90):.2f} | {np.nanmean(each):.2f}"


if __name__ == "__main__":
    main()
