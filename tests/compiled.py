"""Small shared libraries in C that stand in for NVIDIA's; tests with them are skipped where there is no compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler as `cc`")


def shared_library(path: Path, source: str, *linked: Path) -> Path:
    """Compile a library whose soname is its file name, linked with others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = path.with_suffix(".c")
    code.write_text(source)
    words = [str(COMPILER), "-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,{path.name}", "-o", str(path)]
    subprocess.run([*words, str(code), *map(str, linked)], check=True, capture_output=True)
    return path


def driver(folder: Path, version: int = 13000, gpus: int = 1, status: int = 0, name: str = "libcuda.so.1") -> Path:
    """Library of a driver that supports CUDA up to `version`, 1000 a major.

    A process that has loaded it finds it by its name from then on: give another one where that is the tests' own.
    """
    return shared_library(folder / name, f"""
        int cuInit(unsigned flags) {{ return {status}; }}
        int cuDeviceGetCount(int *count) {{ *count = {gpus}; return 0; }}
        int cuDriverGetVersion(int *version) {{ *version = {version}; return 0; }}
    """)  # fmt: skip
