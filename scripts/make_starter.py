"""Make the starter bundle of this package from finished training runs.

    jotr-deploy train configs/starter/prior.toml -o runs/prior     # and the others of configs/starter
    python scripts/make_starter.py runs -o jotr_deploy/starter
    python scripts/make_starter.py runs -o jotr_deploy/starter --only mesh     # leaves the other networks as they are

Weights are stored as float16 and computed as float32, but for those of the skinning, whose errors a metre of arm would
multiply. The mesh network is compared with PyTorch.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from jotr_deploy.bundle import (
    FileEntry,
    Licence,
    Manifest,
    new_directory,
    open_bundle,
    replace_file,
    sha256_of,
    write_manifest,
)
from jotr_deploy.engines.fp16_weights import halve_weights
from jotr_deploy.engines.verify import measure, require, vertices_error
from jotr_deploy.export.assemble import STAND_IN_BODY, Loaded, load_network
from jotr_deploy.export.features import add_features
from jotr_deploy.export.to_bundle import FACES, MESH, torch_network
from jotr_deploy.export.to_onnx import export_onnx
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.precisions import Precision
from jotr_deploy.training.tiny_detector import export_detector
from jotr_deploy.training.tiny_pose import SKELETON, THRESHOLD, export_pose

FROM = {"mesh": "mesh_read_back", "detector": "detector_outdoors", "pose": "pose"}
"""The run that each network comes from."""
LICENCE = Licence(
    asset="starter networks",
    terms="Apache-2.0, trained by jotr-deploy on its own synthetic scenes",
    redistributable=True,
)
DETECTOR_RECIPE = {"format": "yolox", "threshold": 0.025, "iou": 0.65, "flip_test": True}
POSE_RECIPE = {
    "format": "simcc", "skeleton": SKELETON, "threshold": THRESHOLD, "flip_test": True,
    "least_score": 0.135, "score_power": 0.33, "most_explained": 0.8,
}  # fmt: skip
FINDERS: dict[str, tuple[Callable[[Path], onnx.ModelProto], dict[str, Any]]] = {
    "detector": (export_detector, DETECTOR_RECIPE),
    "pose": (export_pose, POSE_RECIPE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the starter bundle from training runs.")
    parser.add_argument("runs", type=Path, help="folder of the runs, each with weights.pt")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", choices=list(FROM), help="replace this network of the bundle at OUTPUT, nothing else")
    parser.add_argument("--features", type=Path, help="weights.pt of a run of the task features, for the fit")
    parser.add_argument("--card", type=Path, help="model card, to lie beside the files as CARD.md")
    arguments = parser.parse_args()
    if arguments.only is not None:
        replace_one(arguments.only, arguments.runs, arguments.output)
        return
    with new_directory(arguments.output, replace=True) as directory:
        make(arguments.runs, directory)
        if arguments.features is not None:
            add_features(open_bundle(directory), arguments.features, halved=True)
        if arguments.card is not None:
            shutil.copyfile(arguments.card, directory / "CARD.md")
    for path in sorted(arguments.output.iterdir()):
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {path.name}")


def make(runs: Path, directory: Path) -> None:
    """Everything of the bundle, written into an empty directory."""
    loaded = loaded_mesh(runs)
    entries = [write_mesh(loaded, directory / MESH)]
    np.save(directory / FACES, loaded.faces, allow_pickle=False)
    entries.append(entry(directory / FACES, "faces", backend=None))
    entries += [write_finder(role, runs, directory / f"{role}.onnx") for role in FINDERS]
    write_manifest(
        directory,
        Manifest(
            model=loaded.model.config,
            source_sha256=loaded.source_sha256,
            labels=loaded.labels,
            licences=(STAND_IN_BODY, LICENCE),
            align=True,
            files=tuple(entries),
        ),
    )


def replace_one(role: str, runs: Path, output: Path) -> None:
    """Replace one network of a finished bundle; the other files stay byte for byte."""
    bundle = open_bundle(output)
    order = [each.name for each in bundle.manifest.files]
    update: dict[str, Any] = {}
    if role == "mesh":
        loaded = loaded_mesh(runs)
        replaced = replace_file(bundle, MESH, lambda path: write_mesh(loaded, path))
        update = {"source_sha256": loaded.source_sha256, "model": loaded.model.config}
    else:
        replaced = replace_file(bundle, f"{role}.onnx", lambda path: write_finder(role, runs, path))
    update["files"] = tuple(sorted(replaced.manifest.files, key=lambda each: order.index(each.name)))
    write_manifest(output, replaced.manifest.model_copy(update=update))


def loaded_mesh(runs: Path) -> Loaded:
    """The trained mesh network with the stand-in body."""
    return load_network(runs / FROM["mesh"] / "weights.pt", Path("stand-in"))


def write_mesh(loaded: Loaded, path: Path) -> FileEntry:
    """Write the mesh network, compared with PyTorch."""
    onnx.save(halve_weights(export_onnx(loaded.model), lambda weight: weight.name != "body.weights"), path)
    with open_session(path, device="cpu") as session:
        rows = measure(torch_network(loaded.model), session, loaded.model.config)
    require(rows, Precision.FP16, MESH)
    recipe = {"sampling": "function", "weights": "float16"}
    return entry(path, "mesh", name=MESH, precision="fp32", recipe=recipe, error_mm=vertices_error(rows))


def write_finder(role: str, runs: Path, path: Path) -> FileEntry:
    """Write the detector or the pose network."""
    export, recipe = FINDERS[role]
    onnx.save(export(runs / FROM[role] / "weights.pt"), path)
    return entry(path, role, name=f"{role}.onnx", precision="fp32", recipe=recipe)


def entry(path: Path, role: str, backend: str | None = "onnx", name: str | None = None, **facts: Any) -> FileEntry:
    """The entry of a written file."""
    batch = "dynamic" if backend else None
    return FileEntry(role=role, name=name or path.name, sha256=sha256_of(path), backend=backend, batch=batch, **facts)


if __name__ == "__main__":
    main()
