"""Cost of int8 before and after quantisation-aware training: two bundles on the same people.

    python benchmarks/qat.py BUNDLE_BEFORE BUNDLE_AFTER ... [--scenes 256] [--seed 1000]

Every fp32 and int8 file is compared with the truth, with the fp32 file of the first bundle, and with its own.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from jotr_deploy.bundle import open_bundle
from jotr_deploy.engines.derived_files import MESH
from jotr_deploy.evaluation import held_out_scenes
from jotr_deploy.evaluation.collector import Collector
from jotr_deploy.evaluation.drift import file_drift
from jotr_deploy.evaluation.evaluation_result import FileDrift
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.evaluation.workers import in_order
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.precisions import Precision

FILES = (MESH, Precision.INT8.file())


def measured(bundles: list[Path], seed: int, scenes: int) -> dict[tuple[Path, str], Samples]:
    """Predictions of every file for all people of the held-out scenes."""
    keys = [(bundle, name) for bundle in bundles for name in FILES]
    with ExitStack() as stack:
        paths = [open_bundle(bundle).file("mesh", name) for bundle, name in keys]
        networks = [MeshNetwork(stack.enter_context(open_session(path, "onnxruntime", "cpu"))) for path in paths]
        collector = Collector(networks)
        factor = open_bundle(bundles[0]).manifest.model.crop_factor
        held_out = partial(held_out_scenes.held_out, seed, crop_factor=factor)
        for scene in stack.enter_context(in_order(held_out, scenes, 1)):
            chosen = np.flatnonzero(scene.counted)
            collector.add(scene.image_bgr, scene.given[chosen], scene.truth[chosen])
        return dict(zip(keys, (each.samples for each in collector.finish()), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--scenes", type=int, default=256)
    parser.add_argument("--seed", type=int, default=held_out_scenes.SEED)
    arguments = parser.parse_args()
    print(environment(None, False, load_average()))
    found = measured(arguments.bundles, arguments.seed, arguments.scenes)
    first = found[arguments.bundles[0], MESH]
    print(f"{len(first)} people of {arguments.scenes} scenes of seed {arguments.seed}; millimetres")
    print(
        f"{'file':32} {'MPJPE':>7} {'change':>7} {'95 % interval':>16} {'from the first fp32':>20} {'from its own':>13}"
    )
    for (bundle, name), samples in found.items():

        def against(reference: Samples, own: Samples = samples, name: str = name) -> FileDrift:
            return file_drift(name, "", "cpu", own, reference, arguments.seed)

        row, own = against(first), against(found[bundle, MESH])
        low, high = row.interval_mm or (np.nan, np.nan)
        print(f"{bundle / name!s:32} {samples.joints_mm.mean():7.2f} {row.mpjpe_change_mm:+7.2f} "
              f"{low:+7.2f} .. {high:+5.2f} {row.mean_mm:20.2f} {own.mean_mm:13.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
