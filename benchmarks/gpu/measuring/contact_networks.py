"""Networks that first contact runs in ONNX Runtime and TensorRT, and how a session of them is looked at."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from measuring.report import Report

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.engines.verify import Network, measure, random_crops
from jotr_deploy.support.precisions import Precision

BATCHES = (1, 8, 32)
ROUNDS = 20
STARTER = Path(__file__).parents[3] / "jotr_deploy" / "starter"


def starter(folder: Path) -> Bundle:
    """A copy of the starter bundle, to build into."""
    return open_bundle(Path(shutil.copytree(STARTER, folder / "starter")))


def stand_in(folder: Path) -> Bundle:
    """The full network with random weights, exported here."""
    from jotr_deploy.export.assemble import load_stand_in
    from jotr_deploy.export.to_bundle import export_bundle

    return open_bundle(export_bundle(load_stand_in(), folder / "stand-in").path)


def verified(
    report: Report, what: str, precision: Precision, session: Any, reference: Network, bundle: Bundle, batch: int
) -> None:
    """A row for the output that is closest to its limit."""
    rows = measure(reference, session, bundle.manifest.model, [batch])
    limits = precision.limits or {}

    def used(row: Any) -> float:
        kind, limit = limits[row.output]
        return getattr(row, kind) / limit if row.finite else float("inf")

    worst = max((row for row in rows if row.output in limits), key=used)
    kind, limit = limits[worst.output]
    value = getattr(worst, kind) if worst.finite else float("nan")
    report.value(f"{what}: {kind} difference of {worst.output}", value, "", limit, "the output nearest to its limit")


def timed(report: Report, what: str, session: Any, bundle: Bundle, batch: int) -> None:
    """Median times of calls from and to NumPy arrays, and of the network alone by events on the GPU."""
    feeds = random_crops(bundle.manifest.model, batch)
    for _ in range(3):  # the second captures
        session(feeds)
    wall, gpu, enqueue = [], [], []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        session(feeds)
        wall.append((time.perf_counter() - begun) * 1e3)
        gpu.append(session.times["gpu"])
        enqueue.append(session.times["enqueue"])
    note = f"end to end {statistics.median(wall):.3f} ms, enqueue {statistics.median(enqueue):.3f} ms"
    report.value(f"{what}: network", statistics.median(gpu), "ms", note=note)


def looked_at(
    report: Report, what: str, precision: Precision, session: Any, reference: Network, bundle: Bundle, graphs: bool
) -> None:  # fmt: skip
    """Equality, then times, at each batch size; with graphs also whether they were captured."""
    for batch in BATCHES:
        if batch <= session.max_batch:
            verified(report, f"{what}, batch {batch}", precision, session, reference, bundle, batch)
            timed(report, f"{what}, batch {batch}", session, bundle, batch)
    if graphs:
        report.check(f"{what}: captured", session._capturing and bool(session._graphs), "CUDA graphs, nothing refused")
