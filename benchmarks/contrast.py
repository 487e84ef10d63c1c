"""The contrastive losses put to the test: the same small network with none, one, or both of them, over several seeds.

Trains `configs/starter/contrast.toml` for every arm and seed, one after the other; arms of a seed start from the same
weights and see the same samples. Then all networks recover the same people of held-out scenes with true boxes and
noisy joints. What is done already is found in the folder of the runs, so a stopped call goes on where it was.

Usage: python benchmarks/contrast.py RUNS --prior runs/prior/weights.pt [--scenes 1024]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from jotr_deploy.config import ModelConfig
from jotr_deploy.evaluation.collector import Collector
from jotr_deploy.evaluation.error_statistics import MOSTLY_VISIBLE
from jotr_deploy.evaluation.held_out_scenes import held_out
from jotr_deploy.export.assemble import load_network
from jotr_deploy.export.to_bundle import torch_network
from jotr_deploy.model.jotr import JOTR, MeshOutput
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.sessions.session import Session, TensorSpec
from jotr_deploy.skeletons import JOTR15_IN_SMPL30
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.contrastive import contrast
from jotr_deploy.training.mesh_samples import SceneSamples

CONFIG = Path(__file__).parents[1] / "configs/starter/contrast.toml"
ARMS = {  # overrides of the configuration, and the seeds
    "none": (("mesh.intra=0", "mesh.inter=0"), (1, 2, 3)),
    "joint to joint": (("mesh.inter=0",), (1, 2)),
    "joint to non-joint": (("mesh.intra=0",), (1, 2)),
    "both": ((), (1, 2, 3)),
}
HELD_OUT = 5000  # seed of the scenes
BATCHES, BATCH = 8, 32  # of held-out people for the contrastive losses
METRICS = ("MPJPE", "PA-MPJPE", "PVE")


class Run(NamedTuple):
    """One training."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.replace(' ', '-')}-{self.seed}"


RUNS = [Run(arm, seed) for arm, (_, seeds) in ARMS.items() for seed in seeds]


def main() -> None:
    parser = argparse.ArgumentParser(description="The contrastive losses put to the test.")
    parser.add_argument("runs", type=Path, help="folder of the runs and of the results")
    parser.add_argument("--prior", type=Path, required=True, help="weights of configs/starter/prior.toml")
    parser.add_argument("--scenes", type=int, default=1024, help="held-out scenes")
    parser.add_argument("--no-training", action="store_true", help="the table of the runs that are finished")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    if not arguments.no_training:
        for run in sorted(RUNS, key=lambda run: run.seed):  # a seed complete before the next begins
            trained(run, arguments.runs, arguments.prior)
    finished = [run for run in RUNS if (arguments.runs / run.name / "weights.pt").exists()]
    visible, errors = measured(finished, arguments.runs, arguments.scenes)
    print_table(visible, errors)
    print_contrastive(contrastive(finished, arguments.runs))
    print(environment(1, False, load_average()))


def trained(run: Run, runs: Path, prior: Path) -> None:
    """Train a run, or train it to the end, where its weights are missing."""
    if (runs / run.name / "weights.pt").exists():
        return
    sets = [f"--set={each}" for each in (*ARMS[run.arm][0], f"seed={run.seed}", f"mesh.prior={prior}")]
    command = ["train", str(CONFIG), "-o", str(runs / run.name), "--resume", *sets]
    started = time.perf_counter()
    print("$ jotr-deploy", *command, flush=True)
    subprocess.run([sys.executable, "-m", "jotr_deploy.cli", *command], check=True, stdout=subprocess.DEVNULL)
    print(f"{time.perf_counter() - started:.0f} s", flush=True)


# ── people of held-out scenes ────────────────────────────────────────────────────────────────────────────────────


class TorchSession(Session):
    """A network in PyTorch, for `MeshNetwork`."""

    def __init__(self, path: Path, network: JOTR) -> None:
        side, float32 = network.config.crop_side, np.dtype(np.float32)
        shapes = {"image": ("N", 3, side, side), "joints": ("N", 30, 2), "joints_mask": ("N", 30)}
        self.path, self._network = path, torch_network(network)
        self.inputs = {name: TensorSpec(float32, shape) for name, shape in shapes.items()}
        self.outputs = {name: TensorSpec(float32, ("N",)) for name in MeshOutput._fields}

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        return self._network(feeds)


def network_of(run: Run, runs: Path) -> JOTR:
    return load_network(runs / run.name / "weights.pt").model.eval()


def measured(finished: list[Run], runs: Path, scenes: int) -> tuple[Array, dict[Run, Array]]:
    """Visible fractions (N,) of all people, and every run's errors (N, 3) in mm; from its file if there is one."""
    files = {run: runs / run.name / f"errors-{HELD_OUT}-{scenes}.npz" for run in finished}
    missing = [run for run in finished if not files[run].exists()]
    if missing:
        collector = Collector([MeshNetwork(TorchSession(runs / run.name, network_of(run, runs))) for run in missing])
        for index in range(scenes):
            scene = held_out(HELD_OUT, index, ModelConfig().crop_factor)
            collector.add(scene.image_bgr, scene.given[scene.counted], scene.truth[scene.counted])
        for run, one in zip(missing, collector.finish(), strict=True):
            samples = one.samples
            errors = np.stack([samples.joints_mm.mean(1), samples.aligned_mm.mean(1), samples.vertices_mm], 1)
            np.savez(files[run], errors=errors, visible=samples.visible_fraction)
    stored = {run: np.load(path) for run, path in files.items()}
    return stored[finished[0]]["visible"], {run: each["errors"] for run, each in stored.items()}


def print_table(visible: Array, errors: Mapping[Run, Array]) -> None:
    """Means of every run and of its differences from `none` of the same seed; then those of the arms."""
    mostly = visible >= MOSTLY_VISIBLE
    chosen = {"all": np.ones_like(mostly), "mostly visible": mostly, "occluded": ~mostly}
    heads = [f"{name} ({people.sum()})" for name, people in chosen.items()]
    print(f"\n{' / '.join(METRICS)}, mm".ljust(29), *(f"{head:>28s}" for head in heads))
    means = {run: [errors[run][people].mean(0) for people in chosen.values()] for run in errors}
    print_rows(means, "8.1f")
    bases = {run: Run("none", run.seed) for run in errors if run.arm != "none"}
    gaps = {run: errors[run] - errors[base] for run, base in bases.items() if base in errors}
    if not gaps:
        return
    print("\nminus none of the same seed")
    print_rows({run: [gap[people].mean(0) for people in chosen.values()] for run, gap in gaps.items()}, "+8.1f")
    noise = [np.mean([gap[p].std(0) / p.sum() ** 0.5 for gap in gaps.values()], 0) for p in chosen.values()]
    print("standard error over people".ljust(30), *(_cell(each, "8.1f") for each in noise))


def print_rows(values: Mapping[Run, list[Array]], form: str) -> None:
    """Every run; then of each arm the mean over its seeds, and half of their range."""
    for run, cells in values.items():
        print(f"{run.arm}, seed {run.seed}".ljust(30), *(_cell(each, form) for each in cells))
    for arm in dict.fromkeys(run.arm for run in values):
        seeds = np.array([cells for run, cells in values.items() if run.arm == arm])  # (S, columns, metrics)
        if len(seeds) > 1:
            print(f"{arm}, mean of {len(seeds)}".ljust(30), *(_cell(each, form) for each in seeds.mean(0)))
            print("  half of their range".ljust(30), *(_cell(each, "8.1f") for each in np.ptp(seeds, 0) / 2))


def _cell(values: Array, form: str) -> str:
    return " /".join(f"{value:{form}}" for value in values)


# ── the losses themselves on people not trained on ───────────────────────────────────────────────────────────────


def contrastive(finished: list[Run], runs: Path) -> dict[Run, Array]:
    """Joint to joint and joint to non-joint (2,) of every run's network, on held-out people as in training."""
    networks = {run: network_of(run, runs) for run in finished}
    config = next(iter(networks.values())).config
    samples = SceneSamples(HELD_OUT, config.crop_side, config.crop_factor, drop_joints=0.0)
    losses: dict[Run, list[Array]] = {run: [] for run in finished}
    for number in range(BATCHES):
        drawn = samples(range(number * BATCH, (number + 1) * BATCH))
        batch = {name: torch.from_numpy(values) for name, values in drawn.items()}
        for run, network in networks.items():
            losses[run].append(losses_of(network, batch, np.random.default_rng(number)))
    return {run: np.mean(values, 0) for run, values in losses.items()}


def losses_of(network: JOTR, batch: Mapping[str, torch.Tensor], rng: np.random.Generator) -> Array:
    true, known = (batch[name][:, list(JOTR15_IN_SMPL30)] for name in ("joints_img", "joints_known"))
    with torch.inference_mode():
        features = network.features(batch["image"].float() / 255, batch["joints"], batch["joints_mask"])
        volume = network.lifting(features)
        found = network.read(features, volume).joints_img
        return torch.stack(contrast(rng, volume, found, true, known)).numpy()


def print_contrastive(losses: Mapping[Run, Array]) -> None:
    print("\ncontrastive losses on people not trained on: joint to joint, joint to non-joint")
    for run, (intra, inter) in losses.items():
        print(f"{run.arm}, seed {run.seed}".ljust(30), f"{intra:8.2f} {inter:8.2f}")


if __name__ == "__main__":
    main()
