"""The CUDA layer: every status checked, everything given back once, graphs and marks in order."""

from __future__ import annotations

import gc
import importlib
import inspect

import numpy as np
import pytest
from runtime.fake_cuda import DEFAULT_STREAM, FUNCTIONS, CaptureMode, FakeCuda, MemcpyKind, Status, fake_cuda

from jotr_deploy.errors import MissingDependency, SessionError
from jotr_deploy.runtime.sessions import cuda


@pytest.fixture
def gpu():
    with fake_cuda() as fake:
        yield fake
        assert not fake.mistakes


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((Status.cudaSuccess,), None),
        ((Status.cudaSuccess, 5), 5),
        ((Status.cudaSuccess, 5, 6), (5, 6)),
        ((Status.cudaSuccess, None), None),
    ],
)
def test_check_gives_the_results(answer, expected):
    assert cuda.check(answer, "count") == expected


@pytest.mark.parametrize(
    ("status", "cause", "remedy"),
    [
        (
            Status.cudaErrorMemoryAllocation,
            "CUDA cannot allocate 3 MB (cudaErrorMemoryAllocation)",
            "free GPU memory (nvidia-smi shows its users), or use an engine for smaller batches",
        ),
        (
            Status.cudaErrorNoDevice,
            "CUDA cannot allocate 3 MB (cudaErrorNoDevice)",
            "this needs an NVIDIA GPU that is visible to this process (CUDA_VISIBLE_DEVICES)",
        ),
        (
            Status.cudaErrorLaunchFailure,
            "CUDA cannot allocate 3 MB (cudaErrorLaunchFailure)",
            "jotr-deploy doctor shows the hardware found; the kernel log (dmesg) has details about a GPU that failed",
        ),
    ],
)
def test_check_says_what_failed_and_what_to_do(status, cause, remedy):
    with pytest.raises(SessionError) as caught:
        cuda.check((status, None), "allocate 3 MB")
    assert (caught.value.cause, caught.value.remedy) == (cause, remedy)


def test_the_bindings_are_named_when_they_are_missing(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(cuda, "import_module", missing)
    with pytest.raises(
        MissingDependency, match=r"cuda-bindings is not installed\npip install '\.\[gpu\]' in a clone of jotr-deploy"
    ):
        cuda.runtime()
    assert not cuda.available()


@pytest.mark.parametrize(
    ("devices", "fail", "expected"), [(0, {}, False), (1, {}, True), (1, {"cudaGetDeviceCount": 1}, False)]
)
def test_available_means_a_gpu_that_answers(devices, fail, expected):
    with fake_cuda(fail) as gpu:
        gpu.devices = devices
        assert cuda.available() is expected


def test_device_info(gpu):
    assert cuda.device_info() == cuda.DeviceInfo(0, "Fake GPU", "8.7", driver="13.2", runtime="12.6")


@pytest.mark.parametrize(
    "make", [lambda: cuda.Memory.on_device(64), lambda: cuda.Memory.pinned(64), cuda.Stream, cuda.Event]
)
def test_given_back_once_by_release_and_by_the_collector(gpu: FakeCuda, make):
    thing = make()
    assert sum(gpu.live().values()) == 1
    thing.release()
    thing.release()
    assert gpu.live() == {}
    another = make()
    del thing, another
    gc.collect()
    assert gpu.live() == {}


def test_memory_outlives_its_release_while_somebody_looks_into_it(gpu: FakeCuda):
    class Viewer:
        def __init__(self, memory):
            self.owner = memory

    memory = cuda.Memory.on_device(8)
    viewer = Viewer(memory)
    memory.viewers.add(viewer)
    memory.release()
    assert gpu.live() == {"device": 1}
    del memory, viewer
    gc.collect()
    assert gpu.live() == {}


@pytest.mark.parametrize("shape", [(2, 3), (6,), (1, 2, 3)])
def test_there_and_back_is_identity(gpu: FakeCuda, shape):
    stream, device, pinned = cuda.Stream(), cuda.Memory.on_device(24), cuda.Memory.pinned(24)
    other = cuda.Memory.on_device(24)
    array = pinned.as_array(shape, np.dtype(np.float32))
    array[...] = np.arange(6).reshape(shape)
    stream.to_device(device.pointer, pinned.pointer, 24)
    stream.on_device(other.pointer, device.pointer, 24)
    stream.synchronize()
    array[...] = -1
    stream.to_host(pinned.pointer, other.pointer, 24)
    assert (array == -1).all()  # nothing is done before somebody waits
    stream.synchronize()
    np.testing.assert_array_equal(array, np.arange(6).reshape(shape))


def test_time_between_marks(gpu: FakeCuda):
    stream, before, after = cuda.Stream(), cuda.Event(), cuda.Event()
    stream.record(before)
    stream.record(after)
    with pytest.raises(SessionError, match="read the time between two events"):
        after.ms_since(before)
    stream.synchronize()
    assert after.ms_since(before) == pytest.approx(0.25)


def test_waiting_for_another_stream_runs_its_work_first(gpu: FakeCuda):
    stream, done = cuda.Stream(), []
    gpu.queue(DEFAULT_STREAM, lambda: done.append("producer"))
    stream.wait_for(DEFAULT_STREAM)
    gpu.queue(stream.handle, lambda: done.append("consumer"))
    stream.synchronize()
    assert done == ["producer", "consumer"]


def test_a_graph_holds_work_that_did_not_run_and_repeats_it(gpu: FakeCuda):
    stream, done = cuda.Stream(), []
    graph = stream.capture(lambda: gpu.queue(stream.handle, lambda: done.append(1)))
    stream.synchronize()
    assert done == []
    graph.launch(stream)
    graph.launch(stream)
    stream.synchronize()
    assert done == [1, 1]
    graph.release()
    assert gpu.live() == {"stream": 1}


@pytest.mark.parametrize("function", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_a_refused_capture_leaves_a_clean_stream(function):
    with fake_cuda({function: 1}) as gpu:
        stream, done = cuda.Stream(), []
        queue = lambda: gpu.queue(stream.handle, lambda: done.append(1))  # noqa: E731
        with pytest.raises(SessionError):
            stream.capture(queue)
        assert gpu.last_error is Status.cudaSuccess
        assert gpu.live() == {"stream": 1}
        stream.capture(queue).launch(stream)
        stream.synchronize()
        assert done == [1]
        assert not gpu.mistakes


@pytest.mark.parametrize("spoil", [False, True], ids=["raises", "spoils the capture and raises"])
def test_an_engine_that_fails_inside_a_capture_ends_it(gpu: FakeCuda, spoil):
    stream = cuda.Stream()

    def queue():
        if spoil:
            gpu.runtime.cudaStreamSynchronize(stream.handle)
        raise SessionError("no", "none")

    with pytest.raises(SessionError, match=r"^no\nnone$"):
        stream.capture(queue)
    assert not gpu.captured
    assert gpu.last_error is Status.cudaSuccess
    assert gpu.live() == {"stream": 1}


@pytest.mark.parametrize(("current", "fine"), [(0, True), (7, True), (8, False)], ids=["none", "primary", "PyCUDA's"])
def test_only_the_primary_context_is_accepted(gpu: FakeCuda, current, fine):
    gpu.contexts["current"] = current
    if fine:
        cuda.require_primary_context()
        return
    with pytest.raises(SessionError) as caught:
        cuda.require_primary_context()
    assert caught.value.cause == (
        "the current CUDA context is not the GPU's primary one (pycuda.autoinit makes its own)"
    )
    assert caught.value.remedy == "import pycuda.autoprimaryctx instead of pycuda.autoinit"


@pytest.mark.parametrize("module", FUNCTIONS)
def test_the_fake_has_nothing_that_the_real_package_lacks(module):
    pytest.importorskip("cuda.bindings", reason="pip install cuda-bindings, to compare the fake with it")
    real = importlib.import_module(f"cuda.bindings.{module}")
    for name, function in FUNCTIONS[module].items():
        parameters = list(inspect.signature(function).parameters)[1:]  # the first is the fake's own
        assert list(inspect.signature(getattr(real, name)).parameters) == parameters, name
    if module == "runtime":
        assert {m.name: m.value for m in MemcpyKind}.items() <= {
            k: int(v) for k, v in real.cudaMemcpyKind.__members__.items()
        }.items()
        modes = real.cudaStreamCaptureMode.__members__
        assert {m.name: m.value for m in CaptureMode}.items() <= {k: int(v) for k, v in modes.items()}.items()
        assert {s.name: int(s) for s in Status}.items() <= {
            k: int(v) for k, v in real.cudaError_t.__members__.items()
        }.items()
        assert (real.cudaStreamNonBlocking, real.cudaEventDefault) == (1, 0)
