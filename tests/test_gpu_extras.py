"""The extras for GPUs: the committed resolution is of the extras that are offered, and mixes no majors of CUDA."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "benchmarks" / "results" / "gpu-extras.txt").read_text()
JETPACK_6 = "Python 3.10, aarch64, JetPack 6"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    spec = importlib.util.spec_from_file_location("resolve_gpu_extras", ROOT / "scripts" / "resolve_gpu_extras.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resolved() -> dict[tuple[str, str], tuple[str, dict[str, str]]]:
    """(machine, extras) -> verdict and versions, as the table has them."""
    found, machine, row = {}, "", ("", "")
    for line in TABLE.partition("\nPython ")[2].splitlines():
        if not line.startswith(" "):
            machine = line if line.startswith("Python") else f"Python {line}"
        elif title := re.match(r"  \[(.+)\]: (.+)", line):
            row = machine.partition(" (")[0], title[1]
            found[row] = title[2], {}
        else:
            pins = (pin.split("==") for pin in line.strip().rstrip(",").split(", "))
            found[row][1].update(dict(pins))
    return found


def test_the_table_is_of_these_extras(script: ModuleType) -> None:
    """After a change of the extras: `python scripts/resolve_gpu_extras.py > benchmarks/results/gpu-extras.txt`."""
    asked = TABLE.partition("Requirements\n")[2].partition("\n\n")[0].splitlines()
    assert asked == script.requirements()
    assert {extras for _, extras in resolved()} == {",".join(extras) for extras in script.TOGETHER}
    assert len({machine for machine, _ in resolved()}) == len(script.MACHINES) == 6


def test_no_installation_mixes_majors(script: ModuleType) -> None:
    for row, (verdict, pins) in resolved().items():
        majors = {major for name, version in pins.items() if (major := script.cuda_major(name, version))}
        assert len(majors) == (0 if verdict.startswith("no wheel") else 1), row
        wanted = re.search(r"-cu(\d\d)", row[1])
        if wanted and majors and row[0] != JETPACK_6:
            assert majors == {wanted[1]}, row


def test_what_every_machine_gets() -> None:
    found = resolved()
    for (machine, extras), (_, pins) in found.items():
        if machine == JETPACK_6:
            assert set(pins) <= {"cuda-bindings", "cuda-pathfinder", "onnxruntime"}
            continue
        if extras == "gpu,tensorrt":
            assert {"onnxruntime-gpu", "cuda-bindings"} <= set(pins), machine
            # what the CUDA provider is linked against
            for library in ("cublas", "cudnn", "cufft", "curand", "cuda-runtime", "cuda-nvrtc"):
                assert any(name.startswith(f"nvidia-{library}") for name in pins), (machine, library)
            assert any(name.startswith("tensorrt-cu") for name in pins), machine
    assert found["Python 3.10, x86-64", "gpu-cu13"][0].startswith("no wheel of onnxruntime-gpu")


@pytest.mark.parametrize(
    ("name", "version", "major"),
    [
        ("onnxruntime-gpu", "1.23.2", "12"),
        ("onnxruntime-gpu", "1.31.1", "13"),
        ("cuda-bindings", "13.5.0", "13"),
        ("nvidia-cuda-nvrtc", "13.5.37", "13"),
        ("nvidia-cudnn-cu13", "9.28.1.4", "13"),
        ("nvidia-cufft", "12.5.0.14", None),
        ("cuda-pathfinder", "1.9.1", None),
    ],
)
def test_the_major_of_a_distribution(script: ModuleType, name: str, version: str, major: str | None) -> None:
    assert script.cuda_major(name, version) == major


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("x Because onnxruntime-gpu[cuda]<=1.26 has no wheels with a matching\n platform tag (e.g., `m`) and",
         "no wheel of onnxruntime-gpu for this machine (platform)"),
        ("Failed to build `tensorrt-cu12-libs==11.4.0`", "no wheel of tensorrt-cu12-libs for this machine"),
        ("", "no solution"),
    ],
)  # fmt: skip
def test_the_reason_names_one_distribution(script: ModuleType, said: str, reason: str) -> None:
    assert script._reason(said) == reason
