"""`doctor --selftest`: every available engine on networks from a single operator to the full one, compared."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import onnx
import onnx.parser

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.config import ModelConfig
from jotr_deploy.engines.derived_files import MESH_NETWORK
from jotr_deploy.engines.low_precision import LOW_TYPES
from jotr_deploy.engines.tensorrt.engine import build_engine, plan_network
from jotr_deploy.engines.verify import UNITS, Difference, measure, require
from jotr_deploy.errors import JotrDeployError, MissingDependency, VerificationError, first_line, install
from jotr_deploy.plugins import DOMAIN, NAME, VERSION, kernel
from jotr_deploy.plugins.onnx_function import OPSET, attach
from jotr_deploy.plugins.reference import trilinear_sample_3d
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.runtime.sessions import cuda, open_session
from jotr_deploy.runtime.sessions.onnxruntime import CUDA, onnxruntime
from jotr_deploy.support.aliases import Array, Say
from jotr_deploy.support.precisions import Precision

KERNEL, CPU_ENGINE, CUDA_ENGINE, TENSORRT = "kernel", "ONNX Runtime CPU", "ONNX Runtime CUDA", "TensorRT"
# Precisions each engine supports. ONNX Runtime has no bf16 kernels on the CPU and few on CUDA.
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    KERNEL: (Precision.FP32, Precision.FP16, Precision.BF16),
    CPU_ENGINE: (Precision.FP32, Precision.FP16),
    CUDA_ENGINE: (Precision.FP32, Precision.FP16),
    TENSORRT: (Precision.FP32, Precision.FP16, Precision.BF16),
}
# Values in the volume are about 1, up to 5: half a unit in the last place of the type, plus a margin for fp32 sums.
OPERATOR_LIMITS = {Precision.FP32: 1e-5, Precision.FP16: 4e-3, Precision.BF16: 3.2e-2}
BATCH = (1, 4, 8)
TINY = ModelConfig(
    backbone_depth=10, backbone_width=8, d_model=32, heads=4, ffn_fusion=32, ffn_voxel=32,
    encoder_layers=1, decoder_layers=3, crop_side=64, voxel_grid=4,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One network in one engine and precision."""

    network: str
    engine: str
    precision: str
    result: Literal["ok", "failed", "not run"]
    difference: str  # the largest, in its unit, with the limit
    detail: str  # what failed, or why it was not run
    seconds: float


@dataclass(frozen=True)
class SelfTest:
    """The complete report, to be pasted into a bug report."""

    machine: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """True if nothing failed; engines that are not installed do not count."""
        return not any(row.result == "failed" for row in self.rows)


def selftest(bundle: Bundle | None = None, say: Say = lambda step: None) -> SelfTest:
    """Build and compare the operator, a tiny network and the full one in every available engine and precision.

    References: NumPy for the operator, the network's fp32 file in ONNX Runtime on the CPU for the others. Only
    temporary folders and TensorRT's timing cache are written.

    Args:
        bundle: source of the full network; None exports the stand-in's, which requires PyTorch.
        say: called with each step.
    """
    load = load_average()
    absent = {engine: reason for engine in PRECISIONS if (reason := _absent(engine))}
    with tempfile.TemporaryDirectory(prefix="jotr-deploy-selftest-") as folder:
        rows = list(_operator_rows(Path(folder), absent, say))
        for name, make in _networks(bundle, Path(folder)).items():
            rows += _network_rows(name, make, Path(folder) / "work", absent, say)
    has_gpu = KERNEL not in absent
    machine = {**asdict(environment(None, has_gpu, load)), "cuda": asdict(cuda.device_info()) if has_gpu else None}
    return SelfTest(machine, tuple(rows))


def _absent(engine: str) -> str:
    """The reason why an engine cannot run here; empty if it can."""
    try:
        if engine != CPU_ENGINE:
            cuda.device_info()
        if engine == CUDA_ENGINE and CUDA not in onnxruntime().get_available_providers():
            return f"this ONNX Runtime has no CUDA: pip uninstall onnxruntime, then {install('gpu')}"
        if engine == TENSORRT:
            from jotr_deploy.runtime.sessions.tensorrt_engine import tensorrt

            tensorrt()
    except (JotrDeployError, RuntimeError) as error:  # cuda.bindings raises the latter without a driver
        return getattr(error, "cause", None) or f"CUDA has no driver ({error})"
    return ""


def _row(network: str, engine: str, precision: str, run: Callable[[], str], absent: Mapping[str, str], say: Say) -> Row:
    if engine in absent:
        return Row(network, engine, precision, "not run", "", absent[engine], 0.0)
    say(f"{network} in {engine}, {precision}")
    start = time.perf_counter()
    try:
        result, difference, detail = "ok", run(), ""
    except MissingDependency as error:
        result, difference, detail = "not run", "", error.cause
    except Exception as error:  # whatever it is, the report must be completed
        result, difference, detail = "failed", "", getattr(error, "cause", None) or first_line(error)
    return Row(network, engine, precision, cast(Any, result), difference, detail, round(time.perf_counter() - start, 1))


# ── one operator ─────────────────────────────────────────────────────────────────────────────────────────────────


def operator_model(precision: Precision) -> onnx.ModelProto:
    """The sampling operator alone, at the published network's sizes; float32 outside, the precision inside."""
    kind = onnx.TensorProto.FLOAT if precision is Precision.FP32 else LOW_TYPES[precision]
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : {OPSET}, "{DOMAIN}" : {VERSION}]>
        operator (float[batch, 8, 8, 8, 256] features, float[batch, 15, 3] points)
          => (float[batch, 15, 256] samples) {{
          typed = Cast <to = {kind}> (features)
          sampled = {DOMAIN}.{NAME} (typed, points)
          samples = Cast <to = {onnx.TensorProto.FLOAT}> (sampled)
        }}
    """)
    model.graph.node[1].name = "sample"
    attach(model)
    return model


def operator_feeds(batch: int) -> dict[str, Array]:
    """A volume of normally distributed values, and points inside and around it."""
    rng = np.random.default_rng(batch)
    features = rng.standard_normal((batch, 8, 8, 8, 256)).clip(-5, 5).astype(np.float32)
    return {"features": features, "points": rng.uniform(-0.1, 1.1, (batch, 15, 3)).astype(np.float32)}


def _operator_rows(folder: Path, absent: Mapping[str, str], say: Say) -> Iterator[Row]:
    for engine, precisions in PRECISIONS.items():
        for precision in precisions:

            def run(engine: str = engine, precision: Precision = precision) -> str:
                with ExitStack() as stack:
                    call = _operator_call(engine, precision, folder, stack)
                    return _operator_difference(call, precision)

            yield _row("operator", engine, precision, run, absent, say)


def _operator_call(
    engine: str, precision: Precision, folder: Path, stack: ExitStack
) -> Callable[[dict[str, Array]], Array]:
    if engine == KERNEL:
        return lambda feeds: _by_kernel(feeds["features"], feeds["points"], precision.numpy_type)
    if engine == TENSORRT:
        path = folder / f"operator.{precision}.engine"
        path.write_bytes(plan_network(operator_model(precision), precision, BATCH).plan)
    else:
        path = folder / f"operator.{precision}.onnx"
        onnx.save(operator_model(precision), path)
    session = stack.enter_context(open_session(path, device="cpu" if engine == CPU_ENGINE else "cuda"))
    return lambda feeds: session(feeds)["samples"]


def _operator_difference(call: Callable[[dict[str, Array]], Array], precision: Precision) -> str:
    worst, limit = 0.0, OPERATOR_LIMITS[precision]
    for batch in BATCH:
        feeds = operator_feeds(batch)
        gap = np.abs(call(feeds) - trilinear_sample_3d(feeds["features"], feeds["points"]))
        worst = max(worst, float(gap.max()) if np.isfinite(gap).all() else np.inf)
    if not worst <= limit:
        raise VerificationError(f"differs by {worst:.2g}, limit {limit:g}", "report this")
    return f"{worst:.1e} of {limit:g}"


def _by_kernel(features: Array, points: Array, dtype: str) -> Array:
    """The CUDA kernel through NVRTC and the driver, without an engine around it."""
    import ml_dtypes

    kind: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype, dtype))
    batch, *_, channels = features.shape
    shapes = (features.shape, points.shape, (batch, points.shape[1], channels))
    with ExitStack() as stack:

        def own(thing: Any) -> Any:
            stack.callback(thing.release)
            return thing

        stream, host, device = own(cuda.Stream()), [], []
        for shape, each in zip(shapes, (kind, np.dtype(np.float32), kind), strict=True):
            nbytes = int(np.prod(shape)) * each.itemsize
            device.append(own(cuda.Memory.on_device(nbytes)))
            host.append(own(cuda.Memory.pinned(nbytes)).as_array(shape, each))
        host[0][:], host[1][:] = features.astype(kind), points
        for block, array in zip(device[:2], host, strict=False):
            stream.to_device(block.pointer, array.ctypes.data, array.nbytes)
        volume, where, samples = (block.pointer for block in device)
        kernel.launch(volume, where, samples, cast(Any, features.shape), points.shape[1], dtype, stream.pointer)
        stream.to_host(host[2].ctypes.data, samples, host[2].nbytes)
        stream.synchronize()
        result: Array = host[2].astype(np.float32)
    return result


# ── whole networks ───────────────────────────────────────────────────────────────────────────────────────────────


def _networks(bundle: Bundle | None, folder: Path) -> dict[str, Callable[[], Bundle]]:
    return {
        "tiny": lambda: _stand_in(TINY, folder / "tiny"),
        "full": (lambda: _stand_in(ModelConfig(), folder / "full")) if bundle is None else lambda: bundle,
    }


def _stand_in(config: ModelConfig, path: Path) -> Bundle:
    try:
        from jotr_deploy.export.assemble import load_stand_in
        from jotr_deploy.export.to_bundle import export_bundle
    except ImportError as error:
        raise MissingDependency(f"its export needs {error.name}", f"{install('export')}, or name a bundle") from None
    return open_bundle(export_bundle(load_stand_in(config), path).path)


def _network_rows(
    name: str, make: Callable[[], Bundle], work: Path, absent: Mapping[str, str], say: Say
) -> Iterator[Row]:
    wanted = [(engine, precision) for engine in (CPU_ENGINE, CUDA_ENGINE, TENSORRT) for precision in PRECISIONS[engine]]
    wanted.remove((CPU_ENGINE, Precision.FP32))  # the reference
    say(f"{name} network: reading")
    try:
        bundle = make()
        bundle.file("mesh", "mesh.onnx")
    except JotrDeployError as error:
        result: Literal["failed", "not run"] = "not run" if isinstance(error, MissingDependency) else "failed"
        yield from (Row(name, *engine, result, "", error.cause, 0.0) for engine in wanted)
        return
    for engine, precision in wanted:

        def run(engine: str = engine, precision: Precision = precision) -> str:
            shutil.rmtree(work, ignore_errors=True)
            if engine == TENSORRT:
                copy = _copy(bundle, work)
                rows = build_engine(copy, precision=precision, batch=BATCH).differences
            else:
                rows = _in_onnxruntime(bundle, precision, engine == CUDA_ENGINE, work)
            return _worst(rows, precision)

        yield _row(name, engine, precision, run, absent, say)


def _copy(bundle: Bundle, work: Path) -> Bundle:
    """A copy of the bundle with only the network, to build into."""
    work.mkdir()
    entry = bundle.entry("mesh", "mesh.onnx")
    shutil.copy(bundle.file("mesh", entry.name), work / entry.name)
    return Bundle(work, bundle.manifest.model_copy(update={"files": (entry,)}))


def _in_onnxruntime(bundle: Bundle, precision: Precision, on_gpu: bool, work: Path) -> list[Difference]:
    path = mesh = bundle.file("mesh", "mesh.onnx")
    if precision is not Precision.FP32:
        work.mkdir()
        path = work / precision.file()
        onnx.save(MESH_NETWORK.typed(MESH_NETWORK.load(bundle, precision), precision), path)
    with (
        open_session(mesh, device="cpu") as reference,
        open_session(path, device="cuda" if on_gpu else "cpu") as session,
    ):
        rows = measure(reference, session, bundle.manifest.model, BATCH)
    require(rows, precision, mesh.name)
    return rows


def _worst(rows: Sequence[Difference], precision: Precision) -> str:
    """The output closest to its limit."""
    limits = precision.limits or {}

    def used(row: Difference) -> float:
        kind, limit = limits[row.output]
        return cast(float, getattr(row, kind)) / limit

    row = max(rows, key=used)
    kind, limit = limits[row.output]
    words = (row.output, f"{getattr(row, kind):.2g} of {limit:g}", UNITS[row.output], kind)
    return " ".join(word for word in words if word)
