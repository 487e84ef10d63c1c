"""Networks that run on the CPU beside a GPU say why, once; JetPack's runtime stands in for a bundled one."""

from __future__ import annotations

import types
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_compiler, shared_library

from jotr_deploy.runtime.sessions import cuda, gpu_presence, open_session, system_cudart
from jotr_deploy.runtime.sessions.gpu_presence import why_not_cuda
from jotr_deploy.support.nvidia_driver import Driver


@pytest.fixture
def network(tmp_path: Path) -> Path:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[b,2] x) => (float[b,2] y) { y = Relu (x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


@pytest.mark.parametrize(
    ("driver", "device", "warnings"),
    [
        (None, "auto", 0),
        (Driver(0, (13, 0)), "auto", 0),  # hidden from this process
        (Driver(1, (13, 0)), "cpu", 0),
        (Driver(1, (13, 0)), "auto", 1),
    ],
)
def test_a_gpu_that_is_not_used(
    network: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, driver: Driver | None, device: str, warnings: int
) -> None:
    monkeypatch.setattr(gpu_presence, "nvidia_driver", lambda: driver)
    gpu_presence.warn_of_unused_gpu.cache_clear()
    for _ in range(2):
        with open_session(network, "onnxruntime", device) as session:
            assert session({"x": np.ones((1, 2), np.float32)})["y"].shape == (1, 2)
    gpu_presence.warn_of_unused_gpu.cache_clear()
    said = [record.getMessage() for record in caplog.records if "although" in record.getMessage()]
    assert len(said) == warnings
    for line in said:
        assert line == (
            "networks run on the CPU although there is a GPU: this ONNX Runtime has no CUDA; "
            "jotr-deploy doctor names the package at fault"
        )


class Status(IntEnum):
    cudaSuccess, cudaErrorMemoryAllocation, cudaErrorInsufficientDriver = 0, 2, 35  # noqa: N815


def bindings(status: int, count: int = 1) -> Any:
    """The parts of `cuda.bindings.runtime` that are read, with a runtime that answers its first call so."""
    modes = IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})
    kinds = IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
    return types.SimpleNamespace(
        cudaGetDeviceCount=lambda: (Status(status), count), cudaError_t=Status, cudaStreamCaptureMode=modes,
        cudaMemcpyKind=kinds, cudaStreamNonBlocking=1, cudaEventDefault=0,
        cudaMalloc=lambda nbytes: (Status(status), 0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "module", "reason"),
    [
        (False, bindings(0), "this ONNX Runtime has no CUDA"),
        (True, None, "cuda-bindings is not installed"),
        (True, bindings(35), "CUDA cannot count the GPUs (cudaErrorInsufficientDriver)"),
        (True, bindings(0, 0), "CUDA finds no GPU that this process may use"),
        (True, bindings(0), None),
    ],
)
def test_why_cuda_is_not_used(monkeypatch: pytest.MonkeyPatch, provider: bool, module: Any, reason: str | None) -> None:
    def imported(name: str) -> Any:
        if module is None:
            raise ModuleNotFoundError(name=name)
        return module

    monkeypatch.setattr(cuda, "import_module", imported)
    found = why_not_cuda(provider)
    assert (found and found.cause) == reason


# ── JetPack's runtime ────────────────────────────────────────────────────────────────────────────────────────────

JETPACK = """
#include <stdlib.h>
#include <string.h>
int cudaGetDeviceCount(int *count) { *count = 1; return STATUS; }
int cudaGetDevice(int *index) { *index = 0; return 0; }
int cudaDriverGetVersion(int *version) { *version = 12060; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 12060; return 0; }
int cudaDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 8 : 7; return 0; }
int cudaGetDeviceProperties_v2(char *properties, int device) { strcpy(properties, "Orin"); return 0; }
int cudaMalloc(void **pointer, size_t size) { *pointer = malloc(size); return size > 1 << 20 ? 2 : 0; }
int cudaFree(void *pointer) { free(pointer); return 0; }
int cudaMallocHost(void **pointer, size_t size) { return cudaMalloc(pointer, size); }
int cudaFreeHost(void *pointer) { free(pointer); return 0; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { *stream = (void *)(long)(0x5000 + flags); return 0; }
int cudaStreamDestroy(void *stream) { return 0; }
int cudaStreamSynchronize(void *stream) { return stream == (void *)0x5001 ? 0 : 1; }
int cudaMemcpyAsync(void *to, void *from, size_t size, int kind, void *stream) { memcpy(to, from, size); return 0; }
int cudaStreamBeginCapture(void *stream, int mode) { return mode == 1 ? 0 : 1; }
int cudaStreamEndCapture(void *stream, void **graph) { *graph = (void *)0x6000; return 0; }
int cudaGraphInstantiate(void **made, void *graph, unsigned long long flags) { *made = (void *)0x7000; return 0; }
int cudaGraphDestroy(void *graph) { return graph == (void *)0x6000 ? 0 : 1; }
static int launched;
int cudaGraphLaunch(void *graph, void *stream) { launched += graph == (void *)0x7000; return launched ? 0 : 1; }
int cudaGraphExecDestroy(void *graph) { return 0; }
int cudaGetLastError(void) { return 0; }
"""


@pytest.fixture
def jetpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = shared_library(tmp_path / "libcudart.so.12", JETPACK.replace("STATUS", "0"))
    broken = tmp_path / "libcudart.so.13"
    broken.write_text("for another machine")
    monkeypatch.setattr(system_cudart, "libraries", lambda: (broken, path))
    monkeypatch.setattr(system_cudart, "_instead", {})
    return path


@needs_compiler
@pytest.mark.parametrize(("status", "system"), [(35, True), (0, False), (2, False)])
def test_jetpacks_runtime_stands_in_for_one_that_the_driver_refuses(jetpack: Path, status: int, system: bool) -> None:
    own = bindings(status)
    found = system_cudart.instead_of(own)
    assert isinstance(found, system_cudart.SystemRuntime) == system
    assert system or found is own
    assert system_cudart.instead_of(own) is found


@needs_compiler
def test_a_runtime_of_the_system_that_is_refused_too(jetpack: Path, tmp_path: Path, monkeypatch: Any) -> None:
    refused = shared_library(tmp_path / "old" / "libcudart.so.11", JETPACK.replace("STATUS", "35"))
    monkeypatch.setattr(system_cudart, "libraries", lambda: (refused,))
    own = bindings(35)
    assert system_cudart.instead_of(own) is own


@needs_compiler
def test_sessions_work_on_it(jetpack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = bindings(35)
    monkeypatch.setattr(cuda, "import_module", lambda name: own)
    info = cuda.device_info()
    assert (info.name, info.capability, info.driver, info.runtime) == ("Orin", "8.7", "12.6", "12.6")
    stream, device, pinned = cuda.Stream(), cuda.Memory.on_device(24), cuda.Memory.pinned(24)
    values = pinned.as_array((2, 3), np.dtype(np.float32))
    values[:] = 3
    stream.to_device(device.pointer, pinned.pointer, 24)
    values[:] = 0
    stream.to_host(pinned.pointer, device.pointer, 24)
    stream.synchronize()
    assert (values == 3).all()
    graph = stream.capture(lambda: None)
    graph.launch(stream)
    with pytest.raises(cuda.SessionError, match="cudaErrorMemoryAllocation"):
        cuda.Memory.on_device(2 << 20)
    with pytest.raises(AttributeError, match="cudaMallocManaged"):
        cuda.runtime().cudaMallocManaged(1)
    for resource in (graph, device, pinned, stream):
        resource.release()


def test_other_machines_have_none_and_pay_nothing() -> None:
    """The bindings are not even called."""
    assert system_cudart.libraries() == ()
    assert system_cudart.instead_of("bindings") == "bindings"
