"""CUDA's runtime library of a Jetson, called like `cuda.bindings.runtime`, if the driver refuses the bundled one.

The bindings carry a runtime of their own release. On a Jetson the driver belongs to JetPack and may be older than that,
which the bundled runtime answers with "insufficient driver".
"""

from __future__ import annotations

import ctypes
import functools
import platform
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/aarch64-linux/lib", "/usr/lib/aarch64-linux-gnu")
_INSUFFICIENT_DRIVER = 35
_MAJOR, _MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor, ...Minor

_P, _I, _U, _N = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_size_t
# function -> types of its results, which it writes through pointers that come first, and of its other arguments
_FUNCTIONS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "cudaGetDeviceCount": ((_I,), ()),
    "cudaGetDevice": ((_I,), ()),
    "cudaSetDevice": ((), (_I,)),
    "cudaDriverGetVersion": ((_I,), ()),
    "cudaRuntimeGetVersion": ((_I,), ()),
    "cudaDeviceGetAttribute": ((_I,), (_I, _I)),
    "cudaMalloc": ((_P,), (_N,)),
    "cudaFree": ((), (_P,)),
    "cudaMallocHost": ((_P,), (_N,)),
    "cudaFreeHost": ((), (_P,)),
    "cudaEventCreateWithFlags": ((_P,), (_U,)),
    "cudaEventDestroy": ((), (_P,)),
    "cudaEventElapsedTime": ((ctypes.c_float,), (_P, _P)),
    "cudaEventRecord": ((), (_P, _P)),
    "cudaStreamWaitEvent": ((), (_P, _P, _U)),
    "cudaStreamCreateWithFlags": ((_P,), (_U,)),
    "cudaStreamDestroy": ((), (_P,)),
    "cudaStreamSynchronize": ((), (_P,)),
    "cudaMemcpyAsync": ((), (_P, _P, _N, _I, _P)),
    "cudaStreamBeginCapture": ((), (_P, _I)),
    "cudaGraphInstantiate": ((_P,), (_P, ctypes.c_ulonglong)),
    "cudaGraphLaunch": ((), (_P, _P)),
    "cudaGraphExecDestroy": ((), (_P,)),
    "cudaGraphDestroy": ((), (_P,)),
    "cudaGetLastError": ((), ()),
}


class SystemRuntime:
    """The functions of `cuda.bindings.runtime` that this package calls; constants and enums are the bindings' own."""

    def __init__(self, bindings: Any, library: Any) -> None:
        self._bindings, self._library = bindings, library

    def __getattr__(self, name: str) -> Any:
        if name in _FUNCTIONS:
            return self._function(name)
        value = getattr(self._bindings, name)
        if name.startswith("cuda") and callable(value) and not isinstance(value, type):
            raise AttributeError(f"{name} is not among the functions that JetPack's runtime is called for")
        return value

    def _function(self, name: str) -> Callable[..., tuple[Any, ...]]:
        results, arguments = _FUNCTIONS[name]
        function = getattr(self._library, name)
        function.restype = ctypes.c_int

        def call(*given: Any) -> tuple[Any, ...]:
            made = [kind() for kind in results]
            plain = [kind(_number(value)) for kind, value in zip(arguments, given, strict=True)]
            status = function(*map(ctypes.byref, made), *plain)
            return (self._status(status), *(each.value or 0 for each in made))

        return call

    def _status(self, code: int) -> Any:
        return self._bindings.cudaError_t(code)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, Any]:  # noqa: N802 - CUDA's name
        """End a capture; the graph is the second argument here, not the first."""
        graph = _P()
        status = self._library.cudaStreamEndCapture(_P(_number(stream)), ctypes.byref(graph))
        return self._status(status), graph.value or 0

    def cudaGetDeviceProperties(self, index: int) -> tuple[Any, Any]:  # noqa: N802 - CUDA's name
        """Name and compute capability, the properties that are read; the layout of the others changes with CUDA."""
        space = ctypes.create_string_buffer(4096)  # the name is its first member
        get = getattr(self._library, "cudaGetDeviceProperties_v2", None) or self._library.cudaGetDeviceProperties
        status = get(ctypes.byref(space), _I(index))
        major, minor = (self.cudaDeviceGetAttribute(which, index)[1] for which in (_MAJOR, _MINOR))
        return self._status(status), SimpleNamespace(name=space.value, major=major, minor=minor)


def _number(value: Any) -> int:
    return int(value)


@functools.cache
def libraries() -> tuple[Path, ...]:
    """Runtime libraries of a Jetson's system, of the newest version first; empty on other machines."""
    if platform.machine() != "aarch64" or not Path("/etc/nv_tegra_release").is_file():
        return ()
    found = (path for folder in _FOLDERS for path in Path(folder).glob("libcudart.so.*"))
    return tuple(sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)], reverse=True))


_instead: dict[int, Any] = {}


def instead_of(bindings: Any) -> Any:
    """The system's runtime where the driver refuses the bundled one and takes the system's; else the bindings."""
    if not libraries():
        return bindings
    if id(bindings) not in _instead:
        _instead[id(bindings)] = _chosen(bindings)
    return _instead[id(bindings)]


def _chosen(bindings: Any) -> Any:
    if int(bindings.cudaGetDeviceCount()[0]) != _INSUFFICIENT_DRIVER:
        return bindings
    for path in libraries():
        try:
            system = SystemRuntime(bindings, ctypes.CDLL(str(path)))
            if int(system.cudaGetDeviceCount()[0]) == 0:
                return system
        except (OSError, AttributeError):  # not a library for this machine, or not CUDA's
            continue
    return bindings
