"""The body alone, out of a bundle's network, in an inference engine: who changes a pose needs its mesh again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.body.exported import body_graph
from jotr_deploy.bundle import Bundle
from jotr_deploy.people import LAYOUT
from jotr_deploy.runtime.sessions import Session, open_session

Array = NDArray[Any]


class Body:
    """A body as a function; a context manager that frees its session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __call__(self, pose_rad: Array, betas: Array) -> tuple[Array, Array]:
        """Pose (N, 24, 3) axis-angle and shape (N, 10) to vertices (N, 6890, 3) and the 30-joint set (N, 30, 3).

        Metres, camera axes, relative to the pelvis, float32: as `People` has them. N may be 0.
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
        self.session.close()


def open_body(bundle: Bundle, threads: int | None = None) -> Body:
    """The body inside a bundle's `mesh.onnx`, on the CPU, whatever file of the bundle recovers the people.

    Raises:
        BundleError: the file is missing, has changed, or was exported without a body.
        MissingDependency: no engine that opens ONNX files is installed.
    """
    import onnx

    graph = body_graph(bundle)
    with tempfile.TemporaryDirectory(prefix="jotr-deploy-body-") as folder:  # engines read it when they open it
        alone = Path(folder) / "body.onnx"
        onnx.save(graph, alone)
        return Body(open_session(alone, device="cpu", threads=threads))
