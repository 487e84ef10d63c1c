"""The task `features`: the extractor of the fit and its bank, on drawn scenes or on data sets (docs/fitting.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from jotr_deploy.body.smpl import BodyModel, load_body, load_head_top, official_file, stand_in
from jotr_deploy.config import ModelConfig
from jotr_deploy.datasets.published.pictures import read_picture
from jotr_deploy.datasets.published.sets import SETS, read_set
from jotr_deploy.evaluation.measured_joints import load_h36m_regressor
from jotr_deploy.fitting.bank import CLUTTER, MemoryBank
from jotr_deploy.fitting.extractor import Extractor, ExtractorConfig
from jotr_deploy.fitting.gaussian_precision import PRECISION
from jotr_deploy.fitting.kernel_selection import Reach, Selection, select
from jotr_deploy.fitting.kernels import KERNELS, Kernels, decimate
from jotr_deploy.fitting.orientation_bins import bins_of
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.rendering import slot_weights
from jotr_deploy.fitting.trained import Trained, load_trained, save_trained
from jotr_deploy.fitting.volume import BodyVolume
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.backbone_weights import load_backbone
from jotr_deploy.training.feature_losses import (
    background_cells,
    background_likeness,
    contrast,
    kernel_features,
    placed_kernels,
)
from jotr_deploy.training.feature_samples import USES, AnnotatedFeatureSamples, DrawnFeatureSamples
from jotr_deploy.training.held_norms import hold_norms
from jotr_deploy.training.held_out import Figure, HeldOut, drawn_count
from jotr_deploy.training.parallel import gathered
from jotr_deploy.training.published.fitted_bodies import FittedBodies
from jotr_deploy.training.published.published_samples import AnnotatedSamples
from jotr_deploy.training.published.sample_order import AnnotatedPeople
from jotr_deploy.training.run_config import Evaluation, TrainingError

SPLIT = "train"
FIGURES: Mapping[str, Figure] = {
    "within_10_cm": Figure("correspondences within 10 cm", "%", higher=True),
    "clutter": Figure("taken for clutter", "%"),
    "distance_mm": Figure("distance of the others", "mm on the body"),
}
BACKGROUND = 10
"""Cells of the background that each image gives to the clutter."""
_NEAR_CELLS = 2  # of a cell that shows the person: the edge of the body is neither body nor clutter


class PublishedData(BaseModel):
    """The table `[features.data]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path
    """Folder that holds the data sets (docs/datasets.md)."""
    sets: Annotated[tuple[str, ...], Field(min_length=1)]
    smpl: Path
    """SMPL file, or a folder with the neutral one under its official name."""
    h36m_regressor: Path | None = None
    """`J_regressor_h36m_correct.npy`: fits to measured joints are compared by it; sets with depth need it."""
    extra_regressor: Path | None = None
    """`J_regressor_extra.npy`: the head top; without it one vertex."""


class Options(BaseModel):
    """The table `[features]`; the defaults are published."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: PublishedData | None = None
    """Data sets; drawn scenes and the stand-in body without them."""
    network: ExtractorConfig = ExtractorConfig()
    crop_factor: Annotated[float, Field(ge=1, le=4)] = ModelConfig().crop_factor
    """Crop factor of the mesh network whose people are fitted: the extractor sees the same square."""
    start: Path | None = None
    """Weights of a run of this task to start from: extractor and bank."""
    backbone: Path | None = None
    """ResNet weights under torchvision's names for the start; not with `start`."""
    freeze_bn: bool = False
    """Leave the running statistics of batch norms as they are, and use them."""
    kernels: Annotated[int, Field(ge=9, le=6890)] = KERNELS
    bins: Annotated[int, Field(ge=1, le=16)] = 3
    """Orientation bins."""
    precision: Annotated[float, Field(gt=0)] = PRECISION
    """Precision of a kernel, 1 / m^2."""
    q_max: Annotated[float, Field(gt=0)] = 23.03
    """Largest distance of a ray's nearest kernel; see docs/fitting.md section 3."""
    clutter: Annotated[int, Field(ge=1)] = CLUTTER
    """Rows of clutter that are kept."""
    spread: bool = False
    """Start from a bank whose rows are alike where kernels are near each other (docs/fitting.md section 10)."""
    hold: Annotated[int, Field(ge=0)] = 0
    """Steps in which the kernels' rows stay as they start: features that are all alike would draw them together."""
    contrast: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the cross-entropy."""
    background: Annotated[float, Field(ge=0)] = 1.0
    """Weight of how like a body the background is."""
    patches: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of crops with a patch of some texture before them; published: none."""


class FeaturesModel(nn.Module):
    """Extractor, bank, and the volume that says which cell shows what."""

    neighbours: Tensor

    def __init__(self, options: Options, body: BodyModel, kernels: Kernels, seed: int) -> None:
        super().__init__()
        network = options.network
        self.extractor, self.freeze_bn = Extractor(network), options.freeze_bn
        self.bank = MemoryBank(len(kernels), options.bins, network.channels, options.clutter, seed)
        self.volume = BodyVolume(body, kernels, options.precision)
        self.register_buffer("neighbours", torch.from_numpy(kernels.neighbours()), persistent=False)

    def train(self, mode: bool = True) -> FeaturesModel:
        """The usual, but frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.freeze_bn:
            hold_norms(self)
        return self


class FeaturesTask:
    """The task `features`; see `tasks.Task`."""

    def __init__(
        self, model: FeaturesModel, options: Options, kernels: Kernels, rest_m: Array, origin: tuple[str, ...],
        samples: Callable[[Sequence[int]], dict[str, Array]], seed: int, epoch: int | None,
    ) -> None:  # fmt: skip
        self.model, self.options, self.draw, self.seed, self.epoch = model, options, samples, seed, epoch
        self._kernels, self._rest_m, self._origin = kernels, rest_m, origin

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """Samples of `feature_samples.DrawnFeatureSamples.sample`."""
        return self.draw(indices)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross-entropy and the likeness of the background, against the bank as it was; then the bank moves."""
        image = batch["image"].contiguous(memory_format=torch.channels_last).float() / 255
        features = self.model.extractor(image)
        with torch.autocast(image.device.type, enabled=False):
            return self._loss(features.float(), batch, step < self.options.hold)

    def _loss(self, features: Tensor, batch: dict[str, Tensor], held: bool) -> tuple[Tensor, dict[str, Tensor]]:
        model, bank = self.model, self.model.bank
        drawn, selection, bins = self._drawn(batch, features.shape[-1])
        found, seen = kernel_features(features, drawn, selection, model.volume.count)
        rows = bank.rows.clone()  # the bank moves before the gradient is taken
        known, unknown = rows.split([bank.kernels * bank.bins, bank.clutter])
        foreground = known.unflatten(0, (bank.bins, bank.kernels))
        _, kernel = seen.nonzero(as_tuple=True)
        contrasted = contrast(found[seen], kernel, bins[seen], foreground, unknown, model.neighbours)
        cells, counted = background_cells(self._background(selection, batch["shown"]), BACKGROUND)
        beside = features.flatten(2).transpose(1, 2).gather(1, cells[..., None].expand(-1, -1, features.shape[1]))
        likeness = background_likeness(beside.flatten(0, 1), counted.flatten(), foreground)
        with torch.no_grad():
            own = (found[seen] * foreground[bins[seen], kernel]).sum(-1)
            parts = {"contrast": contrasted, "background": likeness, "own_cosine": own.sum() / max(1, len(own))}
            parts["seen"] = seen.float().sum(1).mean()
        self._move(found.detach(), seen & (not held), bins, beside.detach(), counted)
        return self.options.contrast * contrasted + self.options.background * likeness, parts

    @torch.no_grad()
    def _drawn(self, batch: dict[str, Tensor], side: int) -> tuple[Tensor, Selection, Tensor]:
        """Weight of the nearest kernel of each cell, 0 where something hides it; the selection; (B, K) bins."""
        volume, camera = self.model.volume, GridCamera.of_crop(side)
        pose, betas, joints = (batch[name].double() for name in ("pose", "betas", "joints"))
        posed = volume(pose, betas)
        known, focal = batch["joints_known"].double(), batch["focal"].double()
        centres = placed_kernels(posed.centres_m, volume.joints(pose, betas), joints, known, focal, camera)
        reach = Reach(self.options.q_max, self.options.q_max, per_ray=1, only_masked=True)
        selection = select(centres, posed.precision, volume.lowest_precision, camera, reach)
        weights = slot_weights(centres, posed.precision, selection, 1.0, "peak").float()
        shown = batch["shown"].flatten(1)[selection.people, selection.cells]
        return weights * shown[:, None], selection, bins_of(posed.limb_directions, self.options.bins)[:, volume.limbs]

    @staticmethod
    def _background(selection: Selection, shown: Tensor) -> Tensor:
        """(B, P) bool: cells that the volume does not cover, or where what is near is not this person."""
        covered = torch.zeros_like(shown).flatten(1)
        covered[selection.people, selection.cells] = True
        near = F.max_pool2d(shown.float()[:, None], 2 * _NEAR_CELLS + 1, 1, _NEAR_CELLS).flatten(1) > 0
        return ~covered | ~near

    def _move(self, found: Tensor, seen: Tensor, bins: Tensor, beside: Tensor, counted: Tensor) -> None:
        """Move the bank by the samples of all processes."""
        found, seen, bins, beside, counted = map(gathered, (found, seen.float(), bins, beside, counted.float()))
        chosen = seen > 0
        self.model.bank.update(found[chosen], chosen.nonzero()[:, 1], bins[chosen])
        self.model.bank.push_clutter(beside[counted > 0])

    def held_out(self, wanted: Evaluation) -> HeldOut:
        """Correspondences on other drawn people: distance on the body of the kernel that a visible one is taken for."""
        options = self.options
        if options.data is not None:
            raise TrainingError(
                "evaluation: features of data sets are not evaluated during a run",
                "leave [evaluation] out, and measure the fits: jotr-deploy eval BUNDLE --fit default",
            )
        drawn = DrawnFeatureSamples(wanted.seed, options.network.side, options.crop_factor, patches=0.0)
        return HeldOut(FIGURES, drawn_count(wanted, self.seed), NewPeople(drawn), self._measure, _figures)

    def _measure(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"].contiguous(memory_format=torch.channels_last).float() / 255
        features, bank = self.model.extractor(image).float(), self.model.bank
        drawn, selection, _ = self._drawn(batch, features.shape[-1])
        found, seen = kernel_features(features, drawn, selection, self.model.volume.count)
        likeness = found @ bank.rows.T
        known = likeness[..., : bank.kernels * bank.bins].unflatten(-1, (bank.bins, bank.kernels)).amax(2)
        clutter = likeness[..., bank.kernels * bank.bins :].amax(-1)
        best, taken_for = known.max(-1)
        rest_m = torch.from_numpy(self._rest_m).to(best.device)
        distance_m = (rest_m[taken_for] - rest_m).norm(dim=-1)
        return {"distance_m": distance_m.masked_fill(clutter > best, torch.inf), "seen": seen}

    def save(self, path: Path) -> None:
        """Write what `jotr-deploy export --features` puts into a bundle."""
        bank = self.model.bank
        known, clutter = bank.rows.split([bank.kernels * bank.bins, bank.clutter])
        foreground = known.unflatten(0, (bank.bins, bank.kernels)).transpose(0, 1).contiguous()
        precision = float(self.options.precision)
        trained = Trained(
            self.model.extractor, foreground, clutter, self._kernels, self._rest_m, precision, self._origin
        )
        save_trained(trained, path)


@dataclass(frozen=True)
class NewPeople:
    """Drawn samples, each of another person."""

    drawn: DrawnFeatureSamples

    def __call__(self, indices: Sequence[int]) -> dict[str, Array]:
        """As from `DrawnFeatureSamples`."""
        return self.drawn([index * USES for index in indices])


def _figures(rows: dict[str, Array]) -> dict[str, float]:
    """Over the visible kernels of all people; those taken for clutter are infinitely far away."""
    distance_m = rows["distance_m"][rows["seen"]]
    if not len(distance_m):
        return dict.fromkeys(FIGURES, float("nan"))
    found_m = distance_m[np.isfinite(distance_m)]
    return {
        "within_10_cm": 100 * float((distance_m <= 0.1).mean()),
        "clutter": 100 * (1 - len(found_m) / len(distance_m)),
        "distance_mm": 1000 * float(found_m.mean(dtype=np.float64)) if len(found_m) else float("nan"),
    }


def make(options: Options, seed: int) -> FeaturesTask:
    """The task on drawn scenes of `seed`, or on data sets; start weights, order and crops are of the same seed.

    Raises:
        DatasetError: a set that is not known, not there, or damaged; its first picture is looked at.
        BodyFileError: no SMPL or regressor of that name, or not in its format.
        FitError, CheckpointError, TrainingError: start weights that do not fit; options that do not go together.
    """
    _require_sense(options)
    data, side = options.data, options.network.side
    body = stand_in() if data is None else _neutral_body(data)
    kernels = decimate(body, options.kernels)
    torch.manual_seed(seed)
    model = FeaturesModel(options, body, kernels, seed)
    origin = () if data is None else tuple(SETS[name].title for name in data.sets if name in SETS)
    rest_m = body.v_template[kernels.indices].astype(np.float32)
    if options.spread:
        model.bank.spread(torch.from_numpy(rest_m), torch.from_numpy(kernels.limbs), seed)
    if options.backbone is not None:
        load_backbone(model.extractor.backbone, options.backbone)
        origin += ("ResNet weights of others",)
    if options.start is not None:
        origin += _continue(model, options.start, kernels)
    model.extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    samples: Any
    epoch = None
    if data is None:
        samples = DrawnFeatureSamples(seed, side, options.crop_factor, options.patches)
    else:
        annotated = _annotated(data, body, seed, side, options.crop_factor)
        samples, epoch = AnnotatedFeatureSamples(annotated, options.patches), annotated.people.epoch
    return FeaturesTask(model, options, kernels, rest_m, tuple(dict.fromkeys(origin)), samples, seed, epoch)


def _annotated(data: PublishedData, body: BodyModel, seed: int, side: int, crop_factor: float) -> AnnotatedSamples:
    regressor = None if data.h36m_regressor is None else load_h36m_regressor(data.h36m_regressor).rows
    sets = [read_set(name, data.root, SPLIT) for name in data.sets]
    people = AnnotatedPeople(sets, seed)
    for read in sets:
        if len(read):
            read_picture(read[0])  # labels without pictures should not end a run that has begun
    return AnnotatedSamples(people, FittedBodies(body, regressor), seed, side, crop_factor, drop_joints=0.0)


def _neutral_body(data: PublishedData) -> BodyModel:
    head_top = None if data.extra_regressor is None else load_head_top(data.extra_regressor)
    path = official_file(data.smpl, "neutral") if data.smpl.is_dir() else data.smpl
    return load_body(path, head_top)


def _continue(model: FeaturesModel, start: Path, kernels: Kernels) -> tuple[str, ...]:
    """Fill a model from the weights of a run; where those come from."""
    trained, bank = load_trained(start), model.bank
    shape = (bank.kernels, bank.bins, bank.rows.shape[1])
    if trained.network.config != model.extractor.config or trained.foreground.shape != shape:
        raise TrainingError(f"{start}: features of another configuration", "write its options under [features]")
    if trained.kernels.body != kernels.body or len(trained.clutter) != bank.clutter:
        raise TrainingError(f"{start}: features of another body or another number of rows of clutter", "start anew")
    model.extractor.load_state_dict(trained.network.state_dict())
    model.extractor.requires_grad_(True)
    bank.rows.copy_(torch.cat([trained.foreground.transpose(0, 1).flatten(0, 1), trained.clutter]))
    return trained.origin


def _require_sense(options: Options) -> None:
    if options.start is not None and options.backbone is not None:
        raise TrainingError("features.backbone: the weights to start from have a backbone", "give start or backbone")
    data = options.data
    if data is not None and data.h36m_regressor is None:
        with_depth = [name for name in data.sets if name in SETS and SETS[name].is_3d]
        if with_depth:
            raise TrainingError(
                f"features.data.h36m_regressor: not given, and the fits of {', '.join(with_depth)} are checked by it",
                "give the published J_regressor_h36m_correct.npy, or take sets without depth",
            )
