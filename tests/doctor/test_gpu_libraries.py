"""`doctor` names the one package that keeps a GPU from being used: by facts, and by libraries that are loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compiled import driver, needs_compiler, shared_library

import jotr_deploy
from jotr_deploy.doctor import installation
from jotr_deploy.doctor.gpu_libraries import Fault, faults, probe, read_probe
from jotr_deploy.doctor.installation import Finding, healthy
from jotr_deploy.support import nvidia_driver
from jotr_deploy.support.nvidia_driver import Driver

CLONE = "in a clone of jotr-deploy"
OK_13: dict[str, Any] = {
    "distributions": {"onnxruntime-gpu": "1.31.1", "cuda-bindings": "13.5.0", "tensorrt-cu13": "11.4.0"},
    "driver": {"gpus": 1, "cuda": "13.2"},
    "cudart": {"status": "cudaSuccess", "version": "13.2", "system": False},
    "nvrtc": {"version": "13.5"},
    "provider": {"cuda": "13.0"},
    "tensorrt": {"version": "11.4.0"},
}
OK_12: dict[str, Any] = {
    "distributions": {"onnxruntime-gpu": "1.26.0", "cuda-bindings": "12.9.10", "tensorrt-cu12": "11.4.0"},
    "driver": {"gpus": 1, "cuda": "12.6"},
    "cudart": {"status": "cudaSuccess", "version": "12.9", "system": False},
    "nvrtc": {"version": "12.9"},
    "provider": {"cuda": "12.8"},
    "tensorrt": {"version": "11.4.0"},
}


def changed(facts: dict[str, Any], **steps: Any) -> dict[str, Any]:
    """The facts with entries of some steps replaced."""
    return facts | {step: {**facts[step], **said} for step, said in steps.items()}


@pytest.mark.parametrize(
    "facts",
    [
        OK_13,
        OK_12,
        {},
        changed(OK_12, driver={"cuda": "13.2"}),  # a newer driver runs older packages
        {**OK_13, "driver": {}},
        {"driver": {"gpus": 1, "cuda": "13.0"}, "distributions": {}, "nvrtc": {"error": "No module named 'cuda'"},
         "cudart": {"error": "cuda-bindings is not installed"}, "provider": {"absent": True},
         "tensorrt": {"error": "No module named 'tensorrt'"}},
        # JetPack 6: its own runtime stands in for that of the bindings
        {"driver": {"gpus": 1, "cuda": "12.6"}, "distributions": {"cuda-bindings": "12.9.10", "tensorrt": "10.3.0"},
         "cudart": {"status": "cudaSuccess", "version": "12.6", "system": True}, "nvrtc": {"version": "12.6"},
         "provider": {"absent": True}, "tensorrt": {"version": "10.3.0"}},
    ],
)  # fmt: skip
def test_what_fits_has_no_fault(facts: dict[str, Any]) -> None:
    assert list(faults(facts)) == []


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        (changed(OK_12, distributions={"cuda-bindings": "13.5.0"}),
         Fault("cuda-bindings", "is for CUDA 13, the driver supports 12.6",
               f"update the driver to r580, or pip uninstall cuda-bindings, then pip install '.[gpu-cu12]' {CLONE}")),
        (changed(OK_13, provider={"cuda": "12.8"}),
         Fault("onnxruntime-gpu", "is for CUDA 12, cuda-bindings, nvidia-cuda-nvrtc, tensorrt-cu13 for CUDA 13",
               f"pip uninstall onnxruntime-gpu, then pip install '.[gpu-cu13]' {CLONE}")),
        (changed(OK_12, driver={"cuda": "13.0"}, nvrtc={"version": "13.5"}),
         Fault("nvidia-cuda-nvrtc", "is for CUDA 13, cuda-bindings, onnxruntime-gpu, tensorrt-cu12 for CUDA 12",
               f"pip uninstall nvidia-cuda-nvrtc, then pip install '.[gpu-cu12]' {CLONE}")),
        (changed(OK_13, distributions={"tensorrt-cu13": "11.4.0", "onnxruntime-gpu": "1.23.2"}, provider={
            "error": "libcublasLt.so.12: cannot open shared object file: No such file", "cuda": ""}),
         Fault("onnxruntime-gpu", "is for CUDA 12, cuda-bindings, nvidia-cuda-nvrtc, tensorrt-cu13 for CUDA 13",
               f"pip uninstall onnxruntime-gpu, then pip install '.[gpu-cu13]' {CLONE}")),
        (changed(OK_13, provider={"error": "libcublasLt.so.13: cannot open shared object file: No such file"}),
         Fault("nvidia-cublas", "onnxruntime-gpu needs libcublasLt.so.13, which is missing",
               "pip install nvidia-cublas")),
        (changed(OK_12, provider={"error": "libcudnn.so.9: cannot open shared object file: No such file"}),
         Fault("nvidia-cudnn-cu12", "onnxruntime-gpu needs libcudnn.so.9, which is missing",
               "pip install nvidia-cudnn-cu12")),
        (OK_13 | {"nvrtc": {"error": "Failure finding libnvrtc.so: libnvrtc.so.13 not found"}},
         Fault("nvidia-cuda-nvrtc", "NVRTC needs libnvrtc.so, which is missing", "pip install nvidia-cuda-nvrtc")),
        (OK_13 | {"tensorrt": {"error": "libnvinfer.so.11: cannot open shared object file"}},
         Fault("TensorRT", "cannot be loaded (libnvinfer.so.11: cannot open shared object file)",
               f"pip install '.[tensorrt-cu13]' {CLONE}")),
        (OK_13 | {"provider": {"crashed": "ends the process (code -6)"}},
         Fault("onnxruntime-gpu", "ends the process (code -6)",
               f"pip uninstall onnxruntime-gpu, then pip install '.[gpu-cu13]' {CLONE}")),
        (changed(OK_13, cudart={"status": "cudaErrorSystemNotReady"}),
         Fault("cuda-bindings", "fails with cudaErrorSystemNotReady",
               "nvidia-smi shows the driver; restart the machine")),
    ],
)  # fmt: skip
def test_the_one_wrong_package(facts: dict[str, Any], fault: Fault) -> None:
    assert list(faults(facts)) == [fault]


@pytest.mark.parametrize(
    ("text", "code", "facts"),
    [
        ("", 0, {}),
        ('{"starts": "driver"}\n{"driver": {"gpus": 1}}\nnoise\n', 0, {"driver": {"gpus": 1}}),
        ('{"starts": "nvrtc"}\n', -11, {"nvrtc": {"crashed": "ends the process (code -11)"}}),
        ('{"starts": "nvrtc"}\n', None, {"nvrtc": {"crashed": "does not return"}}),
        ("", 1, {}),
    ],
)
def test_a_step_without_a_result_ended_the_process(text: str, code: int | None, facts: dict[str, Any]) -> None:
    assert read_probe(text, code) == facts


# ── libraries that are loaded ────────────────────────────────────────────────────────────────────────────────────

RUNTIME = """
from enum import IntEnum
class cudaError_t(IntEnum):
    cudaSuccess, cudaErrorInsufficientDriver = 0, 35
def cudaGetDeviceCount(): return (cudaError_t({status}), 1)
def cudaRuntimeGetVersion(): return (cudaError_t(0), {version})
"""
NVRTC = "def nvrtcVersion(): return (0, {major}, {minor})\n"
MISSING_NVRTC = "def nvrtcVersion(): raise RuntimeError('Failure finding libnvrtc.so: libnvrtc.so.13 not found')\n"
ABORTS = "#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { abort(); }\n"


class Site:
    """A folder of packages that go before the installed ones, in processes started from here."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{Path(jotr_deploy.__file__).parents[1]}")
        monkeypatch.setenv("LD_LIBRARY_PATH", str(folder / "libs"))
        driver(folder / "libs", 13020)
        self.write("cuda/bindings/__init__.py", "")
        self.write("cuda/__init__.py", "")
        self.write("cuda/bindings/runtime.py", RUNTIME.format(status=0, version=13020))
        self.write("cuda/bindings/nvrtc.py", NVRTC.format(major=13, minor=5))
        self.write("onnxruntime/__init__.py", "")
        self.write("onnxruntime/capi/__init__.py", "")
        self.write("onnxruntime/capi/build_and_package_info.py", "cuda_version = '13.0'\n")
        self.write("tensorrt.py", "__version__ = '11.4.0'\n")
        self.provider("int provider;\n")
        for name, version in OK_13["distributions"].items():
            self.installed(name, version)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def installed(self, name: str, version: str) -> None:
        self.write(f"{name.replace('-', '_')}-1.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n")

    def provider(self, source: str, *linked: Path) -> None:
        shared_library(self.folder / "onnxruntime/capi/libonnxruntime_providers_cuda.so", source, *linked)

    def without_cublas(self) -> None:
        cublas = shared_library(self.folder / "libs/libcublasLt.so.13", "int cublas;\n")
        self.provider("int provider;\n", cublas)
        cublas.unlink()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "site", monkeypatch)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "package"),
    [
        (lambda site: None, None),
        (lambda site: driver(site.folder / "libs", 12060), "cuda-bindings"),
        (lambda site: driver(site.folder / "libs", gpus=0), None),
        (Site.without_cublas, "nvidia-cublas"),
        (lambda site: site.provider(ABORTS), "onnxruntime-gpu"),
        (lambda site: site.write("onnxruntime/capi/build_and_package_info.py", "cuda_version = '12.8'"),
         "onnxruntime-gpu"),
        (lambda site: site.write("cuda/bindings/nvrtc.py", MISSING_NVRTC), "nvidia-cuda-nvrtc"),
        (lambda site: site.write("cuda/bindings/nvrtc.py", NVRTC.format(major=12, minor=9)), "nvidia-cuda-nvrtc-cu12"),
        (lambda site: site.write("tensorrt.py", "raise ImportError('libnvinfer.so.11: cannot open')"), "TensorRT"),
    ],
)  # fmt: skip
def test_libraries_are_loaded_in_a_process_of_their_own(
    site: Site, damage: Callable[[Site], Any], package: str | None
) -> None:
    damage(site)
    found = list(faults(probe()))
    assert [fault.package for fault in found[:1]] == ([package] if package else [])
    if package != "cuda-bindings":  # with an older driver, everything for the newer CUDA is wrong
        assert len(found) <= 1


def test_doctor_reports_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "nvidia_driver", lambda: Driver(1, (12, 6)))
    wrong = changed(OK_12, distributions={"cuda-bindings": "13.5.0"})
    monkeypatch.setattr(installation, "probe", lambda: wrong)
    findings = list(installation._gpu_libraries())
    assert [(f.subject, f.state) for f in findings] == [("cuda-bindings", "problem")]
    assert not healthy(findings)
    monkeypatch.setattr(installation, "probe", lambda: OK_12)
    assert Finding("GPU libraries", "CUDA provider of ONNX Runtime", "ok", "loads; CUDA 12.8") in [
        *installation._gpu_libraries()
    ]


def test_without_a_driver_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "nvidia_driver", lambda: None)
    monkeypatch.setattr(installation, "probe", pytest.fail)
    assert list(installation._gpu_libraries()) == []


@needs_compiler
@pytest.mark.parametrize(
    ("version", "gpus", "status", "found"),
    [
        (12060, 1, 0, Driver(1, (12, 6))),
        (13020, 0, 0, Driver(0, (13, 2))),
        (13020, 1, 100, None),
    ],
)
def test_the_driver_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, gpus: int, status: int, found: Driver | None
) -> None:
    monkeypatch.setattr(nvidia_driver, "DRIVER", str(driver(tmp_path, version, gpus, status, "libof-this-test.so")))
    assert nvidia_driver.nvidia_driver() == found
    monkeypatch.setattr(nvidia_driver, "DRIVER", str(tmp_path / "none.so"))
    assert nvidia_driver.nvidia_driver() is None
