"""Speed of synthetic scenes on one core: scenes, training crops and whole pictures a second.

OPENBLAS_NUM_THREADS=1 python benchmarks/synthetic.py --side 128 --crops 400
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.datasets.synthetic.scene_crops import crop, picture

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--crops", type=int, default=400)
    parser.add_argument("--pictures", type=int, default=100)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    one_crop(0, arguments.side), picture(draw_scene(SEED, 0))  # caches that a process fills once
    report("scenes drawn", arguments.crops, lambda index: draw_scene(SEED, index))
    report(f"crops of {arguments.side} px", arguments.crops, lambda index: one_crop(index, arguments.side))
    report("pictures", arguments.pictures, lambda index: picture(draw_scene(SEED, index)))


def one_crop(index: int, side: int) -> object:
    """Everything for a training sample: a new scene, one person's pixels and labels."""
    rng = np.random.default_rng([SEED, index, 1])
    scene = draw_scene(SEED, index)
    return crop(scene, int(rng.integers(len(scene))), side, margin=1.3)


def report(what: str, count: int, make: Callable[[int], object]) -> None:
    """Print a rate per second of processor time, so that other work on the machine counts less."""
    began, busy = time.perf_counter(), time.process_time()
    for index in range(count):
        make(index)
    wall, busy = time.perf_counter() - began, time.process_time() - busy
    print(f"{what:16} {count / busy:6.1f} a second and core, {1e3 * busy / count:6.2f} ms each ({wall:.1f} s passed)")


if __name__ == "__main__":
    main()
