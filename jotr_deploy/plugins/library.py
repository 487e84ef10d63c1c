"""The C++ plugin library: where it is looked for, and whether what is there fits. `library_build` makes it."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jotr_deploy.errors import MissingDependency, SessionError, first_line
from jotr_deploy.plugins import DOMAIN, NAME, VERSION
from jotr_deploy.support.cache import user_cache

SOURCES = Path(__file__).parent / "cpp"
"""CMake project of the library and of the harness that tests it."""

FILE_NAME = "libjotr_trilinear.so"
VARIABLE = "JOTR_PLUGIN_LIBRARY"
_BUILD = "jotr-deploy plugins build"
_SYSTEM_FOLDERS = ("/usr/local/lib", f"/usr/lib/{platform.machine()}-linux-gnu", "/usr/lib")
_GIVEN, _NAMED = "given", f"${VARIABLE}"

# Of these the library is made; CMakeLists.txt hashes the same files in the same order.
_FINGERPRINT_OF = ("../trilinear.cu", "contract.h", "launch.cu", "launch.h", "trilinear_plugin.cpp")
_METADATA = re.compile(rb"jotr::TrilinearSample3D ([0-9a-f]{64}) TensorRT (\d+)")


@dataclass(frozen=True)
class Looked:
    """One place where something was looked for."""

    what: str
    """ "plugin library", "nvcc", …"""
    where: str
    """A path, or a name that says where."""
    problem: str | None
    """Why what is there is of no use; None: it is."""
    detail: str = ""


def find_library(explicit: Path | None = None) -> Path | None:
    """The plugin library: the one given, `$JOTR_PLUGIN_LIBRARY`, the user's own, or one on the library path.

    Raises:
        SessionError: the one that was given, or that the variable names, is not there or does not fit.
    """
    for place in _places(explicit, tensorrt_major()):
        if place.problem is None:
            return Path(place.where)
        if place.detail in (_GIVEN, _NAMED):
            raise SessionError(f"{place.where}: {place.problem}", f"build the plugin library: {_BUILD}")
    return None


def need_library(explicit: Path | None = None) -> Path:
    """As `find_library`, for who cannot go on without.

    Raises:
        MissingDependency: there is none.
        SessionError: as there.
    """
    library = find_library(explicit)
    if library is None:
        where = "; ".join(f"{place.where} ({place.problem})" for place in _places(explicit, tensorrt_major()))
        raise MissingDependency(f"the TensorRT plugin library was not found: {where}", f"build it: {_BUILD}")
    return library


def cached_library(tensorrt: int) -> Path:
    """Where the library for a major version of TensorRT lies in the user's cache, or will."""
    base = user_cache() / "plugins"
    return base / f"{platform.machine()}-tensorrt{tensorrt}" / FILE_NAME


def describe(explicit: Path | None = None) -> list[Looked]:
    """Every place where the library was looked for, in order, and what TensorRT itself says of it."""
    places = list(_places(explicit, tensorrt_major()))
    return [*places, _registry(next((Path(place.where) for place in places if place.problem is None), None))]


def required_plugin(onnx_path: Path) -> bool:
    """Whether an ONNX file has nodes for the plugin.

    Raises:
        SessionError: not an ONNX file.
    """
    import onnx

    try:
        model = onnx.load(onnx_path, load_external_data=False)
    except Exception as error:  # of protobuf or of the system, by version
        raise SessionError(
            f"{onnx_path}: not a readable ONNX file ({first_line(error)})", "export the bundle again"
        ) from error
    return any(node.domain == DOMAIN for node in model.graph.node)


def fingerprint() -> str:
    """SHA-256 over the sources, as the library carries it."""
    hashes = (hashlib.sha256((SOURCES / name).read_bytes()).hexdigest() for name in _FINGERPRINT_OF)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def tensorrt_major() -> int | None:
    """Major version of the TensorRT that Python has here; None without one."""
    trt = _tensorrt()
    return None if trt is None else int(trt.__version__.split(".")[0])


def unfit(path: Path, tensorrt: int | None) -> str | None:
    """Why a file cannot serve as the plugin library of this package; None: it can.

    A library made for another major version would crash the process when it reports an error: the interface by which
    it finds TensorRT's logger has changed.
    """
    try:
        metadata = _METADATA.search(path.read_bytes())
    except OSError as error:
        return "not there" if isinstance(error, FileNotFoundError) else (error.strerror or first_line(error)).lower()
    if metadata is None:
        return "not a plugin library of this package"
    if metadata[1].decode() != fingerprint():
        return "made from other sources than this package has"
    if tensorrt is not None and int(metadata[2]) != tensorrt:
        return f"made for TensorRT {int(metadata[2])}, and TensorRT {tensorrt} is installed"
    return None


def _places(explicit: Path | None, tensorrt: int | None) -> Iterator[Looked]:
    def look(path: Path, detail: str) -> Looked:
        return Looked("plugin library", str(path), unfit(path, tensorrt), detail)

    if explicit is not None:
        yield look(explicit, _GIVEN)
    if os.environ.get(VARIABLE):
        yield look(Path(os.environ[VARIABLE]), _NAMED)
    for major in (11, 10) if tensorrt is None else (tensorrt,):
        yield look(cached_library(major), "made by plugins build")
    named = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    for folder in [*named, *_SYSTEM_FOLDERS]:
        yield look(Path(folder, FILE_NAME), "library path")


def _tensorrt() -> Any:
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError):  # its own libraries may be missing
        return None


def _registry(library: Path | None) -> Looked:
    """Loads the library into TensorRT, if both are there, and asks for the operator."""
    trt = _tensorrt()
    if trt is None:
        return Looked("TensorRT's registry", "Python package tensorrt", "TensorRT is not installed")
    where = f"TensorRT {trt.__version__}"
    registry = trt.get_plugin_registry()
    if registry is None:
        return Looked("TensorRT's registry", where, "these are bindings without libnvinfer")

    def registered() -> bool:
        # TensorRT up to 10.9 may file a library's creators under the empty namespace.
        return any(registry.get_creator(NAME, str(VERSION), namespace) is not None for namespace in (DOMAIN, ""))

    if registered():
        return Looked("TensorRT's registry", where, None, "registered already")
    if library is None:
        return Looked("TensorRT's registry", where, "no library to load")
    if registry.load_library(str(library)) is None:
        return Looked("TensorRT's registry", where, f"it refuses to load {library}")
    problem = None if registered() else f"it loads {library}, but does not find {DOMAIN}::{NAME}"
    return Looked("TensorRT's registry", where, problem, f"registered from {library}")
