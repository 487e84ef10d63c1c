"""`export`: turns a network into a bundle whose ONNX file is verified against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from jotr_deploy.bundle import (
    STAND_IN_LABEL,
    Bundle,
    FileEntry,
    Licence,
    Manifest,
    new_directory,
    sha256_of,
    write_manifest,
)
from jotr_deploy.engines.verify import Difference, measure, require, vertices_error
from jotr_deploy.export.assemble import Loaded
from jotr_deploy.export.features import add_features
from jotr_deploy.export.plausibility import plausibility
from jotr_deploy.export.to_onnx import export_onnx
from jotr_deploy.model.jotr import INPUTS, JOTR
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.aliases import Array, Say
from jotr_deploy.support.choices import Sampling
from jotr_deploy.support.distributions import installed_version
from jotr_deploy.support.precisions import Precision

MESH, FACES = "mesh.onnx", "faces.npy"


@dataclass(frozen=True)
class Exported:
    """Result of `export`."""

    path: Path
    differences: list[Difference]
    size_bytes: int
    labels: tuple[str, ...]  # warnings that accompany every result
    notes: tuple[str, ...]
    licences: tuple[Licence, ...]
    has_body: bool


def torch_network(model: JOTR) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """PyTorch network with the call of a session: feeds and results by name, as NumPy arrays."""

    def call(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            result = model(*(torch.from_numpy(feeds[name]) for name in INPUTS))
        return {name: value.numpy() for name, value in result._asdict().items()}

    return call


def export_bundle(
    loaded: Loaded,
    output: Path,
    sampling: Sampling = "function",
    replace: bool = False,
    say: Say = lambda step: None,
    features: Path | None = None,
) -> Exported:
    """Write and verify a bundle, then move it to its final name.

    The file is checked in plain ONNX Runtime at batch 1, 3 and 8 against the unfused PyTorch network. Notes of the
    result name parts that look wrong, judged by a picture whose people are known. `features`, weights of a run of the
    task of that name, are put in with all that the fit needs.

    Raises:
        VerificationError: above the limits; no bundle is left.
        FitError: features that cannot be read, or of another body; no bundle is left.
        OutputError: `output` exists or cannot be written.
    """
    with new_directory(output, replace) as directory:
        say("tracing the network")
        mesh = directory / MESH
        proto = export_onnx(loaded.model, sampling)
        onnx.save(proto, mesh)
        say("comparing with PyTorch at batch 1, 3 and 8")
        with open_session(mesh, device="cpu") as session:
            differences = measure(torch_network(loaded.model), session, loaded.model.config)
            require(differences, Precision.FP32, MESH)
            say("trying it on the picture inside this package")
            doubts = plausibility(session, loaded.model.config).notes(stand_in=STAND_IN_LABEL in loaded.labels)
        files = [_mesh_entry(mesh, sampling, differences)]
        if loaded.faces is not None:
            np.save(directory / FACES, loaded.faces, allow_pickle=False)
            files.append(FileEntry(role="faces", name=FACES, sha256=sha256_of(directory / FACES)))
        manifest = Manifest(
            model=loaded.model.config,
            source_sha256=loaded.source_sha256,
            labels=loaded.labels,
            licences=loaded.licences,
            files=tuple(files),
        )
        write_manifest(directory, manifest)
        licences = loaded.licences
        if features is not None:
            added = add_features(Bundle(directory, manifest), features, say=say)
            licences = added.bundle.manifest.licences
        size = sum(path.stat().st_size for path in directory.iterdir())
    return Exported(
        output,
        differences,
        size,
        loaded.labels,
        (*loaded.notes, *doubts),
        licences,
        has_body=loaded.faces is not None,
    )


def _mesh_entry(mesh: Path, sampling: Sampling, differences: list[Difference]) -> FileEntry:
    versions = {
        name: version
        for name in ("jotr-deploy", "torch", "onnx", "onnxscript")
        if (version := installed_version(name)) is not None  # a bare checkout is not
    }
    return FileEntry(
        role="mesh",
        name=mesh.name,
        sha256=sha256_of(mesh),
        precision=Precision.FP32,
        backend="onnx",
        recipe={"sampling": sampling},
        batch="dynamic",
        built_with=versions,
        error_mm=vertices_error(differences),
    )
