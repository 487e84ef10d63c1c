"""`doctor`: installed, missing and conflicting packages; assets that may not be redistributed; a bundle's integrity."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jotr_deploy.bundle import FEATURES_AGAIN, FIT_ROLES, Bundle, open_bundle
from jotr_deploy.doctor.gpu_libraries import faults, probe
from jotr_deploy.errors import BundleError, JotrDeployError, MissingDependency, first_line, install
from jotr_deploy.support.distributions import installed_version
from jotr_deploy.support.nvidia_driver import nvidia_driver

State = Literal["ok", "missing", "problem", "note"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    group: str
    subject: str
    state: State
    detail: str
    remedy: str = ""


# extra -> (distributions, purpose)
_EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "cpu": (("onnxruntime",), "running bundles on the CPU"),
    "openvino": (("openvino",), "the fastest engine on most CPUs"),
    "gpu": (("onnxruntime-gpu", "cuda-bindings"), "running bundles on an NVIDIA GPU"),
    "tensorrt": (("tensorrt", "cuda-bindings"), "building and running TensorRT engines"),  # see _FORMS
    "export": (("torch", "onnxscript"), "export"),
    "datasets": (("ijson",), "annotations of data sets"),
    "fit": (("torch",), "fits to features"),
    "train": (("torch", "accelerate", "tensorboard", "ijson", "tomli-w"), "training"),
    "heif": (("pi-heif",), "HEIC pictures, as phones write them"),
    "viewer": (("viser",), "the page of `view`"),
    "serve": (("starlette", "uvicorn", "prometheus-client"), "people over HTTP"),
    "ray": (("ray",), "`batch` on a Ray cluster"),
    "smplx": (("smplx",), "an independent check of the skinning, in tests (non-commercial)"),
}
_OPENCV = "opencv-python-headless"
_BASE = ("ml-dtypes", "numpy", "onnx", _OPENCV, "pillow", "psutil", "pydantic", "rich", "typer")
# Distributions that provide the same module: only one of a row may be installed, and each stands in for the others.
_RIVALS = (
    ("onnxruntime", "onnxruntime-gpu"),
    (_OPENCV, "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
)
# Distribution -> others that are the same for another CUDA; JetPack's own TensorRT has the plain name.
_FORMS = {"tensorrt": ("tensorrt-cu13", "tensorrt-cu12")}
_CHECK = "check it on a photo of your own: jotr-deploy add BUNDLE --{role} FILE --try PHOTO"
# Outcome of a network on the picture inside this package -> state and remedy.
_OF_OUTCOME: dict[str, tuple[State, str]] = {
    "found": ("ok", ""),
    "nobody": ("note", _CHECK),
    "missed": ("problem", _CHECK),
    "odd": ("problem", "add one in a supported format: docs/formats.md"),
}
_REGISTRATION = {
    "SMPL body model (--body)": "https://smpl.is.tue.mpg.de",
    "VPoser v1.0 (--vposer)": "https://smpl-x.is.tue.mpg.de",
}


def examine(bundle: Path | None = None) -> list[Finding]:
    """Examine this installation and, when given, a bundle, whose detector and pose network are tried.

    Nothing is changed.
    """
    findings = [*_installation(), *_conflicts(), *_hardware(), *_gpu_libraries(), *_licensed_assets()]
    if bundle is not None:
        findings += _bundle(bundle)
    return findings


def healthy(findings: list[Finding]) -> bool:
    """True if nothing is in conflict or broken; optional parts may be missing."""
    return not any(finding.state == "problem" for finding in findings)


def _installation() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("installation", "Python", "ok", python)
    for name in ("jotr-deploy", *_BASE):
        present = next(iter(_present_rivals(name)), name) if name == _OPENCV else name
        version = installed_version(present)
        if version:
            yield Finding("installation", present, "ok", version)
        else:
            yield Finding("installation", name, "problem", "missing", install())
    for extra, (distributions, purpose) in _EXTRAS.items():
        forms = [next(filter(installed_version, (name, *_FORMS.get(name, ()))), name) for name in distributions]
        versions = {name: installed_version(name) for name in forms}
        if all(versions.values()):
            detail = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield Finding("extras", extra, "ok", f"{detail}: {purpose}")
            continue
        lacking = [name for name, version in versions.items() if not version]
        detail, remedy = f"{', '.join(lacking)}: {purpose}", install(extra)
        instead = next((rival for name in lacking for rival in _present_rivals(name)), None)
        if instead:
            detail = f"{detail} ({instead} stands in for it)"
            remedy = f"to change: pip uninstall {instead}, then {remedy}"
        yield Finding("extras", extra, "note" if instead else "missing", detail, remedy)


def _present_rivals(distribution: str) -> list[str]:
    return [name for rivals in _RIVALS if distribution in rivals for name in rivals if installed_version(name)]


def _conflicts() -> Iterator[Finding]:
    for rivals in _RIVALS:
        present = [name for name in rivals if installed_version(name)]
        if len(present) > 1:
            yield Finding(
                "conflicts",
                " and ".join(present),
                "problem",
                "provide the same module; it is chance which one is used",
                f"pip uninstall {' '.join(present)}, then install one of them",
            )
    for name in _RIVALS[1]:
        version = installed_version(name)
        if version and int(version.split(".")[0]) >= 5:
            yield Finding(
                "conflicts",
                f"{name} {version}",
                "problem",
                "version 5 warps differently and lacks the HOG detector",
                f"pip install '{name}>=4.10,<5'",
            )


def _hardware() -> Iterator[Finding]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        driver = nvidia_driver()  # containers have the driver's library, but not always the program
        if driver is None or driver.gpus == 0:
            yield Finding("hardware", "NVIDIA GPU", "note", "none found: engines run on the CPU")
        else:
            cuda = ".".join(map(str, driver.cuda))
            yield Finding("hardware", "NVIDIA GPU", "ok", f"{driver.gpus} by its driver, which is for CUDA {cuda}")
        return
    query = [tool, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        yield Finding("hardware", "NVIDIA GPU", "problem", "nvidia-smi does not answer", "check the NVIDIA driver")
        return
    for line in answer.splitlines():
        yield Finding("hardware", "NVIDIA GPU", "ok", line)


def _gpu_libraries() -> Iterator[Finding]:
    """Libraries that a GPU is used through, loaded in a process of their own; nothing where there is no GPU."""
    if nvidia_driver() is None:
        return
    facts = probe()
    found = list(faults(facts))
    for fault in found:
        yield Finding("GPU libraries", fault.package, "problem", fault.problem, fault.remedy)
    for step, called in (("cudart", "CUDA runtime"), ("nvrtc", "NVRTC"), ("provider", "CUDA provider of ONNX Runtime")):
        said = facts.get(step, {})
        version = said.get("version") or said.get("cuda")
        if version and not found:
            whose = " of JetPack" if said.get("system") else ""
            yield Finding("GPU libraries", f"{called}{whose}", "ok", f"loads; CUDA {version}")


def _licensed_assets() -> Iterator[Finding]:
    for asset, address in _REGISTRATION.items():
        yield Finding("licensed assets", asset, "note", f"not included; register at {address}")


def _bundle(path: Path) -> Iterator[Finding]:
    try:
        bundle = open_bundle(path)
    except BundleError as error:
        yield Finding("bundle", str(path), "problem", error.cause, error.remedy)
        return
    yield from _files(bundle)
    yield from _mesh_network(bundle)
    yield from _people_networks(bundle)
    yield _fit(bundle)
    for label in bundle.manifest.labels:
        yield Finding("bundle", "label", "note", label)
    for licence in bundle.manifest.licences:
        may = "may be passed on" if licence.redistributable else "may NOT be passed on"
        yield Finding("bundle", licence.asset, "note", f"{may}: {licence.terms}")


def _files(bundle: Bundle) -> Iterator[Finding]:
    for entry in bundle.manifest.files:
        try:
            size = bundle.file(entry.role, entry.name).stat().st_size
        except BundleError as error:
            yield Finding("bundle", entry.name, "problem", error.cause, error.remedy)
            continue
        facts = [f"{size / 1e6:.1f} MB", entry.precision, entry.recipe.get("format"), "unchanged"]
        if entry.error_mm:
            most = f"at most {entry.error_mm.max:g} mm from"
            facts.append(f"fits {most} the original's" if entry.role == "features" else f"{most} PyTorch when made")
        yield Finding("bundle", entry.name, "ok", ", ".join(str(fact) for fact in facts if fact))


def _mesh_network(bundle: Bundle) -> Iterator[Finding]:
    """Faults of the first mesh file, and of the triangles, among files whose bytes match the manifest."""
    from jotr_deploy.body.faces import read_faces
    from jotr_deploy.runtime.mesh import require_mesh_network
    from jotr_deploy.runtime.sessions import open_session

    def opened() -> None:
        with open_session(bundle.file("mesh"), device="cpu") as session:
            require_mesh_network(session)

    for role, check in (("mesh", opened), ("faces", lambda: read_faces(bundle))):
        try:
            path = bundle.file(role)
        except BundleError as error:
            if role == "mesh" and not bundle.has(role):
                yield Finding("bundle", "mesh network", "problem", error.cause, error.remedy)
            continue  # reported for the file itself
        if role == "mesh" and path.suffix != ".onnx":  # an engine may belong to another machine
            continue
        try:
            check()
        except MissingDependency as error:
            yield Finding("bundle", f"{role} of this project", "note", f"not tried: {error.cause}", error.remedy)
        except JotrDeployError as error:
            yield Finding("bundle", f"{role} of this project", "problem", error.cause, error.remedy)


def _people_networks(bundle: Bundle) -> Iterator[Finding]:
    """Results of detector and pose network on the picture inside this package."""
    for role in ("detector", "pose"):
        if not bundle.has(role):
            continue
        from jotr_deploy.runtime.finding.people_networks import own_networks
        from jotr_deploy.runtime.sessions import open_session
        from jotr_deploy.third_party.trial import try_detector, try_pose

        subject = f"{role} on a known picture"
        try:
            (file,) = own_networks(bundle, (role,))
            with open_session(file.path) as session:
                _, outcome = (try_detector if role == "detector" else try_pose)(session, file.recipe)
        except MissingDependency as error:
            yield Finding("bundle", subject, "note", f"not tried: {error.cause}", error.remedy)
        except JotrDeployError as error:
            yield Finding("bundle", subject, "problem", error.cause, error.remedy)
        except Exception as error:  # engines raise classes of their own
            yield Finding("bundle", subject, "problem", f"does not run ({first_line(error)})", f"add another {role}")
        else:
            state, remedy = _OF_OUTCOME[outcome.state]
            if role == "pose" and outcome.state == "missed":
                state = "note"  # as of `add`, which takes it and says so
            words = outcome.words if file.name == bundle.entry(role).name else f"{file.name} {outcome.words}"
            yield Finding("bundle", subject, state, words, remedy.format(role=role))


def _fit(bundle: Bundle) -> Finding:
    """Finding about a fit: possible if PyTorch is there, and the bundle's files belong together and give numbers."""
    from jotr_deploy.fitting.fitter import open_fitter

    subject = "fit to features"
    if not any(bundle.has(role) for role in FIT_ROLES):
        return Finding("bundle", subject, "note", "not possible: the bundle has no features", FEATURES_AGAIN)
    try:
        with open_fitter(bundle, device="cpu") as fitter:
            fitter.try_extractor()
            return Finding("bundle", subject, "ok", f"possible: {fitter.cells} x {fitter.cells} cells, {fitter.name}")
    except MissingDependency as error:
        return Finding("bundle", subject, "note", f"not possible here: {error.cause}", error.remedy)
    except JotrDeployError as error:
        return Finding("bundle", subject, "problem", error.cause, error.remedy)
