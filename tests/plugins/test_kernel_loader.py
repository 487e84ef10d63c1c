"""Compiling, caching, loading and launching the kernel, against recorded fakes of `cuda.bindings`."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import pytest
import torch
from recorded_cuda import Cuda, Status

from jotr_deploy.errors import MissingDependency, SessionError
from jotr_deploy.plugins import kernel

FEATURES, POINTS, SAMPLES, STREAM = 0x1000, 0x2000, 0x3000, 0x77
SHAPE = (2, 8, 7, 6, 20)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cuda:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recorded = Cuda()
    recorded.install(monkeypatch)
    new_process()
    yield recorded
    new_process()


def new_process() -> None:
    kernel._compiled.cache_clear()
    kernel._kernels.cache_clear()


def launch(count: int = 15, dtype: str = "float16") -> None:
    kernel.launch(FEATURES, POINTS, SAMPLES, SHAPE, count, dtype, STREAM)


def test_the_first_launch_compiles_loads_and_queues(cuda: Cuda) -> None:
    launch()
    assert [name for name in cuda.names() if not name.startswith("nvrtcGet")] == [
        *("cuInit", "cuCtxGetCurrent", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"),
        *("cuCtxGetDevice", "cuDeviceGetAttribute", "cuDeviceGetAttribute"),
        *("cuDriverGetVersion", "nvrtcVersion"),
        *("nvrtcVersion", "nvrtcCreateProgram", "nvrtcCompileProgram", "nvrtcDestroyProgram"),
        *("cuModuleLoadData", *["cuModuleGetFunction"] * 3, "cuLaunchKernel"),
    ]
    source, *_ = cuda.arguments("nvrtcCreateProgram")
    assert source == kernel.SOURCE.read_bytes()
    assert cuda.arguments("nvrtcCompileProgram")[2] == [b"--gpu-architecture=sm_87"]
    assert cuda.arguments("cuModuleLoadData") == (b"\x7fELF",)
    function, *geometry, stream, (values, kinds), extra = cuda.arguments("cuLaunchKernel")
    assert function.name == b"trilinear_sample_3d_f16"
    assert geometry == [1, 1, 1, 128, 1, 1, 0]  # 2 x 15 points x 3 octets of channels = 90 threads
    assert (stream, extra) == (STREAM, 0)
    assert values == (FEATURES, POINTS, *SHAPE, 15, SAMPLES)
    assert kinds == (ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * 6, ctypes.c_void_p)


@pytest.mark.parametrize(
    ("driver", "nvrtc", "target"),
    [
        (12060, (13, 0), b"compute_75"),  # such a driver refuses machine code of CUDA 13
        (12060, (12, 9), b"sm_87"),
        (13000, (13, 5), b"sm_87"),
        (14000, (13, 5), b"sm_87"),
    ],
)
def test_an_older_driver_compiles_the_kernel_itself(
    cuda: Cuda, driver: int, nvrtc: tuple[int, int], target: bytes
) -> None:
    cuda.driver, cuda.version = driver, nvrtc
    launch()
    assert cuda.arguments("nvrtcCompileProgram")[2] == [b"--gpu-architecture=" + target]
    image = cuda.arguments("cuModuleLoadData")[0]
    if target == b"sm_87":
        assert image == b"\x7fELF"
    else:
        assert image.endswith(b"\0")
        assert b".version 6.3" in image


def test_the_version_of_nvrtc_is_asked(cuda: Cuda) -> None:
    assert kernel.nvrtc_version() == (13, 0)
    cuda.missing["nvrtc"] = "libnvrtc.so.13 not found"
    assert kernel.nvrtc_version() is None


def test_later_launches_only_queue(cuda: Cuda) -> None:
    launch()
    cuda.calls.clear()
    launch(dtype="bfloat16")
    assert cuda.names() == ["cuInit", "cuCtxGetCurrent", "cuLaunchKernel"]
    assert cuda.arguments("cuLaunchKernel")[0].name == b"trilinear_sample_3d_bf16"


def test_the_callers_context_is_used(cuda: Cuda) -> None:
    for cuda.context in (0xA0, 0xB0, 0xA0):
        launch()
    assert "cuCtxSetCurrent" not in cuda.names()
    used = [int(arguments[0].module) for name, arguments in cuda.calls if name == "cuLaunchKernel"]
    assert used == [0xA1, 0xB1, 0xA1]
    assert cuda.names().count("cuModuleLoadData") == 2
    assert cuda.names().count("nvrtcCompileProgram") == 1


def test_no_points_need_no_gpu(cuda: Cuda) -> None:
    launch(count=0)
    assert cuda.names() == []


@pytest.mark.parametrize(
    ("batch", "points", "channels", "expected"),
    [
        (0, 15, 256, 0),
        (1, 0, 256, 0),
        (1, 1, 1, 1),
        (1, 128, 8, 1),
        (1, 129, 8, 2),
        (1, 64, 9, 1),  # two octets, the second of one channel
        (1, 65, 9, 2),
        (64, 15, 256, 240),
        (1, 2**28 + 1, 8, 2**21 + 1),
    ],
)
def test_blocks(batch: int, points: int, channels: int, expected: int) -> None:
    assert kernel.blocks(batch, points, channels) == expected


def test_the_next_process_finds_it_compiled(cuda: Cuda, tmp_path: Path) -> None:
    first = kernel.cubin_for("87")
    new_process()
    assert kernel.cubin_for("87") == first
    assert cuda.names().count("nvrtcCompileProgram") == 1
    (file,) = (tmp_path / "cache" / "jotr-deploy").iterdir()
    assert file.read_bytes() == first


@pytest.mark.parametrize("change", ["source", "arch", "form", "nvrtc"])
def test_what_changes_is_compiled_again(
    cuda: Cuda, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.cubin_for("87")
    new_process()
    if change == "source":
        other = tmp_path / "trilinear.cu"
        other.write_text("// another")
        monkeypatch.setattr(kernel, "SOURCE", other)
    if change == "nvrtc":
        cuda.version = (13, 1)
    if change == "form":
        kernel.ptx_for("87")
    else:
        kernel.cubin_for("90" if change == "arch" else "87")
    assert cuda.names().count("nvrtcCompileProgram") == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        new_process()
        assert kernel.cubin_for("87") == b"\x7fELF"


@pytest.mark.parametrize(("arch", "version"), [("75", "6.3"), ("90", "9.5")])
def test_ptx_for_the_oldest_gpus_is_declared_as_old_as_it_is(cuda: Cuda, arch: str, version: str) -> None:
    assert kernel.ptx_for(arch) == f"//\n.version {version}\n.target sm_75\n"
    assert cuda.arguments("nvrtcCompileProgram")[2] == [f"--gpu-architecture=compute_{arch}".encode()]


@pytest.mark.parametrize(
    ("missing", "status", "error", "cause", "remedy"),
    [
        (
            {"nvrtc": 'Failure finding "libnvrtc.so.13"\nsearched: nowhere'},
            {},
            MissingDependency,
            'the NVRTC library is not installed (Failure finding "libnvrtc.so.13")',
            "pip install nvidia-cuda-nvrtc, or nvidia-cuda-nvrtc-cu12 for cuda-bindings 12",
        ),
        (
            {"cu": "Failed to dlopen libcuda.so.1"},
            {},
            SessionError,
            "there is no NVIDIA driver (Failed to dlopen libcuda.so.1)",
            "run this on a machine where nvidia-smi shows a GPU",
        ),
        (
            {},
            {"nvrtcCompileProgram": Status.NVRTC_ERROR_COMPILATION},
            SessionError,
            "NVRTC 13.0 cannot compile trilinear.cu for sm_87: trilinear.cu(9): error: first",
            "install an NVRTC that knows this GPU: pip install -U nvidia-cuda-nvrtc",
        ),
        (
            {},
            {"cuInit": Status.CUDA_ERROR_NO_DEVICE},
            SessionError,
            "cuInit failed: CUDA_ERROR_NO_DEVICE",
            "see that nvidia-smi shows the GPU, free memory and a driver no older than cuda.bindings",
        ),
    ],
)
def test_what_can_go_wrong(
    cuda: Cuda, missing: dict[str, str], status: dict[str, Status], error: type, cause: str, remedy: str
) -> None:
    cuda.missing, cuda.status = missing, status
    with pytest.raises(error) as caught:
        launch()
    assert (caught.value.cause, caught.value.remedy) == (cause, remedy)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in Cuda().functions()
        if not name.startswith("nvrtcGetProgramLog") and name != "nvrtcDestroyProgram"
    ],
)
def test_whatever_fails_the_next_try_may_succeed(cuda: Cuda, name: str) -> None:
    cuda.status[name] = Status.CUDA_ERROR_NO_DEVICE
    with pytest.raises(SessionError):
        launch() if name.startswith("cu") else kernel.ptx_for() + str(kernel.cubin_for("87"))
    assert cuda.names().count("nvrtcDestroyProgram") == cuda.names().count("nvrtcCompileProgram")
    cuda.status.clear()
    launch()
    assert cuda.names()[-1] == "cuLaunchKernel"


def test_without_the_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda", None)
    new_process()
    with pytest.raises(
        MissingDependency,
        match=r"^cuda.bindings is not installed \(.*\)\npip install '\.\[gpu\]' in a clone of jotr-deploy$",
    ):
        kernel.ptx_for()


def test_tensors_must_be_on_a_gpu(cuda: Cuda) -> None:
    found = re.escape("got torch.float32 [1, 2, 2, 2, 8] on cpu, torch.float32 [1, 4, 3] on cpu")
    with pytest.raises(ValueError, match=found):
        kernel.sample(torch.zeros(1, 2, 2, 2, 8), torch.zeros(1, 4, 3))
    assert cuda.names() == []
