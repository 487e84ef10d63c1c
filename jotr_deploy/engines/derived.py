"""Files that are made from others of a bundle: where they come from, and whether they are near enough to keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jotr_deploy.bundle import Bundle
from jotr_deploy.engines.verify import Difference, measure, require, require_as_good
from jotr_deploy.errors import BundleError
from jotr_deploy.runtime.sessions import open_session

MESH, INT8 = "mesh.onnx", "mesh.int8.onnx"


def calibrated(bundle: Bundle) -> Path:
    """The portable int8 file of a bundle.

    Raises:
        BundleError: it was never calibrated, or the file is not intact.
    """
    if not any(entry.name == INT8 for entry in bundle.manifest.files):
        raise BundleError(
            f"{bundle.path}: no network in it is calibrated", f"jotr-deploy calibrate {bundle.path} --synthetic 256"
        )
    return bundle.file("mesh", INT8)


def measured(
    bundle: Bundle, path: Path, precision: str, batches: Sequence[int], what: str, device: str = "cpu"
) -> list[Difference]:
    """A derived file or engine against the bundle's network in ONNX Runtime, within its limits.

    Raises:
        VerificationError: above the limits; an int8 form: clearly further away than the calibrated file.
    """
    config = bundle.manifest.model
    with open_session(bundle.file("mesh", MESH), device="cpu") as reference:
        with open_session(path, device=device) as found:
            rows = measure(reference, found, config, batches)
        if precision == "int8":
            with open_session(calibrated(bundle), device="cpu") as own:
                require_as_good(rows, measure(reference, own, config, batches), what)
        else:
            require(rows, precision, what)
    return rows
