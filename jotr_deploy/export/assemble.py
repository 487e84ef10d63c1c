"""Assembly of one network from checkpoint, body and pose prior, with the licences that come with them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import HEAD_TOP_VERTEX, BodyModel, load_body, load_head_top, stand_in
from jotr_deploy.body.vposer import load_vposer
from jotr_deploy.bundle import STAND_IN_LABEL, Licence
from jotr_deploy.config import ModelConfig
from jotr_deploy.errors import CheckpointError
from jotr_deploy.model.checkpoint import Checkpoint, build_model, load_checkpoint
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import JOTR
from jotr_deploy.support.aliases import Array

SMPL = Licence(
    asset="SMPL body model",
    terms="non-commercial research, https://smpl.is.tue.mpg.de/modellicense.html",
    redistributable=False,
)
VPOSER = Licence(
    asset="VPoser v1.0 pose prior",
    terms="non-commercial research, https://smpl-x.is.tue.mpg.de/modellicense.html",
    redistributable=False,
)
WEIGHTS = Licence(
    asset="trained network weights",
    terms="those of the checkpoint's authors and of its training data",
    redistributable=False,
)
STAND_IN_BODY = Licence(asset="stand-in body", terms="Apache-2.0, part of jotr-deploy", redistributable=True)
UNTRAINED_LABEL = "untrained: pose is meaningless"
STAND_IN_WORD = "stand-in"
"""Value of `--body` for the body inside this package."""


@dataclass(frozen=True)
class Loaded:
    """Network ready to export, with its labels and licences."""

    model: JOTR
    source_sha256: str
    labels: tuple[str, ...]
    licences: tuple[Licence, ...]
    notes: tuple[str, ...]
    faces: Array | None  # (13776, 3) int32


def load_stand_in(config: ModelConfig | None = None, seed: int = 0, with_body: bool = True) -> Loaded:
    """Network with deterministic random weights and the stand-in body: everything runs, but poses are meaningless."""
    config = config or ModelConfig()
    body = stand_in() if with_body else None
    model = initialise(JOTR(config, body), seed).requires_grad_(False)
    digest = hashlib.sha256(f"stand-in {seed} {config.model_dump_json()}".encode()).hexdigest()
    labels = (UNTRAINED_LABEL, STAND_IN_LABEL) if body else (UNTRAINED_LABEL,)
    return Loaded(model, digest, labels, _body_licences(body), (), None if body is None else body.faces)


def load_network(
    checkpoint: Path,
    body: Path | None = None,
    extra_regressor: Path | None = None,
    vposer: Path | None = None,
    with_body: bool = True,
) -> Loaded:
    """Network of a checkpoint, with the body and pose prior that the user names or those in the checkpoint.

    Args:
        checkpoint: published or our own.
        body: SMPL file or folder, or the word `stand-in`; wins over the checkpoint's body.
        extra_regressor: published `J_regressor_extra.npy`, for the head top.
        vposer: VPoser v1 folder or snapshot; wins over the checkpoint's pose prior.
        with_body: False leaves the body out.

    Raises:
        CheckpointError: see `load_checkpoint` and `build_model`.
        BodyFileError: see `load_body`, `load_head_top` and `load_vposer`.
    """
    head_top = None if extra_regressor is None else load_head_top(extra_regressor)
    loaded = load_checkpoint(checkpoint, head_top)
    prior = None if vposer is None else load_vposer(vposer)
    model = build_model(loaded, None, prior)  # before the body: weights of another network are the graver mistake
    chosen = _choose_body(loaded, body, head_top) if with_body else None
    model.body = None if chosen is None else SkinnedBody(chosen).eval()
    notes = []
    if chosen is not None and chosen.stand_in == (head_top is not None):
        reason = "--extra-regressor belongs to SMPL" if chosen.stand_in else "no --extra-regressor given"
        notes.append(f"head top: vertex {HEAD_TOP_VERTEX} ({reason})")
    untrained = UNTRAINED_LABEL in loaded.labels
    licences = [*(() if untrained else (WEIGHTS,)), *_body_licences(chosen)]
    if loaded.published or prior is not None:
        licences.append(VPOSER)
    labels = (*loaded.labels, STAND_IN_LABEL) if chosen is not None and chosen.stand_in else loaded.labels
    faces = None if chosen is None else chosen.faces
    return Loaded(model, loaded.sha256, labels, tuple(licences), tuple(notes), faces)


def _choose_body(checkpoint: Checkpoint, body: Path | None, head_top: Array | None) -> BodyModel:
    if body is not None:
        return stand_in() if str(body) == STAND_IN_WORD else load_body(body, head_top)
    if checkpoint.body is None:
        raise CheckpointError(
            f"{checkpoint.path}: the checkpoint holds no body model",
            "give one with --body FILE (or --body stand-in), or leave it out with --no-body",
        )
    return checkpoint.body


def _body_licences(body: BodyModel | None) -> tuple[Licence, ...]:
    if body is None:
        return ()
    return (STAND_IN_BODY,) if body.stand_in else (SMPL,)
