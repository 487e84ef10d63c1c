"""The C++ plugin on this GPU, without TensorRT: its harness (against float64 on the CPU), then the time of `enqueue`.

python benchmarks/gpu/cpp_plugin.py --tensorrt-include /path/to/TensorRT/include -o benchmarks/results/cpp_plugin.txt

Needs a GPU, CMake, nvcc and TensorRT's public headers. Exit code 1: a check failed, or there is no GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from jotr_deploy.plugins.library import FILE_NAME, SOURCES
from jotr_deploy.plugins.library_build import describe_tools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensorrt-include", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="write what is printed to this file too")
    arguments = parser.parse_args()
    tools = {
        place.what: place.where for place in reversed(describe_tools(arguments.tensorrt_include)) if not place.problem
    }
    missing = {"CMake", "nvcc", "TensorRT headers"} - set(tools)
    if missing:
        sys.exit(f"not found: {', '.join(sorted(missing))}")
    with tempfile.TemporaryDirectory() as folder:
        include = Path(tools["TensorRT headers"]).resolve()
        options = [f"-DTENSORRT_INCLUDE_DIR={include}", f"-DCMAKE_CUDA_COMPILER={tools['nvcc']}"]
        for step in (["-S", str(SOURCES), "-B", folder, *options], ["--build", folder]):
            subprocess.run([tools["CMake"], *step], check=True, stdout=subprocess.DEVNULL)
        runs = [
            subprocess.run(
                [Path(folder, program), Path(folder, FILE_NAME)], stdout=subprocess.PIPE, text=True, check=False
            )
            for program in ("harness", "timing")
        ]
    text = "\n".join(run.stdout for run in runs)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text)
    sys.exit(int(any(run.returncode for run in runs)))


if __name__ == "__main__":
    main()
