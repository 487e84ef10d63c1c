"""The sampling kernel on this GPU: its error against float64, and its speed against grid_sample.

python benchmarks/gpu/kernel.py --json benchmarks/results/kernel.json

Needs an NVIDIA GPU, PyTorch with CUDA, NumPy, and cuda-bindings with NVRTC. Exit code 1: an error above its limit, a
value left unwritten or a write beyond the result; 2: something that it needs is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from checkout import require_torch_cuda, run, write_json


def measure(json: Path | None) -> None:
    require_torch_cuda()
    from measuring import sampling_kernel

    result = sampling_kernel.measure()
    write_json(json, result)
    sys.exit(not all(sampling_kernel.passes(row["error"], row["limit"]) for row in result["errors"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    run(lambda: measure(arguments.json), "gpu,export")


if __name__ == "__main__":
    main()
