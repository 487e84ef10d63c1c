"""`calibrate`: makes an 8-bit copy of a bundle's network whose drift stays within a budget of millimetres."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import onnx

from jotr_deploy.bundle import Bundle, Error, FileEntry, replace_file
from jotr_deploy.calibration.calibration_crops import ENOUGH, CropSet
from jotr_deploy.calibration.eight_bit_formats import CODES, NARROW_INT8
from jotr_deploy.calibration.quantize import sites
from jotr_deploy.calibration.ranges import BINS, Histogram, collect
from jotr_deploy.calibration.sensitivity import DriftMeter, Search, placed, search
from jotr_deploy.engines.derived_files import MESH, calibrated
from jotr_deploy.engines.fp16_weights import widen_weights
from jotr_deploy.errors import BundleError, JotrDeployError, OutputError
from jotr_deploy.evaluation.metrics import distances_mm
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.aliases import Array, Progress
from jotr_deploy.support.cache import user_cache
from jotr_deploy.support.choices import CalibrationMethod
from jotr_deploy.support.precisions import Precision
from jotr_deploy.support.read_errors import read_onnx
from jotr_deploy.support.writing import folder_made, output_errors, written_aside

LEAST = 8
"""Fewest crops; with fewer, none would be held out to measure drift."""


@dataclass(frozen=True)
class Calibrated:
    """Result of `calibrate`."""

    bundle: Bundle
    precision: Precision
    search: Search
    crops: int  # that the ranges come from
    held_out: int  # that the drift was measured on
    size_bytes: int
    float_bytes: int  # of the fp32 file


def calibrate(
    bundle: Bundle,
    crops: CropSet,
    method: CalibrationMethod = "mse",
    budget_mm: float = 4.0,
    precision: Precision | str = Precision.INT8,
    progress: Progress = lambda step, done, total: None,
    blocks: Collection[str] | None = None,
    weight_bits: int = 8,
) -> Calibrated:
    """Write `mesh.int8.onnx`, or `mesh.fp8.onnx`, into a bundle; equal crops and options give equal bytes.

    Ranges come from three of four crops, the drift is measured on the fourth. With `blocks`, exactly these are
    quantised, and the budget is ignored. With `weight_bits` 7, CPUs without VNNI run the int8 network on integer
    kernels; codes of activations keep 8 bits.

    Raises:
        BundleError: no intact fp32 network, one without a body, or one that is quantised already.
        JotrDeployError: too few crops, a method that the precision lacks, or a budget that no block fits into.
        VerificationError: an output is not finite.
    """
    precision = Precision.of(precision)
    codes, name = NARROW_INT8 if weight_bits == 7 else CODES[precision], precision.file()
    if weight_bits not in ((7, 8) if precision is Precision.INT8 else (8,)):
        raise JotrDeployError(
            f"--weight-bits {weight_bits} with --precision {precision}", "give 7 or 8 with int8; leave it out with fp8"
        )
    if method == "entropy" and not codes.whole:
        raise JotrDeployError(
            f"--method entropy: it counts the equal steps of integers, {precision} has others", "use mse"
        )
    if len(crops) < LEAST:
        raise JotrDeployError(f"{crops.what}: {len(crops)} crops are too few", f"give {ENOUGH} or more")
    if len(crops) < ENOUGH:
        logging.getLogger("jotr_deploy").warning(
            "%s: only %d crops; with fewer than %d the ranges may be too narrow", crops.what, len(crops), ENOUGH
        )
    source = bundle.file("mesh", MESH)
    model = widen_weights(read_onnx(source))
    if "vertices" not in {value.name for value in model.graph.output}:
        raise BundleError(
            f"{source}: exported with --no-body, no drift can be measured", "export it again without --no-body"
        )
    used, held = crops.split()
    wanted = sites(model).tensors
    key = f"{bundle.entry('mesh', MESH).sha256[:16]}-{crops.sha256[:16]}"
    histograms = _cached(key, wanted, lambda: collect(model, wanted, crops.batches(used), progress))
    largest = {name: histogram.range_by(method, codes) for name, histogram in histograms.items()}
    meter = DriftMeter(model, crops.batches(held))
    if blocks is None:
        quantized, found = search(model, largest, meter, budget_mm, codes, progress)
    else:
        quantized, found = placed(model, largest, meter, blocks, codes, progress)
    recipe = {
        "sampling": bundle.entry("mesh", MESH).recipe.get("sampling"),
        "method": method,
        "weight_bits": weight_bits,
        "budget_mm": budget_mm if blocks is None else None,
        "crops": {"what": crops.what, "used": len(used), "held_out": len(held), "sha256": crops.sha256},
        "drift_mm": _rounded(found.drift_mm),
        "blocks": [{**asdict(block), "alone_mm": _rounded(block.alone_mm)} for block in found.blocks],
    }

    def write(path: Path) -> FileEntry:
        onnx.save(quantized, path)
        return FileEntry(
            role="mesh", name=name, sha256="", precision=precision, backend="onnx", recipe=recipe, batch="dynamic",
            error_mm=_vertices_error(source, path, crops.batches(held)),
        )  # fmt: skip

    written = replace_file(bundle, name, write)
    sizes = [(bundle.path / file).stat().st_size for file in (name, MESH)]
    return Calibrated(written, precision, found, len(used), len(held), *sizes)


def blocks_of(bundle: Bundle, precision: Precision | str = Precision.INT8) -> tuple[str, ...]:
    """Blocks of a calibrated bundle that are in eight bits.

    Raises:
        BundleError: it was never calibrated for that, the file is not intact, or its blocks are not recorded.
    """
    precision = Precision.of(precision)
    calibrated(bundle, precision)
    entry = bundle.entry("mesh", precision.file())
    try:
        blocks = tuple(str(block["name"]) for block in entry.recipe["blocks"] if block["bits"] == 8)
    except (KeyError, TypeError):
        blocks = ()
    if not blocks:
        raise BundleError(
            f"{bundle.path}: its manifest names no block of {entry.name} that is in eight bits",
            f"jotr-deploy calibrate {bundle.path} --synthetic 256",
        )
    return blocks


def _vertices_error(source: Path, path: Path, batches: list[dict[str, Array]]) -> Error:
    expected, found = (open_session(network, "onnxruntime", "cpu") for network in (source, path))
    with expected, found:
        gaps = [distances_mm(found(feeds)["vertices"], expected(feeds)["vertices"]) for feeds in batches]
    gap = np.concatenate(gaps)
    return Error(mean=_rounded(float(gap.mean())), max=_rounded(float(gap.max())))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _cached(key: str, tensors: tuple[str, ...], make: Callable[[], Mapping[str, Histogram]]) -> Mapping[str, Histogram]:
    """Histograms of a network over a set of crops, from the cache if there is one.

    A damaged or mismatched file is made anew.
    """
    try:
        path = user_cache() / "calibration" / f"{key}.npz"
    except RuntimeError:  # a user without a home
        return make()
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, largest, counts = (stored[name] for name in ("tensors", "largest", "counts"))
        if tuple(names) == tensors and counts.shape == (len(tensors), BINS) and largest.shape == (len(tensors),):
            return {name: Histogram(float(e), c) for name, e, c in zip(tensors, largest, counts, strict=True)}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass
    found = make()
    arrays: dict[str, Any] = {
        "tensors": np.array(tensors),
        "largest": np.array([found[name].largest for name in tensors]),
        "counts": np.array([found[name].counts for name in tensors]),
    }
    with (
        suppress(OutputError),
        output_errors(path),
        folder_made(path.parent),
        written_aside(path) as aside,
        aside.open("wb") as file,
    ):
        np.savez_compressed(file, **arrays)
    return found
