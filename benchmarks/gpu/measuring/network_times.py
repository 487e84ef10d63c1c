"""The networks of a bundle on a GPU: time of one call and drift in millimetres, all in one process.

Two times a call, medians of samples taken in turns, each ended by waiting for the GPU: "network" from and to the GPU's
memory, "end to end" from and to NumPy arrays. Drift is that of the vertices against PyTorch eager in fp32.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from measuring.candidates import COMPILED, EAGER, Candidate, sample, torch_candidates

from jotr_deploy.bundle import Bundle
from jotr_deploy.engines.derived_files import MESH_NETWORK
from jotr_deploy.engines.verify import measure, random_crops
from jotr_deploy.errors import BundleError, JotrDeployError
from jotr_deploy.export.assemble import load_network, load_stand_in
from jotr_deploy.model.jotr import JOTR
from jotr_deploy.profiling.eager import torch_tf32
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession
from jotr_deploy.runtime.sessions.tensorrt import TensorRTSession
from jotr_deploy.support.precisions import Precision

BATCHES = (1, 8, 32)


@dataclass(frozen=True)
class Row:
    """One candidate at one batch size."""

    batch: int
    name: str
    network_ms: float
    end_to_end_ms: float
    events_ms: Mapping[str, float]  # a session's own "enqueue" and "gpu", of the calls on the device
    drift_mean_mm: float
    drift_max_mm: float


def pytorch(bundle: Bundle, checkpoint: Path | None, body: Path | None) -> JOTR:
    """The network that the bundle was exported from."""
    loaded = load_stand_in(bundle.manifest.model) if checkpoint is None else load_network(checkpoint, body)
    if loaded.source_sha256 != bundle.manifest.source_sha256:
        raise BundleError(
            f"{bundle.path}: the bundle was not exported from {checkpoint or 'the stand-in'}",
            "give its own: --checkpoint FILE",
        )
    return loaded.model


def session_candidates(bundle: Bundle, folder: Path, stack: ExitStack) -> Iterator[Candidate]:
    """ONNX Runtime on CUDA and the bundle's TensorRT engines, each with and without graphs."""
    mesh = bundle.file("mesh", "mesh.onnx")
    half = folder / "mesh.fp16.onnx"
    onnx.save(MESH_NETWORK.typed(MESH_NETWORK.load(bundle, Precision.FP16), Precision.FP16), half)
    for precision, path in (("fp32", mesh), ("fp16", half)):
        for graphs in (False, True):
            try:
                session = stack.enter_context(OnnxRuntimeCudaSession(path, graphs=graphs))
            except JotrDeployError as error:
                print(f"ONNX Runtime {precision} left out: {error.cause}; {error.remedy}")
                break
            yield session_candidate(f"ONNX Runtime {precision}", session, graphs)
    for entry in bundle.manifest.files:
        if entry.backend == "tensorrt" and entry.name.endswith(".engine"):
            for graphs in (False, True):
                try:
                    session = stack.enter_context(TensorRTSession(bundle.file("mesh", entry.name), graphs=graphs))
                except JotrDeployError as error:
                    print(f"{entry.name} left out: {error.cause}")
                    break
                yield session_candidate(f"TensorRT {entry.precision}", session, graphs)


def session_candidate(name: str, session: Any, graphs: bool) -> Candidate:
    label = f"{name}, CUDA graph" if graphs else name
    return Candidate(label, session.run_on_device, session, session.max_batch, session)


def drift(reference: Candidate, candidate: Candidate, bundle: Bundle, batch: int) -> tuple[float, float]:
    """Mean and largest distance of the vertices, millimetres."""
    rows = measure(reference.end_to_end, candidate.end_to_end, bundle.manifest.model, [batch])
    vertices = next(row for row in rows if row.output == "vertices")
    return vertices.mean, vertices.max


def measured(candidates: Sequence[Candidate], bundle: Bundle, device: str, rounds: int, batch: int) -> list[Row]:
    """A row for each candidate that takes so many people at once."""
    fitting = [c for c in candidates if c.max_batch is None or batch <= c.max_batch]
    for left_out in [c for c in candidates if c not in fitting]:
        print(f"batch {batch}: {left_out.name} left out, it takes {left_out.max_batch} at most")
    taken = sample(fitting, random_crops(bundle.manifest.model, batch), device, rounds)
    rows = []
    for candidate in fitting:
        medians = {kind: statistics.median(samples) for kind, samples in taken[candidate.name].items()}
        events = {kind: medians[kind] for kind in ("enqueue", "gpu") if kind in medians}
        distances = drift(candidates[0], candidate, bundle, batch)
        rows.append(Row(batch, candidate.name, medians["network"], medians["end to end"], events, *distances))
    return rows


def show(rows: Sequence[Row]) -> None:
    """A table of one batch size; eager fp32 is the first row."""
    eager = next(row.network_ms for row in rows if row.name == EAGER)
    compiled = min((row.network_ms for row in rows if row.name.startswith(COMPILED)), default=math.nan)
    print(f"\nbatch {rows[0].batch:<26}  network ms  end to end ms  vs eager fp32  vs compile  drift mm, mean    max")
    for row in rows:
        print(
            f"{row.name:<32}  {row.network_ms:>10.3f}  {row.end_to_end_ms:>13.3f}  {eager / row.network_ms:>12.2f}x"
            f"  {compiled / row.network_ms:>9.2f}x  {row.drift_mean_mm:>14.4f}  {row.drift_max_mm:>5.2f}"
        )


def machine() -> dict[str, Any]:
    return {
        **asdict(environment(None, True, load_average())),
        "cuda device": asdict(cuda.device_info()),
        "cuda of torch": torch.version.cuda,
    }


def run(
    bundle: Bundle,
    checkpoint: Path | None = None,
    body: Path | None = None,
    rounds: int = 100,
    batches: Sequence[int] = BATCHES,
    compile_mode: str | None = "max-autotune",
) -> dict[str, Any]:
    """Everything, printed as it comes; `compile_mode` None leaves `torch.compile` out."""
    result: dict[str, Any] = {"machine": machine(), "rounds": rounds, "torch.compile": compile_mode}
    print(json.dumps(result, indent=1))
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(torch_tf32(False))
        candidates = list(torch_candidates(pytorch(bundle, checkpoint, body), "cuda", compile_mode))
        candidates += session_candidates(bundle, folder, stack)
        for batch in batches:
            rows += measured(candidates, bundle, "cuda", rounds, batch)
            show([row for row in rows if row.batch == batch])
    return result | {"rows": [as_json(row) for row in rows]}


def as_json(row: Row) -> dict[str, Any]:
    """JSON has no NaN: what is not finite is null."""
    values = asdict(row)
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
