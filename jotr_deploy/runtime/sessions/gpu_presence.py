"""The GPU as the NVIDIA driver alone sees it: what there is before any package can use it."""

from __future__ import annotations

import ctypes
import functools
import logging
from dataclasses import dataclass

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.runtime.sessions import cuda

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


@functools.cache
def warn_of_unused_gpu(reason: str) -> None:
    """Say once why networks run on the CPU, if the driver sees a GPU."""
    driver = nvidia_driver()
    if driver is not None and driver.gpus:
        logging.getLogger("jotr_deploy").warning(
            "networks run on the CPU although there is a GPU: %s; jotr-deploy doctor names the package", reason
        )


def why_not_cuda(has_provider: bool) -> str:
    """The reason why a session with the device "auto" does not use CUDA; empty if it can.

    Args:
        has_provider: ONNX Runtime was built with CUDA.
    """
    if not has_provider:
        return "this ONNX Runtime has no CUDA"
    try:
        count = cuda.check(cuda.runtime().cudaGetDeviceCount(), "count the GPUs")
    except JotrDeployError as error:
        return error.cause
    return "" if count else "CUDA finds none that this process may use"
