"""Ablations of the fit at miniature size: what its features are trained with and what the fit is given, one at a time.

Features are trained with `configs/starter/features.toml`, shortened as `SHORTENED` says, for every variant and seed.
Then the starter's people on held-out scenes, clean and with a patch at each of a few places, are fitted to them. What
is done already is found in the folder of the runs, so a stopped call goes on where it was.

Usage: python benchmarks/fitting_ablations.py RUNS [--people 10]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jotr_deploy.bundle import Bundle, open_bundle, to_write
from jotr_deploy.evaluation.attack import Attack
from jotr_deploy.evaluation.held_out_scenes import held_out
from jotr_deploy.evaluation.patches import patch_grid
from jotr_deploy.evaluation.textures import drawn_textures
from jotr_deploy.export.features import add_features
from jotr_deploy.fitting.bundle_fitter import BundleFitter
from jotr_deploy.fitting.fitter import cells_inside, open_fitter
from jotr_deploy.fitting.options import FitOptions, Weights, preset
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.aliases import Array

ROOT = Path(__file__).parents[1]
CONFIG, STARTER = ROOT / "configs/starter/features.toml", ROOT / "jotr_deploy/starter"
SHORTENED = ("steps=1500", "features.hold=1500", "features.network.side=128", "features.kernels=300", "warmup=50")
SEEDS, HELD_OUT = (1, 2), 3000
SIZE, STRIDE = 80, 72  # of the patches, of a crop of 224: nine places
TERMS = ("joints", "features")


@dataclass(frozen=True)
class Row:
    """One row of the table: how features are trained, and how they are fitted to."""

    name: str
    trained: tuple[str, ...] = ()  # overrides of the configuration
    options: dict[str, object] = field(default_factory=dict)  # of the preset `default`
    terms: tuple[str, ...] = ("features",)


ROWS = (
    Row("three orientation bins"),
    Row("one orientation bin", ("features.bins=1",)),
    Row("trained without patches", ("features.patches=0",)),
    Row("fit without the clutter model (masked)", options={"objective": "masked"}),
    Row("joints alone", terms=("joints",)),
    Row("features and joints", terms=("features", "joints")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Ablations of the fit at miniature size.")
    parser.add_argument("runs", type=Path, help="folder of the runs and of the results")
    parser.add_argument("--people", type=int, default=10)
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    for row in ROWS:
        for seed in SEEDS:
            trained(row.trained, seed, arguments.runs)
    print_table([measured(row, seed, arguments.runs, arguments.people) for row in ROWS for seed in SEEDS])


def measured(row: Row, seed: int, runs: Path, people: int) -> dict[str, object]:
    """Result of one row and seed, from its file if there is one."""
    slug = "".join(letter if letter.isalnum() else "-" for letter in row.name)
    result = runs / f"{slug}-{seed}-{people}.json"
    if not result.exists():
        weights = trained(row.trained, seed, runs)
        with tempfile.TemporaryDirectory() as folder:
            found = errors(with_features(weights, Path(folder) / "bundle"), options_of(row), people)
        result.write_text(json.dumps({"row": row.name, "seed": seed, **found}))
    read: dict[str, object] = json.loads(result.read_text())
    return read


def trained(overrides: tuple[str, ...], seed: int, runs: Path) -> Path:
    """Weights of a run; trained, or trained to the end, where they are missing."""
    run = runs / "-".join(["features", *(text.replace("=", "") for text in overrides), str(seed)])
    if not (run / "weights.pt").exists():
        sets = [f"--set={each}" for each in (*SHORTENED, f"seed={seed}", *overrides)]
        command = ["train", str(CONFIG), "-o", str(run), "--resume", *sets]
        started = time.perf_counter()
        print("$ jotr-deploy", *command, flush=True)
        subprocess.run([sys.executable, "-m", "jotr_deploy.cli", *command], check=True, stdout=subprocess.DEVNULL)
        print(f"{time.perf_counter() - started:.0f} s", flush=True)
    return run / "weights.pt"


def with_features(weights: Path, path: Path) -> Bundle:
    """The starter bundle with these features."""
    with to_write(STARTER, path) as bundle:
        add_features(bundle, weights, halved=True)
    return open_bundle(path)


def options_of(row: Row) -> FitOptions:
    """Options of the fit in a row; joints have their published weight, and every start is fitted."""
    default = replace(preset("default"), least_agreement=-1.0)
    given = {term: getattr(Weights(), term) * (term in row.terms) for term in TERMS}
    return replace(default, **row.options, weights=replace(default.weights, **given))  # type: ignore[arg-type]


class Fitted:
    """A network in the sense of `attack`: the mesh network, then the fit; `size_px` is that of the picture."""

    def __init__(self, mesh: MeshNetwork, fitter: BundleFitter) -> None:
        self.mesh, self.fitter, self.size_px, self.accepted = mesh, fitter, (1, 1), 0

    def __call__(self, crops: Crops, given: Detections) -> People:
        inside = cells_inside(crops.boxes_px, self.size_px, self.fitter.cells)
        fits = self.fitter(crops, self.mesh(crops, given), inside)
        self.accepted += int(fits.accepted.sum())
        return fits.people


def errors(bundle: Bundle, options: FitOptions, people: int) -> dict[str, object]:
    """Mean errors of start and fit, each (MPJPE, PA-MPJPE) in mm: clean, at all places, at the worst place of each."""
    mesh = MeshNetwork(open_session(bundle.file("mesh"), device="cpu", threads=1))
    with open_fitter(bundle, "default", "cpu", threads=1) as fitter:
        fitter.options = options
        fitted, side = Fitted(mesh, fitter), fitter.side
        if side != mesh.crop_side:
            raise SystemExit(
                f"the extractor sees {side} px and the mesh network {mesh.crop_side}: train with that side"
            )
        attack = Attack(
            [mesh, fitted], side, [patch_grid(SIZE, STRIDE, side)], drawn_textures(HELD_OUT, side), HELD_OUT
        )
        for picture, given, truth, joints_px in somebody(bundle, people):
            fitted.size_px = (picture.shape[1], picture.shape[0])
            attack.add(picture, given, truth, joints_px, [""] * len(given))
        start, fit = attack.finish()
    found: dict[str, object] = {"accepted": fitted.accepted / (people * attack.crops_each)}
    for name, one in (("start", start), ("fit", fit)):
        places = one.patched_mm[0][..., :2]
        found[name] = [
            np.nanmean(each, axis=tuple(range(each.ndim - 1))).tolist()
            for each in (one.clean_mm[:, :2], places, np.nanmax(places, axis=1))
        ]
    return found


def somebody(bundle: Bundle, people: int) -> Iterator[tuple[Array, Detections, object, Array]]:
    """Held-out pictures with their people, until there are enough."""
    index = 0
    while people > 0:
        scene = held_out(HELD_OUT, index, bundle.manifest.model.crop_factor)
        chosen = np.flatnonzero(scene.counted)[:people]
        yield scene.image_bgr, scene.given[chosen], scene.truth[chosen], scene.joints_px[chosen]
        people, index = people - len(chosen), index + 1


def print_table(results: list[dict[str, object]]) -> None:
    """The table, every seed after the other; the start stands above."""
    columns = ("clean", "all places", "worst place of each")
    print("MPJPE / PA-MPJPE, mm".ljust(46), *(f"{name:>20s}" for name in columns), " accepted")
    print("start".ljust(46), *_cells(results[0]["start"]))
    for one in results:
        print(f"{one['row']}, seed {one['seed']}".ljust(46), *_cells(one["fit"]), f"{one['accepted']:8.2f}")


def _cells(pairs: object) -> Iterator[str]:
    return (f"{a:12.1f} /{b:6.1f}" for a, b in pairs)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
