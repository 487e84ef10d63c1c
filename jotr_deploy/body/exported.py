"""The body inside an exported network: pose and shape in, mesh and joints out.

A bundle has skinning only inside `mesh.onnx`, behind everything else. The part of that graph between pose and mesh runs
by itself: in an inference engine (`runtime.body_session`), or here in NumPy, where none needs to be installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.bundle import Bundle
from jotr_deploy.errors import BundleError, first_line
from jotr_deploy.people import LAYOUT
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.read_errors import read_onnx

NETWORK = "mesh.onnx"
"""The file of a bundle that has the body, whatever file recovers the people."""
INPUTS = ("pose", "betas")
OUTPUTS = ("vertices", "joints3d")
MAX_BATCH = 64
"""Poses in one call at most, so that memory stays bounded."""


class ExportedBody:
    """The body of a bundle, evaluated in NumPy by the reference implementation of ONNX."""

    def __init__(self, bundle: Bundle) -> None:
        """Open the body of a bundle; errors are those of `body_graph`."""
        from onnx.reference import ReferenceEvaluator

        self._evaluator: Any = ReferenceEvaluator(body_graph(bundle))

    def vertices_m(self, pose_rad: Array, betas: Array) -> Array:
        """Pose (N, 24, 3) axis-angle and shape (N, 10) to vertices (N, 6890, 3), metres, relative to the pelvis."""
        vertices_m = np.zeros((len(pose_rad), *LAYOUT["vertices_m"][0]), np.float32)
        for start in range(0, len(pose_rad), MAX_BATCH):
            chunk = slice(start, start + MAX_BATCH)
            feeds = {"pose": pose_rad[chunk].astype(np.float32), "betas": betas[chunk].astype(np.float32)}
            (vertices_m[chunk],) = self._evaluator.run(["vertices"], feeds)
        return vertices_m


def body_graph(bundle: Bundle) -> Any:
    """The part of a bundle's network, an `onnx.ModelProto`, that leads from `INPUTS` to `OUTPUTS`.

    Raises:
        BundleError: the file is missing, has changed, or was exported without a body.
    """
    path = bundle.file("mesh", NETWORK)
    return _body_of(read_onnx(path), path)


def _body_of(model: Any, path: Path) -> Any:
    import onnx.utils

    if not {*INPUTS, *OUTPUTS} <= {info.name for info in model.graph.output}:
        raise BundleError(f"{path}: exported with --no-body, it makes no meshes", "export it again without --no-body")
    try:
        body = onnx.utils.Extractor(model).extract_model(list(INPUTS), list(OUTPUTS))
    except (AssertionError, ValueError) as error:  # a tensor with two sources; sparse weights
        raise BundleError(f"{path}: its body cannot be taken out ({first_line(error)})", "export it again") from error
    read = {name for node in body.graph.node for name in node.input}
    if read.intersection(info.name for info in model.graph.input):
        raise BundleError(f"{path}: its body needs more than pose and shape", "export it again")
    return body
