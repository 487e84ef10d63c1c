"""Networks that run on the CPU although there is a GPU: the reason, said once."""

from __future__ import annotations

import functools
import logging

from jotr_deploy.errors import JotrDeployError, SessionError
from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.support.nvidia_driver import nvidia_driver

_DOCTOR = "jotr-deploy doctor names the package at fault"


@functools.cache
def warn_of_unused_gpu(reason: str) -> None:
    """Say once why networks run on the CPU, if the driver sees a GPU."""
    driver = nvidia_driver()
    if driver is not None and driver.gpus:
        logging.getLogger("jotr_deploy").warning("networks run on the CPU although there is a GPU: %s", reason)


def why_not_cuda(has_provider: bool) -> JotrDeployError | None:
    """The reason why a session with the device "auto" does not use CUDA; None if it can.

    Args:
        has_provider: ONNX Runtime was built with CUDA.
    """
    if not has_provider:
        return SessionError("this ONNX Runtime has no CUDA", _DOCTOR)
    try:
        count = cuda.check(cuda.runtime().cudaGetDeviceCount(), "count the GPUs")
    except JotrDeployError as error:
        return error
    return None if count else SessionError("CUDA finds no GPU that this process may use", _DOCTOR)
