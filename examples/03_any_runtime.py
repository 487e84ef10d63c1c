"""Example: the exported network without this package, in NumPy and ONNX Runtime only.

    python examples/03_any_runtime.py bundle

`mesh.onnx` contains everything: heat maps, network, pose prior, body. This script feeds one crop, projects the result
with the camera of the crop, and compares it with the projection that the network returns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime

NOSE, NOSE_VERTEX = 24, 331  # row of the 30-joint set, and its vertex


def project_cells(points_m: np.ndarray, crop_side: int) -> np.ndarray:
    """(..., 3) metres in the camera of the crop -> (..., 2) grid cells; a cell is four crop pixels."""
    focal_px = 5000 / 256 * crop_side
    return (points_m[..., :2] / points_m[..., 2:] * focal_px + crop_side / 2) / 4


def main() -> None:
    parser = argparse.ArgumentParser(description="Run mesh.onnx of a bundle in plain ONNX Runtime.")
    parser.add_argument("bundle", type=Path)
    network = parser.parse_args().bundle / "mesh.onnx"

    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    side = session.get_inputs()[0].shape[-1]
    random = np.random.default_rng(0)
    feeds = {
        "image": random.random((1, 3, side, side), np.float32),  # RGB in 0..1, not normalised further
        "joints": random.uniform(0, side / 4, (1, 30, 2)).astype(np.float32),  # x y in cells
        "joints_mask": np.ones((1, 30), np.float32),  # 1 = use this joint
    }
    names = [output.name for output in session.get_outputs()]
    out = dict(zip(names, session.run(names, feeds), strict=True))
    for name in names:
        print(f"{name:12s} {out[name].dtype} {out[name].shape}")

    mesh_m = out["vertices"] + out["translation"][:, None]  # in the camera of the crop
    joints_m = out["joints3d"] + out["translation"][:, None]
    gap = np.abs(project_cells(joints_m, side) - out["joints_proj"]).max()
    nose_gap = np.abs(project_cells(mesh_m[:, NOSE_VERTEX], side) - out["joints_proj"][:, NOSE]).max()
    print(f"camera and network agree within {max(gap, nose_gap):.1e} cells")
    if not max(gap, nose_gap) < 0.01:
        raise SystemExit("the projection of the mesh differs from the network's own")


if __name__ == "__main__":
    main()
