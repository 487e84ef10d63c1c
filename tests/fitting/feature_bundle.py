"""Bundles with features, without a training: those of `toy_scene`, and an extractor of random weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import toy_scene
from toy_scene import CHANNELS, KERNELS, SIDE

from jotr_deploy.body.smpl import stand_in
from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.export.features import add_features
from jotr_deploy.fitting.extractor import STRIDE, Extractor, ExtractorConfig
from jotr_deploy.fitting.trained import Trained, save_trained

SMALL = ExtractorConfig(
    side=SIDE * STRIDE, depth=10, width=4, bottom=8, ups=((8, 8), (8, 8), (8, 8)), channels=CHANNELS
)


def trained(**changes: Any) -> Trained:
    """Features as a training leaves them."""
    torch.manual_seed(0)
    look = toy_scene.features()
    rest_m = stand_in().v_template[toy_scene.kernels().indices].astype(np.float32)
    clutter = look.clutter.repeat(4, 1)
    precision = float(toy_scene.volume().rest_precision)
    made = Trained(Extractor(SMALL).eval(), look.kernels, clutter, toy_scene.kernels(), rest_m, precision, ())
    assert len(look.kernels) == KERNELS
    return replace(made, **changes)


def write_weights(folder: Path, **changes: Any) -> Path:
    """weights.pt of them."""
    save_trained(trained(**changes), folder / "weights.pt")
    return folder / "weights.pt"


def feature_bundle(tiny_bundle: Path, folder: Path, **changes: Any) -> Bundle:
    """A copy of a bundle in a folder, with features."""
    shutil.copytree(tiny_bundle, folder / "bundle")
    return add_features(open_bundle(folder / "bundle"), write_weights(folder, **changes)).bundle
