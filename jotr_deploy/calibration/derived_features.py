"""Engine files derived from a bundle's feature extractor, kept only if features and fits stay the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from jotr_deploy.bundle import Bundle, FileEntry
from jotr_deploy.calibration.calibration_crops import BATCH, SEED
from jotr_deploy.calibration.eight_bit_formats import NARROW_INT8
from jotr_deploy.calibration.placement import Chosen
from jotr_deploy.calibration.quantize import quantize, sites
from jotr_deploy.calibration.ranges import collect
from jotr_deploy.engines.derived_files import Original
from jotr_deploy.engines.low_precision import Rule, to_low_precision
from jotr_deploy.engines.verify import Difference, require
from jotr_deploy.errors import BundleError, JotrDeployError, MissingDependency, VerificationError, install
from jotr_deploy.evaluation.held_out_scenes import SEED as HELD_OUT
from jotr_deploy.evaluation.held_out_scenes import held_out
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops, make_crops
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.choices import Backend, listed
from jotr_deploy.support.precisions import Precision

if TYPE_CHECKING:
    from jotr_deploy.fitting.bundle_fitter import BundleFitter

CROPS = 64
"""Crops of drawn people that ranges are calibrated on."""
TYPES: Mapping[str, Rule] = {"": "low", "last": "full"}
"""Types by scope, see `low_precision.SCOPES`: features are made unit vectors in float32."""
EIGHT_BIT_COSINE = 0.99
"""Smallest mean cosine allowed between eight-bit features and the original's."""
FIT_MM, SLACK = 4.0, 2.0
"""Largest mean distance of fitted vertices, mm: the budget of `calibrate`, and this factor times what rounding does."""
PRECISIONS: Mapping[Backend, tuple[Precision, ...]] = {
    "tensorrt": (Precision.FP16, Precision.FP32, Precision.INT8),
    "onnxruntime": (Precision.FP16, Precision.INT8),
    "openvino": (Precision.BF16, Precision.INT8),
}
_AS_IT_IS = "nothing was kept; use features.onnx, or give another --precision"


@dataclass(frozen=True)
class Drawn:
    """Drawn people as a fit takes them."""

    crops: Crops  # at the extractor's resolution
    people: People  # as the mesh network gives them
    inside: Array  # (N, cells, cells) bool


class FeatureNetwork(Original):
    """Bundle's feature extractor; a file is compared cell by cell, and by what a fit makes of its features."""

    role = "features"

    def entry(self, bundle: Bundle, precision: Precision) -> FileEntry:
        """Original from `add`, which is listed before the files derived from it."""
        return bundle.entry("features")

    def load(self, bundle: Bundle, precision: Precision) -> onnx.ModelProto:
        """Model; for eight bits with Q/DQ pairs around all convolutions but the last, calibrated on drawn people."""
        model = super().load(bundle, precision)
        return in_eight_bits(model, bundle) if precision.calibrated else model

    def typed(self, model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
        """Model of a lower precision."""
        return to_low_precision(model, precision, TYPES)

    def refuse(self, backend: Backend, precision: Precision, plugin: str | None = None) -> None:
        """Refuse a plugin, and precisions that the backend has no use for."""
        if plugin not in (None, "none"):
            raise JotrDeployError(
                f"--plugin {plugin}: the extractor has no sampling operator to replace", "leave --plugin out"
            )
        if precision not in PRECISIONS[backend]:
            raise JotrDeployError(
                f"--precision {precision}: not for an extractor in {backend}",
                f"give --precision {listed(PRECISIONS[backend])}",
            )
        if importlib.util.find_spec("torch") is None:
            raise MissingDependency("a file of the extractor is verified by a fit, which needs torch", install("fit"))

    def measured(
        self,
        bundle: Bundle,
        path: Path,
        precision: Precision,
        batches: Sequence[int],
        what: str,
        backend: str = "auto",
        device: str = "cpu",
    ) -> list[Difference]:
        """Differences per batch of drawn people: cosines of the cells' features, distances of the fitted vertices."""
        from jotr_deploy.fitting.bundle_fitter import BundleFitter
        from jotr_deploy.fitting.options import preset

        options, own = preset("default"), self.entry(bundle, precision).name
        with BundleFitter(bundle, options, "cpu", file=own, backend="onnxruntime") as reference:
            drawn = drawn_people(bundle, reference, max(batches))
            image = np.asarray(drawn.crops.image)
            with BundleFitter(bundle, options, device, file=path, backend=backend) as made:
                if (made.side, made.channels) != (reference.side, reference.channels):
                    raise VerificationError(f"{what}: its crop or its features have another size", _AS_IT_IS)
                seen = {batch: (reference.seen(image[:batch]), made.seen(image[:batch])) for batch in batches}
            rows = [_apart(batch, *both) for batch, both in seen.items()]
            _require_features(rows, precision, what)
            fits = _drift_mm(reference, drawn, *seen[max(batches)])
        for batch in batches:
            rows += [Difference(name, batch, *_figures(apart[:batch])) for name, apart in fits.items()]
        _require_fits(rows, what)
        return rows


def drawn_people(bundle: Bundle, fitter: BundleFitter, count: int, seed: int = HELD_OUT) -> Drawn:
    """The first people of held-out scenes, through the mesh network of the bundle."""
    from jotr_deploy.fitting.fitter import cells_inside

    factor = bundle.manifest.model.crop_factor
    index, crops = 0, list[Crops]()
    people, inside = list[People](), list[Array]()
    with open_session(bundle.file("mesh"), "onnxruntime", "cpu") as session:
        mesh = MeshNetwork(session)
        while sum(len(some) for some in people) < count:
            scene = held_out(seed, index, factor)
            given, index = scene.given[np.flatnonzero(scene.counted)], index + 1
            size_px = (scene.image_bgr.shape[1], scene.image_bgr.shape[0])
            people.append(mesh(make_crops(scene.image_bgr, given, mesh.crop_side), given))
            crops.append(make_crops(scene.image_bgr, given, fitter.side))
            inside.append(cells_inside(given.boxes_px, size_px, fitter.cells))
    joined = (np.concatenate([np.asarray(getattr(each, name)) for each in crops])[:count] for name in _PARTS)
    return Drawn(Crops(*joined), People.concatenate(people)[:count], np.concatenate(inside)[:count])


_PARTS = ("image", "joints", "joints_mask", "boxes_px")


def in_eight_bits(model: onnx.ModelProto, bundle: Bundle) -> onnx.ModelProto:
    """Copy with symmetric Q/DQ pairs, as `calibrate` makes them of the mesh network."""
    nodes = {"extractor": eight_bit_nodes(model)}
    side = model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    image = _calibration_images(bundle, side)
    feeds = [{"image": image[start : start + BATCH]} for start in range(0, len(image), BATCH)]
    histograms = collect(model, sites(model, nodes=nodes).tensors, feeds)
    largest = {name: histogram.range_by("mse") for name, histogram in histograms.items()}
    return quantize(model, largest, list(nodes), NARROW_INT8, nodes)  # for every CPU at little cost


def eight_bit_nodes(model: onnx.ModelProto) -> Chosen:
    """Convolutions and sums that are quantised: all but the last, whose outputs are the features.

    Raises:
        BundleError: no convolution has stored weights.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    weighted = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in weights and not node.name.startswith("last/")
    ]
    sums = [node for node in model.graph.node if node.op_type == "Add" and weights.isdisjoint(node.input)]
    if not weighted:
        raise BundleError("no convolution of the extractor can be quantised", _AS_IT_IS)
    return Chosen(tuple(weighted), tuple(sums))


def _calibration_images(bundle: Bundle, side: int) -> Array:
    """(N, 3, side, side) crops of drawn people, of scenes that are neither trained nor measured on."""
    parts, index = list[Array](), 0
    while sum(len(some) for some in parts) < CROPS:
        scene = held_out(SEED, index, bundle.manifest.model.crop_factor)
        parts.append(np.asarray(make_crops(scene.image_bgr, scene.given[np.flatnonzero(scene.counted)], side).image))
        index += 1
    return np.concatenate(parts)[:CROPS]


def _apart(batch: int, expected: Array, found: Array) -> Difference:
    """Distance of the features of every cell, one minus their cosine."""
    return Difference("features", batch, *_figures(1 - (expected.astype(np.float64) * found).sum(1)))


def _figures(values: Array) -> tuple[float, float, bool]:
    return float(values.max()), float(values.mean()), bool(np.isfinite(values).all())


def _drift_mm(fitter: BundleFitter, drawn: Drawn, expected: Array, found: Array) -> dict[str, Array]:
    """(N, V) distance of vertices after a fit to the features of a file, and to the original's rounded to float16.

    A fit takes a hundred steps, between kernels that are chosen anew in each: where features leave a pose open, their
    last digits decide it.
    """
    rounded = expected.astype(np.float16).astype(np.float32)
    fits = [fitter(drawn.crops, drawn.people, drawn.inside, seen=seen).people for seen in (expected, found, rounded)]
    own, *others = (fit.vertices_m for fit in fits)
    apart = [1000 * np.linalg.norm(other - own, axis=-1) for other in others]
    return dict(zip(("fit", "fit, rounding"), apart, strict=True))


def _require_features(rows: Sequence[Difference], precision: Precision, what: str) -> None:
    """Refuse features that are further from the original's than the precision allows, before a fit to them."""
    if not precision.calibrated:
        try:
            require(rows, precision, what)
        except VerificationError as error:
            raise VerificationError(error.cause, _AS_IT_IS) from None
    for row in rows:
        if not row.mean <= 1 - EIGHT_BIT_COSINE:  # NaN is not below it either
            raise VerificationError(
                f"{what}: the mean cosine to the original's features is {1 - row.mean:.4f} at batch {row.batch}, "
                f"limit {EIGHT_BIT_COSINE}", _AS_IT_IS,
            )  # fmt: skip


def _require_fits(rows: Sequence[Difference], what: str) -> None:
    """Refuse a file whose features change the fits of all the people by clearly more than rounding errors do."""
    most = max(row.batch for row in rows)
    mean = {row.output: row.mean for row in rows if row.batch == most}
    limit = FIT_MM + SLACK * mean["fit, rounding"]
    if not mean["fit"] <= limit:
        raise VerificationError(
            f"{what}: fits of {most} people differ by {mean['fit']:.2f} mm (mean), limit {limit:.2f} mm", _AS_IT_IS
        )
