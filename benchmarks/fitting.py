"""Cost of a fit to features: processor time, memory, repeatability, and eight people against one by one.

    python benchmarks/fitting.py BUNDLE [--threads 1]

Times are processor seconds of this process, which other programs on the machine inflate less than the wall clock.
People are the first of the held-out drawn scenes, from one start, both stages. The two cases beyond them are bodies
whose feature maps the volume itself drew, 858 kernels on 64 x 64 cells, as in a usual crop and beyond the edges of one.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.body.smpl import stand_in
from jotr_deploy.bundle import open_bundle
from jotr_deploy.calibration.derived_features import Drawn, drawn_people
from jotr_deploy.fitting.bank import Features
from jotr_deploy.fitting.bundle_fitter import BundleFitter
from jotr_deploy.fitting.fit import Bodies, fit
from jotr_deploy.fitting.fitted_people import Fits
from jotr_deploy.fitting.fitter import open_fitter
from jotr_deploy.fitting.kernel_selection import select
from jotr_deploy.fitting.kernels import decimate
from jotr_deploy.fitting.options import preset
from jotr_deploy.fitting.orientation_bins import bins_of
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.rendering import blended, slot_weights, unit
from jotr_deploy.fitting.volume import BodyVolume
from jotr_deploy.people import People
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.support.spans import Spans

PEOPLE, CELLS, KERNELS, CHANNELS = 8, 64, 858, 32
ONE_START = replace(preset("default"), mirror="none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    load = load_average()
    with open_fitter(open_bundle(given.bundle), "default", "cpu", given.threads) as fitter:
        fitter.options = ONE_START
        drawn = drawn_people(open_bundle(given.bundle), fitter, PEOPLE)
        of_bundle(fitter, drawn)
    for name, depth_m in (("as in a usual crop", 45.0), ("beyond the edges of the crop", 15.0)):
        _, seconds = timed(lambda depth_m=depth_m: fitted(depth_m))
        print(f"{PEOPLE} people, {CELLS} x {CELLS} cells, {name}: {seconds:.2f} s, peak {peak_gb():.2f} GB")
    here = environment(given.threads, False, load)
    versions = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    print(f"{here.cpu}, {here.cores} cores; Python {here.python}; {versions}; threads {given.threads}; load {load}")


def of_bundle(fitter: BundleFitter, drawn: Drawn) -> None:
    """The people of the bundle: times, stages, equality."""
    first, alone_s = timed(lambda: run(fitter, drawn, slice(0, 1)))
    spans = Spans()
    whole, together_s = timed(lambda: run(fitter, drawn, slice(None), spans))
    print(f"1 person, {fitter.cells} x {fitter.cells} cells, the first fit of the process: {alone_s:.2f} s")
    print(f"{PEOPLE} people: {together_s:.2f} s; peak {peak_gb():.2f} GB")
    wall_s = {stage: spans.total(stage) for stage in ("features", "render", "backward")}
    shares = ", ".join(f"{stage} {seconds / sum(wall_s.values()):.1%}" for stage, seconds in wall_s.items())
    print(f"stages of the {PEOPLE}, shares of their wall clock: {shares}")
    again = run(fitter, drawn, slice(None))
    print(f"equal when repeated: {np.array_equal(again.people.vertices_m, whole.people.vertices_m)}")
    single = [first, *(run(fitter, drawn, slice(index, index + 1)) for index in range(1, PEOPLE))]
    apart = np.linalg.norm(
        People.concatenate([each.people for each in single]).vertices_m - whole.people.vertices_m, axis=-1
    )
    print(f"together against one by one, largest distance of a vertex: {1000 * apart.max():.4f} mm")


def run(fitter: BundleFitter, drawn: Drawn, some: slice, spans: Spans | None = None) -> Fits:
    """The fit of some of the people."""
    crops = drawn.crops
    parts = (crops.image, crops.joints, crops.joints_mask, crops.boxes_px)
    return fitter(Crops(*(part[some] for part in parts)), drawn.people[some], drawn.inside[some], spans=spans)


def fitted(depth_m: float) -> None:
    """Fit people of the stand-in body, this far before the camera, to feature maps that they drew themselves."""
    volume = BodyVolume(stand_in(), decimate(stand_in(), KERNELS))
    draw = torch.Generator().manual_seed(0)
    waves, phase = torch.randn(3, CHANNELS, generator=draw) * 8, torch.rand(CHANNELS, generator=draw) * math.tau
    each = torch.sin(volume.template.float() @ waves + phase)[:, None] + torch.randn(3, CHANNELS, generator=draw)
    look = Features(unit(each), unit(torch.randn(1, CHANNELS, generator=draw)))
    pose = 0.25 * torch.randn(PEOPLE, 24, 3, generator=draw)
    pose[:, 0, 0] += math.pi
    place = torch.tensor([0.0, -0.25, depth_m]) + 0.05 * torch.randn(PEOPLE, 3, generator=draw)
    true = Bodies(pose, torch.zeros(PEOPLE, 10), place)
    start = Bodies(pose + 0.12 * torch.randn(pose.shape, generator=draw), true.betas, place)
    fit(seen(true, volume, look, draw), start, volume, look, ONE_START)


def seen(true: Bodies, volume: BodyVolume, look: Features, draw: torch.Generator) -> Tensor:
    """(B, C, S, S): people before clutter, with noise."""
    camera = GridCamera.of_crop(CELLS)
    posed = volume(true.pose_rad.double(), true.betas.double())
    centres = posed.centres_m + true.translation_m[:, None].double()
    found = select(centres, posed.precision, volume.lowest_precision, camera, ONE_START.reach())
    rows = look.kernels[torch.arange(KERNELS), bins_of(posed.limb_directions, 3)[:, volume.limbs]].flatten(0, 1)
    drawn = slot_weights(centres, posed.precision, found, 1.0, "peak")
    every = look.clutter.expand(PEOPLE * camera.cells, -1).clone()
    place = found.people * camera.cells + found.cells
    every[place[found.mask]] = unit(blended(drawn, rows.double(), found)).float()[found.mask]
    every = every + 0.3 * F.normalize(torch.randn(every.shape, generator=draw), dim=-1)
    return every.unflatten(0, (PEOPLE, CELLS, CELLS)).permute(0, 3, 1, 2).contiguous()


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Result, and processor seconds."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
