"""`build-engine --backend onnxruntime`: a file in lower precision that any ONNX Runtime executes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from jotr_deploy.bundle import Bundle, FileEntry, replace_file
from jotr_deploy.engines.int8 import calibrated, for_onnxruntime
from jotr_deploy.engines.precision import to_low_precision
from jotr_deploy.engines.verify import BATCHES, Difference, measure, require, require_as_good, vertices_error
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.runtime.sessions import open_session

MESH = "mesh.onnx"


def build_onnxruntime(
    bundle: Bundle, precision: str, say: Callable[[str], None] = lambda step: None
) -> tuple[Bundle, str, list[Difference]]:
    """Add a file of lower precision to a bundle, verified in ONNX Runtime.

    `mesh.fp16.onnx` is half the size. On the CPU it is slower than fp32 (there are few fp16 kernels); it is for CUDA,
    and the source of fp16 engines. `mesh.int8.onnxruntime.onnx` is the calibrated file in the form that the CPU's
    integer kernels want.

    Returns:
        The bundle as it now is, the name of the file, and every output's difference.

    Raises:
        JotrDeployError: a precision that ONNX Runtime's CPU cannot execute and so nobody here can verify.
        BundleError: int8 of a bundle that was never calibrated.
        VerificationError: above the limits; nothing is kept.
    """
    if precision not in ("fp16", "int8"):
        raise JotrDeployError(
            f"--backend onnxruntime --precision {precision}: its CPU cannot execute it, so it cannot be verified",
            "give --precision fp16 or int8, or --backend tensorrt",
        )
    source = calibrated(bundle) if precision == "int8" else bundle.file("mesh", MESH)
    name = f"mesh.{precision}.onnxruntime.onnx" if precision == "int8" else f"mesh.{precision}.onnx"
    say(f"typing the network as {precision}")
    plain = onnx.load(source)
    typed = for_onnxruntime(plain) if precision == "int8" else to_low_precision(plain, "fp16")
    differences: list[Difference] = []

    def write(path: Path) -> FileEntry:
        onnx.save(typed, path)
        say(f"comparing with {MESH} at batch {', '.join(map(str, BATCHES))}")
        with open_session(bundle.file("mesh", MESH), device="cpu") as expected:
            with open_session(path, device="cpu") as found:
                differences.extend(measure(expected, found, bundle.manifest.model))
            if precision == "int8":
                with open_session(source, device="cpu") as own:
                    require_as_good(differences, measure(expected, own, bundle.manifest.model), name)
            else:
                require(differences, precision, name)
        entry = bundle.entry("mesh", source.name)
        return FileEntry(
            role="mesh",
            name=name,
            sha256="",
            precision=precision,
            backend="onnx",
            recipe=entry.recipe,
            batch="dynamic",
            error_mm=entry.error_mm if precision == "int8" else vertices_error(differences),
        )

    return replace_file(bundle, name, write), name, differences
