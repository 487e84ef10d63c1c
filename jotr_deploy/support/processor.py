"""The CPU that this process runs on: benchmark figures and engine choices are valid for one processor."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

# Instruction sets that determine the speed of matrix products, as Linux names them: x86, then Arm.
_FLAGS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8",
    "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, tuple[str, ...]]:
    """Model name and relevant instruction sets; only the name where there is no such file."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        text = ""
    values: dict[str, str] = {}
    for line in text.splitlines():
        field, _, value = line.partition(":")
        values.setdefault(field.strip(), value.strip())
    present = set((values.get("flags") or values.get("Features") or "").split())
    name = values.get("model name") or platform.processor() or platform.machine()
    return name, tuple(flag for flag in _FLAGS if flag in present)


WEIGHT_BITS = "jotr_deploy.weight_bits"
"""Key of an ONNX file's metadata: the bits that its int8 weights use, 8 where it is absent."""


def sums_saturate(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True if int8 kernels are wrong on this CPU: x86 without VNNI sums 8-bit products in 16 bits, which saturate."""
    _, flags = processor(cpuinfo)
    return "avx2" in flags and not {"avx_vnni", "avx512_vnni"}.intersection(flags)


def clips_sums_of(metadata: Mapping[str, str]) -> bool:
    """True if this CPU's int8 kernels are wrong for a file with this metadata; with weights of 7 bits none are.

    The sum of two products is at most 2 * 255 * 63 then, which 16 bits hold.
    """
    return sums_saturate() and metadata.get(WEIGHT_BITS) != "7"


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True if this CPU has instructions for bfloat16 products; without them bfloat16 is emulated."""
    _, flags = processor(cpuinfo)
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def usable_cores() -> int:
    """Number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
