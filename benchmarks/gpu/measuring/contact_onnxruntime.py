"""First contact: the starter's network, and the full one, in ONNX Runtime on CUDA."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from measuring.report import LeftOut, Report, needs

FULL_SECONDS = 45
"""Export and calls of the full network take less."""


def measure(report: Report) -> None:
    needs("numpy", "cv2", "pydantic", "onnx", "onnxruntime", "cuda.bindings")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise LeftOut(f"this ONNX Runtime ({onnxruntime.__version__}) has no CUDA: needs onnxruntime-gpu")
    from measuring.contact_networks import stand_in, starter

    with tempfile.TemporaryDirectory() as folder:
        with report.attempt("the starter's network"):
            networks(report, "starter", Path(folder), starter(Path(folder)))
        with report.attempt("the full network"):
            needs("torch", "onnxscript")
            if report.seconds_left < FULL_SECONDS:
                raise LeftOut("no time left to export it")
            networks(report, "full", Path(folder), stand_in(Path(folder)), graphs=(True,))


def networks(report: Report, name: str, folder: Path, bundle: object, graphs: tuple[bool, ...] = (True, False)) -> None:
    """Both precisions, with and without graphs, against the CPU."""
    import onnx
    from measuring.contact_networks import looked_at

    from jotr_deploy.engines.derived_files import MESH_NETWORK
    from jotr_deploy.runtime.sessions import open_session
    from jotr_deploy.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession
    from jotr_deploy.support.precisions import Precision

    mesh, half = bundle.file("mesh", "mesh.onnx"), folder / f"{name}.fp16.onnx"
    onnx.save(MESH_NETWORK.typed(MESH_NETWORK.load(bundle, Precision.FP16), Precision.FP16), half)
    with ExitStack() as stack:
        reference = stack.enter_context(open_session(mesh, device="cpu"))
        for precision, path in ((Precision.FP32, mesh), (Precision.FP16, half)):
            for with_graphs in graphs:
                what = f"{name}, {precision}{', CUDA graph' if with_graphs else ''}"
                with report.attempt(what), OnnxRuntimeCudaSession(path, graphs=with_graphs) as session:
                    looked_at(report, what, precision, session, reference, bundle, with_graphs)
