"""The published network's vectors (`tests/golden`): weights by formula, inputs, expected outputs."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tiny import TINY

from jotr_deploy.body.smpl import BodyModel, body_from_arrays
from jotr_deploy.config import ModelConfig
from jotr_deploy.model.checkpoint import Checkpoint, build_model, our_name
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import JOTR

SEED = "jotr-golden-A/"
GOLDEN = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("standin", GOLDEN / "standin.py")
assert _spec is not None
assert _spec.loader is not None
standin = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(standin)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}


@cache
def state_dict_keys() -> list[dict]:
    return json.loads((GOLDEN / "state_dict_keys.json").read_text())["entries"]


@cache
@torch.inference_mode(False)  # whichever test asks first, the tensors must also serve the ones that train
def published_state(seed: str) -> dict[str, torch.Tensor]:
    """The 538 entries of a published checkpoint, without `module.`."""
    arrays = standin.standin_body(seed)
    state = {}
    for entry in state_dict_keys():
        key, shape = entry["key"], entry["shape"]
        if key == "human_model_layer.th_betas":
            value = np.zeros(shape, np.float32)
        elif key.startswith("human_model_layer.th_"):
            value = arrays[key.removeprefix("human_model_layer.th_")].reshape(shape)
            value = value.astype(np.int64 if key.endswith("faces") else np.float32)
        elif key == "pos_embed_1d.pos_table":
            value = sinusoid(*shape)
        else:
            value = standin.net_tensor(seed, key, shape)
            value = value.astype(np.float32) if value.dtype == np.float64 else value
        state[key] = torch.from_numpy(np.ascontiguousarray(value).reshape(shape))
    return state


def sinusoid(tokens: int, width: int) -> np.ndarray:
    index = np.arange(width)
    angle = np.arange(tokens)[:, None] / np.power(10000, 2 * (index // 2) / width)
    return np.where(index % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


@cache
@torch.inference_mode(False)
def body(seed: str) -> BodyModel:
    arrays = standin.standin_body(seed)
    tree = np.array([arrays["kintree_parents"], np.arange(24)])
    head_top = arrays["J_regressor_extra"][3].astype(np.float32)
    return body_from_arrays({**arrays, "f": arrays["faces"], "kintree_table": tree}, "formula", head_top=head_top)


@cache
@torch.inference_mode(False)
def network(seed: str) -> JOTR:
    weights = {our_name(k): v for k, v in published_state(seed).items() if not k.startswith("human_model_layer.")}
    return build_model(Checkpoint(Path("formula"), "", ModelConfig(), weights, None, True), body(seed))


def tiny_golden() -> JOTR:
    """A small network with the body by formula, which has pose directions: no part of the body is left out."""
    return initialise(JOTR(TINY, body(SEED)))


def case(name: str) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray], dict]:
    """Inputs, recorded arrays and meta data of a forward case."""
    recorded = load(name)
    meta = json.loads(str(recorded["meta_json"]))
    inputs = standin.case_inputs(meta["seed"] + meta["case"], meta["B"], meta["lo"], meta["hi"], meta["p_visible"])
    for row in meta.get("zero_mask_rows", []):
        inputs["joints_mask"][row] = 0
    for row in meta.get("black_image_rows", []):
        inputs["img"][row] = 0
    return {k: torch.from_numpy(v) for k, v in inputs.items()}, recorded, meta
