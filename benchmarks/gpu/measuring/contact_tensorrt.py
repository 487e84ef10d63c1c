"""First contact: engines of the starter's network, and of the full one, built, verified and timed by TensorRT."""

from __future__ import annotations

import tempfile
from pathlib import Path

from measuring.report import LeftOut, Report, needs

FULL_SECONDS = 75
"""Export, building and calls of the full network may take as much."""


def measure(report: Report) -> None:
    needs("numpy", "cv2", "pydantic", "onnx", "onnxruntime", "cuda.bindings", "tensorrt")
    import tensorrt
    from measuring.contact_networks import stand_in, starter

    from jotr_deploy.engines.tensorrt.versions import parse_version

    report.fact("TensorRT", f"{tensorrt.__version__}, read as {parse_version(tensorrt.__version__)}")
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "fp16", "bf16"):
            with report.attempt(f"starter, {precision}"):
                work = Path(folder, precision)
                work.mkdir()
                engine(report, "starter", starter(work), precision)
        with report.attempt("the full network"):
            needs("torch", "onnxscript")
            if report.seconds_left < FULL_SECONDS:
                raise LeftOut("no time left to export and build it")
            engine(report, "full", stand_in(Path(folder)), "fp16")


def engine(report: Report, name: str, bundle: object, precision: str) -> None:
    """Build one, which verifies it, and look at it with and without graphs."""
    import time

    from measuring.contact_networks import looked_at

    from jotr_deploy.engines.tensorrt.engine import build_engine
    from jotr_deploy.runtime.sessions import open_session
    from jotr_deploy.runtime.sessions.tensorrt import TensorRTSession
    from jotr_deploy.support.precisions import Precision

    begun = time.perf_counter()
    built = build_engine(bundle, precision=precision, batch=(1, 8, 32))
    note = f"sampling: {built.plugin}"
    report.value(f"{name}, {precision}: built", time.perf_counter() - begun, "s", note=note)
    with open_session(bundle.file("mesh", "mesh.onnx"), device="cpu") as reference:
        for graphs in (True, False):
            what = f"{name}, {precision}{', CUDA graph' if graphs else ''}"
            with report.attempt(what), TensorRTSession(built.engine, graphs=graphs) as session:
                looked_at(report, what, Precision.of(precision), session, reference, built.bundle, graphs)
