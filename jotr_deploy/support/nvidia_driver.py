"""The NVIDIA driver of this machine, asked without any package: what there is before anything can use it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

DRIVER = "libcuda.so.1"


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver of this machine."""

    gpus: int
    cuda: tuple[int, int]
    """The newest CUDA version that it supports."""


def nvidia_driver() -> Driver | None:
    """The driver and the number of GPUs that this process may use; None without a driver that starts."""
    try:
        library = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return None
    library.cuDriverGetVersion(ctypes.byref(version))
    return Driver(count.value, (version.value // 1000, version.value % 1000 // 10))
