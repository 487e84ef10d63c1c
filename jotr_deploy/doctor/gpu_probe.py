"""Loading of every library that a GPU needs, in a process of its own: `python -m jotr_deploy.doctor.gpu_probe`.

Each step prints one line of JSON as soon as it is done, so that a library that ends the process is known by the next.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    "onnxruntime-gpu", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime",
    "nvidia-cuda-runtime-cu12", "nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
    "nvidia-cufft", "nvidia-cufft-cu12", "nvidia-curand", "nvidia-curand-cu12", "tensorrt", "tensorrt-cu12",
    "tensorrt-cu13",
)  # fmt: skip


def driver() -> dict[str, Any]:
    """Number of GPUs, and the newest CUDA that the driver supports."""
    from jotr_deploy.support.nvidia_driver import nvidia_driver

    found = nvidia_driver()
    return {} if found is None else {"gpus": found.gpus, "cuda": ".".join(map(str, found.cuda))}


def cudart() -> dict[str, Any]:
    """Answer of CUDA's runtime to a first call, its version, and whether it is the one of the bindings."""
    from jotr_deploy.runtime.sessions import cuda
    from jotr_deploy.runtime.sessions.system_cudart import SystemRuntime

    runtime = cuda.runtime()
    status = runtime.cudaGetDeviceCount()[0]
    version = int(runtime.cudaRuntimeGetVersion()[1])
    own = isinstance(runtime, SystemRuntime)
    return {"status": status.name, "version": f"{version // 1000}.{version % 1000 // 10}", "system": own}


def nvrtc() -> dict[str, Any]:
    """Version that NVRTC reports."""
    bindings = importlib.import_module("cuda.bindings.nvrtc")
    _, major, minor = bindings.nvrtcVersion()
    return {"version": f"{major}.{minor}"}


def provider() -> dict[str, Any]:
    """CUDA version that ONNX Runtime was built for; its CUDA provider is loaded with everything that it links."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    info = importlib.import_module("onnxruntime.capi.build_and_package_info")
    folder = Path(str(onnxruntime.__file__)).parent / "capi"
    library = folder / "libonnxruntime_providers_cuda.so"
    if not library.is_file():
        return {"absent": True}
    shared = folder / "libonnxruntime_providers_shared.so"
    if shared.is_file():
        ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library))
    return {"cuda": str(getattr(info, "cuda_version", ""))}


def tensorrt() -> dict[str, Any]:
    """Version of TensorRT; importing it loads its libraries."""
    return {"version": importlib.import_module("tensorrt").__version__}


def distributions() -> dict[str, Any]:
    """Installed versions of the packages that these libraries come from."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


STEPS: tuple[Callable[[], dict[str, Any]], ...] = (distributions, driver, cudart, nvrtc, provider, tensorrt)


def main() -> None:
    """Print the result of every step: what it returns, or why it failed."""
    for step in STEPS:
        print(json.dumps({"starts": step.__name__}), flush=True)
        try:
            result: dict[str, Any] = step()
        except Exception as error:  # whatever a library raises is the finding
            result = {"error": " ".join(str(error).split()) or type(error).__name__, "kind": type(error).__name__}
        print(json.dumps({step.__name__: result}), flush=True)


if __name__ == "__main__":
    main()
