"""The files of a bundle against PyTorch eager on the CPU: ratios of samples taken in turns, in one process.

python benchmarks/cpu.py BUNDLE --rounds 30
"""

from __future__ import annotations

import argparse
import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from jotr_deploy.bundle import open_bundle
from jotr_deploy.profiling.eager import EAGER
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.interleave import collect, timed, warm_up
from jotr_deploy.profiling.networks import open_networks
from jotr_deploy.profiling.quiet import Judge
from jotr_deploy.profiling.results import timings
from jotr_deploy.profiling.scene import open_scene

BATCHES = (1, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    bundle, load, judge = open_bundle(arguments.bundle), load_average(), Judge()
    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(None, None, bundle.manifest.model.crop_side))
        networks = stack.enter_context(open_networks(bundle, "cpu", arguments.threads)).networks
        groups = {
            str(batch): [timed((n.name, batch), partial(n.call, scene.batch(batch))) for n in networks]
            for batch in BATCHES
        }
        warm_up(groups, math.inf, silent)
        collect(groups, dict.fromkeys(groups, arguments.rounds), judge, "measuring", silent)
    print(environment(arguments.threads, False, load))
    print("batch  network               p10 ms   p50 ms   p10 vs eager   p50 vs eager   kept  dropped")
    for batch, jobs in groups.items():
        found = timings(jobs, arguments.rounds, judge)
        eager = found[EAGER, int(batch)]
        for (name, _), timing in found.items():
            p10, p50 = eager.p10_ms / timing.p10_ms, eager.p50_ms / timing.p50_ms
            dropped = "busy" if timing.busy else timing.dropped
            print(
                f"{batch:>5}  {name:<20} {timing.p10_ms:7.1f}  {timing.p50_ms:7.1f}  {p10:12.2f}x  {p50:12.2f}x"
                f"  {timing.kept:5}  {dropped:>7}"
            )


def silent(step: str, done: int, total: int) -> None:
    """Show no progress."""


if __name__ == "__main__":
    main()
