"""The sampling kernel from Python: NVRTC compiles `trilinear.cu` on this machine, the CUDA driver launches it.

Nothing here needs TensorRT or a CUDA toolkit: `cuda.bindings`, the NVRTC library and, to launch, the driver.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from jotr_deploy.errors import MissingDependency, OutputError, SessionError, first_line, install
from jotr_deploy.support.cache import user_cache
from jotr_deploy.support.writing import written_aside

SOURCE = Path(__file__).with_name("trilinear.cu")
ENTRY_POINTS = {
    "float32": "trilinear_sample_3d_f32",
    "float16": "trilinear_sample_3d_f16",
    "bfloat16": "trilinear_sample_3d_bf16",
}
"""Type of the features and samples -> name of its kernel."""

BLOCK = 128
"""Threads of a block."""

CHANNELS_PER_THREAD = 8

OLDEST_ARCH = "75"
"""Compute capability 7.5: the oldest that CUDA 13 and TensorRT's ahead-of-time plugins support."""

_OLDEST_ISA = b"6.3"  # the first version of the PTX language that knows compute capability 7.5

_SIGNATURE = (ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * 6, ctypes.c_void_p)


def blocks(batch: int, points: int, channels: int) -> int:
    """Number of blocks that sample `points` points in each of `batch` volumes of `channels` channels."""
    octets = -(-channels // CHANNELS_PER_THREAD)
    return -(-batch * points * octets // BLOCK)


def ptx_for(arch: str = OLDEST_ARCH) -> str:
    """The kernels as PTX, which GPUs of compute capability `arch` ("75" is 7.5) and all later ones run.

    Raises:
        MissingDependency: no `cuda.bindings`, or no NVRTC library.
        SessionError: NVRTC refuses the source or the architecture.
    """
    ptx = _compiled(f"compute_{arch}").rstrip(b"\0")
    if arch == OLDEST_ARCH:
        # NVRTC writes its own release here, and a driver refuses PTX that is newer than itself; none of the
        # instructions is.
        ptx = re.sub(rb"(?m)^\.version .*$", b".version " + _OLDEST_ISA, ptx, count=1)
    return ptx.decode()


def cubin_for(arch: str) -> bytes:
    """The kernels as machine code for GPUs of compute capability `arch` ("87" is 8.7).

    Raises:
        MissingDependency: no `cuda.bindings`, or no NVRTC library.
        SessionError: NVRTC refuses the source or the architecture.
    """
    return _compiled(f"sm_{arch}")


def nvrtc_version() -> tuple[int, int] | None:
    """Version that the NVRTC library reports; None if the library or its bindings are not there."""
    try:
        major, minor = _call("nvrtc", "nvrtcVersion")
    except (MissingDependency, SessionError):
        return None
    return int(major), int(minor)


def launch(
    features: int,
    points: int,
    samples: int,
    features_shape: tuple[int, int, int, int, int],
    point_count: int,
    dtype: str,
    stream: int = 0,
) -> None:
    """Queue the kernel on a CUDA stream; it neither allocates nor waits.

    It runs in the caller's current CUDA context or, where there is none, in that of the first device. The first launch
    in a context compiles and loads the kernels first: let one precede a capture into a CUDA graph.

    Args:
        features: device address of (B, D, H, W, C), channels last, of `dtype`.
        points: device address of (B, P, 3) float32, x y z in 0..1.
        samples: device address of the result, (B, P, C) of `dtype`.
        features_shape: B, D, H, W, C.
        point_count: P.
        dtype: a key of `ENTRY_POINTS`.
        stream: handle of the stream, 0 for the default stream.

    Raises:
        MissingDependency: no `cuda.bindings`, or no NVRTC library.
        SessionError: no driver, no device, or CUDA refuses the launch.
    """
    batch, *_, channels = features_shape
    grid = blocks(batch, point_count, channels)
    if grid == 0:
        return
    arguments = ((features, points, *features_shape, point_count, samples), _SIGNATURE)
    kernel = _kernels(_context())[dtype]
    _call("driver", "cuLaunchKernel", kernel, grid, 1, 1, BLOCK, 1, 1, 0, stream, arguments, 0)


def sample(features: Any, points: Any) -> Any:
    """`op.trilinear_sample_3d` by the kernel: PyTorch CUDA tensors, on PyTorch's current stream.

    Args:
        features: (B, D, H, W, C) contiguous, float32, float16 or bfloat16.
        points: (B, P, 3) contiguous float32 on the same device.

    Returns:
        (B, P, C) of the features' type; it is ready when the stream is.

    Raises:
        ValueError: other tensors than these.
        MissingDependency, SessionError: as `launch`.
    """
    import torch

    dtype = str(features.dtype).removeprefix("torch.")
    fits = (
        features.is_cuda
        and points.device == features.device
        and (features.ndim, points.ndim) == (5, 3)
        and points.shape == (len(features), points.shape[1], 3)
        and dtype in ENTRY_POINTS
        and points.dtype is torch.float32
        and features.is_contiguous()
        and points.is_contiguous()
    )
    if not fits:
        found = ", ".join(f"{t.dtype} {list(t.shape)} on {t.device}" for t in (features, points))
        raise ValueError(f"expected contiguous CUDA tensors [B,D,H,W,C] and float32 [B,P,3], got {found}")
    samples = features.new_empty(len(features), points.shape[1], features.shape[-1])
    with torch.cuda.device(features.device):
        pointers = features.data_ptr(), points.data_ptr(), samples.data_ptr()
        stream = torch.cuda.current_stream().cuda_stream
        launch(*pointers, tuple(features.shape), points.shape[1], dtype, stream)
    return samples


def _bindings(library: str) -> Any:
    try:
        return import_module(f"cuda.bindings.{library}")
    except ImportError as error:
        raise MissingDependency(f"cuda.bindings is not installed ({first_line(error)})", install("gpu")) from error


def _call(library: str, name: str, *arguments: Any) -> Any:
    """Results of a function of the driver or of NVRTC, without its status.

    Raises:
        MissingDependency: the NVRTC library is not there.
        SessionError: the driver is not there, or the status is an error.
    """
    bindings = _bindings(library)
    try:
        status, *results = getattr(bindings, name)(*arguments)
    except RuntimeError as error:  # the bindings look for their library at the first call
        if library == "nvrtc":
            raise MissingDependency(
                f"the NVRTC library is not installed ({first_line(error)})",
                "pip install nvidia-cuda-nvrtc, or nvidia-cuda-nvrtc-cu12 for cuda-bindings 12",
            ) from error
        raise SessionError(
            f"there is no NVIDIA driver ({first_line(error)})", "run this on a machine where nvidia-smi shows a GPU"
        ) from error
    if int(status) != 0:
        raise SessionError(
            f"{name} failed: {status.name}",
            "see that nvidia-smi shows the GPU, free memory and a driver no older than cuda.bindings",
        )
    return results[0] if len(results) == 1 else tuple(results)


@functools.lru_cache
def _compiled(target: str) -> bytes:
    """PTX for a target "compute_75", machine code for "sm_75"; made once a user, source, target and NVRTC."""
    source = SOURCE.read_bytes()
    version = ".".join(map(str, _call("nvrtc", "nvrtcVersion")))
    key = hashlib.sha256(source + f"{target} {version}".encode()).hexdigest()
    cache = user_cache()
    path = cache / f"trilinear.{target}.{key[:16]}"
    if path.is_file():
        return path.read_bytes()
    code = _compile(source, target, version)
    with suppress(OSError, OutputError):  # a cache that cannot be written costs the next process a compilation
        cache.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as aside:
            aside.write_bytes(code)
    return code


def _compile(source: bytes, target: str, version: str) -> bytes:
    nvrtc = _bindings("nvrtc")
    program = _call("nvrtc", "nvrtcCreateProgram", source, SOURCE.name.encode(), 0, [], [])
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture={target}".encode()])
        if int(status) != 0:
            log = _text(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            reason = next(filter(None, map(str.strip, log.splitlines())), status.name)
            raise SessionError(
                f"NVRTC {version} cannot compile {SOURCE.name} for {target}: {reason}",
                "install an NVRTC that knows this GPU: pip install -U nvidia-cuda-nvrtc",
            )
        return _text(program, "PTX" if target.startswith("compute") else "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _text(program: Any, what: str) -> bytes:
    """One of the results of a compilation; NVRTC writes it into the bytes that it is given."""
    text = bytes(_call("nvrtc", f"nvrtcGet{what}Size", program))
    _call("nvrtc", f"nvrtcGet{what}", program, text)
    return text


def _context() -> int:
    """Handle of the caller's CUDA context; without one, the first device's primary context is made current."""
    _call("driver", "cuInit", 0)
    context = _call("driver", "cuCtxGetCurrent")
    if int(context) == 0:
        context = _call("driver", "cuDevicePrimaryCtxRetain", _call("driver", "cuDeviceGet", 0))
        _call("driver", "cuCtxSetCurrent", context)
    return int(context)


def _code_for(arch: str) -> bytes:
    """Machine code, or PTX where the driver is of an older major than NVRTC and would refuse its machine code."""
    driver, own = _call("driver", "cuDriverGetVersion") // 1000, nvrtc_version()
    return ptx_for().encode() + b"\0" if own is not None and own[0] > driver else cubin_for(arch)


@functools.lru_cache
def _kernels(context: int) -> dict[str, Any]:
    """The kernel of each type, loaded into the current context, whose handle is the key."""
    device = _call("driver", "cuCtxGetDevice")
    attribute = _bindings("driver").CUdevice_attribute
    major, minor = (
        _call("driver", "cuDeviceGetAttribute", which, device)
        for which in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    module = _call("driver", "cuModuleLoadData", _code_for(f"{major}{minor}"))
    return {
        dtype: _call("driver", "cuModuleGetFunction", module, name.encode()) for dtype, name in ENTRY_POINTS.items()
    }
