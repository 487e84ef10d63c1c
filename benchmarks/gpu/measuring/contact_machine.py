"""First contact: the machine, its GPU, and the packages that the other parts may use."""

from __future__ import annotations

import platform
import shutil
import subprocess

from measuring.report import Report

from jotr_deploy.support.distributions import installed_version

PACKAGES = (
    "numpy", "torch", "triton", "cuda-bindings", "nvidia-cuda-nvrtc", "onnx", "onnxruntime", "onnxruntime-gpu",
    "tensorrt", "opencv-python-headless", "pydantic", "onnxscript", "accelerate", "tensorboard", "tomli-w",
    "cupy-cuda12x", "cupy-cuda13x", "jax",
)  # fmt: skip


def measure(report: Report) -> None:
    report.fact("system", f"{platform.platform()}, Python {platform.python_version()}")
    found = {name: installed_version(name) for name in PACKAGES}
    report.fact("packages", ", ".join(f"{name} {version}" for name, version in found.items() if version))
    report.fact("not installed", ", ".join(name for name, version in found.items() if not version) or "none of these")
    report.fact("nvcc", _said("nvcc", "--version").rpartition("release ")[2].partition(",")[0] or "not on PATH")
    query = "--query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem"
    report.fact("nvidia-smi", _said("nvidia-smi", query, "--format=csv,noheader", "-i", "0") or "it does not answer")
    try:
        import torch
    except ImportError as error:
        report.check("PyTorch", False, f"PyTorch is not installed ({error})")
        return
    available = torch.cuda.is_available()
    report.check("PyTorch", available, _torch() if available else "no CUDA device, or PyTorch without CUDA")


def _torch() -> str:
    import torch

    major, minor = torch.cuda.get_device_capability()
    return (
        f"{torch.cuda.get_device_name()}, capability {major}.{minor}, CUDA {torch.version.cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}"
    )


def _said(program: str, *options: str) -> str:
    where = shutil.which(program)
    if where is None:
        return ""
    try:
        return subprocess.run([where, *options], capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
