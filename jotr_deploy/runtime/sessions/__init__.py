"""Sessions: load any engine file, call it by tensor name."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions.session import Session, TensorSpec

__all__ = ["Session", "TensorSpec", "open_session"]

OPENVINO_FILE = ".openvino.onnx"
_BACKENDS = {".onnx": ("onnxruntime", "openvino"), ".engine": ("tensorrt",), ".plan": ("tensorrt",)}


def open_session(path: Path, backend: str = "auto", device: str = "auto", threads: int | None = None) -> Session:
    """Load a network.

    Args:
        path: the file; how its name ends chooses the engine when `backend` is "auto".
        backend: "auto", "onnxruntime", "openvino" or "tensorrt". Of two that can open a file "auto" takes the one
            that `bench --choose` found faster here, and ONNX Runtime where nothing was measured.
        device: "auto" (CUDA where the engine has it), "cpu" or "cuda".
        threads: width of the session on the CPU; by default all cores.

    Raises:
        SessionError: unknown format, or the engine refuses the file.
        MissingDependency: the engine is not installed.
    """
    known = ", ".join(sorted(_BACKENDS))
    if not path.is_file():
        raise SessionError(f"{path}: no such network file", f"give a file that ends in {known}")
    if path.suffix not in _BACKENDS:
        raise SessionError(f"{path}: cannot open '{path.suffix}'", f"give a file that ends in {known}")
    able = _BACKENDS[path.suffix]
    chosen = backend
    if backend == "auto":
        chosen = "openvino" if path.name.endswith(OPENVINO_FILE) else _chosen(path, device) or able[0]
    if chosen not in able:
        raise SessionError(f"{path}: {backend} cannot open '{path.suffix}'", f"use --backend {' or '.join(able)}")
    if chosen == "tensorrt":
        from jotr_deploy.runtime.sessions.tensorrt import TensorRTSession

        return TensorRTSession(path, device)
    if chosen == "openvino":
        from jotr_deploy.runtime.sessions.openvino import OpenVINOSession

        return OpenVINOSession(path, device, threads)
    return _in_onnxruntime(path, device, threads)


def _in_onnxruntime(path: Path, device: str, threads: int | None) -> Session:
    """On a GPU with buffers and graphs of our own where the file's shapes allow that, by plain calls elsewhere."""
    from jotr_deploy.runtime.sessions import cuda
    from jotr_deploy.runtime.sessions.onnxruntime import CUDA, OnnxRuntimeSession, onnxruntime

    if device != "cpu" and CUDA in onnxruntime().get_available_providers() and cuda.available():
        from jotr_deploy.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession

        try:
            return OnnxRuntimeCudaSession(path, threads=threads)
        except SessionError as error:
            logging.getLogger("jotr_deploy").info("%s: plain calls of ONNX Runtime: %s", path.name, error.cause)
    return OnnxRuntimeSession(path, device, threads)


def _chosen(path: Path, device: str) -> str | None:
    """What was measured for the CPU, where the file is to run there."""
    if path.suffix != ".onnx" or device == "cuda" or importlib.util.find_spec("openvino") is None:
        return None
    from jotr_deploy.runtime.sessions import cuda
    from jotr_deploy.runtime.sessions.choice import remembered

    return None if device == "auto" and cuda.available() else remembered(path)
