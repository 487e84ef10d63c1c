"""Crops of a frame cut on this GPU, against crops cut by OpenCV on the CPU and uploaded: time and equality.

python benchmarks/gpu/crops.py --json benchmarks/results/crops.json

Needs an NVIDIA GPU and ONNX Runtime with CUDA: `pip install -e '.[gpu]'` in a checkout. Exit code 1: crops that differ
by more than the limit; 2: something that it needs is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from checkout import require_gpu, run, write_json


def measure(rounds: int, json: Path | None) -> None:
    require_gpu()
    from measuring import crop_times

    result = crop_times.run(rounds)
    write_json(json, result)
    worst = max(row["max_grey"] for row in result["rows"])
    if worst > crop_times.LIMIT_GREY:
        print(f"crops differ by {worst:.3g} grey levels, the limit is {crop_times.LIMIT_GREY:.3g}", file=sys.stderr)
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    run(lambda: measure(arguments.rounds, arguments.json), "gpu")


if __name__ == "__main__":
    main()
