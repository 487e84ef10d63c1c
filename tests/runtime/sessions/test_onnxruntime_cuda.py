"""ONNX Runtime on a GPU: our buffers, our stream, its graphs; a fake GPU that ONNX Runtime's CPU computes for."""

from __future__ import annotations

import gc
import logging
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from runtime import fake_cuda as fake_cuda_module
from runtime.fake_cuda import FakeCuda, Status, fake_cuda

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import cuda, gpu_presence, open_session
from jotr_deploy.runtime.sessions import onnxruntime as sessions
from jotr_deploy.runtime.sessions.onnxruntime import OnnxRuntimeSession
from jotr_deploy.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession
from jotr_deploy.support.nvidia_driver import Driver

pytestmark = pytest.mark.slow


class FakeOnnxRuntime(types.ModuleType):
    """ONNX Runtime with a CUDA provider whose GPU is `gpu`."""

    def __init__(self, gpu: FakeCuda) -> None:
        super().__init__("onnxruntime")
        self.gpu, self.sessions = gpu, weakref.WeakSet[Any]()
        self.providers = [sessions.CUDA, sessions.CPU]
        self.options: list[dict[str, str]] = []  # of the CUDA provider, by session
        self.runs: list[str] = []
        self.refuses_graphs = self.fails_to_capture = self.falls_back = False
        self.refuses: str | None = None  # the reason why a network cannot be loaded on the GPU
        self.while_capturing: Callable[[], None] = lambda: None
        self.SessionOptions, self.RunOptions = onnxruntime.SessionOptions, onnxruntime.RunOptions

    def get_available_providers(self) -> list[str]:
        return self.providers

    def preload_dlls(self) -> None:
        print("Failed to load libcudnn.so.9")

    def InferenceSession(self, path: str, options: Any, providers: list[Any], enable_fallback: int) -> Any:  # noqa: N802
        assert not enable_fallback  # it would print
        return _InferenceSession(self, path, options, providers)


class _InferenceSession:
    def __init__(self, module: FakeOnnxRuntime, path: str, options: Any, providers: list[Any]) -> None:
        given = dict(provider for provider in providers if isinstance(provider, tuple)).get(sessions.CUDA)
        if given is not None and module.refuses is not None:
            raise RuntimeError(module.refuses)
        if given is not None:
            bound = {"device_id", "user_compute_stream", "enable_cuda_graph"}
            assert given.keys() - bound == {"use_tf32", "cudnn_conv_algo_search"}
            assert given.keys() & bound in (bound, set())
            assert all(isinstance(value, str) for value in given.values())
            module.options.append(given)
            if given.get("enable_cuda_graph") == "1" and module.refuses_graphs:
                raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        self.module, self.given = module, given
        self.on_gpu = sessions.CUDA in [p if isinstance(p, str) else p[0] for p in providers] and not module.falls_back
        self.real = onnxruntime.InferenceSession(path, options, providers=[sessions.CPU])
        self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs
        self.arena: dict[Any, int] = {}  # what a run was bound to or fed with -> memory
        weakref.finalize(self, _free_arena, module.gpu, self.arena)
        self.get_modelmeta = self.real.get_modelmeta
        self.graphs: dict[str, Any] = {}
        module.sessions.add(self)

    def get_providers(self) -> list[str]:
        return [sessions.CUDA, sessions.CPU] if self.on_gpu else [sessions.CPU]

    def io_binding(self) -> Any:
        return _Binding(self)

    def allocate(self, shapes: Any) -> None:
        """Grow the arena, as a run of new shapes does."""
        if self.on_gpu and shapes not in self.arena:
            status, pointer = self.module.gpu.runtime.cudaMalloc(64)
            if status:
                raise RuntimeError(f"CUDA failure {int(status)}: operation not permitted when stream is capturing")
            self.arena[shapes] = pointer

    def run(self, names: list[str], feeds: dict[str, Any]) -> list[Any]:
        self.allocate(tuple(feed.shape for feed in feeds.values()))
        return self.real.run(names, feeds)  # type: ignore[no-any-return]

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        stream, gpu = int(self.given["user_compute_stream"]), self.module.gpu
        number = options.get_run_config_entry("gpu_graph_id") if self.given["enable_cuda_graph"] == "1" else "-1"
        if number != "-1" and number not in self.graphs:
            if self.module.fails_to_capture:
                gpu.captured[stream] = []  # it dies in the middle
                raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")
            self.allocate(binding.shapes)
            self.capture(stream)
            self.graphs[number] = binding
            self.module.runs.append(f"capture {number}")
        else:
            if number == "-1":
                self.allocate(binding.shapes)
            self.module.runs.append("plain" if number == "-1" else f"replay {number}")
        bound = self.graphs.get(number, binding)
        gpu.queue(stream, lambda: self.real.run_with_iobinding(bound.real))
        if number != "-1" or _entry(options, "disable_synchronize_execution_providers") != "1":
            gpu.run(stream)

    def capture(self, stream: int) -> None:
        """In CUDA's global mode, as ONNX Runtime does."""
        cuda = self.module.gpu.runtime
        cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal)
        self.module.while_capturing()
        status, graph = cuda.cudaStreamEndCapture(stream)
        if status:
            raise RuntimeError(f"CUDA failure {int(status)}: operation failed due to a previous error during capture")
        cuda.cudaGraphDestroy(graph)


def _free_arena(gpu: FakeCuda, arena: dict[Any, int]) -> None:
    for pointer in arena.values():
        gpu.free("device", pointer)


class _Binding:
    def __init__(self, session: _InferenceSession) -> None:
        self.gpu, self.real = session.module.gpu, session.real.io_binding()
        self.shapes: tuple[Any, ...] = ()

    def bind_input(self, *args: Any) -> None:
        self.real.bind_input(*self._on_cpu(*args))

    def bind_output(self, *args: Any) -> None:
        self.real.bind_output(*self._on_cpu(*args))

    def _on_cpu(self, name, device_type, device_id, element_type, shape, buffer_ptr):  # type: ignore[no-untyped-def]
        assert (device_type, device_id) == ("cuda", 0)
        self.shapes += (tuple(shape),)
        self.gpu.inside(buffer_ptr, int(np.prod(shape)) * np.dtype(element_type).itemsize, "device")
        return name, "cpu", 0, element_type, shape, buffer_ptr


def _entry(options: Any, key: str) -> str | None:
    try:
        return options.get_run_config_entry(key)
    except Exception:  # ONNX Runtime raises where there is none
        return None


@contextmanager
def machine(fail: Any = None) -> Iterator[FakeOnnxRuntime]:
    """ONNX Runtime with CUDA; when the block is left nothing may be alive any more."""
    with fake_cuda(fail) as gpu, pytest.MonkeyPatch.context() as patch:
        module = FakeOnnxRuntime(gpu)
        patch.setattr(sessions, "onnxruntime", lambda: module)
        patch.setattr("jotr_deploy.runtime.sessions.onnxruntime_cuda.onnxruntime", lambda: module)
        yield module
        assert not gpu.mistakes
        assert gpu.live() == {}
        gc.collect()
        assert not module.sessions


def model(path: Path, *shape: Any) -> Path:
    """`double` = x + x, `twice` = k + k."""
    shape = shape or ("batch", 2, 3)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["double"]), helper.make_node("Add", ["k", "k"], ["twice"])],
        "small",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape)),
            helper.make_tensor_value_info("k", TensorProto.INT64, [shape[0], 5]),
        ],
        [
            helper.make_tensor_value_info("double", TensorProto.FLOAT, list(shape)),
            helper.make_tensor_value_info("twice", TensorProto.INT64, [shape[0], 5]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return model(tmp_path / "small.onnx")


def feeds(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {"x": rng.random((rows, 2, 3), np.float32), "k": rng.integers(-9, 9, (rows, 5))}


def right(found: dict[str, np.ndarray], given: dict[str, np.ndarray]) -> None:
    assert found.keys() == {"double", "twice"}
    np.testing.assert_array_equal(found["double"], given["x"] * 2)
    np.testing.assert_array_equal(found["twice"], given["k"] * 2)


@pytest.mark.parametrize("graphs", [False, True])
def test_every_batch_size(network, rng, graphs):
    with machine(), OnnxRuntimeCudaSession(network, graphs) as session:
        for rows in (1, 3, 32, 70, 0, 1, 3, 32, 70, 1):
            given = feeds(rng, rows)
            right(session(given), given)


def test_open_session_chooses_it_where_there_is_a_gpu(network, rng, capsys):
    with machine() as module, open_session(network) as session:
        assert isinstance(session, OnnxRuntimeCudaSession)
        assert (session.device, str(session.inputs["x"])) == ("cuda", "float32 [batch, 2, 3]")
        assert module.options == [
            {
                "use_tf32": "0",
                "cudnn_conv_algo_search": "HEURISTIC",
                "device_id": "0",
                "user_compute_stream": str(session._stream.pointer),
                "enable_cuda_graph": "1",
            }
        ]
        given = feeds(rng, 2)
        right(session(given), given)
    assert capsys.readouterr().out == ""  # what preloading prints


@pytest.mark.parametrize(
    ("device", "devices", "providers"),
    [("cpu", 1, [sessions.CUDA, sessions.CPU]), ("auto", 0, [sessions.CPU]), ("auto", 1, [sessions.CPU])],
    ids=["asked for the CPU", "no GPU", "a package without CUDA"],
)
def test_without_cuda_everything_is_as_it_was(network, rng, device, devices, providers):
    with machine() as module, monkey(module, devices, providers), open_session(network, device=device) as session:
        assert type(session) is OnnxRuntimeSession
        assert session.device == "cpu"
        assert module.options == []
        assert [call for call in module.gpu.calls if call != "cudaGetDeviceCount"] == []
        given = feeds(rng, 2)
        right(session(given), given)


@contextmanager
def monkey(module: FakeOnnxRuntime, devices: int, providers: list[str]) -> Iterator[None]:
    module.gpu.devices, module.providers = devices, providers
    yield


def test_networks_of_other_dynamic_sizes_run_plainly(tmp_path, rng, caplog):
    path = model(tmp_path / "odd.onnx", "batch", "height", 3)
    with machine(), caplog.at_level(logging.INFO, "jotr_deploy"), open_session(path) as session:
        assert type(session) is OnnxRuntimeSession
        assert session.device == "cuda"
        given = feeds(rng, 2)
        right(session(given), given)
    assert caplog.messages == [
        f"odd.onnx: plain ONNX Runtime calls: {path}: x is float32 [batch, height, 3], "
        "but only the first dimension, the batch, may be dynamic"
    ]


def test_a_batch_size_is_captured_the_second_time(network, rng):
    with machine() as module, OnnxRuntimeCudaSession(network) as session:
        for rows in (2, 2, 2, 3, 2, 3):
            given = feeds(rng, rows)
            right(session(given), given)
        assert module.runs == [
            "plain", "capture 1", "replay 1", "replay 1", "plain", "replay 1", "capture 2", "replay 2",
        ]  # fmt: skip


def test_tf32_where_it_is_asked_for(network, tmp_path):
    odd = model(tmp_path / "odd.onnx", "batch", "height", 3)
    with machine() as module:
        for path in (network, odd):
            for tf32 in (False, True):
                with open_session(path, tf32=tf32):
                    assert module.options[-1]["use_tf32"] == str(int(tf32))
                    assert module.options[-1]["cudnn_conv_algo_search"] == "HEURISTIC"


def test_batches_are_padded_to_powers_of_two(network, rng):
    with machine() as module, OnnxRuntimeCudaSession(network) as session:
        for rows in range(1, 34):
            given = feeds(rng, rows)
            right(session(given), given)
        assert len(next(iter(module.sessions)).arena) == 6  # 1, 2, 4, 8, 16, 32
        assert {run for run in module.runs if run.startswith("capture")} == {f"capture {k}" for k in range(1, 6)}


def others_at_work(module: FakeOnnxRuntime, work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """A thread that works when a capture has begun, and its result; the capture gives it time to."""
    begun, worked, results = threading.Event(), threading.Event(), list[object]()

    def while_capturing() -> None:
        begun.set()
        worked.wait(0.3)

    def wait_and_work() -> None:
        begun.wait(60)
        try:
            results.append(work())
        except SessionError as error:
            results.append(error)
        worked.set()

    module.while_capturing = while_capturing
    thread = threading.Thread(target=wait_and_work)
    thread.start()
    return thread, results


@pytest.mark.parametrize("other", ["a first call", "plain calls", "opening", "crops' memory"])
def test_what_other_threads_do_spoils_no_capture(network, tmp_path, rng, caplog, other):
    given = feeds(rng, 2)
    with machine() as module, OnnxRuntimeCudaSession(network) as session, ExitStack() as stack:
        odd = stack.enter_context(open_session(model(tmp_path / "odd.onnx", "batch", "height", 3)))
        second = stack.enter_context(OnnxRuntimeCudaSession(network))
        works = {
            "a first call": lambda: second(given),
            "plain calls": lambda: odd(given),
            "opening": lambda: stack.enter_context(OnnxRuntimeCudaSession(network))(given),
            "crops' memory": lambda: stack.callback(cuda.Memory.on_device(64).release),
        }
        thread, results = others_at_work(module, works[other])
        for _ in range(3):
            right(session(given), given)
        thread.join()
        (result,) = results
        assert not isinstance(result, SessionError), result.cause
        if isinstance(result, dict):
            right(result, given)
        assert "capture 1" in module.runs
    assert caplog.messages == []


def test_two_threads_that_capture_take_turns(network, rng, caplog):
    given = feeds(rng, 2)
    with machine() as module, OnnxRuntimeCudaSession(network) as session, OnnxRuntimeCudaSession(network) as second:
        thread, results = others_at_work(module, lambda: [second(given) for _ in range(3)])
        for _ in range(3):
            right(session(given), given)
        thread.join()
        for result in results[0]:  # type: ignore[attr-defined]
            right(result, given)
        assert module.runs.count("capture 1") == 2
    assert caplog.messages == []


def test_memory_found_garbage_while_capturing_is_freed_afterwards(network, rng, caplog):
    given = feeds(rng, 2)
    with machine() as module, OnnxRuntimeCudaSession(network) as session:
        garbage = [cuda.Memory.on_device(64)]
        pointer = garbage[0].pointer
        module.while_capturing = garbage.clear
        for _ in range(3):
            right(session(given), given)
        assert pointer not in module.gpu.memory
        assert "capture 1" in module.runs
    assert caplog.messages == []


def test_networks_that_cannot_be_captured_are_loaded_without_graphs(network, rng, caplog):
    with machine() as module:
        module.refuses_graphs = True
        with caplog.at_level(logging.WARNING, "jotr_deploy"), OnnxRuntimeCudaSession(network) as session:
            for _ in range(3):
                given = feeds(rng, 2)
                right(session(given), given)
        assert [options["enable_cuda_graph"] for options in module.options] == ["1", "0"]
        assert module.runs == ["plain"] * 3
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("small.onnx: no CUDA graphs: ")
    assert "cannot use the graph capture feature" in caplog.messages[0]


def test_a_capture_that_fails_is_begun_anew_without_graphs(network, rng, caplog):
    with machine() as module:
        module.fails_to_capture = True
        with caplog.at_level(logging.WARNING, "jotr_deploy"), OnnxRuntimeCudaSession(network) as session:
            for rows in (2, 2, 2, 3, 3):
                given = feeds(rng, rows)
                right(session(given), given)
            assert not module.gpu.captured
            assert len(module.sessions) == 1
        assert [options["enable_cuda_graph"] for options in module.options] == ["1", "0"]
    assert len(caplog.messages) == 1
    assert "no CUDA graphs, plain calls instead: " in caplog.messages[0]
    assert "CUDA failure 900" in caplog.messages[0]


def test_results_can_stay_on_the_gpu_and_come_from_it(network, rng):
    with machine() as module, OnnxRuntimeCudaSession(network) as session:
        given = feeds(rng, 4)
        on_gpu = session.run_on_device(given)
        assert on_gpu["double"].shape == (4, 2, 3)
        copies = module.gpu.calls.count("cudaMemcpyAsync")
        with OnnxRuntimeCudaSession(network) as second:
            right(
                second({"x": on_gpu["double"], "k": on_gpu["twice"]}),
                {name: value * 2 for name, value in given.items()},
            )
        assert module.gpu.calls.count("cudaMemcpyAsync") == copies + 2
        del on_gpu


def test_a_provider_that_falls_back_is_an_error_where_cuda_is_asked_for(network):
    with machine() as module:
        module.falls_back = True
        with pytest.raises(SessionError) as caught:
            open_session(network, device="cuda")
        assert (caught.value.cause, caught.value.remedy) == ("ONNX Runtime could not use CUDA", DOCTOR)
        del caught
        with open_session(network) as session:
            assert (type(session), session.device) == (OnnxRuntimeSession, "cpu")


NO_CUDA = "ONNX Runtime could not use CUDA"
DOCTOR = "run jotr-deploy doctor to see what is missing; or use --device cpu"
FULL = "CUDA failure 2: out of memory"


@pytest.mark.parametrize(
    ("fail", "refuses", "cause", "remedy"),
    [
        ({"cudaStreamCreateWithFlags": 1}, None, f"{NO_CUDA}: CUDA cannot create a stream (cudaErrorMemoryAllocation)",
         "free GPU memory (nvidia-smi shows its users), or use an engine for smaller batches; or use --device cpu"),
        ({}, f"{FULL} ; GPU=0", f"{NO_CUDA}: {{path}}: ONNX Runtime cannot load it ({FULL})",
         "free memory: that of a GPU if it runs there (nvidia-smi shows its users); or use --device cpu"),
        ({}, "CUDA was not able to be loaded",
         f"{NO_CUDA}: {{path}}: ONNX Runtime cannot load it (CUDA was not able to be loaded)", DOCTOR),
    ],
)  # fmt: skip
def test_the_error_of_cuda_is_said_where_the_cpu_takes_over(network, monkeypatch, caplog, fail, refuses, cause, remedy):
    monkeypatch.setitem(fake_cuda_module._FAILS_WITH, "cudaStreamCreateWithFlags", Status.cudaErrorMemoryAllocation)
    monkeypatch.setattr(gpu_presence, "nvidia_driver", lambda: Driver(1, (13, 0)))
    gpu_presence.warn_of_unused_gpu.cache_clear()
    cause = cause.format(path=network)
    for device in ("cuda", "auto"):
        with machine(fail) as module:
            module.falls_back, module.refuses = bool(fail), refuses
            if device == "auto":
                open_session(network).close()
                continue
            with pytest.raises(SessionError) as caught:
                open_session(network, device=device)
            assert (caught.value.cause, caught.value.remedy) == (cause, remedy)
            del caught
    gpu_presence.warn_of_unused_gpu.cache_clear()
    assert caplog.messages[-1] == f"networks run on the CPU although there is a GPU: {cause}; {remedy}"


@pytest.mark.parametrize(
    "function", ["cudaMalloc", "cudaMallocHost", "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags"]
)
def test_wherever_cuda_fails_at_opening_everything_is_released(network, function):
    with machine(fail={function: 1}) as module:
        with pytest.raises(SessionError, match=r"^CUDA cannot (allocate|create)"):
            OnnxRuntimeCudaSession(network)
        assert module.gpu.live() == {}


def test_a_run_that_fails_is_said(network, rng):
    with machine() as module, OnnxRuntimeCudaSession(network) as session:
        session._session.run_with_iobinding = None
        with pytest.raises(SessionError) as caught:
            session(feeds(rng, 2))
        assert caught.value.cause.startswith(f"{network}: ONNX Runtime cannot run it on the GPU (")
        assert module.gpu.live()
        del caught
