"""Files derived from others of a bundle: their sources, and the checks that decide whether they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from jotr_deploy.bundle import Bundle, FileEntry, replace_file
from jotr_deploy.engines.fp16_weights import widen_weights
from jotr_deploy.engines.verify import BATCHES, Difference, measure, require, require_as_good, vertices_error
from jotr_deploy.errors import BundleError
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.aliases import Say
from jotr_deploy.support.precisions import Precision
from jotr_deploy.support.read_errors import read_onnx

MESH = "mesh.onnx"


def calibrated(bundle: Bundle, precision: Precision) -> Path:
    """The portable eight-bit file of a bundle.

    Raises:
        BundleError: it was never calibrated, or the file is not intact.
    """
    name = precision.file()
    if not any(entry.name == name for entry in bundle.manifest.files):
        option = "" if precision is Precision.INT8 else f" --precision {precision}"
        raise BundleError(
            f"{bundle.path}: no network in it is calibrated for {precision}",
            f"jotr-deploy calibrate {bundle.path} --synthetic 256{option}",
        )
    return bundle.file("mesh", name)


def measured(
    bundle: Bundle,
    path: Path,
    precision: Precision,
    batches: Sequence[int],
    what: str,
    backend: str = "auto",
    device: str = "cpu",
) -> list[Difference]:
    """Differences, within limits, of a derived file in its own engine from the bundle's network in ONNX Runtime.

    Raises:
        VerificationError: above the limits; for eight bits, clearly further away than the calibrated file.
    """
    config = bundle.manifest.model
    with open_session(bundle.file("mesh", MESH), "onnxruntime", "cpu") as reference:
        with open_session(path, backend, device) as found:
            rows = measure(reference, found, config, batches)
        if precision.calibrated:
            with open_session(calibrated(bundle, precision), "onnxruntime", "cpu") as own:
                require_as_good(rows, measure(reference, own, config, batches), what)
        else:
            require(rows, precision, what)
    return rows


def source_of(bundle: Bundle, precision: Precision) -> Path:
    """Source of a file of this precision: the calibrated network for eight bits, otherwise the exported one.

    Raises:
        BundleError: it was never calibrated, or the file is not intact.
    """
    return calibrated(bundle, precision) if precision.calibrated else bundle.file("mesh", MESH)


def load_source(bundle: Bundle, precision: Precision) -> onnx.ModelProto:
    """`source_of`, with weights that are stored as float16 widened to float32.

    Raises:
        BundleError: as `source_of`.
    """
    return widen_weights(read_onnx(source_of(bundle, precision)))


def add_model(
    bundle: Bundle, name: str, model: onnx.ModelProto, precision: Precision, backend: str, say: Say
) -> tuple[Bundle, list[Difference]]:
    """Add an ONNX file made from `source_of(precision)` to the bundle, verified in the engine that will run it.

    Returns:
        The bundle as it now is, and every output's difference.

    Raises:
        VerificationError: see `measured`; nothing is kept.
    """
    differences: list[Difference] = []

    def write(path: Path) -> FileEntry:
        onnx.save(model, path)
        say(f"comparing with {MESH} at batch {', '.join(map(str, BATCHES))}")
        differences.extend(measured(bundle, path, precision, BATCHES, name, backend))
        source = bundle.entry("mesh", source_of(bundle, precision).name)
        return FileEntry(
            role="mesh",
            name=name,
            sha256="",
            precision=precision,
            backend="onnx" if backend == "onnxruntime" else backend,
            recipe=source.recipe,
            batch="dynamic",
            error_mm=source.error_mm if precision.calibrated else vertices_error(differences),
        )

    return replace_file(bundle, name, write), differences
