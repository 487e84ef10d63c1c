"""Loading of an engine file as a TensorRT engine shared by several sessions, after a check against this machine."""

from __future__ import annotations

import functools
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from jotr_deploy.bundle import MANIFEST, open_bundle
from jotr_deploy.errors import MissingDependency, SessionError, first_line, install
from jotr_deploy.plugins import DOMAIN, NAME, VERSION
from jotr_deploy.runtime.sessions import cuda

BOUND_TO = {"tensorrt": "TensorRT", "capability": "compute capability"}
"""Properties that a plan is bound to: key of `built_with` -> name in messages. Other keys are only recorded."""
REBUILD = "build it on this machine: jotr-deploy build-engine BUNDLE --backend tensorrt"


def tensorrt() -> ModuleType:
    """The module `tensorrt`.

    Raises:
        MissingDependency: it cannot be imported.
    """
    try:
        return import_module("tensorrt")
    except ImportError as error:
        raise MissingDependency(
            f"TensorRT cannot be imported ({first_line(error)})",
            f"{install('tensorrt')}; on a Jetson use JetPack's own, in a venv with --system-site-packages",
        ) from None


def environment() -> dict[str, str]:
    """Environment of engines, as recorded in a manifest's `built_with`: tensorrt, gpu, capability, driver, cuda.

    Raises:
        MissingDependency: no TensorRT or no cuda-bindings.
        SessionError: no GPU or no driver.
    """
    info = cuda.device_info()
    return {
        "tensorrt": tensorrt().__version__,
        "gpu": info.name,
        "capability": info.capability,
        "driver": info.driver,
        "cuda": info.runtime,
    }


def mismatch(built_with: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Reasons why an engine cannot run here, a phrase each; empty if it can.

    Args:
        built_with: from the manifest; missing keys are not compared.
        here: `environment()`.

    >>> mismatch({"tensorrt": "10.3.0", "cuda": "12.6"}, {"tensorrt": "11.4.0", "cuda": "13.0"})
    ['built with TensorRT 10.3.0, this machine has 11.4.0']
    """
    return [
        f"built with {called} {built_with[key]}, this machine has {here.get(key, 'none')}"
        for key, called in BOUND_TO.items()
        if key in built_with and built_with[key] != here.get(key) and not _reaches(key, built_with, here)
    ]


def _reaches(key: str, built_with: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """True for an engine built with `--portable version` and a later TensorRT of the same major."""
    if key != "tensorrt" or built_with.get("portable") != "version":
        return False
    try:
        built, own = ([int(number) for number in said[key].split(".")] for said in (built_with, here))
    except (KeyError, ValueError):
        return False
    return built[0] == own[0] and built <= own


def other_product(built_with: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """A warning for an engine from another product of the same compute capability, which runs, if not at its best."""
    if built_with.get("gpu", here["gpu"]) == here["gpu"] or built_with.get("portable") == "same-capability":
        return None
    return f"built on {built_with['gpu']}, this is {here['gpu']}: its kernels were not chosen for this GPU"


@functools.cache
def logger(trt: ModuleType) -> Any:
    """The process's only TensorRT logger: it keeps the last error in `last_error`, and passes everything to `logging`.

    TensorRT keeps the first logger it is given, so all callers must use this one.
    """

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                self.last_error = msg
            # Nothing above INFO: an error also raises an exception that quotes it, and would be reported twice.
            level = logging.DEBUG if severity.name == "VERBOSE" else logging.INFO
            logging.getLogger("jotr_deploy.tensorrt").log(level, "%s", msg)

        def reason(self) -> str:
            """The last error on one line."""
            return " ".join(self.last_error.split()) or "no reason given"

    return Log()


def listening(trt: ModuleType) -> Any:
    """The logger, with its last error cleared."""
    log = logger(trt)
    log.last_error = ""
    return log


def header_and_plan(data: bytes) -> tuple[dict[str, str], memoryview]:
    """The header that Ultralytics writes before the plan in an engine file, its values as text, and the plan.

    The header is a length, 4 bytes little-endian, and a JSON object of that many bytes; empty if there is none.
    """
    view = memoryview(data)
    end = 4 + int.from_bytes(view[:4], "little")
    if 4 < end <= len(view):
        try:
            header = json.loads(bytes(view[4:end]))
        except (ValueError, RecursionError):
            return {}, view
        if isinstance(header, dict):
            return {key: str(value) for key, value in header.items()}, view[end:]
    return {}, view


def with_header(metadata: Mapping[str, str], plan: bytes) -> bytes:
    """The reverse: the plan behind the metadata of its network, which TensorRT itself does not keep."""
    if not metadata:
        return plan
    header = json.dumps(dict(metadata)).encode()
    return len(header).to_bytes(4, "little") + header + plan


class Engine:
    """A deserialised engine and its runtime, reference-counted by its sessions."""

    def __init__(self, path: Path, built_with: Mapping[str, str] | None) -> None:
        self.holders = 0
        trt = tensorrt()
        if built_with is None:
            built_with = _recorded(path)
        if built_with:
            _require_machine(path, built_with)
        if built_with.get("plugin") == "library":
            load_plugin_library(trt)
        with _reading(path):
            self.metadata, plan = header_and_plan(path.read_bytes())
        log = listening(trt)
        self.runtime: Any = trt.Runtime(log)
        if built_with.get("portable") == "version":
            self.runtime.engine_host_code_allowed = True  # such a plan carries a runtime of its own
        self.engine: Any = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            self.close()
            raise _refused(path, log.reason())

    def close(self) -> None:
        """Release the engine, then the runtime."""
        self.engine = None
        self.runtime = None


def _require_machine(path: Path, built_with: Mapping[str, str]) -> None:
    here = environment()
    if reasons := mismatch(built_with, here):
        raise SessionError(f"{path}: {'; '.join(reasons)}", REBUILD)
    if warning := other_product(built_with, here):
        logging.getLogger("jotr_deploy").warning("%s: %s", path.name, warning)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SessionError(f"{path}: cannot be read ({error.strerror})", "check the path and its permissions") from None


def _recorded(path: Path) -> Mapping[str, str]:
    """`built_with` of the file in the bundle around it; empty if no manifest lists it."""
    if path in _being_added:
        return _being_added[path]
    if not (path.parent / MANIFEST).is_file():
        return {}
    entries = open_bundle(path.parent).manifest.files
    return next((entry.built_with for entry in entries if entry.name == path.name), {})


_being_added: dict[Path, Mapping[str, str]] = {}


@contextmanager
def being_added(path: Path, built_with: Mapping[str, str]) -> Iterator[None]:
    """Let sessions in this block know how a file was built that no manifest lists yet."""
    _being_added[path] = built_with
    try:
        yield
    finally:
        del _being_added[path]


def _refused(path: Path, reason: str) -> SessionError:
    remedy = REBUILD
    if "plugin" in reason.lower():
        remedy = "build the plugin library (jotr-deploy plugins build), or the engine with --plugin none"
    return SessionError(f"{path}: TensorRT cannot load the engine ({reason})", remedy)


def load_plugin_library(trt: ModuleType) -> None:
    """Register the C++ plugin in this process, unless it is registered already.

    Raises:
        MissingDependency: there is no library.
        SessionError: the library does not fit, or TensorRT rejects it.
    """
    from jotr_deploy.plugins.library import need_library

    registry = trt.get_plugin_registry()
    # TensorRT up to 10.9 may register a library's creators under the empty namespace.
    if any(registry.get_creator(NAME, str(VERSION), namespace) is not None for namespace in (DOMAIN, "")):
        return
    library, log = need_library(), listening(trt)
    if registry.load_library(str(library)) is None:
        raise SessionError(
            f"{library}: TensorRT cannot load the plugin library ({log.reason()})",
            "build it again for this TensorRT: jotr-deploy plugins build",
        )


_open: dict[tuple[Path, int, int], Engine] = {}
_lock = threading.Lock()


@contextmanager
def shared_engine(path: Path, built_with: Mapping[str, str] | None = None) -> Iterator[Engine]:
    """The engine of a file, deserialised once for all its sessions and freed with the last one.

    Args:
        path: the engine file. A replaced file counts as another engine.
        built_with: environment the engine was built in; by default the record in the bundle around it.

    Raises:
        SessionError: it belongs to another machine, or TensorRT rejects it.
        MissingDependency: its plugin library is missing.
    """
    with _reading(path):
        state = path.stat()
    key = (path.resolve(), state.st_mtime_ns, state.st_size)
    with _lock:
        if key not in _open:
            _open[key] = Engine(path, built_with)
        engine = _open[key]
        engine.holders += 1
    try:
        yield engine
    finally:
        with _lock:
            engine.holders -= 1
            if not engine.holders:
                _open.pop(key).close()
