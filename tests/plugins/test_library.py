"""Where the plugin library is looked for, whether it fits, and what becomes of a compilation that fails."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from contracts.fakes import fake_tensorrt
from onnx import TensorProto, helper

from jotr_deploy.errors import JotrDeployError, MissingDependency, OutputError, SessionError
from jotr_deploy.plugins import DOMAIN, NAME, library, library_build
from jotr_deploy.plugins.library import FILE_NAME, VARIABLE, cached_library, find_library, need_library, required_plugin
from jotr_deploy.plugins.library_build import build_library, describe_tools, header_version


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No library, no tool and no TensorRT of this machine is seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in (VARIABLE, "LD_LIBRARY_PATH", "TENSORRT_ROOT", "CUDACXX", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(library, "_SYSTEM_FOLDERS", ())
    monkeypatch.setattr(library_build, "_INCLUDE_FOLDERS", (str(tmp_path / "usr" / "include"),))
    monkeypatch.setattr(library_build, "_TOOLKIT", str(tmp_path / "cuda"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setitem(sys.modules, "tensorrt", None)


def made(path: Path, tensorrt: int = 10, fingerprint: str | None = None) -> Path:
    """A file with the metadata of a plugin library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"jotr::TrilinearSample3D {fingerprint or library.fingerprint()} TensorRT {tensorrt}"
    path.write_bytes(b"\x7fELF\0" + text.encode() + b"\0\xff")
    return path


# --- where ---------------------------------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is():
    assert find_library() is None


def test_the_first_place_that_has_one_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path / 'empty'}:{tmp_path / 'lib'}")
    on_path = made(tmp_path / "lib" / FILE_NAME)
    assert find_library() == on_path
    own = made(cached_library(10))
    assert find_library() == own
    newer = made(cached_library(11), tensorrt=11)
    assert find_library() == newer
    named = made(tmp_path / "named.so")
    monkeypatch.setenv(VARIABLE, str(named))
    assert find_library() == named
    given = made(tmp_path / "given.so")
    assert find_library(given) == given


@pytest.mark.parametrize(("version", "major"), [("10.3", 10), ("11.4", 11)])
def test_the_library_belongs_to_the_installed_tensorrt(version, major):
    for each in (10, 11):
        made(cached_library(each), tensorrt=each)
    with fake_tensorrt(version):
        assert find_library() == cached_library(major)


def test_a_library_that_does_not_fit_is_passed_over(tmp_path, monkeypatch):
    made(cached_library(11), tensorrt=11, fingerprint="0" * 64)
    own = made(cached_library(10))
    assert find_library() == own


UNFIT = {
    "missing": (lambda path: path, "not there"),
    "folder": (lambda path: path.mkdir(), "is a directory"),
    "empty": (lambda path: path.touch(), "not a plugin library of this package"),
    "another": (lambda path: path.write_bytes(b"\x7fELF libnvinfer"), "not a plugin library of this package"),
    "older": (lambda path: made(path, fingerprint="ab" * 32), "made from other sources than this package has"),
    "other major": (lambda path: made(path, 11), "made for TensorRT 11, and TensorRT 10 is installed"),
}


@pytest.mark.parametrize("how", ["given", "named"])
@pytest.mark.parametrize(("make", "reason"), UNFIT.values(), ids=list(UNFIT))
def test_a_library_that_was_asked_for_must_fit(make, reason, how, tmp_path, monkeypatch):
    made(cached_library(10))
    path = tmp_path / "asked.so"
    make(path)
    if how == "named":
        monkeypatch.setenv(VARIABLE, str(path))
    with fake_tensorrt("10.3"), pytest.raises(SessionError) as caught:
        find_library(path if how == "given" else None)
    assert caught.value.cause == f"{path}: {reason}"
    assert caught.value.remedy == "build the plugin library: jotr-deploy plugins build"


def test_who_needs_the_library_hears_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with fake_tensorrt("10.16"), pytest.raises(MissingDependency) as caught:
        need_library()
    places = f"{cached_library(10)} (not there); {tmp_path / FILE_NAME} (not there)"
    assert caught.value.cause == f"the TensorRT plugin library was not found: {places}"
    assert caught.value.remedy == "build it: jotr-deploy plugins build"
    assert need_library(made(tmp_path / "given.so")) == tmp_path / "given.so"


def test_libraries_of_two_machines_may_share_a_home():
    assert platform.machine() in str(cached_library(10))
    assert cached_library(10) != cached_library(11)


# --- what TensorRT says of it --------------------------------------------------------------------------------------


def test_without_tensorrt_the_places_are_described_all_the_same(tmp_path):
    own = made(cached_library(10))
    *places, registry = library.describe()
    assert [(place.where, place.problem) for place in places] == [
        (str(cached_library(11)), "not there"),
        (str(own), None),
    ]
    assert (registry.what, registry.problem) == ("TensorRT's registry", "TensorRT is not installed")


def test_bindings_without_libnvinfer_have_no_registry():
    with fake_tensorrt("10.3", {"get_plugin_registry": lambda trt: None}):
        assert library.describe()[-1].problem == "these are bindings without libnvinfer"


@pytest.mark.parametrize("version", ["10.3", "10.9", "10.16", "11.4"])
def test_tensorrt_is_asked_for_the_operator(version):
    with fake_tensorrt(version) as trt:
        assert library.describe()[-1].problem == "no library to load"
        path = made(cached_library(int(version[:2])), tensorrt=int(version[:2]))
        assert library.describe()[-1] == library.Looked(
            "TensorRT's registry", f"TensorRT {trt.__version__}", None, f"registered from {path}"
        )
        assert library.describe()[-1].detail == "registered already"


def test_a_creator_filed_under_the_empty_namespace_is_found():
    with fake_tensorrt("10.3") as trt:
        trt.creators.add((NAME, "1", ""))
        assert library.describe()[-1].problem is None


@pytest.mark.parametrize(("handle", "problem"), [(None, "it refuses to load {}"), ("handle", "it loads {}, but does")])
def test_tensorrt_refuses_the_library(handle, problem):
    path = made(cached_library(10))
    with fake_tensorrt("10.3", {"IPluginRegistry.load_library": lambda registry, path: handle}):
        assert library.describe()[-1].problem.startswith(problem.format(path))


# --- who needs it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("domain", "needed"), [(DOMAIN, True), ("", False)])
def test_a_network_needs_the_plugin_by_its_nodes(domain, needed, tmp_path):
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node(NAME if domain else "Identity", ["x"], ["y"], domain=domain)
    path = tmp_path / "network.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "g", tensors[:1], tensors[1:])), path)
    assert required_plugin(path) is needed


@pytest.mark.parametrize("content", [None, b"{}"])
def test_what_is_no_onnx_file_is_said(content, tmp_path):
    path = tmp_path / "network.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SessionError, match=r"network\.onnx: not a readable ONNX file"):
        required_plugin(path)


# --- making it -----------------------------------------------------------------------------------------------------


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return path


def headers(folder: Path, version: str = "#define NV_TENSORRT_MAJOR 10\n#define NV_TENSORRT_MINOR 3\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "NvInferRuntime.h").touch()
    (folder / "NvInferVersion.h").write_text(version)
    return folder


@pytest.fixture
def tools(tmp_path):
    """A cmake and an nvcc on PATH, and headers where the system has them."""
    program(tmp_path / "bin" / "cmake")
    program(tmp_path / "bin" / "nvcc")
    return headers(tmp_path / "usr" / "include")


class Cmake:
    """Stands in for `subprocess.run`: writes the library, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int = 2, said: str = "") -> None:
        self.commands: list[list[str]] = []
        self.fails_at, self.said = fails_at, said
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        failed = len(self.commands) > self.fails_at
        if "--build" in command and not failed:
            Path(command[command.index("--build") + 1], FILE_NAME).write_bytes(b"new")
        return subprocess.CompletedProcess(command, int(failed), stdout=self.said if failed else "fine\n")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_library_goes_where_it_is_looked_for(tools, tmp_path, monkeypatch):
    cmake, said = Cmake(monkeypatch), []
    path = build_library(say=said.append)
    assert path == cached_library(10)
    assert path.read_bytes() == b"new"
    assert files(path.parent) == {FILE_NAME}
    configure, build = cmake.commands
    assert configure[configure.index("-S") + 1] == str(library.SOURCES)
    assert f"-DTENSORRT_INCLUDE_DIR={tools}" in configure
    assert f"-DCMAKE_CUDA_COMPILER={tmp_path / 'bin' / 'nvcc'}" in configure
    assert not any("ARCHITECTURES" in option for option in configure)
    assert build[-2:] == ["--target", "jotr_trilinear"]
    assert said == [
        f"TensorRT 10.3 headers: {tools}",
        f"compiling with {tmp_path / 'bin' / 'nvcc'} for every GPU it knows",
    ]


def test_the_library_is_made_as_asked(tools, tmp_path, monkeypatch):
    enterprise = "#define TRT_MAJOR_ENTERPRISE 11\n#define TRT_MINOR_ENTERPRISE 1\n"
    include = headers(tmp_path / "eleven", enterprise + "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n")
    cmake = Cmake(monkeypatch)
    path = build_library(tmp_path / "mine.so", include, "87;90")
    assert path.read_bytes() == b"new"
    assert {f"-DTENSORRT_INCLUDE_DIR={include}", "-DCMAKE_CUDA_ARCHITECTURES=87;90"} <= set(cmake.commands[0])
    Cmake(monkeypatch)
    build_library(tensorrt_include=include)
    assert cached_library(11).is_file()


MISSING = {
    "cmake": ("CMake: not found (looked at cmake on PATH, {}/venv/cmake)", "pip install cmake, or "),
    "nvcc": ("nvcc: not found (looked at nvcc on PATH, {}/cuda/bin/nvcc)", "install the CUDA toolkit "),
    "headers": ("TensorRT headers: not found (looked at {}/usr/include)", "install libnvinfer-headers-dev, or "),
    "version": ("{}/usr/include/NvInferVersion.h: no TensorRT version in it", "install libnvinfer-headers-dev, or "),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_named_with_its_remedy(what, tools, tmp_path):
    if what in ("cmake", "nvcc"):
        (tmp_path / "bin" / what).unlink()
    else:
        (tools / ("NvInferRuntime.h" if what == "headers" else "NvInferVersion.h")).unlink()
    cause, remedy = MISSING[what]
    with pytest.raises(MissingDependency) as caught:
        build_library()
    assert caught.value.cause == cause.format(tmp_path)
    assert caught.value.remedy.startswith(remedy)
    assert "\n" not in caught.value.remedy
    assert not cached_library(10).parent.exists()


def test_headers_that_are_named_are_the_only_ones_looked_at(tools, tmp_path):
    with pytest.raises(MissingDependency, match=rf"TensorRT headers: not found \(looked at {tmp_path}/mine\)"):
        build_library(tensorrt_include=tmp_path / "mine")


def test_tools_are_found_beside_the_path(tmp_path, monkeypatch):
    expected = {
        "CMake": program(tmp_path / "venv" / "cmake"),
        "nvcc": program(tmp_path / "cuda" / "bin" / "nvcc"),
        "TensorRT headers": headers(tmp_path / "root" / "include"),
    }
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path / "root"))
    found = {place.what: place.where for place in describe_tools() if place.problem is None}
    assert found == {what: str(path) for what, path in expected.items()}
    monkeypatch.setenv("CUDACXX", str(program(tmp_path / "other" / "nvcc")))
    assert next(p.where for p in describe_tools() if p.what == "nvcc") == str(tmp_path / "other" / "nvcc")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("#define NV_TENSORRT_MAJOR 10 //!< major\n#define NV_TENSORRT_MINOR 3 //!< minor\n", (10, 3)),
        ("#define TRT_MAJOR_ENTERPRISE 11\n#define TRT_MINOR_ENTERPRISE 1\n", (11, 1)),
    ],
)
def test_headers_tell_their_version(text, version, tmp_path):
    assert header_version(headers(tmp_path / "include", text)) == version


SAID = {
    "compiler": (
        "-- fine\nlaunch.cu(3): error: no such thing\nmake: *** Error 1\n",
        "launch.cu(3): error: no such thing",
    ),
    "nvcc": ("CMake Error at x (message):\n  nvcc fatal   : no gpu\n", "nvcc fatal   : no gpu"),
    "cmake": ("-- a\nCMake Error at CMakeLists.txt:7 (m):\n  CMake 3.18 or\n\n  higher\n\n", "CMake 3.18 or higher"),
    "other": ("one\nKilled\n\n", "Killed"),
    "nothing": ("", "nothing was said"),
}


@pytest.mark.parametrize("fails_at", [0, 1])
@pytest.mark.parametrize(("said", "reason"), SAID.values(), ids=list(SAID))
def test_a_compilation_that_fails_leaves_its_log_and_the_old_library(said, reason, fails_at, tools, monkeypatch):
    path = made(cached_library(10))
    before = path.read_bytes()
    cmake = Cmake(monkeypatch, fails_at, said)
    with pytest.raises(JotrDeployError) as caught:
        build_library()
    log = path.with_name(f"{FILE_NAME}.log")
    assert caught.value.cause == f"the plugin library does not compile: {reason}"
    assert caught.value.remedy == f"what was said stands in {log}"
    assert log.read_text().endswith(said)
    assert cmake.commands[-1][1] in log.read_text()
    assert files(path.parent) == {FILE_NAME, log.name}
    assert path.read_bytes() == before
    Cmake(monkeypatch)
    build_library()
    assert files(path.parent) == {FILE_NAME}


def test_a_cmake_that_cannot_be_run(tools, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(JotrDeployError, match="cannot be run"):
        build_library()
    assert files(cached_library(10).parent) == set()


def test_no_folder_for_the_library_is_said_before_anything_is_compiled(tools, tmp_path, monkeypatch):
    cmake = Cmake(monkeypatch)
    with pytest.raises(OutputError, match="cannot be written"):
        build_library(tmp_path / "nowhere" / "mine.so")
    assert cmake.commands == []


def test_a_full_disk_leaves_nothing(tools, tmp_path, monkeypatch):
    Cmake(monkeypatch)

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    before = files(tmp_path)
    with pytest.raises(OutputError, match="No space left on device"):
        build_library(tmp_path / "mine.so")
    assert files(tmp_path) == before
