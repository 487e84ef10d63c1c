"""Make the starter bundle of this package from finished training runs.

    jotr-deploy train configs/starter/prior.toml -o runs/prior     # and the others of configs/starter
    python scripts/make_starter.py runs -o jotr_deploy/starter

Weights are stored as float16 and computed as float32, but for those of the skinning, whose errors a metre of arm would
multiply. The mesh network is compared with PyTorch.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from jotr_deploy.bundle import FileEntry, Licence, Manifest, new_directory, open_bundle, sha256_of, write_manifest
from jotr_deploy.engines.fp16_weights import halve_weights
from jotr_deploy.engines.verify import measure, require, vertices_error
from jotr_deploy.export.assemble import STAND_IN_BODY, load_network
from jotr_deploy.export.features import add_features
from jotr_deploy.export.to_bundle import FACES, MESH, torch_network
from jotr_deploy.export.to_onnx import export_onnx
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.precisions import Precision
from jotr_deploy.training.tiny_detector import export_detector
from jotr_deploy.training.tiny_pose import SKELETON, THRESHOLD, export_pose

FROM = {"mesh": "mesh_found", "detector": "detector_outdoors", "pose": "pose"}
"""The run that each network comes from."""
LICENCE = Licence(
    asset="starter networks",
    terms="Apache-2.0, trained by jotr-deploy on its own synthetic scenes",
    redistributable=True,
)
DETECTOR_RECIPE = {"format": "yolox", "threshold": 0.025, "iou": 0.65, "flip_test": True}
POSE_RECIPE = {
    "format": "simcc", "skeleton": SKELETON, "threshold": THRESHOLD, "flip_test": True,
    "least_score": 0.05, "most_explained": 0.8,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the starter bundle from training runs.")
    parser.add_argument("runs", type=Path, help="folder of the runs, each with weights.pt")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--features", type=Path, help="weights.pt of a run of the task features, for the fit")
    parser.add_argument("--card", type=Path, help="model card, to lie beside the files as CARD.md")
    arguments = parser.parse_args()
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
    loaded = load_network(runs / FROM["mesh"] / "weights.pt", Path("stand-in"))
    onnx.save(halve_weights(export_onnx(loaded.model), lambda weight: weight.name != "body.weights"), directory / MESH)
    with open_session(directory / MESH, device="cpu") as session:
        rows = measure(torch_network(loaded.model), session, loaded.model.config)
    require(rows, Precision.FP16, MESH)
    np.save(directory / FACES, loaded.faces, allow_pickle=False)
    recipe = {"sampling": "function", "weights": "float16"}
    entries = [
        entry(directory, "mesh", MESH, precision="fp32", recipe=recipe, error_mm=vertices_error(rows)),
        entry(directory, "faces", FACES, backend=None),
    ]
    for role, export, recipe in (
        ("detector", export_detector, DETECTOR_RECIPE),
        ("pose", export_pose, POSE_RECIPE),
    ):
        onnx.save(export(runs / FROM[role] / "weights.pt"), directory / f"{role}.onnx")
        entries.append(entry(directory, role, f"{role}.onnx", precision="fp32", recipe=recipe))
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


def entry(directory: Path, role: str, name: str, backend: str | None = "onnx", **facts: Any) -> FileEntry:
    """The entry of a file that lies in the directory."""
    batch = "dynamic" if backend else None
    return FileEntry(role=role, name=name, sha256=sha256_of(directory / name), backend=backend, batch=batch, **facts)


if __name__ == "__main__":
    main()
