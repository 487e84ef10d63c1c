"""Judgement of what `gpu_probe` found: the one package that keeps the GPU from being used, and how to replace it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jotr_deploy.errors import install

Facts = Mapping[str, Mapping[str, Any]]
"""Step of `gpu_probe` -> its result; {"error": ...} if it failed, {"crashed": ...} if it ended the process."""


@dataclass(frozen=True)
class Fault:
    """A package that is wrong, why, and the command that puts it right."""

    package: str
    problem: str
    remedy: str


# start of a library's name -> package of CUDA 12, and of CUDA 13
_PACKAGES = {
    "libcublas": ("nvidia-cublas-cu12", "nvidia-cublas"),
    "libcudnn": ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
    "libcufft": ("nvidia-cufft-cu12", "nvidia-cufft"),
    "libcurand": ("nvidia-curand-cu12", "nvidia-curand"),
    "libcudart": ("nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime"),
    "libnvrtc": ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"),
    "libnvJitLink": ("nvidia-nvjitlink-cu12", "nvidia-nvjitlink"),
}
_OF_STEP = {"provider": "onnxruntime-gpu", "cudart": "cuda-bindings", "nvrtc": "NVRTC", "tensorrt": "TensorRT"}
_DRIVERS = {12: "r535", 13: "r580"}


def probe() -> Facts:
    """Facts about this installation, from a separate process, which a faulty library may end."""
    words = [sys.executable, "-m", "jotr_deploy.doctor.gpu_probe"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        output = getattr(error, "stdout", None) or b""
        return read_probe(output.decode() if isinstance(output, bytes) else output, None)
    return read_probe(done.stdout, done.returncode)


def read_probe(text: str, code: int | None) -> Facts:
    """Results in the lines that `gpu_probe` prints; `code` is its exit code, None if it did not end."""
    facts: dict[str, Mapping[str, Any]] = {}
    started = ""
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:  # a library has printed
            continue
        if isinstance(said, dict):
            started = said.pop("starts", started)
            facts.update(said)
    if code != 0 and started and started not in facts:
        facts[started] = {"crashed": "does not return" if code is None else f"ends the process (code {code})"}
    return facts


def faults(facts: Facts) -> Iterator[Fault]:
    """Packages that keep the GPU from being used, the decisive one first; none if everything loads and fits."""
    driver = facts.get("driver", {})
    if not driver.get("gpus"):
        return
    supported = _major(driver["cuda"])
    majors = _majors(facts)
    too_new = {package: major for package, major in majors.items() if major > supported}
    for package, major in too_new.items():
        yield Fault(
            package,
            f"is for CUDA {major}, the driver supports {driver['cuda']}",
            f"update the driver to {_DRIVERS.get(major, 'a newer one')}, or pip uninstall {package}, then "
            f"{install(_extra(package, supported))}",
        )
    if too_new:
        return
    if len(set(majors.values())) > 1:
        yield _odd_one(majors)
        return
    for step in ("cudart", "nvrtc", "provider", "tensorrt"):
        if fault := _broken(step, facts, next(iter(majors.values()), supported)):
            yield fault


def _majors(facts: Facts) -> dict[str, int]:
    """Package -> major of CUDA that it is for, as far as both are known."""
    found, installed = {}, facts.get("distributions", {})
    if "cuda-bindings" in installed and not facts.get("cudart", {}).get("system"):
        found["cuda-bindings"] = _major(installed["cuda-bindings"])
    if built := facts.get("provider", {}).get("cuda"):
        found["onnxruntime-gpu"] = _major(built)
    elif "onnxruntime-gpu" in installed:
        release = [int(part) for part in installed["onnxruntime-gpu"].split(".")[:2]]
        found["onnxruntime-gpu"] = 12 if release < [1, 27] else 13
    if version := facts.get("nvrtc", {}).get("version"):
        plain = "nvidia-cuda-nvrtc" if _major(version) > 12 else "nvidia-cuda-nvrtc-cu12"
        found[plain] = _major(version)
    for name in ("tensorrt-cu12", "tensorrt-cu13"):
        if name in installed:
            found[name] = int(name[-2:])
    return found


def _odd_one(majors: Mapping[str, int]) -> Fault:
    """Fault of the package for another CUDA major than most."""
    counts = {major: list(majors.values()).count(major) for major in majors.values()}
    usual = max(counts, key=lambda major: (counts[major], major))
    package, major = next((package, major) for package, major in majors.items() if major != usual)
    others = ", ".join(name for name, other in majors.items() if other == usual)
    return Fault(
        package,
        f"is for CUDA {major}, {others} for CUDA {usual}",
        f"pip uninstall {package}, then {install(_extra(package, usual))}",
    )


def _broken(step: str, facts: Facts, major: int) -> Fault | None:
    """The fault of a step that failed, by the library that it misses; None if it did not fail or is not installed."""
    said, package = facts.get(step, {}), _OF_STEP[step]
    if step == "cudart" and said.get("status", "cudaSuccess") != "cudaSuccess":
        return Fault(package, f"fails with {said['status']}", "nvidia-smi shows the driver; restart the machine")
    if crashed := said.get("crashed"):
        return Fault(package, crashed, f"pip uninstall {package}, then {install(_extra(package, major))}")
    error = str(said.get("error", ""))
    if not error or not _installed(step, facts):
        return None
    library = re.search(r"lib\w+\.so(\.\d+)*", error)
    known = next((names for start, names in _PACKAGES.items() if library and library[0].startswith(start)), None)
    if known is None or library is None:
        return Fault(package, f"cannot be loaded ({error})", install(_extra(package, major)))
    wanted = known[0 if major == 12 else 1]
    return Fault(wanted, f"{package} needs {library[0]}, which is missing", f"pip install {wanted}")


def _installed(step: str, facts: Facts) -> bool:
    """True if a package that a step loads is installed."""
    installed = facts.get("distributions", {})
    return {
        "provider": "onnxruntime-gpu" in installed,
        "cudart": "cuda-bindings" in installed,
        "nvrtc": "cuda-bindings" in installed,
        "tensorrt": any(name.startswith("tensorrt") for name in installed),
    }[step]


def _extra(package: str, major: int) -> str:
    kind = "tensorrt" if package.lower().startswith("tensorrt") else "gpu"
    return f"{kind}-cu{min(max(major, 12), 13)}"


def _major(version: str) -> int:
    return int(str(version).split(".")[0])
