"""A machine with a GPU and TensorRT, made of strict fakes, and what tests of the builder look at."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
from contracts import healthy
from contracts.fakes import FakeTensorrt, fake_tensorrt
from runtime.fake_cuda import FakeCuda, Status, fake_cuda

from jotr_deploy.bundle import Bundle, open_bundle, sha256_of
from jotr_deploy.plugins import DOMAIN, NAME, library, qdp
from jotr_deploy.runtime.sessions import tensorrt_engine

LIBRARY = Path("/plugins/libjotr_trilinear.so")


class Machine:
    """A GPU with TensorRT, as fakes."""

    def __init__(self, trt: FakeTensorrt, gpu: FakeCuda) -> None:
        self.trt, self.gpu = trt, gpu
        self.device = 0
        self.device_of: dict[threading.Thread, int] = {}

    def set_device(self, index: int) -> tuple[Any, ...]:
        """CUDA's current device is every thread's own."""
        self.device_of[threading.current_thread()] = index
        return (Status.cudaSuccess,)

    def log(self, text: str) -> None:
        """Let TensorRT say an error."""
        tensorrt_engine.logger(self.trt).log(self.trt.ILogger.Severity.ERROR, text)


@contextmanager
def fake_machine(monkeypatch: pytest.MonkeyPatch, version: str = "10.16", overrides: Any = None) -> Iterator[Machine]:
    """Install it for the block; when it is left, nothing of CUDA is held any more."""

    def execute(context: Any, stream: int) -> bool:
        gpu.queue(stream, lambda: healthy._execute(context, stream))
        return True

    with (
        fake_cuda() as gpu,
        fake_tensorrt(version, {"IExecutionContext.execute_async_v3": execute, **(overrides or {})}) as trt,
    ):
        m = Machine(trt, gpu)
        gpu.runtime.cudaSetDevice = m.set_device
        gpu.runtime.cudaGetDevice = lambda: (Status.cudaSuccess, m.device)
        monkeypatch.setattr(qdp, "register", lambda: trt.creators.add((NAME, "1", DOMAIN)))
        monkeypatch.setattr(library, "need_library", lambda: LIBRARY)
        monkeypatch.setattr(library, "find_library", lambda: None)
        yield m
        assert not gpu.mistakes
        assert gpu.live() == {}
    tensorrt_engine.logger.cache_clear()


def with_network(bundle: Bundle, model: onnx.ModelProto) -> Bundle:
    """The same bundle with another network in it."""
    path = bundle.path / "mesh.onnx"
    onnx.save(model, path)
    manifest = json.loads((bundle.path / "bundle.json").read_text())
    manifest["files"][0]["sha256"] = sha256_of(path)
    (bundle.path / "bundle.json").write_text(json.dumps(manifest))
    return open_bundle(bundle.path)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
