"""Make the stand-in body: a person in SMPL's format and shapes, drawn from numbers invented here, free of licences.

    python scripts/make_stand_in_body.py [--output PATH]

Needs numpy, scipy and scikit-image; takes about a minute; the same bytes every time on one machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from stand_in_body.mesh import extract_half, simplify
from stand_in_body.relax import Body, complete, relax
from stand_in_body.rig import joint_regressor, shape_directions, skinning_weights, soft_parts
from stand_in_body.shape import PARENTS, Array, rest_joints

PACKAGE_FILE = Path(__file__).resolve().parent.parent / "jotr_deploy" / "body" / "stand_in.npz"
VERTICES = 6890
POINT_STEP_M, DIRECTION_STEP_M = 2.0**-15, 2.0**-14  # round numbers compress well; both are under 0.1 mm


def rounded(values: Array, step: float) -> Array:
    """The nearest multiples of `step`."""
    return np.round(values / step) * step


def body_arrays() -> dict[str, Array]:
    """Every array of the file, by its SMPL name."""
    whole = complete(relax(simplify(extract_half(), VERTICES)))
    body = Body(rounded(whole.points, POINT_STEP_M), whole.faces, whole.mirror)
    joints = rest_joints()
    soft = soft_parts(body, joints)
    directions = shape_directions(body, soft_parts(body, joints, widen=1.8), joints)
    arrays = {
        "v_template": body.points.astype(np.float32),
        "f": body.faces.astype(np.uint16),
        "weights": skinning_weights(soft).astype(np.float16),
        "J_regressor": joint_regressor(body, soft, joints).astype(np.float32),
        "kintree_table": np.array([PARENTS, range(24)], np.int64),
        "shapedirs": rounded(directions, DIRECTION_STEP_M).astype(np.float16),
    }
    # Column after column, the mirrored halves follow each other closely enough for the compressor to see it.
    by_column = {name: np.asfortranarray(array) for name, array in arrays.items()}
    return by_column | {"kind": np.array("stand-in body, licence-free")}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the licence-free stand-in body (SMPL format).")
    parser.add_argument("--output", type=Path, default=PACKAGE_FILE, help="the .npz file to write")
    output = parser.parse_args().output
    arrays: dict[str, Any] = body_arrays()
    aside = output.with_name(output.name + ".part")
    try:
        with aside.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        aside.replace(output)
    finally:
        aside.unlink(missing_ok=True)
    height = np.ptp(arrays["v_template"][:, 1])
    counts = f"{len(arrays['v_template'])} vertices, {len(arrays['f'])} faces"
    print(f"{output}: {counts}, {height:.3f} m tall, {output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
