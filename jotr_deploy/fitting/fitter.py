"""The fit behind a bundle's mesh stage: crops and people in, people and what is known of the fit out.

This module itself needs no PyTorch, so that it can be said where it is missing.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jotr_deploy.bundle import FEATURES_AGAIN, FIT_ROLES, Bundle
from jotr_deploy.errors import BundleError, MissingDependency, install
from jotr_deploy.geometry.crop import PX_PER_CELL, image_from_crop, transform_px
from jotr_deploy.support.aliases import Array

if TYPE_CHECKING:
    from jotr_deploy.fitting.bundle_fitter import BundleFitter


def open_fitter(
    bundle: Bundle,
    preset: str = "default",
    device: str = "auto",
    threads: int | None = None,
    file: str | None = None,
    vposer: Path | None = None,
) -> BundleFitter:
    """The fit of a bundle that has features, as a context manager.

    Args:
        bundle: with a body, an extractor, kernels and a bank.
        preset: see `fitting.options.PRESETS`.
        device: "auto", "cpu" or "cuda", of the extractor and of the fit.
        threads: processor cores for both; if not given, all for the extractor and one for the fit.
        file: extractor of the bundle, such as "features.int8.onnxruntime.onnx"; by default the one that suits this
            machine, as for detectors.
        vposer: VPoser v1.0 folder or snapshot; the pose is fitted in its latent then.

    Raises:
        MissingDependency: PyTorch is not installed.
        BundleError: the bundle has no features or no body; a file is missing or has changed.
        FitError: kernels, bank, extractor and body do not belong together.
        BodyFileError: not a VPoser v1.0 decoder.
        JotrDeployError: no such preset.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingDependency("the fit needs torch", install("fit"))
    missing = [role for role in FIT_ROLES if not bundle.has(role)]
    if missing:
        raise BundleError(f"{bundle.path}: no fit is possible, the bundle has no {missing[0]} file", FEATURES_AGAIN)
    from jotr_deploy.fitting.bundle_fitter import BundleFitter
    from jotr_deploy.fitting.options import preset as options

    return BundleFitter(bundle, options(preset), device, threads, file, vposer=vposer)


def cells_inside(boxes_px: Array, image_size_px: tuple[int, int], cells: int) -> Array:
    """Cells of the feature grids of crops that lie in the picture: (N, 4) square boxes -> (N, cells, cells) bool."""
    last = cells * PX_PER_CELL
    rows, columns = np.mgrid[0:last:PX_PER_CELL, 0:last:PX_PER_CELL]
    points = np.stack([columns.ravel(), rows.ravel()], -1).astype(np.float64)
    placed = transform_px(image_from_crop(boxes_px, last), points[None])
    low, high = -0.5, np.asarray(image_size_px) - 0.5
    return np.asarray(((placed >= low) & (placed < high)).all(-1).reshape(len(boxes_px), cells, cells))
