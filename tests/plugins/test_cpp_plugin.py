"""The C++ plugin, compiled against TensorRT's public headers and driven by its harness as TensorRT would drive it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jotr_deploy.plugins import library
from jotr_deploy.plugins.library_build import describe_tools, header_version


def _header_folders() -> list[Path]:
    named = [Path(folder) for folder in os.environ.get("JOTR_TENSORRT_HEADERS", "").split(os.pathsep) if folder]
    found = [Path(tool.where) for tool in describe_tools() if tool.what == "TensorRT headers" and tool.problem is None]
    return named or found[:1]


FOLDERS = _header_folders()
NVCC = next((tool.where for tool in describe_tools() if tool.what == "nvcc" and tool.problem is None), None)
WHY_NOT = (
    "no TensorRT headers: git clone --depth 1 --branch v10.3.0 https://github.com/NVIDIA/TensorRT "
    "and name its folder include in JOTR_TENSORRT_HEADERS"
)
pytestmark = [
    pytest.mark.skipif(not FOLDERS, reason=WHY_NOT),
    pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake: pip install cmake"),
    pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="no C++ compiler: install g++"),
]


class Builds:
    """Each build is made once."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.made: dict[tuple[Path, str], Path] = {}

    def __call__(self, include: Path, on: str) -> Path:
        if (include, on) not in self.made:
            self.made[include, on] = configure_and_build(self.parent / str(len(self.made)), include, on)
        return self.made[include, on]


def configure_and_build(folder: Path, include: Path, on: str) -> Path:
    options = [f"-DTENSORRT_INCLUDE_DIR={include.resolve()}", "-DCMAKE_CXX_FLAGS=-Werror", "-DCMAKE_BUILD_TYPE=Debug"]
    cuda = [f"-DCMAKE_CUDA_COMPILER={NVCC}", "-DCMAKE_CUDA_ARCHITECTURES=90"]
    options += ["-DJOTR_WITHOUT_CUDA=ON"] if on == "cpu" else cuda
    configure = ["cmake", "-S", library.SOURCES, "-B", folder, *options]
    for command in (configure, ["cmake", "--build", folder, "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def drive(harness: Path, plugin: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([harness, plugin], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    return Builds(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module", params=FOLDERS or [Path("none")], ids=lambda folder: folder.name)
def include(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module", params=["cpu", "nvcc"])
def built(request: pytest.FixtureRequest, builds: Builds, include: Path) -> tuple[Path, Path, str]:
    """Build folder, header folder, and for what the kernel was compiled."""
    if request.param == "nvcc" and NVCC is None:
        pytest.skip("no nvcc: install the CUDA toolkit")
    return builds(include, request.param), include, request.param


def test_the_harness_finds_nothing_wrong(built):
    folder, _, on = built
    done = drive(folder / "harness", folder / library.FILE_NAME)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed", lines[-1])
    ran = any(line.startswith("ok") and "enqueue against float64: bfloat16" in line for line in lines)
    assert ran or (on == "nvcc" and "# enqueue: not run (no GPU)" in lines)


def test_two_symbols_are_exported_and_tensorrt_and_cuda_are_not_linked(built):
    folder, _, _ = built
    plugin = folder / library.FILE_NAME

    def said(*command: str) -> str:
        return subprocess.run([*command, plugin], capture_output=True, text=True, check=True).stdout

    exported = {line.split()[-1] for line in said("nm", "-D", "--defined-only").splitlines()}
    assert exported == {"getCreators", "setLoggerFinder"}
    assert not re.search(r"nvinfer|Plugin|cuda", said("nm", "-D", "--undefined-only"))
    assert not re.search(r"NEEDED.*(nvinfer|cuda)", said("readelf", "-d"))


def test_the_library_says_what_it_was_made_of(built):
    folder, include, on = built
    plugin, (major, _) = folder / library.FILE_NAME, header_version(include)
    if on == "cpu":  # never taken for a library that runs networks
        assert library.unfit(plugin, major) == "made from other sources than this package has"
        return
    other = 21 - major
    assert library.unfit(plugin, major) is None
    assert library.unfit(plugin, other) == f"made for TensorRT {major}, and TensorRT {other} is installed"


MISTAKES = {
    "wrong shape": ("trilinear_plugin.cpp", "features.d[4]", "features.d[3]", "samples are [B,P,C]"),
    "points of any type": ("trilinear_plugin.cpp", "1: return type == DataType::kFLOAT", "1: return true", "triples"),
    "looks ahead": (
        "trilinear_plugin.cpp",
        "case 1: return",
        "case 1: return inOut[2].desc.type != DataType::kINT32 &&",
        "position 1 looks at later entries",
    ),
    "takes attributes": ("trilinear_plugin.cpp", "nbFields != 0", "nbFields > 1", "refused to build: a field"),
    "sides swapped": ("launch.cu", "&H, &W", "&W, &H", "enqueue against float64: float32, unequal sides"),
    "default stream": ("launch.cu", "arguments, 0, stream", "arguments, 0, nullptr", "enqueue runs: float32"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_the_harness_finds_a_mistake(mistake, builds, tmp_path):
    file, right, wrong, finding = mistake
    sources = tmp_path / "plugins"
    shutil.copytree(library.SOURCES, sources / "cpp")
    shutil.copy(library.SOURCES.parent / "trilinear.cu", sources)
    text = (sources / "cpp" / file).read_text()
    assert text.count(right) == 1
    (sources / "cpp" / file).write_text(text.replace(right, wrong))
    plugin, cpp = tmp_path / "wrong.so", sources / "cpp"
    options = ["-std=c++17", "-shared", "-fPIC", "-w", f'-DJOTR_FINGERPRINT="{"0" * 64}"']
    options += ["-isystem", str(FOLDERS[0]), "-isystem", str(cpp / "without_cuda")]
    files = [cpp / "trilinear_plugin.cpp", cpp / "without_cuda" / "launch.cpp"]
    subprocess.run([os.environ.get("CXX", "c++"), *options, *files, "-o", plugin], check=True, timeout=120)
    done = drive(builds(FOLDERS[0], "cpu") / "harness", plugin)
    assert done.returncode == 1
    assert re.search(rf"^not ok \d+ - .*{re.escape(finding)}", done.stdout, re.MULTILINE), done.stdout
