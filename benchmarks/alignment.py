"""Effect of alignment and of the picture's camera, on videos with joints and on drawn scenes with ground truth.

    python benchmarks/alignment.py --film clip.mp4 joints.json --film other.mp4 other.json --seed 1791 --scenes 128

The joints of a video are a file for `jotr-deploy run --keypoints`, from any pose network: `run --save-2d` writes its
own, `NAME_2d.npz`. (`--coco` writes the joints of the meshes.) Drawn scenes use an unused seed (from 1000 on), with
the joints of `jotr-deploy eval` and, comparable to a real pose network, with errors of 0.7 % of the crop's side.
OMP_NUM_THREADS=1 limits it to one thread. Prints Markdown.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from jotr_deploy.api import load
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.datasets.synthetic.scene_crops import picture
from jotr_deploy.evaluation.held_out_scenes import HeldOut, held_out
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.scene_frame import before_camera
from jotr_deploy.people import People
from jotr_deploy.runtime.body_session import open_body
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.loaded_model import Model
from jotr_deploy.runtime.motion.alignment.aligner import Aligner
from jotr_deploy.skeletons import MEASURED_IN_SMPL30, to_smpl30
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.processor import processor

MEASURED = list(MEASURED_IN_SMPL30)
CONFIDENT = 0.5
GOOD, HIDDEN_FACTOR, HIDDEN_CONFIDENCE, NOT_FOUND = 0.007, 3.0, 0.35, 0.03
DISTANCES_M = ((0, 2.5), (2.5, 3.5), (3.5, 5), (5, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure alignment and the camera of a picture.")
    parser.add_argument("--bundle", type=Path, default=Path("starter"))
    parser.add_argument("--film", nargs=2, action="append", default=[], metavar=("FILM", "JOINTS"))
    parser.add_argument("--seed", type=int, default=1791)
    parser.add_argument("--scenes", type=int, default=128, help="0 leaves the drawn scenes out")
    arguments = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "onnxruntime"))
    load_1 = f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
    print(f"Machine: {processor()[0]}, shared, one thread{load_1}; Python {platform.python_version()}, {versions}.\n")
    if arguments.film:
        films(arguments.bundle, arguments.film)
    with (
        load(arguments.bundle, threads=1, camera="published", align=False) as model,
        open_body(model.bundle, 1) as body,
    ):
        aligner = Aligner(body)
        if arguments.scenes:
            drawn(model, aligner, arguments.seed, arguments.scenes)
        times(model, aligner)


def films(bundle: Path, given: list[list[str]]) -> None:
    """Distance of the mesh's joints from those given, and jitter, over videos."""
    print(
        "| film | meshes | aligned | before, median / p90 | after | jitter before | after |\n"
        "|---|---|---|---|---|---|---|"
    )
    both: list[list[Array]] = [[], []]
    for film, joints in given:
        runs = []
        for align in (False, True):
            with load(bundle, threads=1, align=align) as model:
                runs.append([(frame.index, people) for frame, people in model.stream(film, keypoints=joints)])
        gaps = [np.concatenate([gaps_percent(people) for _, people in run]) for run in runs]
        for all_gaps, own in zip(both, gaps, strict=True):
            all_gaps.append(own)
        meshes, moved = (
            sum(values) for values in zip(*((len(p), int(p.aligned.sum())) for _, p in runs[1]), strict=True)
        )
        shaking = [jitter_mm(run) for run in runs]
        print(
            f"| {Path(film).name} | {meshes} | {moved} | {spread(gaps[0])} | {spread(gaps[1])} "
            f"| {shaking[0]:.1f} mm | {shaking[1]:.1f} mm, {100 * (shaking[1] / shaking[0] - 1):+.1f} % |"
        )
    before, after = (spread(np.concatenate(gaps)) for gaps in both)
    print(f"| all | | | {before} | {after} | | |\n")
    print(f"Joints of confidence {CONFIDENT} or more, % of the crop's side; midpoints left out. Jitter: mean length of")
    print("the second difference of the 30 joints, relative to the pelvis. Camera: guessed.\n")


def gaps_percent(people: People) -> Array:
    """Distances of confident measured joints, in % of the side of the crop."""
    seen_px = project_px(people.joints_camera_m, people.focal_px, people.principal_px)[:, MEASURED]
    given = people.keypoints_px[:, MEASURED]
    side_px = (people.boxes_px[:, 2] - people.boxes_px[:, 0])[:, None]
    gaps = 100 * np.linalg.norm(seen_px - given[..., :2], axis=-1) / side_px
    return np.asarray(gaps[given[..., 2] >= CONFIDENT])


def jitter_mm(run: list[tuple[int, People]]) -> float:
    """Jitter over every three consecutive frames of a track."""
    seen = {
        (int(track), frame): people.joints_m[k] for frame, people in run for k, track in enumerate(people.track_ids)
    }
    second = [
        seen[track, frame - 1] - 2 * joints + seen[track, frame + 1]
        for (track, frame), joints in seen.items()
        if (track, frame - 1) in seen and (track, frame + 1) in seen
    ]
    return float(1000 * np.linalg.norm(second, axis=-1).mean())


def drawn(model: Model, aligner: Aligner, seed: int, scenes: int) -> None:
    """Errors against the truth, without and with alignment, and positions in the true camera."""
    kinds = ("eval's, 1.95 %", "0.7 %")
    samples: dict[tuple[str, bool], list[Samples]] = {(kind, align): [] for kind in kinds for align in (False, True)}
    placed: dict[str, list[Placed]] = {kind: [] for kind in kinds}
    for scene, focal_px, principal_px, place_m, joints in _scenes(model, seed, scenes):
        counted = np.flatnonzero(scene.counted)
        for kind, given in zip(kinds, joints, strict=True):
            people = recovered(model, scene.image_bgr, given[counted])
            for align, each in ((False, people), (True, aligner(people))):
                samples[kind, align].append(Samples.of(each, scene.truth[counted]))
            placed[kind].append(Placed.of(people, aligner, focal_px, principal_px, place_m[counted]))
    print(f"Drawn scenes: seed {seed}, {scenes} scenes, the counted people of `jotr-deploy eval`.\n")
    print(
        "| joints | people | MPJPE | PA-MPJPE | PVE | aligned: MPJPE | PA-MPJPE | PVE |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for kind in kinds:
        before, after = (Samples.concatenate(samples[kind, align]) for align in (False, True))
        errors = " | ".join(" | ".join(f"{value:.1f}" for value in _errors_mm(each)) for each in (before, after))
        print(f"| {kind} | {len(before)} | {errors} |")
    print("\nThe same people before the true camera of the scene:\n")
    print(
        "| joints | aligned | depth error, median / p90 | order in depth, pairs > 0.5 m apart | pairs |\n"
        "|---|---|---|---|---|"
    )
    for kind in kinds:
        for align in (False, True):
            errors_percent = np.concatenate([each.depth_error_percent(align) for each in placed[kind]])
            right = np.concatenate([each.order(align) for each in placed[kind]])
            start = f"| {kind} | {'yes' if align else 'no'} | {spread(errors_percent)}"
            print(f"{start} | {100 * right.mean():.1f} % | {len(right)} |")
    moved, depth_m = (
        np.concatenate([getattr(each, name) for each in placed[kinds[0]]]) for name in ("moved_percent", "true_m")
    )
    print(
        "\nMean vertex distance in the picture from `--camera published`, neither aligned, % of the crop's side: ",
        end="",
    )
    print(f"{moved.mean():.2f} (p90 {np.percentile(moved, 90):.2f}, most {moved.max():.2f}). By distance:\n")
    print("| depth, m | people | mean | p90 |\n|---|---|---|---|")
    for low, high in DISTANCES_M:
        inside = moved[(depth_m >= low) & (depth_m < high)]
        if len(inside):
            print(f"| {low:g} to {high:g} | {len(inside)} | {inside.mean():.2f} | {np.percentile(inside, 90):.2f} |")
    print()


class Placed:
    """People of a scene in its true camera, as recovered and aligned."""

    def __init__(self, true_m: Array, found_m: tuple[Array, Array], moved_percent: Array) -> None:
        self.true_m, self._found_m, self.moved_percent = true_m, found_m, moved_percent

    @classmethod
    def of(cls, people: People, aligner: Aligner, focal_px: float, principal_px: Array, place_m: Array) -> Placed:
        standing = before_camera(people, focal_px, principal_px)
        seen_px = [project_px(each.vertices_camera_m, each.focal_px, each.principal_px) for each in (people, standing)]
        side_px = people.boxes_px[:, 2] - people.boxes_px[:, 0]
        moved = 100 * np.linalg.norm(seen_px[0] - seen_px[1], axis=-1).mean(1) / side_px
        depths_m = standing.translation_m[:, 2], aligner(standing).translation_m[:, 2]
        return cls(place_m[:, 2], depths_m, moved)

    def depth_error_percent(self, align: bool) -> Array:
        return np.asarray(100 * np.abs(self._found_m[align] - self.true_m) / self.true_m)

    def order(self, align: bool) -> Array:
        """True for each pair more than half a metre apart in depth whose order is recovered."""
        one, other = np.triu_indices(len(self.true_m), 1)
        true_m, found_m = (depth[one] - depth[other] for depth in (self.true_m, self._found_m[align]))
        return np.asarray((true_m * found_m > 0)[np.abs(true_m) > 0.5])


def _scenes(
    model: Model, seed: int, count: int
) -> Iterator[tuple[HeldOut, float, Array, Array, tuple[Detections, Detections]]]:
    for index in range(count):
        scene = held_out(seed, index, model.bundle.manifest.model.crop_factor)
        _, known = picture(draw_scene(seed, index))
        focal_px, principal_px = float(np.ravel(known.focal_px)[0]), np.ravel(known.principal_px)[:2]
        yield scene, focal_px, principal_px, known.joints_m[:, 0], (scene.given, good_joints(scene, seed, index))


def good_joints(scene: HeldOut, seed: int, index: int) -> Detections:
    """People of a scene with joints about as good as those of a real pose network."""
    boxes_px = scene.given.boxes_px
    joints = np.zeros((len(boxes_px), len(MEASURED), 3), np.float32)
    size_px = scene.image_bgr.shape[1::-1]
    for person, side_px in enumerate(boxes_px[:, 2] - boxes_px[:, 0]):
        rng = np.random.default_rng([seed, index, person, 7])
        seen, true_px = scene.truth.joints_visible[person, MEASURED], scene.joints_px[person, MEASURED]
        error_px = rng.normal(0, GOOD * side_px, true_px.shape) * np.where(seen, 1, HIDDEN_FACTOR)[:, None]
        there = (rng.random(len(MEASURED)) >= NOT_FOUND) & ((true_px >= 0) & (true_px < size_px)).all(-1)
        joints[person, there, :2] = (true_px + error_px)[there]
        joints[person, there, 2] = np.where(seen, 1, HIDDEN_CONFIDENCE)[there]
    return replace(scene.given, keypoints_px=to_smpl30(joints, "coco17"))


def recovered(model: Model, image_bgr: Array, people: Detections) -> People:
    return model.mesh(make_crops(image_bgr, people, model.mesh.crop_side), people)


def times(model: Model, aligner: Aligner) -> None:
    """Milliseconds a frame for alignment, including recomputed meshes."""
    scene, _, _, _, (_, given) = next(_scenes(model, 1000, 1))
    one = recovered(model, scene.image_bgr, given[np.flatnonzero(scene.counted)[:1]])
    print(
        "| people in the frame | alignment, ms a frame, median (best) of 100 | of the processor, mean |\n|---|---|---|"
    )
    for count in (1, 8):
        people = People.concatenate([one] * count)
        taken_ms, start_cpu_s = [], time.process_time()
        for _ in range(100):
            start_s = time.perf_counter()
            aligner(people)
            taken_ms.append(1000 * (time.perf_counter() - start_s))
        cpu_ms = 1000 * (time.process_time() - start_cpu_s) / len(taken_ms)
        print(f"| {count} | {np.median(taken_ms):.2f} ({min(taken_ms):.2f}) | {cpu_ms:.2f} |")


def spread(values: Array) -> str:
    return " / ".join(f"{value:.2f}" for value in np.percentile(values, (50, 90)))


def _errors_mm(samples: Samples) -> tuple[float, float, float]:
    return float(samples.joints_mm.mean()), float(samples.aligned_mm.mean()), float(samples.vertices_mm.mean())


if __name__ == "__main__":
    main()
