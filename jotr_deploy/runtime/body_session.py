"""The body model alone, cut out of a bundle's network: code that changes a pose needs the new mesh."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jotr_deploy.body import exported
from jotr_deploy.body.exported import NETWORK, body_graph
from jotr_deploy.bundle import Bundle, sha256_of
from jotr_deploy.people import LAYOUT
from jotr_deploy.runtime.sessions import Opener, Session, open_for
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.cache import kept_arrays

STORED_HALVED = ".float16"
"""Suffix of the name of a weight that is stored as float16 and computed with as float32."""
_GRAPH = "graph"


class Body:
    """A body as a function; a context manager that frees its session.

    `weights` are the arrays of the graph by name, float32 even if stored as float16.
    """

    def __init__(self, session: Session, weights: Mapping[str, Array] | None = None) -> None:
        self.session = session
        self.weights = weights or {}

    def __call__(self, pose_rad: Array, betas: Array) -> tuple[Array, Array]:
        """Pose (N, 24, 3) axis-angle and shape (N, 10) to vertices (N, 6890, 3) and the 30-joint set (N, 30, 3).

        Metres, camera axes, relative to the pelvis, float32, as in `People`. N may be 0.
        """
        if not len(pose_rad):
            return (
                np.zeros((0, *LAYOUT["vertices_m"][0]), np.float32),
                np.zeros((0, *LAYOUT["joints_m"][0]), np.float32),
            )
        out = self.session({"pose": pose_rad.astype(np.float32), "betas": betas.astype(np.float32)})
        return out["vertices"], out["joints3d"]

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the session."""
        self.session.close()


def open_body(bundle: Bundle, threads: int | None = None, opener: Opener = open_for) -> Body:
    """Open the body inside a bundle's `mesh.onnx` on the CPU, whichever file of the bundle recovers the people.

    Cut out once, it is kept in the user's cache: the package `onnx`, which cuts, takes longer to import than the rest.

    Raises:
        BundleError: the file is missing, has changed, or was exported without a body.
        MissingDependency: no engine for ONNX files is installed.
    """
    bundle.file("mesh", NETWORK)  # from here on its hash stands for its content
    code = [sha256_of(Path(module)) for module in (__file__, exported.__file__)]
    source = " ".join([bundle.entry("mesh", NETWORK).sha256, *code])
    kept = kept_arrays("bodies", source, lambda: _cut_out(bundle))
    graph = kept.pop(_GRAPH)
    with tempfile.TemporaryDirectory(prefix="jotr-deploy-body-") as folder:  # engines read the file when they open it
        alone = Path(folder) / "body.onnx"
        alone.write_bytes(graph.tobytes())
        return Body(opener("body", alone, "cpu", threads), kept)


def _cut_out(bundle: Bundle) -> dict[str, Array]:
    """The graph of the body, its bytes under `_GRAPH`, and its weights."""
    graph = body_graph(bundle)
    return {_GRAPH: np.frombuffer(graph.SerializeToString(), np.uint8), **weights_of(graph)}


def weights_of(model: Any) -> dict[str, Array]:
    """The arrays of the body in a graph, by their names in the network."""
    from onnx import numpy_helper

    named = (each for each in model.graph.initializer if each.name.startswith("body."))
    return {each.name.removesuffix(STORED_HALVED): np.float32(numpy_helper.to_array(each)) for each in named}
