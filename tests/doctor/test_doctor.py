"""`doctor`: what is installed, what conflicts, what may not be passed on, whether a bundle is intact."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outcome import Outcome, tree

from jotr_deploy.bundle import Licence, Manifest, open_bundle, sha256_of, starter_path, write_manifest
from jotr_deploy.doctor import installation
from jotr_deploy.doctor.installation import Finding, examine, healthy
from jotr_deploy.support.nvidia_driver import Driver

Cli = Callable[..., Outcome]

GOOD = {
    "jotr-deploy": "0.1.0", "ml-dtypes": "0.5", "numpy": "2.0", "onnx": "1.18", "opencv-python-headless": "4.10.0.84",
    "pillow": "11.3", "psutil": "6", "pydantic": "2.7", "rich": "13.7", "typer": "0.12",
}  # fmt: skip
CPU = {**GOOD, "onnxruntime": "1.20"}
AGAIN = "export it again: jotr-deploy export CHECKPOINT -o BUNDLE"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Pretend that exactly these distributions are installed."""

    def pretend(versions: dict[str, str]) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "version", version)

    monkeypatch.setattr(shutil, "which", lambda _: None)
    return pretend


def of(group: str, findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.group == group]


def without(versions: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in versions.items() if key != name}


def test_a_sound_installation(install: Callable[..., None]) -> None:
    install(CPU)
    findings = examine()
    assert healthy(findings)
    assert of("conflicts", findings) == []
    assert [(f.subject, f.state, f.detail) for f in of("installation", findings)][1:] == [
        (name, "ok", version) for name, version in GOOD.items()
    ]
    extras = {finding.subject: finding for finding in of("extras", findings)}
    assert (extras["cpu"].state, extras["cpu"].detail) == ("ok", "onnxruntime 1.20: running bundles on the CPU")
    assert extras["export"] == Finding(
        "extras", "export", "missing", "torch, onnxscript: export", "pip install '.[export]' in a clone of jotr-deploy"
    )
    assert extras["gpu"] == Finding(
        "extras", "gpu", "note",
        "onnxruntime-gpu, cuda-bindings: running bundles on an NVIDIA GPU (onnxruntime stands in for it)",
        "to change: pip uninstall onnxruntime, then pip install '.[gpu]' in a clone of jotr-deploy",
    )  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_base_package_that_is_missing(install: Callable[..., None], name: str) -> None:
    install(without(CPU, name))
    findings = examine()
    assert not healthy(findings)
    (problem,) = [finding for finding in findings if finding.state == "problem"]
    assert problem == Finding("installation", name, "problem", "missing", "pip install . in a clone of jotr-deploy")


@pytest.mark.parametrize(
    ("versions", "conflict"),
    [
        ({**CPU, "onnxruntime-gpu": "1.20"},
         Finding("conflicts", "onnxruntime and onnxruntime-gpu", "problem",
                 "provide the same module; it is chance which one is used",
                 "pip uninstall onnxruntime onnxruntime-gpu, then install one of them")),
        ({**CPU, "opencv-python": "4.10", "opencv-contrib-python": "4.10"},
         Finding("conflicts", "opencv-python-headless and opencv-python and opencv-contrib-python", "problem",
                 "provide the same module; it is chance which one is used",
                 "pip uninstall opencv-python-headless opencv-python opencv-contrib-python, then install one of them")),
        ({**CPU, "opencv-python-headless": "5.0.0"},
         Finding("conflicts", "opencv-python-headless 5.0.0", "problem",
                 "version 5 warps differently and lacks the HOG detector",
                 "pip install 'opencv-python-headless>=4.10,<5'")),
    ],
)  # fmt: skip
def test_conflicts(install: Callable[..., None], versions: dict[str, str], conflict: Finding) -> None:
    install(versions)
    findings = examine()
    assert of("conflicts", findings) == [conflict]
    assert not healthy(findings)


@pytest.mark.parametrize("name", ["opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"])
def test_another_build_of_opencv_serves_as_well(install: Callable[..., None], name: str) -> None:
    install({**without(CPU, "opencv-python-headless"), name: "4.10"})
    findings = examine()
    assert healthy(findings)
    assert Finding("installation", name, "ok", "4.10") in findings
    assert not any(finding.subject == "opencv-python-headless" for finding in findings)


def test_every_package_that_is_asked_for_is_known(install: Callable[..., None]) -> None:
    """What `pyproject.toml` needs and offers is looked for, but for what developers and programs of a GPU need."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    install({})
    looked = {finding.subject for finding in examine() if finding.group in ("installation", "extras")}
    needed = {re.split(r"[<>=;\[ ]", line)[0] for line in project["dependencies"]}
    assert {*needed, *project["optional-dependencies"]} - looked == {
        "dev",
        "gpu-cu12",
        "gpu-cu13",
        "tensorrt-cu12",
        "tensorrt-cu13",
    }


@pytest.mark.parametrize("version", ["4.10.0.84", "4.99"])
def test_opencv_that_is_fine(install: Callable[..., None], version: str) -> None:
    install({**CPU, "opencv-python-headless": version})
    assert healthy(examine())


def test_the_gpu_extra_alone_is_no_conflict_and_cpu_is_not_advised(install: Callable[..., None]) -> None:
    install({**GOOD, "onnxruntime-gpu": "1.20", "cuda-bindings": "12"})
    findings = examine()
    assert healthy(findings)
    extras = {finding.subject: finding.state for finding in of("extras", findings)}
    assert (extras["gpu"], extras["cpu"]) == ("ok", "note")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-cu12", "tensorrt-cu13"])
def test_tensorrt_for_another_cuda_is_tensorrt(install: Callable[..., None], name: str) -> None:
    """Nobody is told to install a second one on top."""
    install({**CPU, name: "10.9.0", "cuda-bindings": "12.9"})
    extras = {finding.subject: finding for finding in of("extras", examine())}
    assert extras["tensorrt"].state == "ok"
    assert extras["tensorrt"].detail.startswith(f"{name} 10.9.0, cuda-bindings 12.9: ")


def smi(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[Finding]:
    def run(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess([], 0, stdout=answer)

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(subprocess, "run", run)
    return of("hardware", examine())


@pytest.mark.parametrize("answer", [OSError(2, "gone"), subprocess.TimeoutExpired("nvidia-smi", 10),
                                    subprocess.CalledProcessError(9, "nvidia-smi")])  # fmt: skip
def test_a_driver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, answer: Exception) -> None:
    assert smi(monkeypatch, answer) == [
        Finding("hardware", "NVIDIA GPU", "problem", "nvidia-smi does not answer", "check the NVIDIA driver")
    ]


def test_every_gpu_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = smi(monkeypatch, "H200, 570.1, 9.0\nOrin, 540.1, 8.7\n")
    assert [(f.state, f.detail) for f in found] == [("ok", "H200, 570.1, 9.0"), ("ok", "Orin, 540.1, 8.7")]


def test_without_a_gpu_it_says_so(install: Callable[..., None]) -> None:
    install(CPU)
    (found,) = of("hardware", examine())
    assert (found.state, found.detail) == ("note", "none found: engines run on the CPU")


@pytest.mark.parametrize(
    ("gpus", "said"),
    [(2, ("ok", "2 by its driver, which is for CUDA 13.0")), (0, ("note", "none found: engines run on the CPU"))],
)
def test_without_its_program_the_driver_is_asked(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, gpus: int, said: tuple[str, str]
) -> None:
    install(CPU)
    monkeypatch.setattr(installation, "nvidia_driver", lambda: Driver(gpus, (13, 0)))
    monkeypatch.setattr(installation, "probe", dict)
    (found,) = of("hardware", examine())
    assert (found.state, found.detail) == said


def test_licensed_assets_are_named_with_their_address(install: Callable[..., None]) -> None:
    install(CPU)
    assert of("licensed assets", examine()) == [
        Finding("licensed assets", "SMPL body model (--body)", "note",
                "not included; register at https://smpl.is.tue.mpg.de"),
        Finding("licensed assets", "VPoser v1.0 (--vposer)", "note",
                "not included; register at https://smpl-x.is.tue.mpg.de"),
    ]  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path, tiny_bundle: Path) -> Path:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_an_intact_bundle(bundle: Path) -> None:
    before = tree(bundle)
    findings = of("bundle", examine(bundle))
    assert tree(bundle) == before
    assert [(f.subject, f.state) for f in findings] == [
        ("mesh.onnx", "ok"), ("faces.npy", "ok"), ("fit to features", "note"),
        ("label", "note"), ("label", "note"), ("stand-in body", "note"),
    ]  # fmt: skip
    error = open_bundle(bundle).entry("mesh").error_mm
    assert error is not None
    size = (bundle / "mesh.onnx").stat().st_size / 1e6
    assert findings[0].detail == f"{size:.1f} MB, fp32, unchanged, at most {error.max:g} mm from PyTorch when made"
    assert findings[1].detail == "0.2 MB, unchanged"
    assert [f.detail for f in findings[2:]] == [
        "not possible: the bundle has no features",
        "untrained: pose is meaningless", "stand-in body", "may be passed on: Apache-2.0, part of jotr-deploy",
    ]  # fmt: skip


def test_a_bundle_without_a_mesh_network_is_not_right(bundle: Path) -> None:
    content = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**content, "files": []}))
    findings = examine(bundle)
    assert Finding("bundle", "mesh network", "problem", f"{bundle}: the bundle has no mesh file", AGAIN) in findings
    assert not healthy(findings)


@pytest.mark.parametrize(
    ("name", "role", "cause"),
    [
        ("mesh.onnx", "mesh", "not a mesh network of this project (its inputs: "),
        ("faces.npy", "faces", "not the 13776 triangles of a body of 6890 vertices"),
    ],
)
def test_a_file_of_the_right_bytes_and_of_something_else(bundle: Path, name: str, role: str, cause: str) -> None:
    if role == "faces":
        np.save(bundle / name, np.zeros((3, 3), np.int32))
    else:
        shutil.copy(starter_path() / "pose.onnx", bundle / name)
    manifest = open_bundle(bundle).manifest
    files = [e.model_copy(update={"sha256": sha256_of(bundle / name)}) if e.name == name else e for e in manifest.files]
    write_manifest(bundle, manifest.model_copy(update={"files": tuple(files)}))
    (finding,) = (each for each in examine(bundle) if each.subject == f"{role} of this project")
    assert finding.state == "problem"
    assert finding.detail.startswith(f"{bundle / name}: {cause}")


def test_assets_that_may_not_be_passed_on(bundle: Path) -> None:
    smpl = Licence(asset="SMPL body model", terms="research only", redistributable=False)
    manifest = open_bundle(bundle).manifest
    write_manifest(bundle, Manifest(**{**dict(manifest), "licences": (*manifest.licences, smpl)}))
    assert of("bundle", examine(bundle))[-1] == Finding(
        "bundle", "SMPL body model", "note", "may NOT be passed on: research only"
    )


@pytest.mark.parametrize(
    ("damage", "subject", "cause", "remedy"),
    [
        (lambda b: (b / "mesh.onnx").write_bytes(b"x"), "mesh.onnx",
         "{b}/mesh.onnx: the file has changed since it was made (sha256 differs)", AGAIN),
        (lambda b: (b / "faces.npy").unlink(), "faces.npy", "{b}: faces.npy is listed in the manifest but missing",
         AGAIN),
        (lambda b: (b / "bundle.json").write_text("{"), "{b}", "{b}/bundle.json: not readable (Expecting property name"
         " enclosed in double quotes: line 1 column 2 (char 1))", AGAIN),
        (shutil.rmtree, "{b}", "{b}: no such folder",
         "check the path, or use starter, the bundle inside this package"),
    ],
)  # fmt: skip
def test_a_broken_bundle_ends_with_exit_code_2(
    cli: Cli, install: Callable[..., None], bundle: Path, damage: Callable[[Path], Any], subject: str, cause: str,
    remedy: str,
) -> None:  # fmt: skip
    install(CPU)
    damage(bundle)
    expected = Finding("bundle", subject.format(b=bundle), "problem", cause.format(b=bundle), remedy)
    assert expected in examine(bundle)
    outcome = cli("doctor", bundle)
    assert (outcome.code, outcome.err) == (2, "")
    assert f"  problem {expected.subject}: {expected.detail}  -> {remedy}\n" in outcome.out
    assert outcome.out.endswith("\nsee the problems above\n")


def test_the_report(cli: Cli, install: Callable[..., None], bundle: Path) -> None:
    install(CPU)
    outcome = cli("doctor", bundle)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith("\nnothing is wrong\n")
    groups = [line for line in outcome.out.splitlines() if line and not line.startswith(" ")][:-1]
    assert groups == ["installation", "extras", "hardware", "licensed assets", "bundle"]
    assert (
        "  missing export: torch, onnxscript: export  -> pip install '.[export]' in a clone of jotr-deploy\n"
        in outcome.out
    )


@pytest.mark.parametrize(("versions", "code"), [(CPU, 0), ({**CPU, "onnxruntime-gpu": "1"}, 2)])
def test_json_has_the_same_findings_and_exit_code(
    cli: Cli, install: Callable[..., None], bundle: Path, versions: dict[str, str], code: int
) -> None:
    install(versions)
    outcome = cli("doctor", bundle, "--json")
    assert (outcome.code, outcome.err) == (code, "")
    assert [Finding(**finding) for finding in json.loads(outcome.out)] == examine(bundle)
