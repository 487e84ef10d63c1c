"""The networks of a bundle on this GPU: time of one call and drift in millimetres, all in one process.

python benchmarks/gpu/networks.py BUNDLE --json benchmarks/results/networks.json

ONNX Runtime on CUDA in fp32 and fp16, with and without CUDA graphs; PyTorch eager and compiled, in fp32 and fp16
(autocast; heads and body in fp32); and the bundle's TensorRT engines, with and without graphs, which
`jotr-deploy build-engine BUNDLE --backend tensorrt --precision fp16 --batch 1:8:32` makes. What is not installed
is left out and named. Compiling takes minutes for each batch size: `--compile default` takes less, `none` nothing.

Needs an NVIDIA GPU, PyTorch with CUDA, and in a checkout `pip install -e '.[gpu,export]'`; for a bundle that is not the
stand-in's also the checkpoint it was exported from, whose PyTorch network the drift is measured against. Exit code 2:
something that it needs is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from checkout import require_torch_cuda, run, write_json


def measure(arguments: argparse.Namespace) -> None:
    require_torch_cuda()
    from measuring import network_times

    from jotr_deploy.bundle import open_bundle

    result = network_times.run(
        open_bundle(arguments.bundle),
        arguments.checkpoint,
        arguments.body,
        arguments.rounds,
        arguments.batch,
        None if arguments.compile == "none" else arguments.compile,
    )
    write_json(arguments.json, result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="what the bundle was exported from, unless the stand-in")
    parser.add_argument("--body", type=Path, help="as given to export")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], help="batch sizes")
    parser.add_argument(
        "--compile", choices=("max-autotune", "reduce-overhead", "default", "none"), default="max-autotune"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    run(lambda: measure(arguments), "gpu,export")


if __name__ == "__main__":
    main()
