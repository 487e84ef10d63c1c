"""One recipe from an ONNX file to a serialised engine, for TensorRT 10.3 to 11.4: types live in the file.

Features are detected by name, never by version. TensorRT's errors, whether from its logger, its parser or null results,
are raised as one `BuildError`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from jotr_deploy.engines.tensorrt.timing_cache import keep_timings, use_timings
from jotr_deploy.errors import JotrDeployError, first_line
from jotr_deploy.plugins import NAME
from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.runtime.sessions.tensorrt_engine import listening
from jotr_deploy.support.aliases import PhaseProgress, Say
from jotr_deploy.support.choices import Portable

Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Smallest, best and largest shape of every input with a dynamic batch: what one optimisation profile holds."""

REPORT = (
    "jotr-deploy build-engine BUNDLE --check-only looks for the cause without a GPU; else report this with `doctor`"
)
BATCH = "give --batch MIN:OPT:MAX, such as 1:4:16"
BATCHES = "give --batch 1,4,16: growing sizes, each with kernels of its own"

_P = ParamSpec("_P")
_T = TypeVar("_T")


class BuildError(JotrDeployError):
    """An engine that TensorRT cannot build."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the builder."""

    profiles: tuple[Shapes, ...]
    """One for each range of batch sizes; none if the batch is fixed. Kernels are chosen for the best of each."""
    timing_cache: Path
    workspace_bytes: int | None = None
    """Limit of the scratch memory; None allows the whole device. Set it on Jetson, where CPU and GPU share memory."""
    optimization_level: int = 3
    portable: Portable | None = None


def without_frames(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Re-raise an expected error without its inner frames, which keep TensorRT's objects and their GPU memory alive."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except (BuildError, KeyboardInterrupt) as error:
            error.__context__ = None
            raise error.with_traceback(None) from None

    return call


@without_frames
def build_plan(trt: Any, model: bytes, recipe: Recipe, progress: PhaseProgress | None, say: Say) -> bytes:
    """Parse, configure, build, serialise.

    Args:
        trt: the module; plugins that the model names are registered.
        model: the TensorRT copy, serialised.
        recipe: shapes and effort.
        progress: called at every step; a KeyboardInterrupt during the build cancels it.
        say: called with notes, one line each.

    Raises:
        BuildError: TensorRT refuses the file, the profile or the network.
    """
    log = listening(trt)
    monitor = _new_monitor(trt, progress)
    builder = _new_builder(trt, log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise _parse_error([parser.get_error(index) for index in range(parser.num_errors)], log)
    config = builder.create_builder_config()
    for shapes in recipe.profiles:
        if config.add_optimization_profile(_profile(builder, shapes)) < 0:
            raise BuildError(f"TensorRT refuses the range of batch sizes: {log.reason()}", BATCH)
    _configure(trt, config, recipe)
    config.progress_monitor = monitor
    use_timings(config, recipe.timing_cache, say)
    device = cuda.device_info().index

    def build() -> Any:
        cuda.check(cuda.runtime().cudaSetDevice(device), "select the GPU")  # every thread has its own choice
        return builder.build_serialized_network(network, config)

    plan = _interruptible(build, monitor)
    if plan is None:
        raise BuildError(f"TensorRT did not build the engine: {log.reason()}", REPORT)
    keep_timings(config, recipe.timing_cache, say)
    return bytes(plan)


def _configure(trt: Any, config: Any, recipe: Recipe) -> None:
    if recipe.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)
    config.builder_optimization_level = recipe.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # otherwise the inspector only has names
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 in the file means that the ten bits of TF32 are not enough
    if recipe.portable == "same-capability":
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    if recipe.portable == "version":
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def refuse_portable(trt: Any, portable: Portable | None) -> None:
    """Refuse a kind of portability that this TensorRT does not have."""
    if portable == "same-capability" and not hasattr(trt.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY"):
        raise BuildError(
            f"--portable same-capability needs TensorRT 10.9, this is {trt.__version__}",
            "leave it out and build on each type of GPU",
        )


def _new_builder(trt: Any, log: Any) -> Any:
    try:
        return trt.Builder(log)
    except TypeError:  # how the bindings report a null pointer
        raise BuildError(
            f"TensorRT does not start ({log.reason()})", "jotr-deploy doctor shows the driver, CUDA and TensorRT here"
        ) from None


def _network_flags(trt: Any) -> int:
    kinds = trt.NetworkDefinitionCreationFlag
    bits = 1 << int(kinds.STRONGLY_TYPED)
    if hasattr(kinds, "PREFER_AOT_PYTHON_PLUGINS"):
        bits |= 1 << int(kinds.PREFER_AOT_PYTHON_PLUGINS)
    return bits


def _parse_error(errors: list[Any], log: Any) -> BuildError:
    if not errors:
        return BuildError(f"TensorRT cannot parse the network: {log.reason()}", REPORT)
    first = errors[0]
    if first.node() < 0:
        where = f"input {first.file()}"  # the parser puts the tensor's name there
    else:
        where = f"{first.node_name() or 'node ' + str(first.node())} [{first.node_operator()}]"
    if first.local_function_stack_size():
        where += f" in {' > '.join(first.local_function_stack())}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    remedy = "use --plugin none, which needs no plugin" if first.node_operator() == NAME else REPORT
    desc = " ".join(first.desc().split())
    return BuildError(f"TensorRT cannot parse {where}: {first.code().name}: {desc}{more}", remedy)


def _profile(builder: Any, shapes: Shapes) -> Any:
    profile = builder.create_optimization_profile()
    for name, (low, best, high) in shapes.items():
        try:
            profile.set_shape(name, low, best, high)
        except ValueError as error:
            raise BuildError(
                f"TensorRT refuses the shapes {low}, {best}, {high} of {name}: {first_line(error)}", BATCH
            ) from None
    return profile


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _new_monitor(trt: Any, progress: PhaseProgress | None) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Forwards progress; no exception may leave a callback, so cancelling sets a flag."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self.failure: BaseException | None = None
            self._phases: dict[str, tuple[str | None, int]] = {}
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = (parent_phase, num_steps)
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, None)
            with self._lock:
                self._phases.pop(phase_name, None)

        def _tell(self, phase: str, step: int | None) -> None:
            with self._lock:
                if progress is None or self.cancelled or phase not in self._phases:
                    return
                parent, steps = self._phases[phase]
                try:
                    progress(phase, parent, steps if step is None else min(step, steps), steps)
                except BaseException as error:
                    self.failure, self.cancelled = error, True

    return Monitor()


def _interruptible(build: Callable[[], Any], monitor: Any) -> Any:
    """Run a call of minutes in a thread: the main thread, the only one that receives Ctrl-C, stays in Python."""
    with ThreadPoolExecutor(1, thread_name_prefix="tensorrt") as pool:
        try:
            future = pool.submit(build)
            while not wait([future], timeout=0.2).done:  # a signal to another thread is handled in the next round
                pass
        except KeyboardInterrupt:
            monitor.cancelled = True  # the next step tells TensorRT; leaving the block waits for it
            raise
    if monitor.failure is not None:
        raise monitor.failure
    return future.result()
