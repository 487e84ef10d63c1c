"""Times of the sampling kernel, of grid_sample and of a kernel that does nothing; the kernel's errors at large.

GPU time by CUDA events: each form is captured into a CUDA graph of many calls, each call on another volume of 256 MiB
of them, so that no volume is in the cache; the graphs are replayed in turns. grid_sample gets the same volumes,
channels last as the network makes them: once it is given channels first, once a view. The bytes are those that every
form must move: eight voxels and one point in, one row of channels out.
"""

from __future__ import annotations

import functools
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from checkout import ROOT
from torch import Tensor
from torch.nn.functional import grid_sample

from jotr_deploy.plugins import kernel
from jotr_deploy.support.distributions import installed_version

sys.path.insert(0, str(ROOT / "tests" / "plugins"))
from sampling_cases import CASES, TOLERANCE, case, exact

BATCHES = (1, 8, 64)
DEPTH = HEIGHT = WIDTH = 8
CHANNELS, POINTS = 256, 15
BYTES_IN_TURN = 256 << 20
"""More than any GPU's cache."""
ROUNDS = 50
GUARD = 256  # elements; keeps the alignment of what lies between
Form = Callable[[Tensor, Tensor], Tensor]


def with_layout_changes(features: Tensor, points: Tensor) -> Tensor:
    """What the operator replaces: channels first, grid_sample, channels last."""
    return sampled(features.permute(0, 4, 1, 2, 3).contiguous(), points)


def on_a_view(features: Tensor, points: Tensor) -> Tensor:
    """grid_sample reads the volume where it is, through strides."""
    return sampled(features.permute(0, 4, 1, 2, 3), points)


def sampled(volume: Tensor, points: Tensor) -> Tensor:
    """(B, C, D, H, W) at (B, P, 3) -> (B, P, C). grid_sample wants the points in the volume's type, float16 too."""
    grid = (2 * points - 1)[:, :, None, None].to(volume.dtype)
    return grid_sample(volume, grid, align_corners=True)[..., 0, 0].transpose(1, 2).contiguous()


@functools.cache
def _empty() -> Any:
    """A kernel that does nothing, compiled as the sampling kernel is."""
    major, minor = torch.cuda.get_device_capability()
    torch.cuda.current_stream()  # the context is there
    version = ".".join(map(str, kernel.nvrtc_version() or ()))
    code = kernel._compile(b'extern "C" __global__ void empty() {}', f"sm_{major}{minor}", version)
    module = kernel._call("driver", "cuModuleLoadData", code)
    return kernel._call("driver", "cuModuleGetFunction", module, b"empty")


def nothing(features: Tensor, points: Tensor) -> Tensor:
    """As many blocks as the sampling kernel has, which end at once: the least that any kernel of that size takes."""
    grid = kernel.blocks(len(features), points.shape[1], features.shape[-1])
    stream = torch.cuda.current_stream().cuda_stream
    kernel._call("driver", "cuLaunchKernel", _empty(), grid, 1, 1, kernel.BLOCK, 1, 1, 0, stream, 0, 0)
    return features.new_empty(len(features), points.shape[1], features.shape[-1])


FORMS: dict[str, Form] = {
    "kernel": kernel.sample,
    "empty kernel": nothing,
    "grid_sample, layouts changed": with_layout_changes,
    "grid_sample on a view": on_a_view,
}


def poisoned(values: Tensor) -> tuple[Tensor, Tensor]:
    """A copy of `values` between two stretches of NaN, and all of its memory."""
    memory = values.new_full((values.numel() + 2 * GUARD,), float("nan"))
    inside = memory[GUARD : GUARD + values.numel()].view(values.shape)
    inside.copy_(values)
    return inside, memory


def worst_error(name: str, dtype: str, device: str = "cuda", launch: Callable[..., None] = kernel.launch) -> float:
    """Largest difference between the kernel and float64 in one case.

    It is NaN if the kernel left a value unwritten or used one from outside its volume, infinite if it wrote outside
    its result: all of that was NaN before.
    """
    values, points = case(name)
    features, _ = poisoned(torch.from_numpy(values).to(device, getattr(torch, dtype)))
    shape = (len(points), points.shape[1], values.shape[-1])
    samples, memory = poisoned(torch.full(shape, float("nan"), dtype=features.dtype, device=device))
    place, _ = poisoned(torch.from_numpy(points).to(device))
    stream = torch.cuda.current_stream().cuda_stream if device == "cuda" else 0
    pointers = features.data_ptr(), place.data_ptr(), samples.data_ptr()
    launch(*pointers, tuple(features.shape), points.shape[1], dtype, stream)
    if device == "cuda":
        torch.cuda.synchronize()
    around = torch.cat([memory[:GUARD], memory[GUARD + samples.numel() :]])
    if not around.isnan().all():
        return float("inf")
    expected = exact(features.double().cpu().numpy(), points)
    return float(np.abs(samples.double().cpu().numpy() - expected).max(initial=0))


def passes(error: float, limit: float) -> bool:
    """False for NaN, too."""
    return error <= limit


def graph_of(form: Form, volumes: list[Tensor], points: Tensor) -> torch.cuda.CUDAGraph:
    """One call a volume."""
    form(volumes[0], points)  # compiles, loads and allocates outside the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for volume in volumes:
            form(volume, points)
    return graph


def milliseconds(replay: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def medians(replays: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each, taken in turns after three rounds that do not count."""
    rounds = [{name: milliseconds(replay) for name, replay in replays.items()} for _ in range(ROUNDS + 3)][3:]
    return {name: statistics.median(times[name] for times in rounds) for name in replays}


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of 1 GiB on the device."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (medians({"copy": lambda: target.copy_(source)})["copy"] / 1e3)


def speeds(batch: int, dtype: str, bandwidth: float) -> list[dict[str, Any]]:
    """A row for each form: microseconds a call, and the bytes a second that it moves."""
    element = getattr(torch, dtype)
    shape = (batch, DEPTH, HEIGHT, WIDTH, CHANNELS)
    count = BYTES_IN_TURN // (int(np.prod(shape)) * element.itemsize)
    volumes = [torch.randn(shape, device="cuda", dtype=element) for _ in range(count)]
    points = torch.rand((batch, POINTS, 3), device="cuda")
    graphs = {name: graph_of(form, volumes, points) for name, form in FORMS.items()}
    times = medians({name: graph.replay for name, graph in graphs.items()})
    moved = batch * POINTS * (9 * CHANNELS * element.itemsize + points[0, 0].nbytes)
    return [
        {
            "batch": batch,
            "dtype": dtype,
            "form": name,
            "us": time / count * 1e3,
            "us_over_empty": (time - times["empty kernel"]) / count * 1e3,
            "kernel_is_faster_by": time / times["kernel"],
            "bytes_per_s": moved / (time / count / 1e3),
            "of_copy_bandwidth": moved / (time / count / 1e3) / bandwidth,
        }
        for name, time in times.items()
    ]


def machine() -> dict[str, str]:
    query = [
        "nvidia-smi",
        "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem",
        "--format=csv,noheader",
        "-i",
        "0",
    ]
    try:
        smi = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # Jetson's has none
        smi = "unknown"
    return {
        "gpu": torch.cuda.get_device_name(),
        "capability": "{}.{}".format(*torch.cuda.get_device_capability()),
        "driver, clocks": smi,
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda of torch": str(torch.version.cuda),
        "cuda.bindings": installed_version("cuda-bindings") or "not installed",
        "nvrtc": ".".join(map(str, kernel.nvrtc_version() or ())) or "not found",
        "jotr-deploy": installed_version("jotr-deploy") or "a checkout",
    }


def measure() -> dict[str, Any]:
    """Everything, printed as it comes; the errors come first, since they need all that may be missing."""
    errors = [
        {"dtype": dtype, "case": name, "error": worst_error(name, dtype), "limit": limit}
        for dtype, limit in TOLERANCE.items()
        for name in CASES
    ]
    result: dict[str, Any] = {"machine": machine()}
    print("\n".join(f"{key}: {value}" for key, value in result["machine"].items()))
    print("\nlargest error against float64, features around one")
    for row in errors:
        verdict = "" if passes(row["error"], row["limit"]) else "  ABOVE ITS LIMIT"
        print(f"{row['dtype']:<9} {row['case']:<24} {row['error']:.1e} of {row['limit']:.0e}{verdict}")
    bandwidth = copy_bandwidth()
    print(f"\ndevice copy: {bandwidth / 1e9:.0f} GB/s; features [B,{DEPTH},{HEIGHT},{WIDTH},{CHANNELS}], P = {POINTS}")
    print("batch  type      form                              us  over empty   kernel is   GB/s  of copy")
    rows = []
    for batch in BATCHES:
        for dtype in kernel.ENTRY_POINTS:
            rows += speeds(batch, dtype, bandwidth)
            for row in rows[-len(FORMS) :]:
                print(
                    f"{batch:>5}  {dtype:<9} {row['form']:<29} {row['us']:>7.2f}  {row['us_over_empty']:>10.2f}"
                    f"  {row['kernel_is_faster_by']:>8.2f}x"
                    f"  {row['bytes_per_s'] / 1e9:>6.0f}  {row['of_copy_bandwidth']:>7.1%}"
                )
    return result | {"errors": errors, "copy_bytes_per_s": bandwidth, "speeds": rows}
