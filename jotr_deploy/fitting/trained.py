"""Trained features in a file: the extractor, its bank, and the kernels that the bank belongs to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.body.tensors import TORCH_FILES, read_tensors
from jotr_deploy.errors import FitError
from jotr_deploy.fitting.bank import Features
from jotr_deploy.fitting.extractor import Extractor, ExtractorConfig
from jotr_deploy.fitting.kernels import Kernels
from jotr_deploy.fitting.rendering import unit
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.read_errors import read_errors
from jotr_deploy.support.writing import written_aside

FORMAT = "jotr-deploy-features/1"
_ROUNDS = 20
_WHAT, _REMEDY = "trained features", "give weights.pt of a run of the task features"


@dataclass(frozen=True, eq=False)
class Trained:
    """Result of a run of the task `features`."""

    network: Extractor
    foreground: Tensor  # (K, O, C) unit vectors by kernel and orientation bin
    clutter: Tensor  # (N, C) unit vectors, as the queue was at the end
    kernels: Kernels
    rest_m: Array  # (K, 3) float32, the kernels on the body at rest: what the body is recognised by
    precision: float  # of a kernel, 1 / m^2
    origin: tuple[str, ...]  # data and weights of others that went into it; none of drawn scenes alone

    def features(self, centres: int = 1) -> Features:
        """Features for a fit, with the mean direction of the clutter as published, or with this many directions."""
        return Features(self.foreground, directions_of(self.clutter, centres))


def directions_of(vectors: Tensor, count: int) -> Tensor:
    """(count, C) mean directions of unit vectors (N, C), each of those nearest to it: k-means from evenly spaced rows.

    A direction that is nearest to none stays where it is.
    """
    if count == 1:
        return unit(vectors.mean(0, keepdim=True))
    means = vectors[torch.linspace(0, len(vectors) - 1, count).long()]
    for _ in range(_ROUNDS):
        member = F.one_hot((vectors @ means.T).argmax(1), count).to(vectors)
        total = member.T @ vectors
        means = torch.where(member.sum(0)[:, None] > 0, unit(total), means)
    return means


def save_trained(trained: Trained, path: Path) -> None:
    """Write what `load_trained` reads.

    Raises:
        OutputError: not writable.
    """
    kernels = {name: torch.as_tensor(value) for name, value in asdict(trained.kernels).items() if name != "body"}
    content = {
        "format": FORMAT,
        "config": trained.network.config.model_dump(mode="json"),
        "network": {name: value.cpu() for name, value in trained.network.state_dict().items()},
        "foreground": trained.foreground.cpu(),
        "clutter": trained.clutter.cpu(),
        "kernels": {**kernels, "body": trained.kernels.body},
        "rest_m": torch.as_tensor(trained.rest_m),
        "precision": trained.precision,
        "origin": list(trained.origin),
    }
    with written_aside(path) as aside:
        torch.save(content, aside)


def load_trained(path: Path) -> Trained:
    """Trained features, the extractor in evaluation mode.

    Raises:
        FitError: no such file, damaged, or something else.
    """
    if not path.exists():
        raise FitError(f"{path}: no such file", "train first: jotr-deploy train configs/starter/features.toml -o DIR")
    with read_errors(path, FitError, _WHAT, _REMEDY, TORCH_FILES):
        content = read_tensors(path, FitError, _WHAT, _REMEDY)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        network = Extractor(ExtractorConfig.model_validate(content["config"])).eval()
        network.load_state_dict(content["network"])
        stored = content["kernels"]
        indices, edges, limbs = (stored[name].numpy() for name in ("indices", "edges", "limbs"))
        return Trained(
            network=network.requires_grad_(False),
            foreground=content["foreground"],
            clutter=content["clutter"],
            kernels=Kernels(indices, edges, limbs, str(stored["body"])),
            rest_m=content["rest_m"].numpy(),
            precision=float(content["precision"]),
            origin=tuple(map(str, content["origin"])),
        )
