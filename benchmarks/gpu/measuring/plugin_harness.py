"""The C++ plugin without TensorRT: built here, driven by its harness, and the time of `enqueue`."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from jotr_deploy.errors import JotrDeployError, MissingDependency
from jotr_deploy.plugins.library import FILE_NAME, SOURCES
from jotr_deploy.plugins.library_build import describe_tools


def tools(tensorrt_include: Path | None = None) -> dict[str, str]:
    """Paths of CMake, nvcc and TensorRT's headers.

    Raises:
        MissingDependency: one of them is not there.
    """
    looked = describe_tools(tensorrt_include)
    found = {place.what: place.where for place in reversed(looked) if not place.problem}
    missing = sorted({place.what for place in looked} - set(found))
    if missing:
        raise MissingDependency(
            f"not found: {', '.join(missing)}", "docs/tensorrt.md says where they come from; --tensorrt-include FOLDER"
        )
    return found


def built_and_run(found: dict[str, str], architectures: str | None = None) -> list[tuple[str, int]]:
    """What the harness, then the timing said, each with its exit code.

    Args:
        found: by `tools`.
        architectures: as CMake writes them; by default every GPU that this nvcc knows.

    Raises:
        JotrDeployError: it does not compile.
    """
    include = Path(found["TensorRT headers"]).resolve()
    options = [f"-DTENSORRT_INCLUDE_DIR={include}", f"-DCMAKE_CUDA_COMPILER={found['nvcc']}"]
    options += [f"-DCMAKE_CUDA_ARCHITECTURES={architectures}"] if architectures else []
    with tempfile.TemporaryDirectory() as folder:
        for step in (["-S", str(SOURCES), "-B", folder, *options], ["--build", folder]):
            done = subprocess.run([found["CMake"], *step], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                lines = [line for line in done.stdout.splitlines() if "rror" in line] or done.stdout.splitlines()
                raise JotrDeployError(
                    f"the plugin does not compile: {(lines or ['no word'])[0].strip()}",
                    f"run {found['CMake']} {' '.join(step)}",
                )
        runs = [
            subprocess.run([Path(folder, program), Path(folder, FILE_NAME)], stdout=subprocess.PIPE, text=True)
            for program in ("harness", "timing")
        ]
    return [(run.stdout, run.returncode) for run in runs]
