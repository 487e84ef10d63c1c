"""One step of the mesh task in as many processes as the launcher started: `two_processes.py FOLDER BATCH CONTRAST`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from made_scenes import config, fake_task  # noqa: E402

from jotr_deploy.training.loop import fit  # noqa: E402


def step(folder: Path, batch: int, contrast: float) -> Path:
    """The run directory, whose checkpoint holds the gradients: the first moments after one step are a tenth of them."""
    torch.set_num_threads(1)
    run = folder / f"run-{os.environ.get('WORLD_SIZE', '1')}-{contrast}"
    task = fake_task(folder, freeze_bn=True, intra=contrast, inter=contrast)
    fit(task, config(steps=1, batch=batch, warmup=0), run)
    return run


if __name__ == "__main__":
    step(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
