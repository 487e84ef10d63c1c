"""Speed of a bundle's files against PyTorch eager on the CPU: ratios of interleaved samples in one process.

python benchmarks/cpu.py BUNDLE --rounds 30
python benchmarks/cpu.py BUNDLE --by-hand CHECKPOINT        # that the bundle was exported from, or `stand-in`
python benchmarks/cpu.py BUNDLE --by-hand stand-in --trained STARTER STARTER_CHECKPOINT

With --by-hand the same network also runs as plain export in ONNX Runtime and OpenVINO, compiled by PyTorch, and
quantised by NNCF (if it is installed) and by ONNX Runtime's quantiser, in OpenVINO with static shapes and the rest in
bfloat16. The last lines compare the fastest of the bundle's files with the fastest made by hand, in float32 and among
those whose drift is within the limit.

Drift is the mean root-relative distance of 30 joints from a network's own fp32 form, on crops not used for
calibration. Random weights amplify errors, so --trained measures it on another, trained network: a bundle with the
same files, and the checkpoint that it was exported from, taken through the same steps by hand.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from by_hand import ByHand, Call, every_way

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.calibration.calibration_crops import BATCH, CropSet, synthetic_crops
from jotr_deploy.evaluation.metrics import mpjpe_mm
from jotr_deploy.export.assemble import load_network, load_stand_in
from jotr_deploy.profiling.bench_result import Timing, timings
from jotr_deploy.profiling.eager import EAGER
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.interleave import collect, timed, warm_up
from jotr_deploy.profiling.networks import Network, open_networks
from jotr_deploy.profiling.quiet_samples import Judge
from jotr_deploy.profiling.timed_picture import open_scene

BATCHES = (1, 8)
CROPS = 128
DRIFT_LIMIT_MM = 4.0


def main() -> None:
    arguments = parsed()
    bundle, load, judge = open_bundle(arguments.bundle), load_average(), Judge()
    drift: dict[str, float] = {}
    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(None, None, bundle.manifest.model))
        networks = stack.enter_context(open_networks(bundle, "cpu", arguments.threads)).networks
        precisions = {network.name: network.precision for network in networks}
        calls: dict[int, dict[str, Call]] = {batch: {n.name: n.call for n in networks} for batch in BATCHES}
        if arguments.by_hand is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            crops = synthetic_crops(CROPS, bundle.manifest.model)
            by_hand = made_by_hand(bundle, arguments.by_hand, crops, folder, arguments.threads, arguments.leave_out)
            for way in by_hand:
                precisions[way.name] = way.precision
                for batch, call in way.calls.items():
                    calls[batch][way.name] = call
            if arguments.trained is None:
                drift = drifts(networks, by_hand, crops)
            else:
                drift = drifts_of_trained(*arguments.trained, arguments.threads)
        groups = {
            str(batch): [timed((name, batch), partial(call, scene.batch(batch))) for name, call in named.items()]
            for batch, named in calls.items()
        }
        warm_up(groups, math.inf, silent)
        print("measuring", file=sys.stderr, flush=True)
        collect(groups, dict.fromkeys(groups, arguments.rounds), judge, "measuring", silent)
    print(environment(arguments.threads, False, load))
    print(f"load average while measuring: {load_average()}")
    found = {int(batch): timings(jobs, arguments.rounds, judge) for batch, jobs in groups.items()}
    by_batch = {batch: {str(key[0]): timing for key, timing in each.items()} for batch, each in found.items()}
    print_table(by_batch, drift)
    if arguments.by_hand is not None:
        for batch, each in by_batch.items():
            compare(f"batch {batch}, fp32", {name: t for name, t in each.items() if precisions[name] == "fp32"})
            unknown = {name: 0.0 if precisions[name] == "fp32" else math.inf for name in each}  # eager has no drift
            near = {name: t for name, t in each.items() if drift.get(name, unknown[name]) <= DRIFT_LIMIT_MM}
            compare(f"batch {batch}, drift within {DRIFT_LIMIT_MM:g} mm", near)


def parsed() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--by-hand", metavar="CHECKPOINT", type=Path)
    parser.add_argument("--leave-out", metavar="WAY", action="append", default=[], help="such as NNCF, which is slow")
    parser.add_argument("--trained", metavar=("BUNDLE", "CHECKPOINT"), type=Path, nargs=2)
    return parser.parse_args()


def print_table(by_batch: Mapping[int, Mapping[str, Timing]], drift: Mapping[str, float]) -> None:
    """Print a row for every network and batch size."""
    print(
        "batch  network                        p10 ms   p50 ms   p10 vs eager   p50 vs eager   kept  dropped  drift mm"
    )
    for batch, named in by_batch.items():
        eager = named[EAGER]
        for name, timing in named.items():
            p10, p50 = eager.p10_ms / timing.p10_ms, eager.p50_ms / timing.p50_ms
            dropped, apart = "busy" if timing.busy else timing.dropped, drift.get(name)
            print(
                f"{batch:>5}  {name:<30} {timing.p10_ms:6.1f}  {timing.p50_ms:7.1f}  {p10:12.2f}x  {p50:12.2f}x"
                f"  {timing.kept:5}  {dropped:>7}  {'' if apart is None else f'{apart:8.2f}'}"
            )


def compare(what: str, named: Mapping[str, Timing]) -> None:
    """Print the fastest file of the bundle against the fastest network made by hand, PyTorch eager among these."""

    def fastest(by_hand: bool) -> str:
        names = [name for name in named if (name == EAGER or name.startswith("by hand")) == by_hand]
        return min(names, key=lambda name: named[name].p50_ms)

    ours, theirs = fastest(False), fastest(True)
    p10, p50 = named[theirs].p10_ms / named[ours].p10_ms, named[theirs].p50_ms / named[ours].p50_ms
    print(f"{what}: {ours} is {p50:.2f}x as fast as {theirs} (p10: {p10:.2f}x)")


def made_by_hand(
    bundle: Bundle,
    checkpoint: Path,
    crops: CropSet,
    folder: Path,
    threads: int | None,
    left_out: Sequence[str] = (),
) -> tuple[ByHand, ...]:
    """Networks made by hand from a checkpoint; says which are not possible here."""
    stand_in = str(checkpoint) == "stand-in"
    loaded = load_stand_in(bundle.manifest.model) if stand_in else load_network(checkpoint, Path("stand-in"))
    calibration, _ = crops.split()
    found = tuple(every_way(loaded.model, folder, crops.batches(calibration), BATCHES, threads, left_out))
    for way in found:
        if way.missing:
            print(f"{way.name} left out: {way.missing}")
    return found


def drifts_of_trained(bundle: Path, checkpoint: Path, threads: int | None) -> dict[str, float]:
    """Drift of the files of a trained bundle, and of its checkpoint taken through the steps by hand, mm."""
    opened = open_bundle(bundle)
    crops = synthetic_crops(CROPS, opened.manifest.model)
    with tempfile.TemporaryDirectory() as folder, open_networks(opened, "cpu", threads, eager=False) as files:
        return drifts(files.networks, made_by_hand(opened, checkpoint, crops, Path(folder), threads), crops)


def drifts(files: Iterable[Network], by_hand: Iterable[ByHand], crops: CropSet) -> dict[str, float]:
    """Drift of every file from the bundle's first, and of every network made by hand from the first of these, mm."""
    ours = {network.name: network.call for network in files if network.name != EAGER}
    theirs = {way.name: way.calls[BATCH] for way in by_hand if way.calls}
    found = {}
    for calls in (ours, theirs):
        joints = {name: joints_of(call, crops) for name, call in calls.items()}
        reference = next(iter(joints.values()))
        found |= {name: float(mpjpe_mm(each, reference).mean()) for name, each in joints.items()}
    return found


def joints_of(call: Call, crops: CropSet) -> np.ndarray:
    """Joints (N, 30, 3) of the crops not used for calibration, in whole batches."""
    _, held = crops.split()
    return np.concatenate([call(feeds)["joints3d"] for feeds in crops.batches(held) if len(feeds["image"]) == BATCH])


def silent(step: str, done: int, total: int) -> None:
    """Progress callback that shows nothing."""


if __name__ == "__main__":
    main()
