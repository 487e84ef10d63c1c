"""A step in two processes on this machine, and what a run has kept."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch


def in_two(folder: Path, batch: int, contrast: float, task: str = "mesh", *recipes: str) -> dict[str, Path]:
    """The run directories of `two_processes.py` in two processes, by recipe."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parent / "two_processes.py"
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
              "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "1"}  # fmt: skip
    started = [
        subprocess.Popen([sys.executable, script, folder, str(batch), str(contrast), task, *(recipes or ("paper",))],
                         env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]  # fmt: skip
    assert [process.wait(300) for process in started] == [0, 0]
    return {recipe: folder / f"run-2-{contrast}-{recipe}" for recipe in recipes or ("paper",)}


def first_moments(run: Path) -> torch.Tensor:
    """Those of AdamW in the checkpoint of a run, all in one row: after one step a tenth of the gradients."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
    return torch.cat([state[key]["exp_avg"].flatten() for key in sorted(state)])


def scalars(run: Path, name: str) -> list[float]:
    """What TensorBoard shows under this name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "events"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]
