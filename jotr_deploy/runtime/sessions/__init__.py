"""Sessions: load any engine file, call it by tensor name."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

from jotr_deploy.errors import JotrDeployError, SessionError
from jotr_deploy.runtime.sessions.session import Session, TensorSpec
from jotr_deploy.support.file_kinds import UNKNOWN, advice, describe_file

__all__ = ["Opener", "Session", "TensorSpec", "open_for", "open_session"]

Opener = Callable[[str, Path, str, int | None], Session]
"""Function that opens the network of a role (detector, pose, mesh or body) from a file, on a device, with a number of
threads; by default `open_for`. Another one may run the network elsewhere, or share it with other callers."""

OPENVINO_FILE = ".openvino.onnx"
_WEIGHTS = ("a PyTorch archive", "an old-style PyTorch file", "a TorchScript model", "a safetensors file")
_TO_ONNX = "export it to ONNX with the project that it is from, and give that file"
_BACKENDS = {".onnx": ("onnxruntime", "openvino"), ".engine": ("tensorrt",), ".plan": ("tensorrt",)}


def open_session(
    path: Path,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
    spinning: bool = True,
) -> Session:
    """Load a network.

    Args:
        path: the file; its suffix selects the engine if `backend` is "auto".
        backend: "auto", "onnxruntime", "openvino" or "tensorrt". If two can open a file, "auto" takes the one that
            `bench --choose` found faster here, or ONNX Runtime without a measurement.
        device: "auto" (CUDA if the engine supports it), "cpu" or "cuda".
        threads: number of CPU threads of the session; by default all cores.
        tf32: let ONNX Runtime round float32 products to TF32 on CUDA; a TensorRT engine keeps the types it was built
            with.
        spinning: whether threads of ONNX Runtime wait busily for their part of a call, which is faster for one network
            at a time; networks that run at the same time take the processor from each other.

    Raises:
        SessionError: unknown format, or the engine refuses the file.
        MissingDependency: the engine is not installed.
    """
    _require_network_file(path)
    able = _BACKENDS[path.suffix.lower()]
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
    return _in_onnxruntime(path, device, threads, tf32, spinning)


def open_for(role: str, path: Path, device: str = "auto", threads: int | None = None, *, tf32: bool = False) -> Session:
    """`open_session` for a network of any role."""
    return open_session(path, device=device, threads=threads, tf32=tf32)


def _in_onnxruntime(path: Path, device: str, threads: int | None, tf32: bool, spinning: bool) -> Session:
    """Open on a GPU with our own buffers and graphs if the file's shapes allow it, else with plain calls."""
    from jotr_deploy.runtime.sessions.gpu_presence import warn_of_unused_gpu, why_not_cuda
    from jotr_deploy.runtime.sessions.onnxruntime import CUDA, OnnxRuntimeSession, no_cuda, onnxruntime

    missing = None if device == "cpu" else why_not_cuda(CUDA in onnxruntime().get_available_providers())
    refused: JotrDeployError | None = missing
    if device != "cpu" and missing is None:
        from jotr_deploy.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession

        try:
            return OnnxRuntimeCudaSession(path, threads=threads, tf32=tf32)
        except SessionError as error:
            logging.getLogger("jotr_deploy").info("%s: plain ONNX Runtime calls: %s", path.name, error.cause)
            refused = no_cuda(error)  # which does not keep the traceback, hence the session, alive
    session = OnnxRuntimeSession(path, device, threads, tf32, spinning, refused)
    if device == "auto" and session.device == "cpu":
        why = missing or session.fallback
        warn_of_unused_gpu(f"{why.cause}; {why.remedy}")
    return session


def _require_network_file(path: Path) -> None:
    """Refuse a file whose name is not that of a network, or whose content does not match its name."""
    kind, known = describe_file(path), f"give a file that ends in {', '.join(sorted(_BACKENDS))}"
    able = _BACKENDS.get(path.suffix.lower())
    if not path.is_file():
        if kind == "no file at all":
            raise SessionError(f"{path}: no such network file", known if able is None else "check the path")
        raise SessionError(f"{path}: is not a network file: it is {kind}", known)
    if kind == "an ONNX model" and (able is None or "tensorrt" in able):
        raise SessionError(f"{path}: cannot open '{path.suffix}': it is an ONNX model", f"call it {path.stem}.onnx")
    if able is None:
        what = "" if kind == UNKNOWN else f": it is {kind}"
        remedy = _TO_ONNX if kind in _WEIGHTS else advice(path)
        raise SessionError(f"{path}: cannot open '{path.suffix}'{what}", remedy or known)


def _chosen(path: Path, device: str) -> str | None:
    """The engine measured to be faster on the CPU, if the file is to run there."""
    if path.suffix.lower() != ".onnx" or device == "cuda" or importlib.util.find_spec("openvino") is None:
        return None
    from jotr_deploy.runtime.sessions import cuda
    from jotr_deploy.runtime.sessions.choice import remembered

    return None if device == "auto" and cuda.available() else remembered(path)
