"""Time to draw people who fill a picture, against a Gaussian blur of the same picture.

python benchmarks/drawing.py --rounds 30

One person or two of the package's own picture are enlarged until they reach from the top to the bottom of a picture of
1920 x 1080 or 1080 x 1920. Drawing and `cv2.GaussianBlur` with a sigma of 9 take turns; the ratio is the median over
the turns. Times are processor time of the whole process, which other work on the machine disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import cv2
import numpy as np

import jotr_deploy
from jotr_deploy.geometry.camera import project_px
from jotr_deploy.people import People
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.timed_picture import default_scene
from jotr_deploy.runtime.sources.images import read_image
from jotr_deploy.visual.overlay import draw_people

SIGMA_PX = 9
MARGIN_PX = 20
CASES = [  # width, height, people, scale of the drawing
    (1920, 1080, 2, 1.0), (1920, 1080, 1, 1.0), (1080, 1920, 2, 1.0), (1080, 1920, 1, 1.0), (1920, 1080, 2, 0.5)
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds, load = parser.parse_args().rounds, load_average()
    with default_scene() as (picture, keypoints), jotr_deploy.load() as model:
        image, faces = read_image(picture), model.faces
        (_, everybody), *_ = model.stream(picture, keypoints=keypoints)
    for width, height, count, scale in CASES:
        people = filling(everybody[:count], (width, height))
        case = cv2.resize(image, (width, height))
        covered = (draw_people(case, people, faces) != case).any(-1).mean()
        draw, blur = in_turns(
            lambda: draw_people(case, people, faces, scale=scale),  # noqa: B023
            lambda: cv2.GaussianBlur(case, (0, 0), SIGMA_PX),  # noqa: B023
            rounds,
        )
        ratio = median(one / other for one, other in zip(draw, blur, strict=True))
        print(
            f"{width} x {height}, {count} people over {covered:.0%} of it, at scale {scale:g}: "
            f"draw {1e3 * median(draw):.1f} ms, blur {1e3 * median(blur):.1f} ms, ratio {ratio:.2f}"
        )
    print(environment(None, False, load))


def filling(people: People, size_px: tuple[int, int]) -> People:
    """The same people, each as tall as a picture of this size but for a margin, side by side."""
    parts = []
    for place in range(len(people)):
        person = people[[place]]
        pixels = project_px(person.vertices_camera_m, person.focal_px, person.principal_px)[0]
        low, high = pixels.min(0), pixels.max(0)
        enlarged = (size_px[1] - 2 * MARGIN_PX) / (high[1] - low[1])
        middle_px = np.array([size_px[0] * (place + 1) / (len(people) + 1), size_px[1] / 2])
        principal_px = (person.principal_px - (low + high) / 2) * enlarged + middle_px
        parts.append(replace(person, focal_px=person.focal_px * enlarged, principal_px=principal_px))
    return People.concatenate(parts)


def in_turns(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """Processor seconds of every call of both; one round before does not count."""
    seconds = [(timed(one), timed(other)) for _ in range(rounds + 1)][1:]
    return [each[0] for each in seconds], [each[1] for each in seconds]


def timed(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
