"""The networks of a bundle on this GPU: time of one call and drift in millimetres, all in one process.

python benchmarks/gpu/engines.py BUNDLE --json benchmarks/results/engines.json

ONNX Runtime on CUDA in fp32 and fp16, with and without CUDA graphs; PyTorch eager and compiled with "max-autotune", in
fp32 and fp16 (autocast; heads and body in fp32); and the bundle's TensorRT engines, with and without graphs, which
`jotr-deploy build-engine BUNDLE --backend tensorrt --precision fp16 --batch 1:8:32` makes. Compiling takes minutes.

Needs an NVIDIA GPU, PyTorch with CUDA, and in a checkout `pip install -e '.[gpu,export]'`; for a bundle that is not the
stand-in's also the checkpoint it was exported from, whose PyTorch network the drift is measured against. Exit code 2:
something that it needs is missing.

Two times a call, medians of samples taken in turns, each ended by waiting for the GPU: "network" from and to the GPU's
memory, "end to end" from and to NumPy arrays. Drift is that of the vertices against PyTorch eager in fp32.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.engines.low_precision import to_low_precision
from jotr_deploy.engines.verify import measure, random_crops
from jotr_deploy.errors import BundleError, JotrDeployError, MissingDependency
from jotr_deploy.export.assemble import load_network, load_stand_in
from jotr_deploy.model.jotr import INPUTS, JOTR
from jotr_deploy.profiling.eager import torch_tf32
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.runtime.sessions.cuda_session import CudaSession
from jotr_deploy.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession
from jotr_deploy.runtime.sessions.tensorrt import TensorRTSession
from jotr_deploy.support.writing import written_aside

BATCHES = (1, 8, 32)
WARM_UP, ROUNDS = 5, 100
EAGER, COMPILED = "PyTorch eager fp32", "torch.compile"
Arrays = Mapping[str, np.ndarray]
Samples = Mapping[str, Mapping[str, list[float]]]
"""Name of a candidate -> kind of time -> milliseconds."""


@dataclass(frozen=True)
class Candidate:
    """One network, ready to be called; every call ends when the GPU is done."""

    name: str
    on_device: Callable[[Mapping[str, torch.Tensor]], object]
    end_to_end: Callable[[Arrays], Arrays]
    max_batch: int | None = None
    session: CudaSession | None = None  # measures itself by events, too


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


class Float32(torch.nn.Module):
    """A part of the network that autocast leaves alone: rotations and skinning overflow in fp16."""

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *arguments: torch.Tensor) -> Any:
        with torch.autocast(arguments[0].device.type, enabled=False):
            return self.part(*(argument.float() for argument in arguments))


def for_autocast(model: JOTR) -> JOTR:
    """A copy whose heads, pose prior and body stay in fp32."""
    model = copy.deepcopy(model)
    for name in ("heads", "vposer", "body"):
        setattr(model, name, Float32(getattr(model, name)))
    return model


def torch_candidates(model: JOTR, device: str = "cuda") -> Iterator[Candidate]:
    """Eager and compiled, each in fp32 and in fp16 by autocast."""
    model = model.to(device).eval()
    for precision, network in (("fp32", model), ("fp16", for_autocast(model))):
        compiled = torch.compile(network, mode="max-autotune", dynamic=False)
        yield torch_candidate(f"PyTorch eager {precision}", network, device, precision == "fp16")
        yield torch_candidate(f"{COMPILED} {precision}", compiled, device, precision == "fp16")


def torch_candidate(name: str, network: Callable[..., Any], device: str, half: bool) -> Candidate:
    def on_device(feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=half):
            results = network(*(feeds[name] for name in INPUTS))._asdict()
        if device == "cuda":
            torch.cuda.synchronize()
        return results

    def end_to_end(feeds: Arrays) -> dict[str, np.ndarray]:
        results = on_device({name: torch.from_numpy(feed).to(device) for name, feed in feeds.items()})
        return {name: value.float().cpu().numpy() for name, value in results.items()}

    return Candidate(name, on_device, end_to_end)


def session_candidates(bundle: Bundle, folder: Path, stack: ExitStack) -> Iterator[Candidate]:
    """ONNX Runtime on CUDA and the bundle's TensorRT engines, each with and without graphs."""
    mesh = bundle.file("mesh", "mesh.onnx")
    half = folder / "mesh.fp16.onnx"
    onnx.save(to_low_precision(onnx.load(mesh), "fp16"), half)
    for precision, path in (("fp32", mesh), ("fp16", half)):
        for graphs in (False, True):
            session = stack.enter_context(OnnxRuntimeCudaSession(path, graphs=graphs))
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


def sample(
    candidates: Sequence[Candidate], feeds: Arrays, device: str, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of `rounds` calls of each kind, the candidates in turns: name -> kind -> samples."""
    tensors = {name: torch.from_numpy(feed).to(device) for name, feed in feeds.items()}
    taken: dict[str, dict[str, list[float]]] = {c.name: defaultdict(list) for c in candidates}
    for number in range(-WARM_UP, rounds):
        for candidate in candidates:
            found = {"network": milliseconds(candidate.on_device, tensors)}
            if candidate.session is not None:
                found |= {kind: candidate.session.times[kind] for kind in ("enqueue", "gpu")}
            found["end to end"] = milliseconds(candidate.end_to_end, feeds)
            if number >= 0:
                for kind, ms in found.items():
                    taken[candidate.name][kind].append(ms)
    return taken


def milliseconds(call: Callable[[Any], object], feeds: Any) -> float:
    start = time.perf_counter()
    call(feeds)
    return (time.perf_counter() - start) * 1e3


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
    compiled = min(row.network_ms for row in rows if row.name.startswith(COMPILED))
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


def run(bundle: Bundle, checkpoint: Path | None, body: Path | None, rounds: int) -> dict[str, Any]:
    """Everything, printed as it comes."""
    result: dict[str, Any] = {"machine": machine(), "rounds": rounds}
    print(json.dumps(result, indent=1))
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(torch_tf32(False))
        candidates = list(torch_candidates(pytorch(bundle, checkpoint, body)))
        candidates += session_candidates(bundle, folder, stack)
        for batch in BATCHES:
            rows += measured(candidates, bundle, "cuda", rounds, batch)
            show([row for row in rows if row.batch == batch])
    return result | {"rows": [as_json(row) for row in rows]}


def as_json(row: Row) -> dict[str, Any]:
    """JSON has no NaN: what is not finite is null."""
    values = asdict(row)
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="what the bundle was exported from, unless the stand-in")
    parser.add_argument("--body", type=Path, help="as given to export")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    try:
        if not torch.cuda.is_available():
            raise MissingDependency("no CUDA device, or PyTorch without CUDA", "run this where nvidia-smi shows a GPU")
        result = run(open_bundle(arguments.bundle), arguments.checkpoint, arguments.body, arguments.rounds)
        if arguments.json is not None:
            with written_aside(arguments.json) as aside:
                aside.write_text(json.dumps(result, indent=1) + "\n")
    except JotrDeployError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
