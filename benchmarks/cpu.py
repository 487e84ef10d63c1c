"""Speed of a bundle's files against PyTorch eager on the CPU: ratios of interleaved samples in one process.

python benchmarks/cpu.py BUNDLE --rounds 30
python benchmarks/cpu.py BUNDLE --by-hand CHECKPOINT        # that the bundle was exported from, or `stand-in`

With --by-hand the same network also runs as plain export, and quantised by NNCF (if it is installed) and by ONNX
Runtime's quantiser, in OpenVINO with static shapes and the rest in bfloat16. Their drift, and that of the bundle's
files, is the mean root-relative distance of 30 joints from its own fp32 form, on crops not used for calibration.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import by_hand
import numpy as np
from by_hand import Call

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.calibration.calibration_crops import CropSet, synthetic_crops
from jotr_deploy.evaluation.metrics import mpjpe_mm
from jotr_deploy.export.assemble import load_network, load_stand_in
from jotr_deploy.profiling.bench_result import timings
from jotr_deploy.profiling.eager import EAGER
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.interleave import collect, timed, warm_up
from jotr_deploy.profiling.networks import Network, open_networks
from jotr_deploy.profiling.quiet_samples import Judge
from jotr_deploy.profiling.timed_picture import open_scene

BATCHES = (1, 8)
CROPS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--by-hand", type=Path)
    arguments = parser.parse_args()
    bundle, load, judge = open_bundle(arguments.bundle), load_average(), Judge()
    drift: dict[str, float] = {}
    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(None, None, bundle.manifest.model))
        networks = stack.enter_context(open_networks(bundle, "cpu", arguments.threads)).networks
        calls: dict[int, dict[str, Call]] = {batch: {n.name: n.call for n in networks} for batch in BATCHES}
        if arguments.by_hand is not None:
            crops = synthetic_crops(CROPS, bundle.manifest.model)
            drift |= drift_of_files(networks, crops)
            for name, by_batch, mm in made_by_hand(bundle, arguments.by_hand, crops, arguments.threads):
                drift[name] = mm
                for batch, call in by_batch.items():
                    calls[batch][name] = call
        groups = {
            str(batch): [timed((name, batch), partial(call, scene.batch(batch))) for name, call in named.items()]
            for batch, named in calls.items()
        }
        warm_up(groups, math.inf, silent)
        collect(groups, dict.fromkeys(groups, arguments.rounds), judge, "measuring", silent)
    print(environment(arguments.threads, False, load))
    print(
        "batch  network                        p10 ms   p50 ms   p10 vs eager   p50 vs eager   kept  dropped  drift mm"
    )
    for batch, jobs in groups.items():
        found = timings(jobs, arguments.rounds, judge)
        eager = found[EAGER, int(batch)]
        for (name, _), timing in found.items():
            p10, p50 = eager.p10_ms / timing.p10_ms, eager.p50_ms / timing.p50_ms
            dropped, apart = "busy" if timing.busy else timing.dropped, drift.get(str(name))
            print(
                f"{batch:>5}  {name:<28} {timing.p10_ms:8.1f}  {timing.p50_ms:7.1f}  {p10:12.2f}x  {p50:12.2f}x"
                f"  {timing.kept:5}  {dropped:>7}  {'' if apart is None else f'{apart:8.2f}'}"
            )


def drift_of_files(networks: tuple[Network, ...], crops: CropSet) -> dict[str, float]:
    """Drift of every file of the bundle from the first, mm."""
    files = [network for network in networks if network.name != EAGER]
    joints = {network.name: joints_of(network.call, crops) for network in files}
    reference = joints[files[0].name]
    return {name: float(mpjpe_mm(found, reference).mean()) for name, found in joints.items()}


def made_by_hand(
    bundle: Bundle, checkpoint: Path, crops: CropSet, threads: int | None
) -> Iterator[tuple[str, dict[int, Call], float]]:
    """Networks made by hand: name, calls by batch, drift in mm."""
    import openvino

    stand_in = str(checkpoint) == "stand-in"
    loaded = load_stand_in(bundle.manifest.model) if stand_in else load_network(checkpoint, Path("stand-in"))
    used, _ = crops.split()
    with tempfile.TemporaryDirectory() as directory:
        plain, quantized = Path(directory) / "plain.onnx", Path(directory) / "quantized.onnx"
        by_hand.plain_export(loaded.model, plain)
        float_model = openvino.Core().read_model(plain)
        reference = joints_of(by_hand.openvino_call(float_model, 8, "f32", threads), crops)
        batches = crops.batches(used)
        made = {
            "by hand: bf16": float_model,
            "by hand: NNCF, bf16": by_hand.by_nncf(plain, batches),
            "by hand: quantize_static, bf16": by_hand.by_quantize_static(plain, quantized, batches),
        }
        for name, model in made.items():
            if model is not None:
                calls = {batch: by_hand.openvino_call(model, batch, "bf16", threads) for batch in BATCHES}
                yield name, calls, float(mpjpe_mm(joints_of(calls[8], crops), reference).mean())


def joints_of(call: Call, crops: CropSet) -> np.ndarray:
    """Joints (N, 30, 3) of the crops not used for calibration, in whole batches of 8."""
    _, held = crops.split()
    return np.concatenate([call(feeds)["joints3d"] for feeds in crops.batches(held) if len(feeds["image"]) == 8])


def silent(step: str, done: int, total: int) -> None:
    """Progress callback that shows nothing."""


if __name__ == "__main__":
    main()
