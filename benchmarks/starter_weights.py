"""Trainable weights of the starter bundle's detector or pose network, which ship as fused files only.

    python benchmarks/starter_weights.py detector -o runs/detector_longest/weights.pt

The export folds batch norms into convolutions. Training needs them again, with the statistics of their inputs: these
are measured on samples of the task, and each norm gets the factor and shift that leave the output unchanged. Prints
the distance of the output from the file's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from jotr_deploy.bundle import open_bundle
from jotr_deploy.engines.fp16_weights import widen_weights
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.training.tasks import Task, detector_task, pose_task
from jotr_deploy.training.tiny_pose import Heights

SEED, BATCH, BATCHES = 99, 32, 8


def stored(path: Path) -> dict[str, Tensor]:
    """Constants of a file by their names in the network."""
    initializers = widen_weights(onnx.load(path)).graph.initializer
    return {t.name.removeprefix("network."): torch.from_numpy(numpy_helper.to_array(t).copy()) for t in initializers}


def folded(network: nn.Module, constants: dict[str, Tensor]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Fill a network from a file; returns the pairs whose norm now only adds the bias of the fused convolution."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if name in constants:
            tensor.copy_(constants[name])
    pairs = []
    for name, module in network.named_modules():
        bias = constants.get(f"{name}.weight_bias")
        if isinstance(module, nn.Conv2d) and bias is not None:
            parent, _, own = name.rpartition(".")
            norm = network.get_submodule(f"{parent}.{'norm' if own == 'second' else '1'}")
            assert isinstance(norm, nn.BatchNorm2d)
            norm.running_mean.zero_()  # type: ignore[union-attr]
            norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
            norm.weight.fill_(1)
            norm.bias.copy_(bias)
            pairs.append((module, norm))
    return pairs


def measure(
    network: Callable[[Any], Any], batches: Sequence[Any], pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]]
) -> None:
    """Give every norm the statistics of its convolution, and the factor and shift that undo them."""
    sums: dict[nn.Module, Tensor] = {}

    def add(module: nn.Module, _: Any, output: Tensor) -> None:
        values = output.double()
        sums[module] = sums.get(module, 0) + torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))])

    hooks = [convolution.register_forward_hook(add) for convolution, _ in pairs]
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        mean, square = sums[convolution] / len(batches)
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(square - mean.square())  # type: ignore[union-attr]
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())  # type: ignore[operator]
        norm.bias.add_(mean.float())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["detector", "pose"])
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    path = open_bundle(Path("starter")).file(arguments.role)
    task: Task = (
        detector_task.make(detector_task.Options(), SEED)
        if arguments.role == "detector"
        else pose_task.make(pose_task.Options(), SEED)
    )
    network = task.model.eval().requires_grad_(False)
    pairs = folded(network, stored(path))
    samples = [task.samples(range(k * BATCH, (k + 1) * BATCH))["image"] for k in range(BATCHES)]
    images = [torch.from_numpy(each) for each in samples]
    inputs = [each.float() if arguments.role == "detector" else pose_task.normalised(each) for each in images]
    measure(network, inputs, pairs)
    found = [network(inputs[0])[..., :4]] if arguments.role == "detector" else list(Heights(network)(inputs[0]))
    with open_session(path, "onnxruntime", "cpu") as session:
        expected = session({next(iter(session.inputs)): inputs[0].contiguous().numpy()})
    gaps = [
        np.abs(own.numpy() - other[..., : own.shape[-1]]).max()
        for own, other in zip(found, expected.values(), strict=True)
    ]
    print(f"largest difference from {path.name}: {max(gaps):.1e}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    task.save(arguments.output)


if __name__ == "__main__":
    main()
