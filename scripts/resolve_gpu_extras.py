"""Resolve the extras for GPUs on every kind of machine that they are meant for, and print the versions as a table.

    python scripts/resolve_gpu_extras.py > benchmarks/results/gpu-extras.txt

Needs `uv` and a package index; nothing is installed. Ends with exit code 1 if the packages of one installation belong
to different majors of CUDA. `tests/test_gpu_extras.py` holds the committed table against `pyproject.toml`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
EXTRAS = ("gpu", "tensorrt", "gpu-cu12", "gpu-cu13", "tensorrt-cu12", "tensorrt-cu13")
TOGETHER = (*((extra,) for extra in EXTRAS), ("gpu", "tensorrt"), ("cpu", "tensorrt"))
# TensorRT needs glibc 2.28; JetPack 6 is Ubuntu 22.04 (2.35), JetPack 7 is 24.04 (2.39).
MACHINES = (
    *((f"3.{minor}", "x86_64-manylinux_2_28", "x86-64") for minor in range(10, 14)),
    ("3.10", "aarch64-manylinux_2_35", "aarch64, JetPack 6"),
    ("3.12", "aarch64-manylinux_2_39", "aarch64, JetPack 7 and servers"),
)
INDENT = 6 * " "
OF_A_GPU = re.compile(r"(onnxruntime|cuda-|nvidia-|tensorrt)")


def cuda_major(name: str, version: str) -> str | None:
    """The major of CUDA that a distribution belongs to: said by its name, or by its version; None if by neither."""
    if said := re.search(r"-cu(\d\d)\b", name):
        return said[1]
    if name in ("cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-nvjitlink", "nvidia-cublas"):
        return version.split(".")[0]
    if name == "onnxruntime-gpu":
        return "12" if tuple(map(int, version.split(".")[:2])) < (1, 27) else "13"
    return None


def resolve(uv: str, extras: tuple[str, ...], python: str, platform: str) -> tuple[dict[str, str], str]:
    """Versions of the distributions that concern a GPU, by name; or nothing and the reason why there is no solution."""
    words = [uv, "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--no-annotate",
             "--python-version", python, "--python-platform", platform]  # fmt: skip
    done = subprocess.run(
        [*words, *(f"--extra={extra}" for extra in extras)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {}, _reason(done.stderr)
    pins = dict(line.split(";")[0].strip().split("==") for line in done.stdout.splitlines() if "==" in line)
    return {name: version for name, version in pins.items() if OF_A_GPU.match(name)}, ""


def _reason(text: str) -> str:
    """The distribution without a wheel, in few words; the full text of the resolver names folders of this machine."""
    text = " ".join(text.split())
    if found := re.search(r"Failed to (?:build|download and build) `([\w-]+)==", text):
        return f"no wheel of {found[1]} for this machine"
    if found := re.search(r"([\w-]+)(?:\[\w+\])?\S* has no wheels with a matching ([\w ]+?) tag", text):
        return f"no wheel of {found[1]} for this machine ({found[2].lower()})"
    return "no solution"


def table(uv: str) -> tuple[list[str], bool]:
    """The lines of the report, and whether the majors of every installation agree."""
    lines, agree = [], True
    for python, platform, called in MACHINES:
        lines += ["", f"Python {python}, {called} ({platform})"]
        for extras in TOGETHER:
            pins, reason = resolve(uv, extras, python, platform)
            majors = {major for name, version in pins.items() if (major := cuda_major(name, version))}
            agree = agree and len(majors) < 2
            verdict = reason or " and ".join(f"CUDA {major}" for major in sorted(majors)) or "nothing for a GPU"
            lines.append(f"  [{','.join(extras)}]: {verdict}")
            listed = ", ".join(f"{name}=={version}" for name, version in sorted(pins.items()))
            lines += textwrap.wrap(listed, 112, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False)
    return lines, agree


def requirements() -> list[str]:
    """The extras as `pyproject.toml` has them, a line each."""
    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [f"  {extra}: {line}" for extra in EXTRAS for line in project["optional-dependencies"][extra]]


def main() -> int:
    """Print the table; 1 if majors are mixed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uv", default="uv", help="the program uv")
    lines, agree = table(parser.parse_args().uv)
    print("Extras for GPUs as uv resolves them, with the base dependencies; only what concerns a GPU is listed.")
    print("Where there is no wheel, pip ends with an error.\n\nRequirements")
    print("\n".join([*requirements(), *lines]))
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
