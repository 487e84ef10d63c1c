"""`build-engine --backend onnxruntime`: a file in lower precision that any ONNX Runtime executes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from jotr_deploy.bundle import Bundle, FileEntry, replace_file
from jotr_deploy.engines.precision import to_low_precision
from jotr_deploy.engines.verify import BATCHES, Difference, measure, require, vertices_error
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.runtime.sessions import open_session

MESH = "mesh.onnx"


def build_onnxruntime(
    bundle: Bundle, precision: str, say: Callable[[str], None] = lambda step: None
) -> tuple[Bundle, str, list[Difference]]:
    """Add `mesh.fp16.onnx` to a bundle: half the size, verified in ONNX Runtime against `mesh.onnx`.

    On the CPU it is slower than fp32 (there are few fp16 kernels); it is for CUDA, and the source of fp16 engines.

    Returns:
        The bundle as it now is, the name of the file, and every output's difference.

    Raises:
        JotrDeployError: a precision that ONNX Runtime's CPU cannot execute and so nobody here can verify.
        VerificationError: above the limits; nothing is kept.
    """
    if precision != "fp16":
        raise JotrDeployError(
            f"--backend onnxruntime --precision {precision}: its CPU cannot execute it, so it cannot be verified",
            "give --precision fp16, or --backend tensorrt",
        )
    source, name = bundle.file("mesh", MESH), f"mesh.{precision}.onnx"
    say(f"typing the network as {precision}")
    typed = to_low_precision(onnx.load(source), "fp16")
    differences: list[Difference] = []

    def write(path: Path) -> FileEntry:
        onnx.save(typed, path)
        say(f"comparing with {MESH} at batch {', '.join(map(str, BATCHES))}")
        with open_session(source, device="cpu") as expected, open_session(path, device="cpu") as found:
            differences.extend(measure(expected, found, bundle.manifest.model))
        require(differences, precision, name)
        return FileEntry(
            role="mesh",
            name=name,
            sha256="",
            precision=precision,
            backend="onnx",
            recipe=bundle.entry("mesh", MESH).recipe,
            batch="dynamic",
            error_mm=vertices_error(differences),
        )

    return replace_file(bundle, name, write), name, differences
