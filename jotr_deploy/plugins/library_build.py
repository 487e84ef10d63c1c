"""Compiles the C++ plugin library on the user's machine: CMake, nvcc and TensorRT's public headers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from jotr_deploy.errors import JotrDeployError, MissingDependency, first_line
from jotr_deploy.plugins.library import FILE_NAME, SOURCES, Looked, cached_library
from jotr_deploy.support.aliases import Say
from jotr_deploy.support.writing import folder_beside, output_errors, written_aside

_HEADER = "NvInferRuntime.h"
_INCLUDE_FOLDERS = (
    "/usr/include/x86_64-linux-gnu",
    "/usr/include/aarch64-linux-gnu",
    "/usr/local/tensorrt/include",
    "/usr/include",
)
_TOOLKIT = "/usr/local/cuda"
_REMEDIES = {
    "CMake": "pip install cmake, or install the package cmake",
    "nvcc": "install the CUDA toolkit (JetPack: package cuda-toolkit), or set CUDACXX to its nvcc",
    "TensorRT headers": "install libnvinfer-headers-dev, or git clone --depth 1 --branch v10.3.0 (your "
    "version) https://github.com/NVIDIA/TensorRT and give --tensorrt-include TensorRT/include",
}


def build_library(
    output: Path | None = None,
    tensorrt_include: Path | None = None,
    architectures: str | None = None,
    say: Say = lambda line: None,
) -> Path:
    """Compile the plugin library and put it where `find_library` looks, or at `output`.

    Args:
        output: the library to write; by default in the user's cache, by TensorRT's major version.
        tensorrt_include: folder of TensorRT's headers; by default the usual places.
        architectures: as CMake writes them, "87" or "80;90"; by default every GPU that this nvcc knows.
        say: gets a line for each step.

    Raises:
        MissingDependency: CMake, nvcc or the headers are not there.
        JotrDeployError: the compilation failed; what CMake and nvcc said is kept beside the library's place.
        OutputError: the library cannot be written.
    """
    cmake, nvcc = Path(_needed("CMake")).absolute(), Path(_needed("nvcc")).absolute()
    include = Path(_needed("TensorRT headers", tensorrt_include))
    major, minor = header_version(include)
    library = output or cached_library(major)
    if output is None:
        with output_errors(library):
            library.parent.mkdir(parents=True, exist_ok=True)
    say(f"TensorRT {major}.{minor} headers: {include}")
    say(f"compiling with {nvcc} for {architectures or 'every GPU it knows'}")
    options = [f"-DTENSORRT_INCLUDE_DIR={include.resolve()}", f"-DCMAKE_CUDA_COMPILER={nvcc}"]
    options += [f"-DCMAKE_CUDA_ARCHITECTURES={architectures}"] if architectures else []
    build = folder_beside(library)
    try:
        steps = [
            [str(cmake), "-S", str(SOURCES), "-B", str(build), *options],
            [str(cmake), "--build", str(build), "--target", "jotr_trilinear"],
        ]
        _compile(steps, library.with_name(f"{library.name}.log"))
        with output_errors(library):
            (build / FILE_NAME).replace(library)
    finally:
        shutil.rmtree(build, ignore_errors=True)
    return library


def describe_tools(tensorrt_include: Path | None = None) -> list[Looked]:
    """Places searched for CMake, nvcc and TensorRT's headers, which building the library needs."""
    return [place for what in _REMEDIES for place in _places(what, tensorrt_include)]


def header_version(include: Path) -> tuple[int, int]:
    """Major and minor version of the TensorRT whose headers these are.

    Raises:
        MissingDependency: the version is not among them.
    """
    header = include / "NvInferVersion.h"
    text = header.read_text(errors="replace") if header.is_file() else ""
    found = [re.search(rf"#define (?:NV_TENSORRT_{n}|TRT_{n}_ENTERPRISE) (\d+)", text) for n in ("MAJOR", "MINOR")]
    numbers = [int(match[1]) for match in found if match is not None]
    if len(numbers) != 2:
        raise MissingDependency(f"{header}: no TensorRT version in it", _REMEDIES["TensorRT headers"])
    return numbers[0], numbers[1]


def _needed(what: str, given: Path | None = None) -> str:
    places = _places(what, given)
    for place in places:
        if place.problem is None:
            return place.where
    looked = ", ".join(place.where for place in places)
    raise MissingDependency(f"{what}: not found (looked at {looked})", _REMEDIES[what])


def _places(what: str, given: Path | None) -> list[Looked]:
    if what == "TensorRT headers":
        root = os.environ.get("TENSORRT_ROOT")
        folders = [Path(root, "include")] if root else []
        folders = [given] if given is not None else [*folders, *map(Path, _INCLUDE_FOLDERS)]
        return [_looked(what, folder, folder / _HEADER) for folder in folders]
    if what == "CMake":
        # A virtual environment that is not activated still has its own.
        return [_program(what, "cmake"), _looked(what, *[Path(sys.executable).with_name("cmake")] * 2)]
    toolkits = [os.environ.get("CUDA_HOME"), _TOOLKIT]
    nvccs = [Path(toolkit, "bin", "nvcc") for toolkit in toolkits if toolkit]
    chosen = [_program(what, os.environ["CUDACXX"])] if os.environ.get("CUDACXX") else []
    return [*chosen, _program(what, "nvcc"), *(_looked(what, nvcc, nvcc) for nvcc in nvccs)]


def _looked(what: str, where: Path, file: Path) -> Looked:
    return Looked(what, str(where), None if file.is_file() else "not there")


def _program(what: str, name: str) -> Looked:
    found = shutil.which(name)
    return Looked(what, found or f"{name} on PATH", None if found else "not there")


def _compile(steps: Sequence[Sequence[str]], log: Path) -> None:
    said = ""
    for step in steps:
        try:
            done = subprocess.run(
                step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
            )
        except OSError as error:
            raise JotrDeployError(f"{step[0]}: cannot be run ({first_line(error)})", _REMEDIES["CMake"]) from error
        said += f"$ {' '.join(step)}\n{done.stdout}"
        if done.returncode != 0:
            with written_aside(log) as aside:
                aside.write_text(said)
            raise JotrDeployError(
                f"the plugin library does not compile: {_reason(done.stdout)}", f"what was said stands in {log}"
            )
    log.unlink(missing_ok=True)


def _reason(output: str) -> str:
    """The line in which a compiler names its error, else what CMake says under its heading, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in lines:
        if re.search(r"\berror:|\bnvcc fatal\b", line):
            return line
    for index, line in enumerate(lines):
        if line.startswith("CMake Error"):
            return " ".join(lines[index + 1 : index + 4]) or line
    return lines[-1] if lines else "nothing was said"
