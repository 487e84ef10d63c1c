"""Memory of a `run` over thousands of frames.

python benchmarks/soak.py starter --frames 10000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil

from jotr_deploy.bundle import open_bundle
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.timed_picture import default_scene
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.runtime.sources.images import read_image
from jotr_deploy.runtime.sources.opening import VideoWriter

SIZE_PX = (320, 240)
LOOKS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", type=int, default=10000)
    parser.add_argument("--overlap", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    load, process, seen = load_average(), psutil.Process(), list[tuple[int, float]]()
    every = max(arguments.frames // LOOKS, 1)
    start_s = time.perf_counter()

    def look(done: int, _: int | None) -> None:
        if done % every == 0:
            megabytes = process.memory_info().rss / 1e6
            seen.append((done, megabytes))
            print(
                f"{done:7d} frames  {megabytes:7.0f} MB  {done / (time.perf_counter() - start_s):5.1f} frames/s",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(coco=True, smooth="one-euro", overlap=arguments.overlap)
        film = made(Path(folder) / "film.mp4", arguments.frames)
        summary = run(open_bundle(arguments.bundle), str(film), Path(folder) / "out", options, look)
    frames, megabytes = np.array(seen).T
    half = frames >= arguments.frames / 2  # queues, caches and spans are full by then
    slope = np.polyfit(frames[half], megabytes[half], 1)[0] if half.sum() > 1 else float("nan")
    print(f"{summary.people} people in {summary.frames} frames, {summary.seconds:.0f} s")
    print(f"second half: {1000 * slope:+.2f} MB per 1000 frames")
    print(environment(None, False, load))


def made(path: Path, frames: int) -> Path:
    """Video of the package's picture, always moving."""
    with default_scene() as (picture, _):
        image = read_image(picture)
    height, width = image.shape[:2]
    with VideoWriter(path, 25) as writer:
        for frame in range(frames):
            x, y = 30 * np.sin(frame / 40), 20 * np.cos(frame / 25)
            moved = cv2.warpAffine(
                image, np.array([[1, 0, x], [0, 1, y]]), (width, height), borderMode=cv2.BORDER_REFLECT
            )
            writer.write(cv2.resize(moved, SIZE_PX, interpolation=cv2.INTER_AREA))
    return path


if __name__ == "__main__":
    main()
