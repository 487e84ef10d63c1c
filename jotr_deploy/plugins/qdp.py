"""The sampling operator as TensorRT's quick deployable plugin: the engine carries the kernel, and needs no library.

TensorRT 10.9 and later. Importing this module touches nothing; `register` makes the operator known to the builder.
"""

# No `from __future__ import annotations` here: TensorRT reads the annotations of the three functions as objects.
import functools

from jotr_deploy.errors import MissingDependency, SessionError, first_line, install
from jotr_deploy.plugins import DOMAIN, NAME
from jotr_deploy.plugins.kernel import BLOCK, CHANNELS_PER_THREAD, ENTRY_POINTS, ptx_for

_ID = f"{DOMAIN}::{NAME}"


@functools.cache
def register() -> None:
    """Make `jotr::TrilinearSample3D` known to TensorRT in this process, kernel included; once is enough.

    Raises:
        MissingDependency: TensorRT, `cuda.bindings` or NVRTC is not installed.
        SessionError: TensorRT is older than 10.9, has the operator from a library already, or NVRTC fails.
    """
    try:
        import tensorrt as trt
    except ImportError as error:
        raise MissingDependency(f"tensorrt is not installed ({first_line(error)})", install("tensorrt")) from error
    try:
        import tensorrt.plugin as trtp
    except ImportError:
        trtp = None  # before 10.6
    if not hasattr(trtp, "aot_impl"):
        raise SessionError(
            f"TensorRT {trt.__version__} cannot put a kernel into an engine: ahead-of-time plugins begin with 10.9",
            "use --plugin library",
        )
    if any((c.plugin_namespace, c.name) == (DOMAIN, NAME) for c in trt.get_plugin_registry().all_creators):
        raise SessionError(
            f"{_ID} is registered already, by a plugin library",
            "use --plugin library, or a process that has not loaded the library",
        )
    ptx = ptx_for()
    dtypes = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16", trt.DataType.BF16: "bfloat16"}

    def describe(features: trtp.TensorDesc, points: trtp.TensorDesc) -> trtp.TensorDesc:
        B, *_, C = features.shape_expr
        return trtp.from_shape_expr((B, points.shape_expr[1], C), features.dtype)

    def combinations(
        features: trtp.TensorDesc, points: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(f"{T}, FP32, {T}", "LINEAR") for T in ("FP32", "FP16", "BF16")]

    def kernel(
        features: trtp.TensorDesc, points: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc], tactic: int
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        B, D, H, W, C = features.shape_expr
        P = points.shape_expr[1]
        launch = trtp.KernelLaunchParams()
        launch.grid_x = trtp.cdiv(B * P * trtp.cdiv(C, CHANNELS_PER_THREAD), BLOCK)
        launch.block_x = BLOCK
        sizes = trtp.SymIntExprs.from_tuple([trtp.SymInt32(size) for size in (B, D, H, W, C, P)])
        return ENTRY_POINTS[dtypes[features.dtype]], ptx, launch, sizes

    trtp.register(_ID)(describe)
    trtp.autotune(_ID)(combinations)
    trtp.aot_impl(_ID)(kernel)
