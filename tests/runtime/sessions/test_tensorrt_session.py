"""The TensorRT session against strict fakes of TensorRT and CUDA, which really run the network, on the host."""

from __future__ import annotations

import gc
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from contracts import healthy
from contracts.fakes import VERSIONS, FakeTensorrt, fake_tensorrt
from onnx import TensorProto, helper
from runtime.fake_cuda import FakeCuda, fake_cuda

from jotr_deploy.bundle import FileEntry, Manifest, write_manifest
from jotr_deploy.config import ModelConfig
from jotr_deploy.errors import MissingDependency, SessionError
from jotr_deploy.plugins import library
from jotr_deploy.runtime.sessions import cuda_session, open_session, tensorrt_engine
from jotr_deploy.runtime.sessions.cuda_session import padded
from jotr_deploy.runtime.sessions.device_array import DeviceArray
from jotr_deploy.runtime.sessions.tensorrt import TensorRTSession, environment, mismatch

HERE = {"gpu": "Fake GPU", "capability": "8.7", "driver": "13.2", "cuda": "12.6"}


# ── a small engine, and TensorRT's side of the bargain with CUDA ────────────────────────────────────────────────


def network(batch: int | str = "batch") -> onnx.ModelProto:
    """`sum` = x + 2 k over the row, `same` = k."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["k"], ["kf"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["kf", "kf"], ["kk"]),
            helper.make_node("Add", ["x", "kk"], ["sum"]),
            helper.make_node("Identity", ["k"], ["same"]),
        ],
        "small",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2, 3]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [batch, 1, 3]),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [batch, 2, 3]),
            helper.make_tensor_value_info("same", TensorProto.INT64, [batch, 1, 3]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def plan(
    version: str, low: int = 1, high: int = 4, batch: int | str = "batch", profiles: tuple[tuple[int, int], ...] = ()
) -> bytes:
    tails = {"x": [2, 3], "k": [1, 3]}
    profile, *others = (
        {name: [[size, *tail] for size in (low, low, high)] for name, tail in tails.items()}
        for low, high in profiles or ((low, high),)
    )
    header = {"version": version, "name": "small", "profile": profile, "others": others, "plugins": []}
    return healthy.MAGIC + json.dumps(header).encode() + b"\n" + network(batch).SerializeToString()


def feeds(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {"x": rng.random((rows, 2, 3), np.float32), "k": rng.integers(-9, 9, (rows, 1, 3))}


def expected(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"sum": given["x"] + 2 * given["k"].astype(np.float32), "same": given["k"]}


def _execute(gpu: FakeCuda) -> Any:
    """Enqueue as TensorRT does: what is bound now, run when the stream gets there."""

    def execute(context: Any, stream: int) -> bool:
        assert getattr(context.state, "memory", None), "a user-managed context has no memory for activations"
        addresses, shapes = dict(context.state.addresses), dict(context.state.shapes)
        if stream in gpu.captured:
            context.state.captured = True
        profiler = context.profiler

        def run() -> None:
            context.state.addresses, context.state.shapes = addresses, shapes
            for name, address in addresses.items():
                gpu.inside(address, healthy._view(context, name).nbytes, "device")
            gpu.seen = {name: healthy._view(context, name).copy() for name in shapes}  # type: ignore[attr-defined]
            assert healthy._execute(context, stream)
            if profiler is not None:
                for index, node in enumerate(context.engine.state.model.graph.node):
                    profiler.report_layer_time(node.op_type, 0.5 + index)

        if healthy._infer_shapes(context) or any(address % 256 for address in addresses.values()):
            return False
        gpu.queue(stream, run)
        return True

    return execute


def _unless_captured(behaviour: Any) -> Any:
    def call(context: Any, *args: Any) -> bool:
        assert not getattr(context.state, "captured", False), "a graph dies when its context is changed"
        return behaviour(context, *args)

    return call


def _set_memory(context: Any, memory: int, size: int) -> None:
    context.state.memory = (memory, size)


@contextmanager
def machine(version: str = "10.16", overrides: Any = None, fail: Any = None) -> Iterator[tuple[FakeTensorrt, FakeCuda]]:
    """TensorRT and CUDA; when the block is left nothing may be alive any more."""
    with fake_cuda(fail) as gpu:
        behaviours = {
            "IExecutionContext.set_device_memory": _set_memory,
            "IExecutionContext.set_input_shape": _unless_captured(healthy._set_input_shape),
            "IExecutionContext.set_tensor_address": _unless_captured(healthy._set_address),
            "IExecutionContext.execute_async_v3": _execute(gpu),
            **(overrides or {}),
        }
        with fake_tensorrt(version, behaviours) as trt:
            trt.Dims.__hash__ = object.__hash__  # the fake is a list, and kept in a set
            yield trt, gpu
            assert not gpu.mistakes
            assert gpu.live() == {}
            kept_by_the_fake = {"Dims", "IProfiler"}
            assert {name: count for name, count in trt.alive().items() if name not in kept_by_the_fake} == {}
            assert not tensorrt_engine._open
        tensorrt_engine.logger.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """Every test counts what is alive: let the collector look only at what these tests make."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def engine_file(tmp_path: Path) -> Any:
    def write(trt: FakeTensorrt, **options: Any) -> Path:
        path = tmp_path / "small.engine"
        path.write_bytes(plan(trt.__version__, **options))
        return path

    return write


def on_gpu(gpu: FakeCuda, values: np.ndarray) -> DeviceArray:
    """A CUDA array of another library."""
    _, pointer = gpu.allocate("device", values.nbytes)
    array = DeviceArray(pointer, values.shape, values.dtype, None, 0)
    seen(array)[...] = values
    return array


def seen(array: DeviceArray) -> np.ndarray:
    import ctypes

    raw = (ctypes.c_ubyte * array.nbytes).from_address(array.pointer)
    return np.ctypeslib.as_array(raw).view(array.dtype).reshape(array.shape)


def close_enough(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("graphs", [False, True])
def test_every_batch_size_in_every_version(engine_file, rng, version, graphs):
    with machine(version) as (trt, _), TensorRTSession(engine_file(trt), graphs=graphs) as session:
        for rows in (1, 4, 2, 9, 0, 1, 4, 2, 1, 9):  # 9 is two full calls and one of one row
            given = feeds(rng, rows)
            close_enough(session(given), expected(given))


def test_what_it_says_about_itself(engine_file):
    with machine() as (trt, _), open_session(engine_file(trt)) as session:
        assert isinstance(session, TensorRTSession)
        assert {name: str(spec) for name, spec in session.inputs.items()} == {
            "x": "float32 [batch, 2, 3]", "k": "int64 [batch, 1, 3]",
        }  # fmt: skip
        assert {name: str(spec) for name, spec in session.outputs.items()} == {
            "sum": "float32 [batch, 2, 3]", "same": "int64 [batch, 1, 3]",
        }  # fmt: skip
        assert (session.device, session.min_batch, session.max_batch) == ("cuda", 1, 4)


@pytest.mark.parametrize(
    ("low", "high", "batch", "rows"),
    [(3, 4, "batch", 1), (3, 4, "batch", 7), (2, 2, 2, 2), (2, 2, 2, 1), (2, 2, 2, 5), (1, 1, 1, 3)],
    ids=["below the profile", "rest below it", "fixed", "below fixed", "above fixed", "one at a time"],
)
@pytest.mark.parametrize("graphs", [False, True])
def test_batches_are_split_and_filled_up(engine_file, rng, low, high, batch, rows, graphs):
    with machine() as (trt, gpu):
        path = engine_file(trt, low=low, high=high, batch=batch)
        with TensorRTSession(path, graphs=graphs) as session:
            for _ in range(3):
                given = feeds(rng, rows)
                close_enough(session(given), expected(given))
                filled_up(gpu, given, session)
        sizes = {call["shape"][0] for call in trt.arguments["IExecutionContext.set_input_shape"]}
        assert all(low <= size <= high for size in sizes)


def filled_up(gpu: FakeCuda, given: dict[str, np.ndarray], session: TensorRTSession) -> None:
    """The last call of the network ended with the last row, as often as there was room."""
    for name, value in given.items():
        last, count = gpu.seen[name], (len(value) - 1) % session.max_batch + 1
        assert len(last) == padded(count, session.min_batch, session.max_batch)
        np.testing.assert_array_equal(last[:count], value[-count:])
        np.testing.assert_array_equal(last[count:], np.repeat(value[-1:], len(last) - count, 0))


def test_results_belong_to_the_caller(engine_file, rng):
    with machine() as (trt, _), TensorRTSession(engine_file(trt)) as session:
        first, second = feeds(rng, 2), feeds(rng, 2)
        kept = session(first)
        session(second)
        close_enough(kept, expected(first))


def test_strided_feeds(engine_file, rng):
    with machine() as (trt, _), TensorRTSession(engine_file(trt)) as session:
        given = {name: np.asfortranarray(value)[::2] for name, value in feeds(rng, 5).items()}
        close_enough(session(given), expected(given))


@pytest.mark.parametrize(
    "wrong", [{"x": None}, {"y": np.zeros(2)}, {"k": np.zeros((1, 1, 3))}, {"k": np.zeros((2, 1, 3), int)}]
)
def test_feeds_are_checked_as_everywhere(engine_file, rng, wrong):
    with machine() as (trt, _), TensorRTSession(engine_file(trt)) as session:
        given = {name: value for name, value in {**feeds(rng, 1), **wrong}.items() if value is not None}
        with pytest.raises(SessionError) as caught:
            session(given)
        assert caught.value.cause.startswith("small.engine: wrong input: ")
        assert caught.value.remedy == "this network takes x float32 [batch, 2, 3], k int64 [batch, 1, 3]"


def test_a_closed_session_says_so(engine_file, rng):
    with machine() as (trt, _):
        session = TensorRTSession(engine_file(trt))
        session.close()
        session.close()
        for call in (session, session.run_on_device, session.layer_times):
            with pytest.raises(SessionError, match=r"small\.engine: the session is closed"):
                call(feeds(rng, 1))


@pytest.mark.parametrize("header", [b'{"task": "pose"}', b"{}"])
def test_a_header_before_the_plan_is_its_metadata(tmp_path, rng, header):
    with machine() as (trt, _):
        path = tmp_path / "small.engine"
        path.write_bytes(len(header).to_bytes(4, "little") + header + plan(trt.__version__))
        with TensorRTSession(path) as session:
            given = feeds(rng, 2)
            close_enough(session(given), expected(given))
            assert session.metadata == json.loads(header)


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x03\0\0\0[1]plan", b"\x02\0\0\0xxplan", b"ftrtplan", b"\xff\xff\xff\x7f{}"]
)
def test_a_plan_without_a_header_is_whole(data):
    assert bytes(tensorrt_engine.header_and_plan(data)[1]) == data


# ── the GPU's side: graphs, buffers in place, times ─────────────────────────────────────────────────────────────


def test_a_batch_size_is_captured_the_second_time_and_replayed_from_then_on(engine_file, rng):
    with machine() as (trt, gpu), TensorRTSession(engine_file(trt)) as session:
        per_call = []
        for rows in (2, 2, 2, 3, 2, 3, 3):
            before = (trt.calls.count("IExecutionContext.execute_async_v3"), gpu.calls.count("cudaGraphLaunch"))
            given = feeds(rng, rows)
            close_enough(session(given), expected(given))
            after = (trt.calls.count("IExecutionContext.execute_async_v3"), gpu.calls.count("cudaGraphLaunch"))
            per_call.append(tuple(b - a for a, b in zip(before, after, strict=True)))
        # capturing takes two calls of the engine: what the first sets up must not be captured
        assert per_call == [(1, 0), (2, 1), (0, 1), (1, 0), (0, 1), (2, 1), (0, 1)]


def test_graphs_are_limited_in_number(engine_file, rng, monkeypatch):
    monkeypatch.setattr(cuda_session, "MAX_GRAPHS", 1)
    monkeypatch.setattr(cuda_session, "_MANY_KEYS", 3)
    with machine() as (trt, gpu), TensorRTSession(engine_file(trt)) as session:
        for rows in (2, 2, 3, 3, 3, 4, 1, 2):
            given = feeds(rng, rows)
            close_enough(session(given), expected(given))
        assert gpu.calls.count("cudaStreamBeginCapture") == 1
        assert gpu.calls.count("cudaGraphLaunch") == 2
        assert len(session._met) <= 3


def test_without_graphs_nothing_is_captured(engine_file, rng):
    with machine() as (trt, gpu), TensorRTSession(engine_file(trt), graphs=False) as session:
        for _ in range(3):
            session(feeds(rng, 2))
        assert "cudaStreamBeginCapture" not in gpu.calls


@pytest.mark.parametrize("function", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_a_refused_capture_falls_back_to_plain_calls_and_says_so_once(engine_file, rng, caplog, function):
    with machine(fail={function: 1}) as (trt, gpu), TensorRTSession(engine_file(trt)) as session:
        with caplog.at_level(logging.WARNING, "jotr_deploy"):
            for _ in range(4):
                given = feeds(rng, 2)
                close_enough(session(given), expected(given))
        assert "cudaGraphLaunch" not in gpu.calls
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("small.engine: no CUDA graphs, plain calls instead: CUDA cannot ")
        assert trt.alive()["IExecutionContext"] == 1


def test_an_engine_that_cannot_be_captured_falls_back(engine_file, rng, caplog):
    def execute(context: Any, stream: int) -> bool:
        return stream not in gpu.captured and healthy_execute(context, stream)

    with machine(overrides={"IExecutionContext.execute_async_v3": lambda *args: execute(*args)}) as (trt, gpu):
        healthy_execute = _execute(gpu)
        with TensorRTSession(engine_file(trt)) as session, caplog.at_level(logging.WARNING, "jotr_deploy"):
            for _ in range(3):
                given = feeds(rng, 2)
                close_enough(session(given), expected(given))
        assert len(caplog.messages) == 1
        assert "TensorRT cannot run the engine" in caplog.messages[0]


def test_arrays_on_the_gpu_are_read_where_they_are(engine_file, rng):
    with machine() as (trt, gpu), TensorRTSession(engine_file(trt)) as session:
        given = feeds(rng, 2)
        arrays = {name: on_gpu(gpu, value) for name, value in given.items()}
        for _ in range(3):  # the third time as a graph
            before = gpu.calls.count("cudaMemcpyAsync")
            close_enough(session(arrays), expected(given))
            assert gpu.calls.count("cudaMemcpyAsync") - before == 2  # the results only
        bound = [call["memory"] for call in trt.arguments["IExecutionContext.set_tensor_address"]]
        assert {array.pointer for array in arrays.values()} <= set(bound)
        others = feeds(rng, 2)
        moved = {name: on_gpu(gpu, value) for name, value in others.items()}
        close_enough(session(moved), expected(others))  # not what the graph of the first arrays reads
        for array in (*arrays.values(), *moved.values()):
            gpu.free("device", array.pointer)


@pytest.mark.parametrize("rows", [1, 4, 6, 9])
def test_arrays_on_the_gpu_of_every_size_and_mixed_with_others(engine_file, rng, rows):
    with machine() as (trt, gpu), TensorRTSession(engine_file(trt, low=3), graphs=False) as session:
        given = feeds(rng, rows)
        array = on_gpu(gpu, given["x"])
        close_enough(session({**given, "x": array}), expected(given))
        filled_up(gpu, given, session)
        gpu.free("device", array.pointer)


def test_results_can_stay_on_the_gpu(engine_file, rng):
    with machine() as (trt, gpu), TensorRTSession(engine_file(trt, low=3)) as session:
        for rows in (4, 2, 0, 2, 4, 4):
            given = feeds(rng, rows)
            before = gpu.calls.count("cudaMemcpyAsync")
            results = session.run_on_device(given)
            assert gpu.calls.count("cudaMemcpyAsync") - before == (2 if rows else 0)  # the inputs only
            assert {name: array.shape[0] for name, array in results.items()} == {"sum": rows, "same": rows}
            if rows:
                close_enough({name: seen(array).copy() for name, array in results.items()}, expected(given))
        with pytest.raises(SessionError) as caught:
            session.run_on_device(feeds(rng, 5))
        assert caught.value.cause == "small.engine: 5 rows at once, but results on the GPU have room for 4"
        assert caught.value.remedy == "call it with at most 4 rows"
        del results


def test_results_on_the_gpu_outlive_the_session_while_somebody_holds_them(engine_file, rng):
    with machine() as (trt, gpu):
        given = feeds(rng, 2)
        with TensorRTSession(engine_file(trt)) as session:
            kept = session.run_on_device(given)["sum"]
        assert gpu.live() == {"device": 1}
        np.testing.assert_array_equal(seen(kept), expected(given)["sum"])
        part = kept[:1]
        del kept, session
        gc.collect()
        assert gpu.live() == {"device": 1}
        del part
        gc.collect()


def test_times_are_of_the_last_call(engine_file, rng):
    with machine() as (trt, _), TensorRTSession(engine_file(trt)) as session:
        assert session.times == {"enqueue": 0, "gpu": 0, "h2d": 0, "d2h": 0}
        session(feeds(rng, 4))
        assert session.times.keys() == {"enqueue", "gpu", "h2d", "d2h"}
        gpu_ms, enqueue_ms = session.times["gpu"], session.times["enqueue"]
        assert (gpu_ms, enqueue_ms > 0) == (0.25, True)  # the fake's clock ticks at every mark
        session(feeds(rng, 9))
        assert session.times["gpu"] == 3 * gpu_ms
        session(feeds(rng, 0))
        assert session.times["gpu"] == 0


def test_layer_times_come_from_a_context_of_their_own(engine_file, rng):
    with machine() as (trt, _), TensorRTSession(engine_file(trt)) as session:
        given = feeds(rng, 2)
        session(given)
        times = dict(session.times)
        assert session.layer_times(given) == [("Cast", 0.5), ("Add", 1.5), ("Add", 2.5), ("Identity", 3.5)]
        assert session.times == times
        assert trt.alive()["IExecutionContext"] == 1
        assert trt.calls.count("IExecutionContext.profiler=") == 1
        close_enough(session(given), expected(given))
        with pytest.raises(SessionError, match="5 rows at once"):
            session.layer_times(feeds(rng, 5))


def test_the_calls_of_one_run_in_order(engine_file, rng):
    with machine() as (trt, gpu), TensorRTSession(engine_file(trt), graphs=False) as session:
        del trt.calls[:], gpu.calls[:]
        session(feeds(rng, 2))
        context = [call.split(".")[1] for call in trt.calls if call.startswith("IExecutionContext.")]
        assert context == [
            "set_input_shape", "set_input_shape", "infer_shapes", *["set_tensor_address"] * 4, "execute_async_v3",
        ]  # fmt: skip
        assert gpu.calls == [
            "cudaEventRecord", "cudaMemcpyAsync", "cudaMemcpyAsync",
            "cudaEventRecord",
            "cudaEventRecord", "cudaMemcpyAsync", "cudaMemcpyAsync",
            "cudaEventRecord", "cudaStreamSynchronize", *["cudaEventElapsedTime"] * 3,
        ]  # fmt: skip
        del trt.calls[:]
        session(feeds(rng, 2))
        context = [call.split(".")[1] for call in trt.calls if call.startswith("IExecutionContext.")]
        assert context == ["execute_async_v3"]  # nothing is bound again
        streams = {call["stream_handle"] for call in trt.arguments["IExecutionContext.execute_async_v3"]}
        assert streams.isdisjoint({0, 1, 2})  # never a default stream


# ── sharing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sessions_of_one_file_share_the_engine(engine_file, rng):
    with machine() as (trt, _), ExitStack() as stack:
        path = engine_file(trt)
        first, second = (stack.enter_context(TensorRTSession(path)) for _ in range(2))
        assert trt.calls.count("Runtime.deserialize_cuda_engine") == 1
        assert trt.alive()["IExecutionContext"] == 2
        first.close()
        given = feeds(rng, 3)
        close_enough(second(given), expected(given))


def test_a_replaced_file_is_another_engine(engine_file, rng):
    with machine() as (trt, _), TensorRTSession(engine_file(trt)) as first:
        with TensorRTSession(engine_file(trt, low=2, high=16)) as second:
            assert (first.max_batch, second.max_batch) == (4, 16)
        assert first.max_batch == 4


def test_one_session_a_thread(engine_file, rng):
    with machine() as (trt, _):
        path, failures = engine_file(trt), []

        def work(seed: int) -> None:
            try:
                with TensorRTSession(path) as session:
                    for rows in (2, 2, 2, 3):
                        given = feeds(np.random.default_rng(seed), rows)
                        close_enough(session(given), expected(given))
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


# ── what can go wrong ────────────────────────────────────────────────────────────────────────────────────────────


def says(text: str) -> Any:
    """A behaviour that tells TensorRT's logger and fails."""

    def fail(subject: Any, *args: Any) -> None:
        trt = subject.state.trt
        tensorrt_engine.logger(trt).log(trt.ILogger.Severity.ERROR, text)

    return fail


def refuses(subject: Any, *args: Any) -> bool:
    says("kernel too old")(subject)
    return False


@pytest.mark.parametrize(
    ("overrides", "cause", "remedy"),
    [
        (
            {"Runtime.deserialize_cuda_engine": says("Version tag does not match.\n  Note: 1 != 2")},
            "{path}: TensorRT cannot load the engine (Version tag does not match. Note: 1 != 2)",
            "build it on this machine: jotr-deploy build-engine BUNDLE --backend tensorrt",
        ),
        (
            {"Runtime.deserialize_cuda_engine": says("Cannot find plugin: TrilinearSample3D, version: 1")},
            "{path}: TensorRT cannot load the engine (Cannot find plugin: TrilinearSample3D, version: 1)",
            "build the plugin library (jotr-deploy plugins build), or the engine with --plugin none",
        ),
        (
            {"Runtime.deserialize_cuda_engine": lambda runtime, plan: None},
            "{path}: TensorRT cannot load the engine (no reason given)",
            "build it on this machine: jotr-deploy build-engine BUNDLE --backend tensorrt",
        ),
        (
            {"ICudaEngine.create_execution_context": says("out of memory")},
            "{path}: TensorRT cannot create an execution context (out of memory)",
            "free GPU memory (nvidia-smi shows its users), or build the engine for smaller batches",
        ),
        (
            {"IExecutionContext.set_input_shape": lambda context, name, shape: False},
            "{path}: TensorRT rejects x as [4, 2, 3] (no reason given)",
            "build it on this machine: jotr-deploy build-engine BUNDLE --backend tensorrt",
        ),
        (
            {"IExecutionContext.infer_shapes": lambda context: ["sum"]},
            "{path}: the shapes of sum remain unknown",
            "build it on this machine: jotr-deploy build-engine BUNDLE --backend tensorrt",
        ),
        (
            {"ICudaEngine.get_tensor_dtype": lambda engine, name: engine.state.trt.DataType.BF16},
            "{path}: x is BF16, which NumPy does not have",
            "build it on this machine: jotr-deploy build-engine BUNDLE --backend tensorrt",
        ),
        (
            {"ICudaEngine.get_tensor_shape": lambda engine, name: engine.state.trt.Dims([-1, 2, -1])},
            "{path}: x is [-1, 2, -1], but only the first dimension, the batch, may be dynamic",
            "build the engine from an ONNX file with fixed sizes and a dynamic batch",
        ),
        (
            {"IExecutionContext.get_tensor_shape": lambda context, name: context.state.trt.Dims([1, 3])},
            "{path}: sum is [1, 3], but only the first dimension, the batch, may be dynamic",
            "build the engine from an ONNX file with fixed sizes and a dynamic batch",
        ),
    ],
    ids=["null engine", "no plugin", "silent", "null context", "shape", "unknown shape", "bf16", "dynamic", "no batch"],
)
def test_what_fails_at_opening_is_said_and_everything_released(engine_file, overrides, cause, remedy):
    with machine(overrides=overrides) as (trt, _):
        path = engine_file(trt)
        with pytest.raises(SessionError) as caught:
            TensorRTSession(path)
        assert (caught.value.cause, caught.value.remedy) == (cause.format(path=path), remedy)


@pytest.mark.parametrize(
    ("function", "calls"),
    [("cudaStreamCreateWithFlags", 1), ("cudaMalloc", 5), ("cudaMallocHost", 4), ("cudaEventCreateWithFlags", 4)],
)
def test_wherever_cuda_fails_at_opening_everything_is_released(engine_file, function, calls):
    for call in range(1, calls + 1):
        with machine(fail={function: call}) as (trt, gpu):
            with pytest.raises(SessionError, match=r"^CUDA cannot (allocate|create)") as caught:
                TensorRTSession(engine_file(trt))
            assert gpu.live() == {}  # also while the error is still being handled
            del caught
    with machine(fail={function: calls + 1}) as (trt, _):
        TensorRTSession(engine_file(trt)).close()  # there are no more such calls


@pytest.mark.parametrize(
    ("overrides", "fail", "message"),
    [
        ({"IExecutionContext.execute_async_v3": refuses}, {}, "TensorRT cannot run the engine (kernel too old)"),
        ({"IExecutionContext.set_tensor_address": refuses}, {}, "TensorRT rejects the memory of x (kernel too old)"),
        ({}, {"cudaMemcpyAsync": 2}, "CUDA cannot copy 0.0 MB (cudaErrorLaunchFailure)"),
        ({}, {"cudaStreamSynchronize": 1}, "CUDA cannot finish the work on the GPU (cudaErrorLaunchFailure)"),
    ],
    ids=["enqueue", "address", "copy", "synchronise"],
)
def test_what_fails_in_a_call_is_said_and_the_session_still_closes(engine_file, rng, overrides, fail, message):
    with machine(overrides=overrides, fail=fail) as (trt, _), TensorRTSession(engine_file(trt)) as session:
        with pytest.raises(SessionError) as caught:
            session(feeds(rng, 2))
        assert message in caught.value.cause


def test_pycudas_own_context_is_refused(engine_file):
    with machine() as (trt, gpu):
        gpu.contexts["current"] = 8
        with pytest.raises(SessionError, match=r"import pycuda\.autoprimaryctx"):
            TensorRTSession(engine_file(trt))
        assert not trt.calls


def test_the_cpu_is_refused(engine_file):
    with machine() as (trt, _), pytest.raises(SessionError) as caught:
        open_session(engine_file(trt), device="cpu")
    assert caught.value.cause.endswith("small.engine: TensorRT engines run on CUDA only")
    assert caught.value.remedy == "use --device cuda, or a .onnx file"


def test_a_missing_tensorrt_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(tensorrt_engine, "import_module", missing)
    with pytest.raises(MissingDependency) as caught:
        TensorRTSession(tmp_path / "small.engine")
    assert caught.value.cause == "TensorRT cannot be imported (libnvinfer.so.10: cannot open shared object file)"
    assert "pip install '.[tensorrt]' in a clone of jotr-deploy" in caught.value.remedy


def test_a_file_that_is_not_there(tmp_path):
    with machine() as _, pytest.raises(SessionError) as caught:
        TensorRTSession(tmp_path / "small.engine")
    assert caught.value.cause == f"{tmp_path / 'small.engine'}: cannot be read (No such file or directory)"


# ── the machine an engine was built for, and its plugin ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("built_with", "reasons"),
    [
        ({}, []),
        ({"tensorrt": "10.16.1", "gpu": "Orin", "capability": "8.7", "cuda": "13.2", "driver": "13.2"}, []),
        ({"tensorrt": "10.3.0"}, ["built with TensorRT 10.3.0, this machine has 10.16.1"]),
        ({"cuda": "12.6", "driver": "12.6", "plugin": "aot"}, []),
        (
            {"gpu": "H200", "capability": "9.0"},
            ["built with compute capability 9.0, this machine has 8.7"],
        ),
        ({"gpu": "A100-SXM4-80GB MIG 1g.10gb"}, []),
        ({"tensorrt": "10.3.0", "portable": "version"}, []),
        ({"tensorrt": "10.16.2", "portable": "version"}, ["built with TensorRT 10.16.2, this machine has 10.16.1"]),
        ({"tensorrt": "9.3.0", "portable": "version"}, ["built with TensorRT 9.3.0, this machine has 10.16.1"]),
        (
            {"tensorrt": "10.3.0", "portable": "same-capability"},
            ["built with TensorRT 10.3.0, this machine has 10.16.1"],
        ),
    ],
    ids=[
        "nothing recorded",
        "same",
        "another TensorRT",
        "another CUDA",
        "another capability",
        "a slice of a GPU",
        "portable to a later version",
        "not to an earlier one",
        "nor to another major",
        "portable to a GPU alone",
    ],
)
def test_mismatch(built_with, reasons):
    here = {"tensorrt": "10.16.1", "gpu": "Orin", "capability": "8.7", "driver": "13.0", "cuda": "13.0"}
    assert mismatch(built_with, here) == reasons


@pytest.mark.parametrize(
    ("built_with", "warned"),
    [
        ({}, False),
        ({"gpu": "Fake GPU", "capability": "8.7"}, False),
        ({"gpu": "Other GPU", "capability": "8.7"}, True),
        ({"gpu": "Other GPU", "capability": "8.7", "portable": "same-capability"}, False),
    ],
)
def test_another_product_of_the_same_capability_is_warned_of_and_works(engine_file, rng, caplog, built_with, warned):
    with machine() as (trt, _), TensorRTSession(engine_file(trt), built_with=built_with) as session:
        given = feeds(rng, 2)
        close_enough(session(given), expected(given))
    said = "small.engine: built on Other GPU, this is Fake GPU: its kernels were not chosen for this GPU"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [said] * warned


@pytest.mark.parametrize("portable", ["version", "same-capability"])
def test_a_plan_with_a_runtime_of_its_own_may_run_it(engine_file, portable):
    with machine() as (trt, _):
        TensorRTSession(engine_file(trt), built_with={"portable": portable}).close()
        assert ("Runtime.engine_host_code_allowed=" in trt.calls) == (portable == "version")


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_each_batch_uses_the_profile_that_it_fits_into(tmp_path, rng, version, graphs):
    with machine(version) as (trt, _):
        path = tmp_path / "small.engine"
        path.write_bytes(plan(trt.__version__, profiles=((1, 1), (2, 4), (5, 16))))
        with TensorRTSession(path, graphs=graphs) as session:
            assert (session.min_batch, session.max_batch) == (1, 16)
            for rows in (1, 3, 3, 3, 16, 1, 40):
                given = feeds(rng, rows)
                close_enough(session(given), expected(given))
        chosen = [given["profile_index"] for given in trt.arguments["IExecutionContext.set_optimization_profile_async"]]
        assert set(chosen) == {0, 1, 2}


def test_one_profile_is_never_chosen(engine_file, rng):
    with machine() as (trt, _), TensorRTSession(engine_file(trt)) as session:
        session(feeds(rng, 2))
        assert "IExecutionContext.set_optimization_profile_async" not in trt.calls


def test_environment():
    with machine("11.4") as (trt, _):
        assert environment() == {"tensorrt": trt.__version__, **HERE}


def bundle_around(path: Path, **built_with: str) -> None:
    entry = FileEntry(role="mesh", name=path.name, sha256="0" * 64, built_with=built_with)
    write_manifest(path.parent, Manifest(model=ModelConfig(), source_sha256="0" * 64, files=(entry,)))


def test_another_machines_engine_is_refused_before_it_is_deserialised(engine_file):
    with machine() as (trt, _):
        path = engine_file(trt)
        bundle_around(path, tensorrt="10.3.0", gpu="Orin", capability="9.0")
        with pytest.raises(SessionError) as caught:
            TensorRTSession(path)
        assert caught.value.cause == (
            f"{path}: built with TensorRT 10.3.0, this machine has {trt.__version__}; "
            "built with compute capability 9.0, this machine has 8.7"
        )
        assert caught.value.remedy == "build it on this machine: jotr-deploy build-engine BUNDLE --backend tensorrt"
        assert "Runtime.deserialize_cuda_engine" not in trt.calls


def test_this_machines_engine_and_unlisted_files_are_loaded(engine_file, rng):
    with machine() as (trt, _):
        path = engine_file(trt)
        bundle_around(path, **{**HERE, "tensorrt": trt.__version__, "driver": "1.0"})
        TensorRTSession(path).close()
        aside = path.with_name("aside.engine")
        path.rename(aside)
        TensorRTSession(aside).close()
        with pytest.raises(SessionError, match=r"built with compute capability 9\.0"):
            TensorRTSession(aside, built_with={"capability": "9.0"})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("plugin", "loads"), [("aot", 0), ("none", 0), ("library", 1)])
def test_the_plugin_library_is_loaded_once_where_it_is_needed(engine_file, monkeypatch, version, plugin, loads):
    monkeypatch.setattr(library, "need_library", lambda: Path("/lib/plugin.so"))
    with machine(version) as (trt, _):
        path = engine_file(trt)
        for _ in range(2):
            TensorRTSession(path, built_with={"plugin": plugin}).close()
        assert trt.calls.count("IPluginRegistry.load_library") == loads
        if loads:
            order = [c for c in trt.calls if c in ("IPluginRegistry.load_library", "Runtime.deserialize_cuda_engine")]
            assert order[0] == "IPluginRegistry.load_library"
            assert trt.arguments["IPluginRegistry.load_library"] == [{"plugin_path": "/lib/plugin.so"}]


def test_a_plugin_library_that_tensorrt_refuses(engine_file, monkeypatch):
    monkeypatch.setattr(library, "need_library", lambda: Path("/lib/plugin.so"))
    with machine(overrides={"IPluginRegistry.load_library": says("undefined symbol")}) as (trt, _):
        with pytest.raises(SessionError) as caught:
            TensorRTSession(engine_file(trt), built_with={"plugin": "library"})
        assert caught.value.cause == "/lib/plugin.so: TensorRT cannot load the plugin library (undefined symbol)"
        assert caught.value.remedy == "build it again for this TensorRT: jotr-deploy plugins build"
