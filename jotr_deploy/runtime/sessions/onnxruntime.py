"""ONNX Runtime behind the session contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.errors import MissingDependency, SessionError, first_line
from jotr_deploy.runtime.sessions.contract import Array, Session, TensorSpec

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeSession(Session):
    """An ONNX file in ONNX Runtime, on the CPU or, with onnxruntime-gpu, on a CUDA device."""

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependency(
                "ONNX Runtime is not installed", "pip install 'jotr-deploy[cpu]' (or [gpu] for CUDA)"
            ) from None
        providers = _providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's own classes derive from Exception only
            raise SessionError(
                f"{path}: ONNX Runtime cannot load it ({first_line(error)})", "check the file; export it again"
            ) from None
        self.path = path
        self.device = "cuda" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        if device == "cuda" and self.device != "cuda":
            raise SessionError(
                "ONNX Runtime could not use CUDA", "jotr-deploy doctor says what is missing; or use --device cpu"
            )
        self.inputs = {node.name: _spec(node) for node in self._session.get_inputs()}
        self.outputs = {node.name: _spec(node) for node in self._session.get_outputs()}

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self.outputs, self._session.run(list(self.outputs), feeds), strict=True))

    def close(self) -> None:
        """Free the network."""
        self._session = None


def _providers(device: str, available: list[str]) -> list[str]:
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise SessionError(
            "this ONNX Runtime has no CUDA", "install 'jotr-deploy[gpu]' in place of [cpu], or use --device cpu"
        )
    wanted = ["CPUExecutionProvider"] if device == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return [provider for provider in wanted if provider in available]


def _spec(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else str(size) for size in node.shape)
    return TensorSpec(np.dtype(_DTYPES[node.type]), shape)
