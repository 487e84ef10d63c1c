"""`build-engine --backend onnxruntime`: lower-precision files that any ONNX Runtime executes."""

from __future__ import annotations

from jotr_deploy.bundle import Bundle
from jotr_deploy.engines.derived_files import MESH_NETWORK, Original, add_model
from jotr_deploy.engines.fused_attention import fuse_attention
from jotr_deploy.engines.int8 import for_cpu
from jotr_deploy.engines.verify import Difference
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.support.aliases import Say
from jotr_deploy.support.choices import listed
from jotr_deploy.support.precisions import Precision

PRECISIONS = (Precision.FP16, Precision.INT8)
"""Precisions that ONNX Runtime executes on a CPU, so that the file can be verified."""


def build_onnxruntime(
    bundle: Bundle,
    precision: Precision | str,
    say: Say = lambda step: None,
    original: Original = MESH_NETWORK,
) -> tuple[Bundle, str, list[Difference]]:
    """Add a file of lower precision of one of its networks to a bundle, verified in ONNX Runtime.

    `mesh.fp16.onnx` is half the size. On the CPU it is slower than fp32 (there are few fp16 kernels); it is for CUDA,
    and the source of fp16 engines. `mesh.int8.onnxruntime.onnx` is the calibrated file in the form that the CPU's
    integer kernels want, its attention in ONNX Runtime's own operator.

    Returns:
        The updated bundle, the name of the file, and the difference of every output.

    Raises:
        JotrDeployError: a precision that ONNX Runtime cannot execute on a CPU, so that the file could not be verified.
        BundleError: int8 of a bundle that was never calibrated.
        VerificationError: above the limits; nothing is kept.
    """
    precision = Precision.of(precision)
    original.refuse("onnxruntime", precision)
    if precision not in PRECISIONS:
        raise JotrDeployError(
            f"--backend onnxruntime --precision {precision}: its CPU cannot execute it, so it cannot be verified",
            f"give --precision {listed(PRECISIONS)}, or --backend tensorrt",
        )
    name = original.file(precision, "onnxruntime.onnx" if precision.calibrated else "onnx")
    say(f"typing the network as {precision}")
    plain = original.load(bundle, precision)
    typed = fuse_attention(for_cpu(plain)) if precision.calibrated else original.typed(plain, precision)
    bundle, differences = add_model(bundle, original, name, typed, precision, "onnxruntime", say)
    return bundle, name, differences
