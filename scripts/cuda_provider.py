"""Ask ONNX Runtime's own CUDA provider, without a GPU, for its kernels and its partition of our networks.

    python scripts/cuda_provider.py kernels 1.26.0 > tests/contracts/onnxruntime-cuda-kernels.txt
    python scripts/cuda_provider.py partition 1.26.0 1.31.1 > benchmarks/results/cuda-partition.txt

The provider of a published wheel of `onnxruntime-gpu` runs here on stand-ins for CUDA's libraries: they allocate host
memory, and every other function does nothing and reports success. It can therefore list its kernels and assign nodes,
which need no GPU, but compute nothing. Needs pip, a C compiler and `nm`; a wheel has 250 MB. The list for the test is
that of the newest version for CUDA 12, which has fewer kernels than those for CUDA 13.

`partition` ends with exit code 1 if a node falls back to the CPU, if a tensor is copied, or if the test's simulation
(`tests/cuda_partition.py`) disagrees.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROVIDERS = ("libonnxruntime_providers_cuda.so", "libonnxruntime_providers_tensorrt.so")

# The few functions whose results the provider uses. Everything else returns 0, which is success to all these libraries.
SPECIAL = {
    "cudaMalloc": "int cudaMalloc(void **p, size_t n) { *p = malloc(n); return 0; }",
    "cudaMallocHost": "int cudaMallocHost(void **p, size_t n) { *p = malloc(n); return 0; }",
    "cudaHostAlloc": "int cudaHostAlloc(void **p, size_t n, unsigned f) { *p = malloc(n); return 0; }",
    "cudaFree": "int cudaFree(void *p) { free(p); return 0; }",
    "cudaFreeHost": "int cudaFreeHost(void *p) { free(p); return 0; }",
    "cudaMemcpy": "int cudaMemcpy(void *to, const void *from, size_t n, int k) { memcpy(to, from, n); return 0; }",
    "cudaMemcpyAsync": (
        "int cudaMemcpyAsync(void *to, const void *from, size_t n, int k, void *s) { memcpy(to, from, n); return 0; }"
    ),
    "cudaMemset": "int cudaMemset(void *p, int v, size_t n) { memset(p, v, n); return 0; }",
    "cudaMemsetAsync": "int cudaMemsetAsync(void *p, int v, size_t n, void *s) { memset(p, v, n); return 0; }",
    "cudaMemGetInfo": ("int cudaMemGetInfo(size_t *free_, size_t *all) { *free_ = *all = (size_t)8 << 30; return 0; }"),
    "cudaGetDeviceCount": "int cudaGetDeviceCount(int *n) { *n = 1; return 0; }",
}

# In the child process `onnxruntime` is the wheel's.
LIST_KERNELS = """
import json, onnxruntime
from onnxruntime.capi import _pybind_state
found = [
    (k.op_name, k.version_range, k.type_constraints)
    for k in _pybind_state.get_all_opkernel_def()
    if k.provider == "CUDAExecutionProvider" and k.domain == ""
]
print(json.dumps([onnxruntime.__version__, found]))
"""
ASSIGN = """
import collections, json, onnx, onnxruntime, sys
folder, found = sys.argv[1], {}
for name in sys.argv[2:]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = f"{folder}/assigned.onnx"
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(f"{folder}/{name}", options, providers)
    nodes = collections.defaultdict(list)
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += [node.op_type for node in part.get_nodes()]
    assigned = [node.op_type for node in onnx.load(f"{folder}/assigned.onnx").graph.node]
    copies = [operator for operator in assigned if operator.startswith("Memcpy")]
    found[name] = (len(nodes["CUDAExecutionProvider"]), nodes["CPUExecutionProvider"], copies)
print(json.dumps([onnxruntime.__version__, found]))
"""


def unpack(version: str, folder: Path) -> Path:
    """Folder of the packages in the published wheel of a version."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder),
               f"onnxruntime-gpu=={version}"]  # fmt: skip
    subprocess.run(command, check=True, stdout=sys.stderr)
    with zipfile.ZipFile(next(folder.glob("onnxruntime_gpu-*.whl"))) as archive:
        archive.extractall(folder / "packages")
    return folder / "packages"


def stand_ins(packages: Path, folder: Path) -> Path:
    """Folder of libraries that satisfy the provider's imports, one for each library that it names."""
    functions: dict[str, set[str]] = defaultdict(set)
    for provider in (packages / "onnxruntime" / "capi" / name for name in PROVIDERS):
        needed = re.findall(r"\(NEEDED\).*\[(\S+)\]", _output("readelf", "-d", str(provider)))
        for library in needed:
            if re.match(r"lib(cu|nv)", library):
                functions[library] |= set()
        for name, _, version in (word.partition("@") for word in _undefined(provider)):
            if owner := version if version in functions else _owner(name, list(functions)):
                functions[owner].add(name)
    folder.mkdir()
    for library, names in functions.items():
        _compile(folder, library, sorted(names))
    return folder


def _undefined(library: Path) -> list[str]:
    lines = _output("nm", "-D", "--undefined-only", str(library)).splitlines()
    return [word for word in (line.split()[-1] for line in lines) if not re.search("@(GLIBC|CXXABI|GCC)", word)]


def _owner(name: str, libraries: list[str]) -> str | None:
    """The library that an unversioned function comes from, by its prefix."""
    for start, library in (
        ("cublasLt", "libcublasLt"), ("cublas", "libcublas"), ("cudnn", "libcudnn"), ("curand", "libcurand"),
        ("cufft", "libcufft"), ("cuda", "libcudart"), ("__cuda", "libcudart"), ("cu", "libcuda"),
        ("createNvOnnx", "libnvonnxparser"), ("createInfer", "libnvinfer"), ("get", "libnvinfer"),
    ):  # fmt: skip
        if name.startswith(start):
            return next((each for each in libraries if each.startswith(library + ".so")), None)
    return None


def _compile(folder: Path, library: str, names: list[str]) -> None:
    source, versions = folder / "source.c", folder / "versions.map"
    bodies = [SPECIAL.get(name, f"long {name}(void) {{ return 0; }}") for name in names]
    source.write_text("\n".join(["#include <stdlib.h>", "#include <string.h>", *bodies, ""]))
    versions.write_text(f"{library} {{ global: *; }};\n")
    command = ["cc", "-shared", "-fPIC", "-w", "-o", str(folder / library), f"-Wl,-soname,{library}",
               f"-Wl,--version-script={versions}", str(source)]  # fmt: skip
    subprocess.run(command, check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def ask(code: str, packages: Path, libraries: Path, *words: str) -> Any:
    """Result of a piece of Python that imports the wheel's `onnxruntime`, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(packages), "LD_LIBRARY_PATH": str(libraries)}
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def print_kernels(packages: Path, libraries: Path) -> None:
    """The provider's kernels of ONNX's own operators: a line for each operator and range of opsets, types joined."""
    version, found = ask(LIST_KERNELS, packages, libraries)
    rows: dict[tuple[str, int, int], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for operator, (first, last), types in found:
        for parameter, allowed in types.items():
            rows[operator, first, last][parameter] |= {re.sub(r"tensor\((\w+)\)", r"\1", each) for each in allowed}
    print(HEAD.format(version=version))
    for (operator, first, last), parameters in sorted(rows.items()):
        opsets = f"{first}-" if last >= 2**31 - 1 else f"{first}-{last}"
        print(operator, opsets, *(f"{name}={','.join(sorted(types))}" for name, types in sorted(parameters.items())))


HEAD = """\
# Kernels of ONNX Runtime's CUDAExecutionProvider for ONNX's own operators, as onnxruntime-gpu {version} lists them.
#
# Written by `python scripts/cuda_provider.py kernels`, which asks the published library itself, through the function
# that also writes ONNX Runtime's docs/OperatorKernels.md (`get_all_opkernel_def`).
# operator, first-last opset ("13-": open), then the types of each type parameter.\
"""


def print_partition(packages: Path, libraries: Path, folder: Path) -> int:
    """Nodes and copies of every network of ours as the provider itself assigns them; 0 if all is as it should be."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "engines")]
    import onnx
    from cuda_partition import optimised, partition
    from test_cuda_partition import NETWORKS
    from tiny import TINY

    from jotr_deploy.export.assemble import load_stand_in
    from jotr_deploy.export.to_bundle import export_bundle

    export_bundle(load_stand_in(TINY), folder / "bundle")
    simulated = {}
    for number, (name, (make, _)) in enumerate(NETWORKS.items()):
        onnx.save(make(folder / "bundle"), folder / f"{number}.onnx")
        simulated[name] = partition(optimised(folder / f"{number}.onnx", folder))
    version, assigned = ask(ASSIGN, packages, libraries, str(folder), *(f"{n}.onnx" for n in range(len(simulated))))
    print(f"onnxruntime-gpu {version}: nodes as its CUDA provider assigns them, and the tensors it copies.")
    print(f"{'network':28} {'on CUDA':>8} {'on the CPU':>11} {'copies':>7}  simulation")
    good = True
    for (name, guess), (on_cuda, on_cpu, copies) in zip(simulated.items(), assigned.values(), strict=True):
        agree = len(guess.without_kernel) + len(guess.sizes) == len(on_cpu) and len(guess.copies) == len(copies)
        good = good and agree and not copies and not guess.without_kernel
        print(f"{name:28} {on_cuda:8} {len(on_cpu):11} {len(copies):7}  {'agrees' if agree else guess}")
        if on_cpu:
            print(f"{'':28} on the CPU: {', '.join(sorted(on_cpu))}")
    print()
    return 0 if good else 1


def main() -> int:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("kernels", "partition"))
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="version of onnxruntime-gpu")
    arguments = parser.parse_args()
    worst = 0
    for version in arguments.versions:
        with tempfile.TemporaryDirectory() as name:
            packages = unpack(version, Path(name))
            libraries = stand_ins(packages, Path(name) / "libraries")
            if arguments.what == "kernels":
                print_kernels(packages, libraries)
            else:
                worst = max(worst, print_partition(packages, libraries, Path(name)))
    return worst


if __name__ == "__main__":
    sys.exit(main())
