"""The CUDA source: what the compilers make of it, and its arithmetic on the CPU and, where there is one, on a GPU."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from test_trilinear import CASES, TOLERANCE, build, reference

from jotr_deploy.errors import JotrDeployError, MissingDependency, SessionError
from jotr_deploy.plugins import kernel

Array = np.ndarray
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
NAN_BYTE = 0xFF
"""A float32, float16 or bfloat16 of such bytes is NaN."""
GUARD = 1 << 16
"""Bytes of NaN before and behind every tensor: more than a slice of the volumes read here."""

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: install g++ or clang++")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc: install the CUDA toolkit")


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The source, compiled for the CPU."""
    library = tmp_path_factory.mktemp("emulation") / "trilinear.so"
    options = ["-std=c++17", "-O1", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off", "-shared", "-fPIC"]
    source = Path(__file__).with_name("emulation.cpp")
    subprocess.run(
        [COMPILER, *options, f'-DSOURCE="{kernel.SOURCE}"', str(source), "-o", str(library)], check=True, timeout=60
    )
    return ctypes.CDLL(str(library))


def guarded(array: Array, shift: int = 0) -> Array:
    """A copy amid NaNs, `shift` bytes beside a multiple of 16; its `base` is everything."""
    memory = np.full(array.nbytes + 2 * GUARD + 32, NAN_BYTE, np.uint8)
    start = GUARD + (-(memory.ctypes.data + GUARD)) % 16 + shift
    inside = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    inside[...] = array
    return inside


def sparse(path: Path, shape: tuple[int, ...], dtype: type) -> Array:
    """Zeros in a file that takes room only where it is written, and goes away with the array."""
    array = np.memmap(path, dtype, "w+", shape=shape)
    path.unlink()
    return array


def run(emulation: ctypes.CDLL, features: Array, points: Array, samples: Array, block: int | None = None) -> None:
    """All blocks, or one of them."""
    B, D, H, W, C = features.shape
    P = points.shape[1]
    launcher = getattr(emulation, f"launch_{kernel.ENTRY_POINTS[features.dtype.name]}")
    blocks = (0, kernel.blocks(B, P, C)) if block is None else (block, 1)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (features, points, samples)]
    launcher(*blocks, kernel.BLOCK, *pointers[:2], B, D, H, W, C, P, pointers[2])


def sampled(emulation: ctypes.CDLL, features: Array, points: Array, shift: int = 0) -> Array:
    """The kernel's samples; nothing outside them is written, and nothing outside the inputs enters them."""
    B, P, C = *points.shape[:2], features.shape[4]
    memory = guarded(np.zeros(B * P * C, features.dtype), shift)
    run(emulation, guarded(features, shift), guarded(points), memory)
    everything = memory.base
    start = memory.ctypes.data - everything.ctypes.data
    assert (everything[:start] == NAN_BYTE).all()
    assert (everything[start + memory.nbytes :] == NAN_BYTE).all()
    return memory.reshape(B, P, C)


@needs_compiler
@pytest.mark.parametrize("aligned", [True, False], ids=["rows of 16 bytes", "one by one"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(emulation: ctypes.CDLL, name: str, dtype: str, aligned: bool) -> None:
    features, points = build(name, dtype)
    found = sampled(emulation, features, points, 0 if aligned else features.itemsize)
    expected = reference(features, points).astype(np.float32)
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=0, atol=TOLERANCE[dtype])


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("coordinate", [3e38, -3e38, np.inf, -np.inf])
def test_beyond_every_float_is_padding(emulation: ctypes.CDLL, coordinate: float, dtype: str) -> None:
    features, points = build("on the border", dtype)
    points[0, 0, 1] = coordinate
    found = sampled(emulation, features, points).astype(np.float32)
    assert (found[0, 0] == 0).all()
    assert (found[0, 1:] != 0).all()


@needs_compiler
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_coordinate_that_is_no_number_spoils_its_own_point_only(
    emulation: ctypes.CDLL, dtype: str, axis: int
) -> None:
    features, points = build("unequal sides", dtype)
    points[1, 7, axis] = np.nan
    lost = np.isnan(sampled(emulation, features, points).astype(np.float32))
    assert lost[1, 7].all()
    assert lost.sum() == lost[1, 7].size


@needs_compiler
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounds_to_nearest_even(emulation: ctypes.CDLL, dtype: str) -> None:
    """Halfway between two neighbours is a tie; with every finite number, the subnormal and the largest included."""
    type_ = np.dtype(getattr(ml_dtypes, dtype, dtype))
    largest = 0x7BFF if dtype == "float16" else 0x7F7F
    low = np.arange(largest + 1, dtype=np.uint16)
    pairs = np.stack([low, low + np.uint16(1)]).view(type_)
    pairs[1, -1] = pairs[0, -1]
    signed = np.concatenate([pairs, -pairs], axis=1)
    found = sampled(emulation, signed.reshape(1, 1, 1, 2, -1), np.array([[[0.5, 0, 0]]], np.float32))
    expected = (signed.astype(np.float32) / 2).sum(0).astype(type_)
    np.testing.assert_array_equal(found.view(np.uint16).ravel(), expected.view(np.uint16))


@needs_compiler
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 2, 2**20 + 1, 2048),  # a row
        (1, 2, 2, 2**19 + 1, 2048),  # a slice
        (2, 2, 2, 2**18 + 1, 2048),  # an item of the batch
    ],
)
def test_strides_of_more_than_two_to_the_31(emulation: ctypes.CDLL, tmp_path: Path, shape: tuple[int, ...]) -> None:
    features = sparse(tmp_path / "features", shape, np.float16)
    features[-1, -1, -1, -1] = np.arange(2048)
    samples = np.full((shape[0], 1, 2048), np.nan, np.float16)
    run(emulation, features, np.ones((shape[0], 1, 3), np.float32), samples)
    assert (samples[:-1] == 0).all()
    np.testing.assert_array_equal(samples[-1, 0], np.arange(2048))


@needs_compiler
def test_more_than_two_to_the_32_threads(emulation: ctypes.CDLL, tmp_path: Path) -> None:
    features = np.arange(4096, dtype=np.float16).reshape(1, 1, 1, 2, 2048)
    points = sparse(tmp_path / "points", (1, 2**24 + 1, 3), np.float32)
    samples = sparse(tmp_path / "samples", (1, 2**24 + 1, 2048), np.float16)
    points[0, -1, 0] = 1
    run(emulation, features, points, samples, block=kernel.blocks(1, 2**24 + 1, 2048) - 1)
    np.testing.assert_array_equal(samples[0, -1, 1024:], features[0, 0, 0, 1, 1024:])


@pytest.mark.slow
@needs_nvcc
def test_every_gpu_that_nvcc_knows_runs_it_without_spilling(tmp_path: Path) -> None:
    known = subprocess.run([NVCC, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    archs = re.findall(r"sm_(\w+)", known)
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    options = ["--fatbin", "--threads=2", "-Wno-deprecated-gpu-targets", "-Werror=all-warnings", "-Xptxas=-v"]
    files = [str(kernel.SOURCE), "-o", str(tmp_path / "trilinear.fatbin")]
    done = subprocess.run([NVCC, *options, *targets, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"'(\w+)' for 'sm_\w+'", done.stderr)) == set(kernel.ENTRY_POINTS.values())
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert frames == [("0", "0", "0")] * (3 * len(archs))


def nvrtc_ptx(arch: str) -> str:
    try:
        return kernel.ptx_for(arch)
    except MissingDependency as error:
        pytest.skip(f"{error.cause}: pip install cuda-bindings nvidia-cuda-nvrtc")


@pytest.mark.parametrize("arch", ["75", "80", "87", "89", "90", "100", "120"])
def test_nvrtc_compiles_it_without_a_header(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arch: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ptx = nvrtc_ptx(arch)
    assert re.findall(r"\.visible \.entry (\w+)\(", ptx) == list(kernel.ENTRY_POINTS.values())
    assert f".target sm_{arch}" in ptx
    assert len(re.findall(r"ld\.global(\.nc)?\.v4", ptx)) == 16 + 8 + 8  # eight voxels, 16 bytes at a time
    assert kernel.cubin_for(arch).startswith(b"\x7fELF")


@needs_nvcc
def test_an_old_driver_reads_the_ptx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ptx = tmp_path / "trilinear.ptx"
    ptx.write_text(nvrtc_ptx("75"))
    assert ".version 6.3\n" in ptx.read_text()
    subprocess.run([Path(NVCC).with_name("ptxas"), "-arch=sm_75", ptx, "-o", tmp_path / "cubin"], check=True)


def test_nvrtc_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    nvrtc_ptx("75")
    broken = tmp_path / "trilinear.cu"
    broken.write_text("__device__ int f() { return nothing; }")
    monkeypatch.setattr(kernel, "SOURCE", broken)
    kernel._compiled.cache_clear()
    with pytest.raises(SessionError, match=r'for compute_75: trilinear.cu\(1\): error: identifier "nothing"'):
        kernel.ptx_for()
    kernel._compiled.cache_clear()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition_on_a_gpu(name: str, dtype: str) -> None:
    import torch
    from test_trilinear import to_torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device, or PyTorch without CUDA")
    features, points = build(name, dtype)
    try:
        found = kernel.sample(to_torch(features).cuda(), torch.from_numpy(points).cuda())
    except JotrDeployError as error:
        pytest.skip(error.cause)
    expected = reference(features, points).astype(np.float32)
    np.testing.assert_allclose(found.float().cpu(), expected, rtol=0, atol=TOLERANCE[dtype])
