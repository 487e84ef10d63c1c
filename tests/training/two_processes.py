"""One step of a task in as many processes as the launcher started.

Arguments: FOLDER BATCH CONTRAST, and perhaps TASK RECIPE...: `mesh` on fake scenes, `jotr` on the sets in FOLDER, or
three steps of `toy` with evaluations (on) and without (off).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from made_scenes import config, fake_task  # noqa: E402
from toy import Toy, toy_config  # noqa: E402

from jotr_deploy.training.loop import fit  # noqa: E402
from jotr_deploy.training.run_config import Evaluation  # noqa: E402


def step(folder: Path, batch: int, contrast: float, task: str = "mesh", recipe: Any = "paper") -> Path:
    """The run directory, whose checkpoint holds the gradients: the first moments after one step are a tenth of them."""
    torch.set_num_threads(1)
    run = folder / f"run-{os.environ.get('WORLD_SIZE', '1')}-{contrast}-{recipe}"
    if task == "toy":
        evaluation = Evaluation(every=2, seed=9) if recipe == "on" else None
        fit(Toy(), toy_config(steps=3, batch=batch, evaluation=evaluation), run)
        return run
    options: dict[str, Any] = {"freeze_bn": True, "intra": contrast, "inter": contrast}
    if task == "mesh":
        made: Any = fake_task(folder, **options)
    else:
        from made_sets import as_written, jotr_task

        made = jotr_task(as_written(folder), recipe=recipe, **options)
    fit(made, config(steps=1, batch=batch, warmup=0), run)
    return run


if __name__ == "__main__":
    task, *recipes = sys.argv[4:] or ("mesh", "paper")
    for recipe in recipes:
        step(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), task, recipe)
