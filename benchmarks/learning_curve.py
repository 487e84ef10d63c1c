"""Learning curves of finished runs, as a table and as a small chart.

python benchmarks/learning_curve.py runs/plain runs/contrast --chart docs/learning_curve.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.training.losses import NAMES
from jotr_deploy.training.run_log import LOG_EVERY

COLUMNS = ("l1", *NAMES, "intra", "inter")
WIDTH, HEIGHT, MARGIN = 640, 360, 48
COLOURS = ((200, 180, 150), (30, 60, 200), (40, 120, 40), (60, 60, 60))  # BGR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=80, help="steps in a row of the table")
    parser.add_argument("--chart", type=Path)
    arguments = parser.parse_args()
    curves = {run.name: curve(run, arguments.every) for run in arguments.runs}
    for run in arguments.runs:
        about = json.loads((run / "environment.json").read_text())
        print(f"{run.name}: torch {about['versions']['torch']}, {about['device']}, {about['threads']} threads")
        columns = [name for name in COLUMNS if name in curves[run.name][0][1]]
        print("".join(f"{name:>16}" for name in ("to step", *columns)))
        for step, values in curves[run.name]:
            print(f"{step:16d}" + "".join(f"{values[name]:16.4f}" for name in columns))
        print()
    print(environment(None, False, load_average()))
    if arguments.chart:
        fine = {run.name: curve(run, LOG_EVERY) for run in arguments.runs}
        cv2.imwrite(str(arguments.chart), chart(fine), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def curve(run: Path, every: int) -> list[tuple[int, dict[str, float]]]:
    """Means over `every` steps, by the name of the loss."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "events"), {"scalars": 0})
    events.Reload()
    rows: dict[int, dict[str, list[float]]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            row = rows.setdefault(-(-event.step // every) * every, {})
            row.setdefault(name, []).append(event.value)
    return [
        (step, {name: float(np.mean(values)) for name, values in row.items()}) for step, row in sorted(rows.items())
    ]


def chart(curves: dict[str, list[tuple[int, dict[str, float]]]]) -> Any:
    """(H, W, 3) uint8: l1 over the steps, one line a run, each thinner than the last. The axis does not start at 0."""
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    steps = max(step for rows in curves.values() for step, _ in rows)
    values = [row["l1"] for rows in curves.values() for _, row in rows]
    low, high = min(values) - 0.05, max(values) + 0.05

    def at(step: float, value: float) -> tuple[int, int]:
        x = MARGIN + step / steps * (WIDTH - 1.5 * MARGIN)
        return round(x), round(HEIGHT - MARGIN - (value - low) / (high - low) * (HEIGHT - 1.7 * MARGIN))

    def text(words: str, place: tuple[int, int], colour: tuple[int, int, int] = (60, 60, 60)) -> None:
        cv2.putText(image, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)

    for share in range(5):
        step, value = steps * share // 4, low + (high - low) * share / 4
        cv2.line(image, at(0, value), at(steps, value), (225, 225, 225), 1)
        text(f"{value:.2f}", (6, at(0, value)[1] + 4))
        text(str(step), (at(step, low)[0] - 10, HEIGHT - MARGIN + 18))
    text("steps", (WIDTH // 2 - 15, HEIGHT - 10))
    text("l1, the sum of the six losses", (MARGIN, 18))
    for number, (name, rows) in enumerate(curves.items()):
        colour, thickness = COLOURS[number % len(COLOURS)], max(1, 2 * (len(curves) - number) - 1)
        points = np.array([at(step, row["l1"]) for step, row in rows], np.int32)
        cv2.polylines(image, [points], False, colour, thickness, cv2.LINE_AA)
        row = 36 + 18 * number
        text(name, (WIDTH - 150, row + 4))
        cv2.line(image, (WIDTH - 185, row), (WIDTH - 155, row), colour, thickness, cv2.LINE_AA)
    return image


if __name__ == "__main__":
    main()
