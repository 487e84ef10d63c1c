"""OpenVINO as a `Session`: static shapes, and reduced precision if the file asks for it.

OpenVINO has one precision per model; a file that needs several is split into stages (`openvino_stages`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jotr_deploy.errors import MissingDependency, SessionError, first_line, install
from jotr_deploy.runtime.sessions.library_output import output_to
from jotr_deploy.runtime.sessions.openvino_stages import stages
from jotr_deploy.runtime.sessions.session import Kernel, Session, TensorSpec
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.cache import user_cache
from jotr_deploy.support.file_kinds import advice, describe_file
from jotr_deploy.support.imports import not_importable
from jotr_deploy.support.processor import clips_sums_of
from jotr_deploy.support.read_errors import read_onnx, shortened, something_else

PARTS = (8, 4, 2, 1)
"""Batch sizes to compile, each when first needed; other batches are composed of them."""
BATCH = "batch"


@dataclass(frozen=True)
class Stage:
    """A model compiled for one batch size."""

    request: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, values: Mapping[str, Array]) -> dict[str, Array]:
        results = self.request.infer({name: values[name] for name in self.inputs}, share_inputs=True)
        return {name: results[name] for name in self.outputs}

    def steps(self) -> list[Kernel]:
        """Kernels of the last call; their times are zero unless the model was compiled for profiling."""
        ran = [step for step in self.request.get_profiling_info() if step.status == step.Status.EXECUTED]
        return [Kernel(step.node_name, step.node_type, step.real_time.total_seconds() * 1000) for step in ran]


class OpenVINOSession(Session):
    """An ONNX file in OpenVINO on the CPU."""

    device = "cpu"

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None, profile: bool = False) -> None:
        if device == "cuda":
            raise SessionError(f"{path}: OpenVINO is for the CPU here", "use --device cpu, or another backend")
        self.path = path
        self._core = _core()
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
            **({"PERF_COUNT": True} if profile else {}),
        }
        model = _read(self._core, path)
        self.metadata = _metadata(model)
        if clips_sums_of(self.metadata) and any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
            # OpenVINO's switch against integer kernels does not help: results differed from the second call (2026.4).
            raise SessionError(
                f"{path}: OpenVINO's int8 kernels clip sums on this processor, which has no VNNI",
                "calibrate with --weight-bits 7, or run the int8 file for ONNX Runtime, or fp32",
            )
        self.inputs = {port.any_name: _spec(path, port) for port in model.inputs}
        self.outputs = {port.any_name: _spec(path, port) for port in model.outputs}
        self._batched = all(
            spec.shape[:1] == (BATCH,) and "?" not in spec.shape
            for spec in (*self.inputs.values(), *self.outputs.values())
        )
        self.halves = _has_bfloat16(self._core)  # else it is emulated
        self._models = stages(path, model) if self.halves else [("f32", model)]
        self._stages: dict[int, list[Stage]] = {}

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        if not self._batched:
            return self._call(0, feeds)
        batch, results, start = len(next(iter(feeds.values()))), [], 0
        for size in parts(batch):
            results.append(self._call(size, {name: feed[start : start + size] for name, feed in feeds.items()}))
            start += size
        if len(results) == 1:
            return results[0]
        none = {name: np.zeros((0, *map(int, spec.shape[1:])), spec.dtype) for name, spec in self.outputs.items()}
        return {name: np.concatenate([none[name], *(result[name] for result in results)]) for name in self.outputs}

    def steps(self, batch: int) -> list[Kernel]:
        """Kernels of the last call, which had this batch size, in a session opened for profiling."""
        sizes = parts(batch) if self._batched else [0]
        return [step for size in sizes for stage in self._stages[size] for step in stage.steps()]

    def _call(self, batch: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """One call of the stages compiled for this batch size; 0 is for any shape."""
        if batch not in self._stages:
            self._stages[batch] = [self._compiled(model, precision, batch) for precision, model in self._models]
        values = dict(feeds)
        for stage in self._stages[batch]:
            values |= stage(values)
        return {name: values[name] for name in self.outputs}

    def _compiled(self, model: Any, precision: str, batch: int) -> Stage:
        if batch:
            model = model.clone()
            model.reshape({port.any_name: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
        options = {**self._options, "INFERENCE_PRECISION_HINT": precision}
        try:
            compiled = self._core.compile_model(model, "CPU", {**options, "CACHE_DIR": str(user_cache() / "openvino")})
        except RuntimeError:  # possibly due to the cache alone: no space, or not writable
            try:
                compiled = self._core.compile_model(model, "CPU", options)
            except RuntimeError as error:
                raise _refused(self.path, error) from None
        names = (tuple(port.any_name for port in ports) for ports in (model.inputs, model.outputs))
        return Stage(compiled.create_infer_request(), *names)

    def _free(self) -> None:
        self._stages, self._models = {}, []


def profiled(path: Path, feeds: Mapping[str, Array], calls: int, threads: int | None = None) -> list[list[Kernel]]:
    """The kernels of several calls, after a warm-up call.

    Raises:
        SessionError: the file cannot be loaded.
        MissingDependency: OpenVINO is not installed.
    """
    session, found = OpenVINOSession(path, threads=threads, profile=True), []
    with session:
        session(feeds)
        for _ in range(calls):
            session(feeds)
            found.append(session.steps(len(next(iter(feeds.values())))))
    return found


def openvino() -> ModuleType:
    """The module `openvino`.

    Raises:
        MissingDependency: it cannot be imported.
    """
    try:
        import openvino
    except ImportError as error:
        raise not_importable("OpenVINO", "openvino", error, install("openvino")) from None
    return openvino


def computes_bfloat16() -> bool:
    """True if OpenVINO is installed and the CPU has bfloat16 instructions."""
    try:
        return _has_bfloat16(_core())
    except MissingDependency:
        return False


def _has_bfloat16(core: Any) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> Any:
    """OpenVINO's core, one per process, so that its plugin is loaded once."""
    return openvino().Core()


def parts(batch: int) -> list[int]:
    """The batch as a sum of sizes from `PARTS`, largest first."""
    found = []
    for size in PARTS:
        count, batch = divmod(batch, size)
        found += [size] * count
    return found


def _metadata(model: Any) -> dict[str, str]:
    """The `metadata_props` of the ONNX file, if OpenVINO has kept them."""
    if not model.has_rt_info(["framework"]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info(["framework"]).value.items()}


def _read(core: Any, path: Path) -> Any:
    """The file as an OpenVINO model; this package's operator is expanded if the file contains it."""
    if describe_file(path) != "an ONNX model":
        read_onnx(path)  # its reader raises the reason
    try:
        # A file that it does not recognise as ONNX is passed to OpenVINO's other readers, which print.
        with tempfile.TemporaryFile() as unheard, output_to(unheard.fileno()):
            model = core.read_model(path)
        _ = [(port.any_name, port.partial_shape, port.element_type) for port in (*model.inputs, *model.outputs)]
        return model
    except Exception as error:  # RuntimeError, or any class that a C++ exception is translated to
        refused = _refused(path, error)
    from jotr_deploy.plugins.onnx_function import inline

    try:
        model = read_onnx(path)
        if not model.functions:
            raise refused
        return core.read_model(inline(model).SerializeToString())
    except SessionError:
        raise
    except Exception:  # damaged in a way only the protobuf reader notices, with version-dependent classes
        raise refused from None


def _refused(path: Path, error: Exception) -> SessionError:
    lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception from")]
    reason = lines[0] if lines else first_line(error)
    why = something_else(path, "an ONNX model", ("an ONNX model",)) or f"OpenVINO cannot load it ({shortened(reason)})"
    return SessionError(f"{path}: {why}", advice(path) or "check the file; export it again")


def _spec(path: Path, port: Any) -> TensorSpec:
    try:
        dtype = np.dtype(port.element_type.to_dtype())
    except RuntimeError:
        kind = port.element_type.get_type_name()
        raise SessionError(
            f"{path}: {port.any_name} is a {kind}, which NumPy does not have", "give another network"
        ) from None
    sizes = [size.get_length() if size.is_static else "?" for size in port.partial_shape]
    if sizes[:1] == ["?"]:
        sizes[0] = BATCH
    return TensorSpec(dtype, tuple(sizes))
