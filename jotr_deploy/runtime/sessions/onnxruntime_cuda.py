"""ONNX Runtime on a GPU with our own buffers and stream, its runs captured as CUDA graphs."""

from __future__ import annotations

import io
import logging
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

from jotr_deploy.errors import SessionError, first_line
from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.runtime.sessions.capture_lock import CAPTURES
from jotr_deploy.runtime.sessions.cuda_session import BATCH, Addresses, CudaSession, Launch
from jotr_deploy.runtime.sessions.onnxruntime import (
    CPU,
    CUDA,
    load,
    metadata,
    no_cuda,
    on_cuda,
    onnxruntime,
    specifications,
)
from jotr_deploy.runtime.sessions.session import TensorSpec

MAX_BATCH = 32
"""Maximum number of rows per call; ONNX Runtime has no limit, but the buffers have a size."""
_GRAPH = "gpu_graph_id"  # one graph per number; -1: neither capture nor replay
_NO_WAIT = "disable_synchronize_execution_providers"


class OnnxRuntimeCudaSession(CudaSession):
    """An ONNX file whose inputs and outputs have the batch as their first, and only dynamic, dimension.

    ONNX Runtime waits for a replayed graph, so "enqueue" in `times` then includes the network.
    """

    def __init__(self, path: Path, graphs: bool = True, threads: int | None = None, tf32: bool = False) -> None:
        """Load a network; `tf32` allows it to round float32 products to TF32.

        Raises:
            SessionError: ONNX Runtime rejects the file or the GPU, other dimensions are dynamic, or out of memory.
            MissingDependency: no ONNX Runtime or no cuda-bindings.
        """
        self.path, self._threads, self._tf32 = path, threads, tf32
        self.min_batch, self.max_batch = 1, MAX_BATCH
        cuda.require_primary_context()
        with CAPTURES.allocating(), ExitStack() as stack:
            self._resources = stack
            self._stream = self._own(cuda.Stream())
            stack.callback(self._forget)
            self._load(graphs)
            inputs, outputs = specifications(path, self._session)
            self.metadata = metadata(path, self._session)
            self.inputs, self.outputs = self._batched(inputs), self._batched(outputs)
            self._allocate(self._with_graphs)
            self._resources = stack.pop_all()

    def _batched(self, specs: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
        for name, spec in specs.items():
            if not spec.shape or not isinstance(spec.shape[0], str) or any(isinstance(n, str) for n in spec.shape[1:]):
                raise SessionError(
                    f"{self.path}: {name} is {spec}, but only the first dimension, the batch, may be dynamic",
                    "export the network with fixed sizes and a dynamic batch",
                )
        return {name: TensorSpec(spec.dtype, (BATCH, *spec.shape[1:])) for name, spec in specs.items()}

    def _load(self, graphs: bool) -> None:
        """Load the network, without graphs if ONNX Runtime does not allow them for it."""
        load_libraries()
        try:
            self._session: Any = load(self.path, self._providers(graphs), self._threads)
        except SessionError as error:
            if not graphs:
                raise
            logging.getLogger("jotr_deploy").warning("%s: no CUDA graphs: %s", self.path.name, error.cause)
            graphs = False
            self._session = load(self.path, self._providers(graphs), self._threads)
        if self._session.get_providers()[0] != CUDA:
            raise no_cuda()
        self._with_graphs = graphs
        self._bound: tuple[int, ...] | None = None
        self._plain = _options({_NO_WAIT: "1", **({_GRAPH: "-1"} if graphs else {})})

    def _providers(self, graphs: bool) -> list[Any]:
        ours = on_cuda(
            self._tf32,
            device_id=self._stream.device,
            user_compute_stream=self._stream.pointer,
            enable_cuda_graph=int(graphs),
        )
        return [ours, CPU]

    def _forget(self) -> None:
        self._binding = self._session = None

    def _bind(self, batch: int, addresses: Addresses) -> Any:
        binding = self._session.io_binding()
        for specs, bind in ((self.inputs, binding.bind_input), (self.outputs, binding.bind_output)):
            for name, spec in specs.items():
                shape = (batch, *spec.shape[1:])
                bind(name, "cuda", self._stream.device, spec.dtype.type, shape, addresses[name])
        return binding

    def _run_bound(self, binding: Any, options: Any) -> None:
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:  # ONNX Runtime's own classes only derive from Exception
            raise SessionError(
                f"{self.path}: ONNX Runtime cannot run it on the GPU ({first_line(error)})",
                "report this with the versions of `doctor`; or use --device cpu",
            ) from None

    def _enqueue(self, batch: int, addresses: Addresses) -> None:
        key = (batch, *addresses.values())
        if key != self._bound:
            self._bound = None
            self._binding = self._bind(batch, addresses)
            self._bound = key
        self._run_bound(self._binding, self._plain)

    def _capture(self, batch: int, addresses: Addresses) -> Launch:
        """Let ONNX Runtime capture a graph, which it does in the first run with a new number."""
        binding, number = self._bind(batch, addresses), {_GRAPH: str(len(self._graphs) + 1)}
        try:
            self._run_bound(binding, _options(number))
        except SessionError:
            # The state of a session after a failed capture is undefined: start again, without graphs.
            self._stream.abandon_capture()
            self._forget()
            self._graphs.clear()
            self._load(graphs=False)
            raise
        replay = _options({_NO_WAIT: "1", **number})
        return lambda batch, addresses: self._run_bound(binding, replay)


def _options(entries: dict[str, str]) -> Any:
    options = onnxruntime().RunOptions()
    for key, value in entries.items():
        options.add_run_config_entry(key, value)
    return options


def load_libraries() -> None:
    """Help ONNX Runtime find CUDA and cuDNN among pip's packages; loading a network reports what is missing."""
    if hasattr(onnxruntime(), "preload_dlls"):  # from 1.21
        with redirect_stdout(io.StringIO()):
            onnxruntime().preload_dlls()
