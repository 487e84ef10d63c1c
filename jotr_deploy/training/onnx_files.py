"""Files of small networks: the weights that a run keeps, and the ONNX file made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from jotr_deploy.body.tensors import TORCH_FILES, read_tensors
from jotr_deploy.engines.fp16_weights import halve_weights
from jotr_deploy.export.to_onnx import forget_where_it_came_from, traced
from jotr_deploy.support.read_errors import read_errors
from jotr_deploy.support.writing import written_aside
from jotr_deploy.training.run_config import TrainingError


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the weights and running statistics of a network.

    Raises:
        OutputError: not writable.
    """
    with written_aside(path) as aside:
        torch.save({name: value.cpu() for name, value in network.state_dict().items()}, aside)


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill a network from a file of `save_weights`.

    Raises:
        TrainingError: no such file, damaged, or of another network.
    """
    what, remedy = f"the weights of a {type(network).__name__}", "give weights.pt of a run of its task"
    if not path.exists():
        raise TrainingError(f"{path}: no such file", "train first: jotr-deploy train CONFIG")
    with read_errors(path, TrainingError, what, remedy, TORCH_FILES):
        network.load_state_dict(read_tensors(path, TrainingError, what, remedy))


def export_network(
    network: nn.Module,
    exported: Callable[[Any], nn.Module],
    weights: Path,
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    """A checked ONNX model with dynamic batch, its weights stored as float16, without traces of this machine.

    Args:
        network: filled from `weights`.
        exported: what the file computes, around the network.
        weights: of `save_weights`.
        inputs: name and shape without the batch; float32.
        outputs: names.

    Raises:
        TrainingError: see `load_weights`.
    """
    load_weights(network, weights)
    example = tuple(torch.zeros(2, *shape) for shape in inputs.values())
    proto = traced(exported(network).eval(), example, list(inputs), outputs)
    forget_where_it_came_from(proto, type(network).__name__)
    halved = halve_weights(proto)
    onnx.checker.check_model(halved, full_check=True)
    return halved
