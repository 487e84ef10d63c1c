"""Train a network as a configuration says and print its curve.

python benchmarks/gpu/train.py configs/full.toml --steps 4000 -o runs/full --json benchmarks/results/train-full.json

Runs `jotr-deploy train`, with `--resume`, so that a second call goes on; then reads what the run has logged. The curve
is of means over equal parts of the run: the unweighted sum of the losses, the joints' share of it, and people a second.
Needs `pip install -e '.[train]'`; any device does. `configs/starter/mesh.toml` trains the starter's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from checkout import ROOT, run

COLUMNS = ("l1", "body_joint_cam", "samples/s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a network and print its curve.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="run directory")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="as for `jotr-deploy train`")
    parser.add_argument("--points", type=int, default=20, help="of the curve")
    parser.add_argument("--json", type=Path, help="also write the curve here")
    arguments = parser.parse_args()
    run(lambda: measure(arguments), "train")


def measure(arguments: argparse.Namespace) -> None:
    import accelerate  # noqa: F401
    import tensorboard  # noqa: F401

    command = [sys.executable, "-m", "jotr_deploy.cli", "train", str(arguments.config), "-o", str(arguments.output)]
    settings = [f"steps={arguments.steps}", *arguments.settings]
    places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    whole = [*command, "--resume", *(f"--set={text}" for text in settings)]
    done = subprocess.run(whole, env={**os.environ, "PYTHONPATH": places})
    if done.returncode not in (0, 130):  # 130: stopped with a checkpoint
        sys.exit(done.returncode)
    rows = curve(arguments.output / "events", arguments.points)
    about = json.loads((arguments.output / "environment.json").read_text())
    print(f"{arguments.config} on {about['device']}")
    print("  ".join(f"{name:>14}" for name in ("step", *COLUMNS)))
    for row in rows:
        print("  ".join(f"{row[name]:14.5g}" for name in ("step", *COLUMNS)))
    if arguments.json:
        result = {"config": str(arguments.config), "settings": settings, "environment": about, "curve": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def curve(events: Path, points: int) -> list[dict[str, Any]]:
    """Means over up to `points` equal parts of what a run has logged, each at its last step."""
    import numpy as np
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(events), size_guidance={"scalars": 0})
    log.Reload()
    scalars = {name: log.Scalars(name) for name in COLUMNS}
    parts = np.array_split(np.arange(len(scalars["l1"])), min(points, len(scalars["l1"])))
    return [
        {"step": scalars["l1"][part[-1]].step}
        | {name: float(np.mean([scalars[name][k].value for k in part])) for name in COLUMNS}
        for part in parts
    ]


if __name__ == "__main__":
    main()
