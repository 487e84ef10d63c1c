"""Trained features into a bundle: the extractor as an ONNX file that was proven equal to PyTorch, kernels and bank."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch

from jotr_deploy.body.smpl import BodyModel
from jotr_deploy.bundle import FIT_ROLES, Bundle, FileEntry, Licence, replace_files
from jotr_deploy.engines.fp16_weights import halve_weights
from jotr_deploy.errors import FitError, VerificationError
from jotr_deploy.export.to_onnx import forget_where_it_came_from, name_nodes, traced
from jotr_deploy.fitting.bank import save_bank
from jotr_deploy.fitting.bundle_fitter import body_of
from jotr_deploy.fitting.extractor import Extractor
from jotr_deploy.fitting.kernels import Kernels, fingerprint, save_kernels
from jotr_deploy.fitting.trained import Trained, load_trained
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.aliases import Array, Say
from jotr_deploy.support.precisions import Precision

FEATURES, KERNELS, BANK = "features.onnx", "kernels.npz", "bank.npz"
ASSET = "features"
"""Asset name of the licence."""
OWN_TERMS = "Apache-2.0, trained by jotr-deploy on its own synthetic scenes"
LEAST_COSINE = {Precision.FP32: 0.9999, Precision.FP16: 0.999}
"""Least cosine of a cell's feature in the file and in PyTorch, by precision of the weights."""
BATCHES = (1, 3)
_SAME_BODY_M = 1e-3


@dataclass(frozen=True)
class AddedFeatures:
    """Result of `add_features`."""

    bundle: Bundle
    least_cosine: float  # of any cell, against PyTorch
    size_bytes: int  # of the three files
    licence: Licence
    replaced: tuple[str, ...]  # files that were there before


def add_features(
    bundle: Bundle, weights: Path, halved: bool = False, clutter: int = 1, say: Say = lambda step: None
) -> AddedFeatures:
    """Put trained features into a bundle, in place of those that it had; all three files or none.

    Args:
        bundle: with the body that the features were trained with; see `bundle.to_write`.
        weights: of a run of the task `features`.
        halved: store the weights of the extractor as float16, for small networks.
        clutter: mean directions that the queue of clutter becomes; one, as published.
        say: see `Say`.

    Raises:
        FitError: no such weights, or trained with another body.
        BundleError: the bundle has no body.
        VerificationError: the file differs from PyTorch; the bundle is as it was.
    """
    trained = load_trained(weights)
    kernels = kernels_for(trained, body_of(bundle), weights)
    say("tracing the extractor")
    proto = extractor_onnx(trained.network)
    precision = Precision.FP16 if halved else Precision.FP32
    proto = halve_weights(proto) if halved else proto
    least: list[float] = []

    def extractor(path: Path) -> FileEntry:
        onnx.save(proto, path)
        say(f"comparing the extractor with PyTorch at batch {' and '.join(map(str, BATCHES))}")
        least.append(least_cosine(trained.network, proto))
        limit = LEAST_COSINE[precision]
        if not least[0] >= limit:  # NaN is not above it either
            raise VerificationError(
                f"{FEATURES}: a feature differs from PyTorch's (cosine {least[0]:.5f}, limit {limit})",
                "upgrade torch and onnxruntime; the bundle is as it was",
            )
        versions = {name: importlib.metadata.version(name) for name in ("jotr-deploy", "torch", "onnx", "onnxscript")}
        recipe = {"weights": "float16"} if halved else {}
        return FileEntry(
            role="features", name="", sha256="", precision=Precision.FP32, backend="onnx", recipe=recipe,
            batch="dynamic", built_with=versions,
        )  # fmt: skip

    def plain(role: str, save: partial[None], path: Path) -> FileEntry:
        save(path=path)
        return FileEntry(role=role, name="", sha256="")  # type: ignore[arg-type]

    save_all = {
        KERNELS: partial(plain, "kernels", partial(save_kernels, kernels)),
        BANK: partial(plain, "bank", partial(save_bank, trained.features(clutter), trained.precision)),
    }
    old = tuple(entry.name for entry in bundle.manifest.files if entry.role in FIT_ROLES)
    licence = licence_of(trained.origin)
    others = [known for known in bundle.manifest.licences if known.asset != ASSET]
    new = replace_files(bundle, {FEATURES: extractor, **save_all}, old, [*others, licence])
    size = sum(new.place(name).stat().st_size for name in (FEATURES, KERNELS, BANK))
    return AddedFeatures(new, least[0], size, licence, old)


def kernels_for(trained: Trained, body: BodyModel, weights: Path) -> Kernels:
    """The kernels of trained features as those of a body in whose file numbers may be rounded.

    Raises:
        FitError: trained with another body.
    """
    there = body.v_template[trained.kernels.indices]
    apart = np.linalg.norm(there - trained.rest_m, axis=1).max()
    if apart > _SAME_BODY_M:
        raise FitError(
            f"{weights}: trained with another body than the bundle's ({1000 * apart:.0f} mm apart at rest)",
            "train features with the bundle's body, or export the bundle with that of the features: --body FILE",
        )
    return replace(trained.kernels, body=fingerprint(body))


def extractor_onnx(network: Extractor) -> onnx.ModelProto:
    """An extractor as a checked ONNX model, `image` -> `features`, any batch, without traces of this machine."""
    side = network.config.side
    proto = traced(network.eval(), (torch.zeros(2, 3, side, side),), ("image",), ("features",))
    name_nodes(proto.graph)
    forget_where_it_came_from(proto, "features")
    onnx.checker.check_model(proto, full_check=True)
    return proto


def least_cosine(network: Extractor, proto: onnx.ModelProto) -> float:
    """The smallest cosine of any cell's feature in an ONNX model and in PyTorch, on random crops."""
    least = []
    with tempfile.TemporaryDirectory(prefix="jotr-deploy-features-") as folder:
        onnx.save(proto, Path(folder) / FEATURES)
        with open_session(Path(folder) / FEATURES, backend="onnxruntime", device="cpu") as session:
            for batch in BATCHES:
                image = _crops(batch, network.config.side)
                with torch.inference_mode():
                    expected = network(torch.from_numpy(image)).numpy()
                found = session({"image": image})["features"]
                least.append(float((expected * found).sum(1).min()) if found.shape == expected.shape else 0.0)
    return min(least) if np.isfinite(least).all() else float("nan")


def _crops(count: int, side: int) -> Array:
    """Coarse noise: crops that excite more than white noise does."""
    coarse = np.random.default_rng(count).random((count, 3, side // 8, side // 8), np.float32)
    return np.repeat(np.repeat(coarse, 8, 2), 8, 3)


def licence_of(origin: Sequence[str]) -> Licence:
    """The licence of features that this data and these weights went into."""
    if not origin:
        return Licence(asset=ASSET, terms=OWN_TERMS, redistributable=True)
    return Licence(asset=ASSET, terms=f"those of {', '.join(origin)}, and of the body", redistributable=False)
