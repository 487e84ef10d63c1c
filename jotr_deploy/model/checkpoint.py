"""Checkpoints: the published `.pth.tar` layouts and our own, read without running anything from the file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from jotr_deploy.body.smpl import BodyModel, body_from_arrays
from jotr_deploy.body.tensors import TORCH_FILES, read_tensors
from jotr_deploy.body.vposer import VPoserDecoder
from jotr_deploy.config import ModelConfig, first_fault
from jotr_deploy.errors import UPGRADE, CheckpointError, first_line, one_line
from jotr_deploy.model.jotr import JOTR
from jotr_deploy.support.file_kinds import describe_file
from jotr_deploy.support.read_errors import read_errors, shortened
from jotr_deploy.support.writing import written_aside

FORMAT = "jotr-deploy/1"

# published prefix -> ours; the first that fits wins.
_PREFIXES = (
    ("pose2feat.conv.", "backbone.heatmap_fusion."),
    ("backbone.", "backbone."),
    ("conv2d_to_3d.", "lifting.to_3d."),
    ("conv_3d_coord.0.", "lifting.mix."),
    ("exponent", "lifting.exponent"),
    ("pos_embed_1d.pos_table", "lifting.position"),
    ("refine_3d.", "lifting.encoder."),
    ("down_linear.", "fusion.down."),
    ("transformer.smpl_tgt", "fusion.smpl_target"),
    ("transformer.kp_tgt", "fusion.joint_target"),
    ("transformer.encoder.", "fusion.encoder."),
    ("transformer.decoder.", "fusion.decoder."),
    ("query.weight", "fusion.joint_query"),
    ("spose_shape_cam_param", "fusion.smpl_query"),
    ("cascade_root_pose_out.", "heads.root."),
    ("cascade_pose_out.", "heads.latent."),
    ("cascade_shaoe_out.", "heads.betas."),  # the published spelling
    ("cascade_cam_out.", "heads.cam."),
    ("vposer.vposer.", "vposer."),
)
_WRAPPERS = ("module.", "model.", "network.", "_orig_mod.")
_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_HOLDERS = ("network", "state_dict", "model_state_dict", "model")  # of a state dict; the first is the published one
_UNUSED = ("vposer.bodyprior_enc_",)  # the encoder of the pose prior plays no part in inference
_BODY_PREFIX = "human_model_layer.th_"
_REMEDY = "give a JOTR .pth.tar as published, or a checkpoint written by this package"


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a checkpoint file, under this package's names."""

    path: Path
    sha256: str
    config: ModelConfig
    weights: dict[str, Tensor]  # network and, where present, pose prior
    body: BodyModel | None  # the body stored with it
    published: bool
    labels: tuple[str, ...] = ()  # what must be said of every result, such as "untrained: pose is meaningless"

    @property
    def has_vposer(self) -> bool:
        """True if the file holds the pose prior's decoder."""
        return any(name.startswith("vposer.") for name in self.weights)


def our_name(published: str) -> str | None:
    """Our name of a published state-dict entry (without `module.`); None when there is none."""
    for theirs, ours in _PREFIXES:
        if published.startswith(theirs):
            return ours + published[len(theirs) :]
    return None


def load_checkpoint(path: Path, head_top: Any = None) -> Checkpoint:
    """Read a published training snapshot, a released bare state dict, or our own checkpoint.

    Args:
        path: the file.
        head_top: (6890,) regressor row of the head top for a body found in the file.

    Raises:
        CheckpointError: missing, truncated, not a checkpoint, or holding pickled code.
    """
    if not path.is_file():
        kind = describe_file(path)
        what = "no such checkpoint" if kind == "no file at all" else f"not a checkpoint: it is {kind}"
        raise CheckpointError(f"{path}: {what}", _REMEDY)
    content = read_tensors(path, CheckpointError, "a checkpoint", _REMEDY)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if isinstance(content, Mapping) and "format" in content:
        return _ours(path, digest, content, head_top)
    found = [content[key] for key in _HOLDERS if key in content] if isinstance(content, Mapping) else []
    others = content.values() if isinstance(content, Mapping) else ()  # such as the mean of the weights (EMA)
    state = next((each for each in (*found, content, *others) if _is_state(each)), None)
    if state is None:
        keys = list(content) if isinstance(content, Mapping) else []
        holds = f" but {_some([shortened(repr(key)) for key in keys])}" if keys else ""
        raise CheckpointError(f"{path}: not a JOTR checkpoint: it holds no dictionary of tensors{holds}", _REMEDY)
    state = _without_wrappers(state)
    with read_errors(path, CheckpointError, "a JOTR checkpoint", _REMEDY, TORCH_FILES):
        body = _published_body(state, path, head_top)
    weights = {our_name(name) or name: value for name, value in state.items() if not name.startswith(_BODY_PREFIX)}
    return Checkpoint(path, digest, ModelConfig(), weights, body, published=True)


def build_model(checkpoint: Checkpoint, body: BodyModel | None, vposer: VPoserDecoder | None = None) -> JOTR:
    """The network of a checkpoint, in evaluation mode.

    Args:
        checkpoint: as loaded.
        body: the body to use, or None for a network without one.
        vposer: replaces the pose prior of the checkpoint.

    Raises:
        CheckpointError: any key missing, unexpected or misshapen (all are named), of another type, or not finite.
    """
    with torch.device("meta"):  # without memory: the weights in the file say whether such a network is wanted
        expected = JOTR(checkpoint.config, None).state_dict()
    weights = {k: v for k, v in checkpoint.weights.items() if not k.startswith(_UNUSED)}
    if vposer is not None:
        weights = {k: v for k, v in weights.items() if not k.startswith("vposer.")}
        weights |= {f"vposer.{k}": v for k, v in vposer.state_dict().items()}
    _require_fit(checkpoint.path, weights, expected)
    model = JOTR(checkpoint.config, body)
    model.load_state_dict(weights, strict=False)
    return model.eval().requires_grad_(False)


def _without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what wrapping modules put before every name, such as `module.` once or twice."""
    names = list(state)
    while wrapper := next((each for each in _WRAPPERS if all(name.startswith(each) for name in names)), None):
        names = [name.removeprefix(wrapper) for name in names]
    return {name.removeprefix("module."): value for name, value in zip(names, state.values(), strict=True)}


def _require_fit(path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    complaints = {
        "missing": [k for k in expected if k not in weights],
        "unexpected": [k for k in weights if k not in expected],
        "misshapen": [
            f"{k} {tuple(weights[k].shape)} instead of {tuple(expected[k].shape)}"
            for k in expected
            if k in weights and weights[k].shape != expected[k].shape
        ],
        "of another type": [
            f"{k} {str(weights[k].dtype).removeprefix('torch.')}"
            for k in expected
            if k in weights and expected[k].is_floating_point() != (weights[k].dtype in _NUMBERS)
        ],
    }
    if len(complaints["missing"]) > len(expected) / 2:
        what, remedy = _other_network(weights)
        raise CheckpointError(
            f"{path}: holds the weights of {what}: of the {len(expected)} weights of JOTR {len(complaints['missing'])} "
            f"are missing, and it has {_some(complaints['unexpected'])}",
            remedy,
        )
    if any(complaints.values()):
        text = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in complaints.items() if names)
        only_vposer = all(name.startswith("vposer.") for name in complaints["missing"]) and not any(
            names for kind, names in complaints.items() if kind != "missing"
        )
        remedy = "give the pose prior with --vposer DIR" if only_vposer else _REMEDY
        raise CheckpointError(f"{path}: the checkpoint does not fit the network ({text})", remedy)
    spoilt = [k for k in expected if not torch.isfinite(weights[k]).all()]
    if spoilt:
        raise CheckpointError(
            f"{path}: {len(spoilt)} weights hold NaN or infinity: {_some(spoilt)}",
            "the training diverged or the file is damaged: give an earlier snapshot",
        )


def save_checkpoint(path: Path, model: JOTR, labels: tuple[str, ...] = ()) -> None:
    """Write our own format: configuration, weights, labels; the body goes with it only when it is the stand-in.

    Raises:
        OutputError: not writable; nothing half-written is left.
    """
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("body.")}
    stand_in = model.body is not None and model.body.stand_in
    content = {
        "format": FORMAT,
        "config": model.config.model_dump(),
        "weights": state,
        "stand_in_body": stand_in,
        "labels": list(labels),
    }
    with written_aside(path) as aside:
        torch.save(content, aside)


def _ours(path: Path, digest: str, content: Mapping[str, Any], head_top: Any) -> Checkpoint:
    from jotr_deploy.body.smpl import stand_in

    made_as = str(content["format"])
    if made_as.startswith("jotr-deploy-run/"):
        raise CheckpointError(f"{path}: the state of a training run", "give the weights.pt that the run ends with")
    if made_as != FORMAT:
        newer = made_as.startswith(FORMAT.partition("/")[0])
        raise CheckpointError(
            f"{path}: checkpoint format {shortened(made_as)!r}, this version reads {FORMAT!r}",
            UPGRADE if newer else _REMEDY,
        )
    try:
        config = ModelConfig.model_validate(content["config"])
        weights = dict(content["weights"])
        labels = tuple(one_line(str(label)) for label in content.get("labels", ()))
        if not _is_state(weights):
            raise TypeError("weights that are no dense tensors")
    except ValidationError as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({first_fault(error, 'config')})", _REMEDY) from error
    except KeyError as error:
        raise CheckpointError(f"{path}: damaged checkpoint (it lacks {error})", _REMEDY) from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({first_line(error)})", _REMEDY) from error
    body = stand_in() if content.get("stand_in_body") is True else None
    return Checkpoint(path, digest, config, weights, body, published=False, labels=labels)


def _is_state(content: Any) -> bool:
    """True for a state dict: text -> tensor, one at least, all with numbers that lie in memory as they are."""
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) for name in content)
        and all(
            isinstance(v, Tensor) and v.layout == torch.strided and not v.is_quantized and not v.is_meta
            for v in content.values()
        )
    )


def _other_network(weights: Mapping[str, Tensor]) -> tuple[str, str]:
    """Name of another network that the weights belong to, by their names, and what to do."""
    if any("bodyprior_dec_" in name for name in weights):
        return "VPoser", "give this file with --vposer, and as CHECKPOINT the .pth.tar of JOTR"
    if {"conv1.weight", "layer1.0.conv1.weight"} <= weights.keys():
        return "a ResNet alone", "give the .pth.tar of all of JOTR; a ResNet starts a training, as its option backbone"
    return "another network", _REMEDY


def _published_body(state: Mapping[str, Tensor], path: Path, head_top: Any) -> BodyModel | None:
    found = {
        k.removeprefix(_BODY_PREFIX): v.double().numpy() if v.is_floating_point() else v.numpy()
        for k, v in state.items()
        if k.startswith(_BODY_PREFIX)
    }
    if not found:
        return None
    from jotr_deploy.body.smpl import PARENTS

    arrays = {"f" if name == "faces" else name: value for name, value in found.items()}
    if "v_template" in arrays:
        arrays["v_template"] = arrays["v_template"].squeeze(0)
    return body_from_arrays({**arrays, "kintree_table": [PARENTS, range(len(PARENTS))]}, str(path), head_top=head_top)


def _some(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
