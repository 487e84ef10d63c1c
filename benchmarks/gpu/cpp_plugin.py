"""The C++ plugin on this GPU, without TensorRT: its harness (against float64 on the CPU), then the time of `enqueue`.

python benchmarks/gpu/cpp_plugin.py --tensorrt-include /path/to/TensorRT/include -o benchmarks/results/cpp_plugin.txt

Needs a GPU, CMake, nvcc and TensorRT's public headers. Exit code 1: a check failed; 2: something that it needs
is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from checkout import require_gpu, run


def measure(tensorrt_include: Path | None, output: Path | None) -> None:
    require_gpu()
    from measuring.plugin_harness import built_and_run, tools

    runs = built_and_run(tools(tensorrt_include))
    text = "\n".join(said for said, _ in runs)
    print(text)
    if output is not None:
        output.write_text(text)
    sys.exit(int(any(code for _, code in runs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensorrt-include", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="write what is printed to this file too")
    arguments = parser.parse_args()
    run(lambda: measure(arguments.tensorrt_include, arguments.output), "gpu")


if __name__ == "__main__":
    main()
