"""The task `jotr`: the published training, on data sets that the user has, with SMPL and VPoser (docs/training.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from jotr_deploy.body.joint_regression import JointsBody
from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import BodyModel, load_body, load_head_top, official_file
from jotr_deploy.config import ModelConfig
from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.datasets.published.pictures import read_picture
from jotr_deploy.datasets.published.sets import SETS, Recipe, read_set
from jotr_deploy.evaluation.measured_joints import load_h36m_regressor
from jotr_deploy.model.checkpoint import save_checkpoint
from jotr_deploy.skeletons import H36M14_IN_H36M17, JOTR15_IN_SMPL30
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.choices import SPLITS
from jotr_deploy.training.backbone_weights import load_backbone
from jotr_deploy.training.contrastive import contrast
from jotr_deploy.training.held_out import HeldOut
from jotr_deploy.training.held_out_people import JOINTS, joint_errors
from jotr_deploy.training.losses import Found, Truth, mesh_losses, nearer_turn
from jotr_deploy.training.parallel import gathered, processes
from jotr_deploy.training.published.fitted_bodies import FittedBodies
from jotr_deploy.training.published.held_out_set import held_out_set
from jotr_deploy.training.published.published_samples import AnnotatedSamples
from jotr_deploy.training.published.sample_order import AnnotatedPeople
from jotr_deploy.training.run_config import Evaluation, TrainingError
from jotr_deploy.training.tasks.mesh_task import MeshModel, start_network

SPLIT = "train"
TRAINED_ON = tuple(name for name, known in SETS.items() if SPLIT in known.splits)
_UNKNOWN_TO_FITS = (7, 8, 10, 11, 20, 21, 22, 23)  # ankles, toes, wrists, hands: fits to joints do not know their turns


class Options(BaseModel):
    """The table `[jotr]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    root: Path
    """Folder that holds those of the data sets (docs/datasets.md)."""
    sets: Annotated[tuple[str, ...], Field(min_length=1)] = TRAINED_ON
    smpl: Path
    """SMPL file, or a folder with the neutral one under its official name."""
    prior: Path
    """VPoser v1.0: its folder, or one snapshot; it is not trained."""
    h36m_regressor: Path | None = None
    """`J_regressor_h36m_correct.npy`: fits to measured joints are compared by it; sets with depth need it."""
    extra_regressor: Path | None = None
    """`J_regressor_extra.npy`: the head top; without it one vertex."""
    recipe: Recipe = "paper"
    """"code" trains as the published code does where that differs from the paper or is mistaken (docs/training.md)."""
    model: ModelConfig = ModelConfig()
    start: Path | None = None
    """Checkpoint to start from, of this package or published; random weights without it."""
    backbone: Path | None = None
    """ResNet weights under torchvision's names for the start; not with `start`."""
    drop_joints: Annotated[float, Field(ge=0, le=1)] = 0.1
    intra: Annotated[float, Field(ge=0)]
    """Weight of the joint-to-joint contrastive loss; by default 0.01, and 0 in the recipe "code"."""
    inter: Annotated[float, Field(ge=0)]
    """Weight of the joint-to-non-joint contrastive loss; likewise."""
    freeze_bn: bool = False
    """Leave the running statistics of batch norms as they are, and use them."""

    @model_validator(mode="before")
    @classmethod
    def _weights_of_recipe(cls, given: dict[str, Any]) -> dict[str, Any]:
        weight = 0.0 if given.get("recipe") == "code" else 0.01
        return {"intra": weight, "inter": weight, **given}


class JotrTask:
    """The task `jotr`; see `tasks.Task`."""

    def __init__(
        self, model: MeshModel, options: Options, seed: int, epoch: int,
        samples: Callable[[Sequence[int]], dict[str, Array]],
    ) -> None:  # fmt: skip
        self.model, self.options, self.seed, self.epoch, self.draw = model, options, seed, epoch, samples

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """Samples of `training.published.published_samples.AnnotatedSamples.sample`."""
        return self.draw(indices)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The automatically weighted losses, and both contrastive ones where they are wanted; `epoch` counts them."""
        image = batch["image"].float() / 255
        found, volume, _ = self.model(image, batch["joints"], batch["joints_mask"])
        with torch.autocast(image.device.type, enabled=False):
            truth = truth_of(batch, found, self.options.recipe)
            parts = mesh_losses(found, truth)
            total = self.model.weighting(parts)
            parts["l1"] = torch.stack(list(parts.values())).sum().detach()
            if self.options.intra or self.options.inter:
                parts["intra"], parts["inter"] = self._contrast(step, volume, found, truth)
                total = total + self.options.intra * parts["intra"] + self.options.inter * parts["inter"]
        parts["epoch"] = total.new_tensor((step + 1) * len(image) * processes() / self.epoch)
        return total, parts

    def _contrast(self, step: int, volume: Tensor, found: Found, truth: Truth) -> tuple[Tensor, Tensor]:
        """Both contrastive losses over the samples of all processes whose depths are measured; zero without any."""
        as_code = self.options.recipe == "code"
        volume, predicted, true, known, is_3d = (
            gathered(each, own_only=as_code)
            for each in (volume, found.joints_img, truth.joints_img, truth.joints_img_known, truth.is_3d)
        )
        chosen = is_3d > 0
        if not chosen.any():
            return 0 * volume.sum(), 0 * volume.sum()
        rng = np.random.default_rng((self.seed, step))  # equal in all processes
        return contrast(rng, volume[chosen], predicted[chosen], true[chosen], known[chosen], published=as_code)

    def held_out(self, wanted: Evaluation) -> HeldOut:
        """MPJPE and PA-MPJPE of people of a set that is not trained on, as the published evaluation measures them."""
        options, name, split = self.options, wanted.set or "3dpw", wanted.split or "validation"
        if name in options.sets:
            raise TrainingError(f"evaluation.set: {name} is trained on", f"give one of {', '.join(SPLITS)}")
        if options.h36m_regressor is None or not options.smpl.is_dir():
            missing = "h36m_regressor" if options.h36m_regressor is None else "smpl"
            raise TrainingError(
                f"evaluation: jotr.{missing} is not what true bodies of {name} need",
                "give the published J_regressor_h36m_correct.npy, and the folder with SMPL's three files",
            )
        regressor = load_h36m_regressor(options.h36m_regressor)
        people = held_out_set(name, split, options.root, options.smpl, regressor, options.model, wanted.samples)
        rows = torch.from_numpy(regressor.rows.astype(np.float32))
        joints = JointsBody(SkinnedBody(_neutral_body(options)), rows)
        return HeldOut(JOINTS, len(people), people, partial(self._measure, joints), joint_errors)

    def _measure(self, joints: JointsBody, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found, *_ = self.model(batch["image"], batch["joints"], batch["joints_mask"])
        joints_m = joints.to(found.pose.device)(found.pose, found.betas)
        return {"found_m": (joints_m - joints_m[:, :1])[:, list(H36M14_IN_H36M17)], "true_m": batch["true_m"]}

    def save(self, path: Path) -> None:
        """A checkpoint of this package with the pose prior and without a body, for `jotr-deploy export --body`."""
        sets = ", ".join(SETS[name].title for name in self.options.sets)
        save_checkpoint(path, self.model.network, (f"trained on {sets}",))


def truth_of(batch: dict[str, Tensor], found: Found, recipe: Recipe = "paper") -> Truth:
    """A batch of `AnnotatedSamples` as the losses take it."""
    joints, known, chosen = batch["joints_img"], batch["joints_known"], list(JOTR15_IN_SMPL30)
    pose_known = torch.ones_like(batch["pose"][..., 0])
    pose_known[:, list(_UNKNOWN_TO_FITS)] = 0
    pose = batch["pose"] if recipe == "code" else nearer_turn(batch["pose"], found.pose)
    return Truth(
        joints[:, chosen], known[:, chosen], batch["fit_img"], batch["fit_known"], pose, pose_known, batch["betas"],
        joints[..., :2], known, batch["joints_cam"], batch["joints_cam_known"], batch["is_fit"], batch["is_3d"],
    )  # fmt: skip


def make(options: Options, seed: int) -> JotrTask:
    """The task on the data sets; order of people, crops, errors and start weights are of `seed`.

    Raises:
        DatasetError: a set that is not known, not there, or damaged; its first picture is looked at.
        BodyFileError: no SMPL, VPoser or regressor of that name, or not in its format.
        CheckpointError, TrainingError: start weights that do not fit; options that do not go together.
    """
    _require_sense(options)
    body = _neutral_body(options)
    network = start_network(options.model, options.prior, options.start, seed)
    if options.backbone is not None:
        load_backbone(network.backbone, options.backbone)
    regressor = None if options.h36m_regressor is None else load_h36m_regressor(options.h36m_regressor).rows
    sets = [read_set(name, options.root, SPLIT, options.recipe) for name in options.sets]
    people = AnnotatedPeople(sets, seed)
    for read in sets:
        _require_picture(read)
    samples = AnnotatedSamples(
        people,
        FittedBodies(body, regressor),
        seed,
        options.model.crop_side,
        options.model.crop_factor,
        options.drop_joints,
    )
    return JotrTask(MeshModel(network, body, options.freeze_bn), options, seed, people.epoch, samples)


def _neutral_body(options: Options) -> BodyModel:
    head_top = None if options.extra_regressor is None else load_head_top(options.extra_regressor)
    path = official_file(options.smpl, "neutral") if options.smpl.is_dir() else options.smpl
    return load_body(path, head_top)


def _require_picture(people: Sequence[Annotation]) -> None:
    """Read one picture now: labels without pictures should not end a run that has begun."""
    if len(people):
        read_picture(people[0])


def _require_sense(options: Options) -> None:
    if options.start is not None and options.backbone is not None:
        raise TrainingError("jotr.backbone: the checkpoint to start from has a backbone", "give start or backbone")
    with_depth = [name for name in options.sets if name in SETS and SETS[name].is_3d]
    if with_depth and options.h36m_regressor is None:
        raise TrainingError(
            f"jotr.h36m_regressor: not given, and the fits of {', '.join(with_depth)} are checked by it",
            "give the published J_regressor_h36m_correct.npy, or take sets without depth",
        )
