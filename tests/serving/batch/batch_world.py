"""Small films of white squares that walk about, a bundle that takes each for a person, and batches of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from canned import write_yolox_of_any_size
from mp4_boxes import with_steps

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.runtime.sources.opening import VideoWriter
from jotr_deploy.serving.batch.batch_options import BatchOptions
from jotr_deploy.serving.batch.batch_plan import Plan, planned
from jotr_deploy.serving.batch.batch_state import State
from jotr_deploy.serving.batch.batch_worker import Worker, WorkerSettings

SIDE, CELL, FPS, BLOCK = 96, 8, 10.0, 10
TIMES = ("seconds", "milliseconds_per_frame")


def make_bundle(tiny: Path, path: Path) -> None:
    """A copy of the tiny bundle whose detector finds white squares of 8 px."""
    from jotr_deploy.third_party.addition import NewNetwork, add_networks

    shutil.copytree(tiny, path)
    detector = write_yolox_of_any_size(path.parent / "squares.onnx")
    with patch("jotr_deploy.third_party.addition._refuse_if_wrong"):
        add_networks(open_bundle(path), [NewNetwork("detector", detector, {"size_px": [SIDE, SIDE], "threshold": 0.7})])


def scene(frame: int) -> np.ndarray:
    """Two squares: one walks, goes and comes back; the other stands, and goes for good."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    if frame % 25 < 20:
        x = CELL * (frame // 3 % 10)
        image[CELL : 2 * CELL, x : x + CELL] = 255
    if frame < 33:
        image[6 * CELL : 7 * CELL, 3 * CELL : 4 * CELL] = 255
    image[-2:, -2:] = frame % 256  # no two consecutive frames are equal
    return image


def film(path: Path, frames: int = 50, variable: bool = False) -> Path:
    with VideoWriter(path, FPS) as writer:
        for frame in range(frames):
            writer.write(scene(frame))
    if variable:
        steps = [(1, 1 + frame % 3) for frame in range(frames)]
        path.write_bytes(with_steps(path.read_bytes(), steps))
    return path


def batch(bundle: Path, output: Path, *sources: Path | str, shard: int = 10**6, **options: Any) -> Plan:
    """The plan of a batch whose films are cut after `shard` frames at `FPS`."""
    minutes = shard / FPS / 60
    chosen = BatchOptions(block=BLOCK, device="cpu", shard_minutes=minutes, **options)
    return planned(open_bundle(bundle), list(map(str, sources)), output, chosen)


def worker(output: Path, **settings: Any) -> Worker:
    return Worker(WorkerSettings(str(output), threads=1, **settings))


def state(output: Path) -> State:
    return State(Plan.read(output), output)


def without_times(path: Path) -> dict[str, Any]:
    return {name: value for name, value in json.loads(path.read_text()).items() if name not in TIMES}


def contents(folder: Path, but: Iterable[str] = ()) -> dict[str, Any]:
    """Files of a folder of results: bytes, or JSON but for times; only the names of films."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            found[path.name] = without_times(path) if not path.stem.endswith("_coco") else json.loads(path.read_text())
        else:
            found[path.name] = None if path.suffix == ".mp4" else path.read_bytes()
    return {name: value for name, value in found.items() if name not in but}


def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle)
