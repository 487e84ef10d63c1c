"""TensorRT as a `Session`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.runtime.sessions.capture_lock import CAPTURES
from jotr_deploy.runtime.sessions.cuda_session import BATCH, Addresses, CudaSession, Launch
from jotr_deploy.runtime.sessions.session import TensorSpec
from jotr_deploy.runtime.sessions.tensorrt_engine import (
    REBUILD,
    Engine,
    environment,
    listening,
    mismatch,
    shared_engine,
    tensorrt,
)

__all__ = ["TensorRTSession", "environment", "mismatch"]

_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


class TensorRTSession(CudaSession):
    """A TensorRT engine whose inputs and outputs have the batch as their first, and only dynamic, dimension.

    Sessions of one file share the engine; each has its own execution context, stream and buffers. `min_batch` and
    `max_batch` come from the engine's optimisation profiles; each call uses the first one that its batch fits into.
    """

    def __init__(
        self, path: Path, device: str = "auto", graphs: bool = True, built_with: Mapping[str, str] | None = None
    ) -> None:
        """Load an engine.

        Args:
            path: a plan, with or without Ultralytics' header.
            device: "auto" or "cuda".
            graphs: capture CUDA graphs.
            built_with: environment the engine was built in; by default the record in the bundle around it.

        Raises:
            SessionError: it belongs to another machine, its plugin is missing, TensorRT rejects it, or out of memory.
            MissingDependency: no TensorRT or no cuda-bindings.
        """
        if device == "cpu":
            raise SessionError(f"{path}: TensorRT engines run on CUDA only", "use --device cuda, or a .onnx file")
        self.path = path
        self._trt: ModuleType = tensorrt()
        cuda.require_primary_context()
        with CAPTURES.allocating(), ExitStack() as stack:
            self._resources = stack
            self._shared = stack.enter_context(shared_engine(path, built_with))
            self._stream = self._own(cuda.Stream())
            self._activations = self._own(cuda.Memory.on_device(self._shared.engine.device_memory_size_v2))
            self._ranges: list[tuple[int, int]] = []  # smallest and largest batch of every profile
            self._execution = self._own(self._new_execution())
            self._bound: tuple[int, ...] | None = None
            self._describe()
            self._allocate(graphs)
            self._resources = stack.pop_all()

    def layer_times(self, feeds: Mapping[str, Any]) -> list[tuple[str, float]]:
        """Milliseconds of every layer of one call, in order; profiling slows the call and uses a separate context.

        Raises:
            SessionError: see `__call__`; more rows than `max_batch`.
        """
        accepted, times = self._accept(feeds), self.times
        rows = self._rows_in_one_call(accepted)
        profiler = _profiler(self._trt)
        with CAPTURES.allocating():
            execution = self._new_execution()

        def launch(batch: int, addresses: Addresses) -> None:
            with CAPTURES.allocating():
                execution.bind(self._shapes(batch), addresses)
                execution.execute(self._stream)  # setup work of the first call is not a layer
                self._stream.synchronize()
                execution.profile(profiler)
                execution.execute(self._stream)

        try:
            self._once(accepted, rows, fetch=False, launch=launch)
        finally:
            execution.release()
            self.times = times
        return profiler.layers

    def _new_execution(self) -> _Execution:
        return _Execution(self.path, self._trt, self._shared, self._activations, self._stream, self._ranges)

    def _describe(self) -> None:
        """Read names, types, shapes and profile limits from the engine."""
        shared = self._shared
        self.metadata = shared.metadata
        names = [shared.engine.get_tensor_name(index) for index in range(shared.engine.num_io_tensors)]
        inputs = [name for name in names if shared.engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT]
        shapes = {name: tuple(shared.engine.get_tensor_shape(name)) for name in inputs}
        self._require_batch_first(shapes)
        self._ranges += _batch_ranges(shared, shapes)
        self.min_batch = min(low for low, _ in self._ranges)
        self.max_batch = max(high for _, high in self._ranges)
        self.inputs = {name: self._spec(name, shape) for name, shape in shapes.items()}
        self._execution.set_shapes(self._shapes(self.max_batch))
        results = {name: self._execution.shape_of(name) for name in names if name not in inputs}
        self._require_batch_first(results, self.max_batch)
        self.outputs = {name: self._spec(name, shape) for name, shape in results.items()}

    def _shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        return {name: (batch, *(int(size) for size in spec.shape[1:])) for name, spec in self.inputs.items()}

    def _require_batch_first(self, shapes: Mapping[str, tuple[int, ...]], batch: int | None = None) -> None:
        for name, shape in shapes.items():
            if not shape or -1 in shape[1:] or batch not in (None, shape[0]):
                raise SessionError(
                    f"{self.path}: {name} is {list(shape)}, but only the first dimension, the batch, may be dynamic",
                    "build the engine from an ONNX file with fixed sizes and a dynamic batch",
                )

    def _spec(self, name: str, shape: tuple[int, ...]) -> TensorSpec:
        kind = self._shared.engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise SessionError(f"{self.path}: {name} is {kind}, which NumPy does not have", REBUILD)
        return TensorSpec(np.dtype(_DTYPES[kind]), (BATCH, *shape[1:]))

    def _enqueue(self, batch: int, addresses: Addresses) -> None:
        key = (batch, *addresses.values())
        if key != self._bound:
            self._bound = None
            self._execution.bind(self._shapes(batch), addresses)
            self._bound = key
        self._execution.execute(self._stream)

    def _capture(self, batch: int, addresses: Addresses) -> Launch:
        """A graph with its own context, since a graph becomes invalid when the context it was captured from changes."""
        execution = self._new_execution()
        try:
            execution.bind(self._shapes(batch), addresses)
            execution.execute(self._stream)  # setup work of the first call after a change of shape must not be captured
            self._stream.synchronize()
            graph = self._stream.capture(lambda: execution.execute(self._stream))
        except SessionError:
            execution.release()
            raise
        self._own(execution)
        self._own(graph)  # released before its context
        return lambda batch, addresses: graph.launch(self._stream)


class _Execution:
    """An execution context with every return value checked.

    All contexts of a session share one block for activations, since they never run at the same time.
    """

    def __init__(
        self,
        path: Path,
        trt: ModuleType,
        shared: Engine,
        activations: cuda.Memory,
        stream: cuda.Stream,
        ranges: Sequence[tuple[int, int]],
    ) -> None:
        self._path, self._trt, self._stream, self._ranges = path, trt, stream, ranges
        self._profile = 0
        log = listening(trt)
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._context: Any = shared.engine.create_execution_context(strategy)
        if self._context is None:
            raise SessionError(
                f"{path}: TensorRT cannot create an execution context ({log.reason()})",
                "free GPU memory (nvidia-smi shows its users), or build the engine for smaller batches",
            )
        self._context.set_device_memory(activations.pointer, activations.nbytes)

    def release(self) -> None:
        """Release TensorRT's context, even if this object is still referenced, for example by a traceback."""
        self._context = None

    def set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        log = listening(self._trt)
        self._choose_profile(next(iter(shapes.values()))[0])
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise SessionError(f"{self._path}: TensorRT rejects {name} as {list(shape)} ({log.reason()})", REBUILD)
        unknown = self._context.infer_shapes()
        if unknown:
            raise SessionError(f"{self._path}: the shapes of {', '.join(unknown)} remain unknown", REBUILD)

    def _choose_profile(self, batch: int) -> None:
        fits = (index for index, (low, high) in enumerate(self._ranges) if low <= batch <= high)
        profile = next(fits, self._profile)
        if profile == self._profile:
            return
        log = listening(self._trt)
        if not self._context.set_optimization_profile_async(profile, self._stream.pointer):
            raise SessionError(f"{self._path}: TensorRT rejects its profile {profile} ({log.reason()})", REBUILD)
        self._profile = profile

    def shape_of(self, name: str) -> tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(name))

    def bind(self, shapes: Mapping[str, tuple[int, ...]], addresses: Addresses) -> None:
        self.set_shapes(shapes)
        log = listening(self._trt)
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise SessionError(f"{self._path}: TensorRT rejects the memory of {name} ({log.reason()})", REBUILD)

    def profile(self, profiler: Any) -> None:
        """Report the layers of the following calls; each then waits for the GPU."""
        self._context.profiler = profiler

    def execute(self, stream: cuda.Stream) -> None:
        log = listening(self._trt)
        if not self._context.execute_async_v3(stream.pointer):
            raise SessionError(
                f"{self._path}: TensorRT cannot run the engine ({log.reason()})",
                "report this with the versions of `doctor`",
            )


def _batch_ranges(shared: Engine, inputs: Mapping[str, tuple[int, ...]]) -> list[tuple[int, int]]:
    """Smallest and largest batch of every optimisation profile, by the shapes of the inputs."""
    ranges = []
    for profile in range(max(1, shared.engine.num_optimization_profiles)):
        lows, highs = [], []
        for name, shape in inputs.items():
            if shape[0] != -1:
                low = high = shape
            else:
                low, _, high = shared.engine.get_tensor_profile_shape(name, profile)
            lows.append(low[0])
            highs.append(high[0])
        ranges.append((max(lows), min(highs)))
    return ranges


def _profiler(trt: ModuleType) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.layers: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.layers.append((layer_name, ms))

    return Profiler()
