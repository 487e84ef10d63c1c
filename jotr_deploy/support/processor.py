"""The processor this runs on: what figures and choices belong to."""

from __future__ import annotations

import platform
from pathlib import Path

# Instructions that decide the speed of matrix products, as Linux names them: x86, then Arm.
_FLAGS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8",
    "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, tuple[str, ...]]:
    """Name and telling flags; where there is no such file, only the name."""
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


def sums_saturate(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether integer kernels are wrong on this processor: x86 without VNNI adds products of 8 bits in 16, clipped."""
    _, flags = processor(cpuinfo)
    return "avx2" in flags and not {"avx_vnni", "avx512_vnni"}.intersection(flags)


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has instructions for products in bfloat16; without them it is emulated."""
    _, flags = processor(cpuinfo)
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
