"""Machine and versions that figures belong to."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass

from jotr_deploy.support.distributions import installed_version
from jotr_deploy.support.processor import processor

_DISTRIBUTIONS = (
    "jotr-deploy", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch",
    "opencv-python-headless",
)  # fmt: skip


@dataclass(frozen=True)
class Environment:
    """Machine and versions of a measurement."""

    cpu: str
    flags: tuple[str, ...]  # instructions that decide the speed of matrix products
    cores: int  # physical
    hardware_threads: int
    memory_gb: float
    gpu: str | None  # name and driver, where an engine ran on it
    os: str
    python: str
    versions: dict[str, str]
    threads: int | None  # requested from the engines; None is each engine's default
    load_average: tuple[float, float, float]  # over 1, 5 and 15 minutes, before the run
    tf32: bool = False  # float32 products rounded to it, on a GPU in ONNX Runtime and PyTorch

    @property
    def gpu_products(self) -> str | None:
        """Name and driver of the GPU, and how float32 products are computed there; None without one."""
        return None if self.gpu is None else f"{self.gpu}; float32 products in {'TF32' if self.tf32 else 'float32'}"


def environment(threads: int | None, cuda: bool, load: tuple[float, float, float], tf32: bool = False) -> Environment:
    """Describe this machine.

    Args:
        threads: requested from the engines.
        cuda: whether an engine runs on a GPU.
        load: `load_average()` before the run.
        tf32: requested from ONNX Runtime and PyTorch.
    """
    import psutil

    cpu, flags = processor()
    return Environment(
        cpu=cpu,
        flags=flags,
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        hardware_threads=os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        gpu=_gpu() if cuda else None,
        os=platform.platform(),
        python=platform.python_version(),
        versions={name: version for name in _DISTRIBUTIONS if (version := installed_version(name))},
        threads=threads,
        load_average=load,
        tf32=tf32 and cuda,
    )


def load_average() -> tuple[float, float, float]:
    """Runnable processes over the last 1, 5 and 15 minutes."""
    import psutil

    one, five, fifteen = psutil.getloadavg()  # that of `os` is missing on Windows
    return round(one, 2), round(five, 2), round(fifteen, 2)


def _gpu() -> str | None:
    """Name and driver of the first GPU, or None if nvidia-smi does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.splitlines()[0].replace(", ", ", driver ") if answer.strip() else None
