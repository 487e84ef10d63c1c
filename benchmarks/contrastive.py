"""Time and memory of the contrastive losses against a loop over anchors, at the published counts, forward and backward.

The loop processes anchors one by one. In its joint-to-joint part every (anchor, positive) pair has its own copy of the
negatives, as in the published code, which holds those of all anchors at once and takes gigabytes more; in its
joint-to-non-joint part, and in both parts of the lean loop, there is one copy for each anchor.

Usage: python benchmarks/contrastive.py
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.plugins.op import trilinear_sample_3d
from jotr_deploy.training.contrastive import (
    TEMPERATURE,
    Inter,
    Intra,
    draw_inter,
    draw_intra,
    free_voxels,
    inter_loss,
    intra_loss,
)

SAMPLES, JOINTS, GRID, WIDTH = 16, 15, 8, 256
Losses = Callable[[Tensor, Tensor, Tensor, Intra, Inter], Tensor]


def by_loop(volume: Tensor, predicted: Tensor, true: Tensor, intra: Intra, inter: Inter, lean: bool = False) -> Tensor:
    """Losses by a loop over anchors."""
    found = F.normalize(trilinear_sample_3d(volume, predicted), dim=-1).flatten(0, 1)
    positives = F.normalize(trilinear_sample_3d(volume, true), dim=-1).flatten(0, 1)
    losses = []
    for anchor, positive, negative, usable in zip(*intra, strict=True):
        if usable:
            own = positives[positive * JOINTS + anchor % JOINTS]
            query, others = found[anchor].expand_as(own), found[negative]
            if lean:
                losses.append(nce(own @ found[anchor], others @ found[anchor]).mean())
            else:
                others = others.expand(len(own), -1, -1)
                losses.append(nce((query * own).sum(1), (query[:, None] * others).sum(2)).mean())
    total, losses = torch.stack(losses).mean(), []
    rest = F.normalize(volume.flatten(0, 3)[inter.negative], dim=-1)
    for anchor, positive in zip(inter.anchor, inter.positive, strict=True):
        losses.append(nce(found[positive] @ found[anchor], rest @ found[anchor]).mean())
    return total + torch.stack(losses).mean()


def nce(own: Tensor, others: Tensor) -> Tensor:
    """Similarities (P,) of the pairs and (N,) or (P, N) of the negatives -> (P,)."""
    logits = torch.cat([own[:, None], others.expand(len(own), -1)], 1) / TEMPERATURE
    return logits.logsumexp(1) - logits[:, 0]


def at_once(volume: Tensor, predicted: Tensor, true: Tensor, intra: Intra, inter: Inter) -> Tensor:
    """Losses of this package."""
    return intra_loss(volume, predicted, true, intra) + inter_loss(volume, predicted, inter)


KINDS: dict[str, tuple[Losses, int]] = {
    "loop": (by_loop, 3),
    "lean": (partial(by_loop, lean=True), 3),
    "once": (at_once, 20),
}


def measure(loss: Losses, repeats: int) -> tuple[float, float]:
    """(median seconds of forward and backward, peak MB above the start)."""
    random = torch.Generator().manual_seed(0)
    volume = torch.randn(SAMPLES, GRID, GRID, GRID, WIDTH, generator=random).requires_grad_()
    predicted = torch.rand(SAMPLES, JOINTS, 3, generator=random).requires_grad_()
    true, rng = torch.rand(SAMPLES, JOINTS, 3, generator=random), np.random.default_rng(0)
    intra = draw_intra(rng, np.ones((SAMPLES, JOINTS), bool))
    inter = draw_inter(rng, free_voxels(predicted.detach().numpy(), (GRID, GRID, GRID)), JOINTS)
    before, times = peak_mb(), []
    for _ in range(repeats):
        start = time.perf_counter()
        value = loss(volume, predicted, true, intra, inter)
        value.backward()
        times.append(time.perf_counter() - start)
    print(f"loss {value.item():.6f}", file=sys.stderr)
    return float(np.median(times)), peak_mb() - before


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=tuple(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.only:
        torch.set_num_threads(options.threads)
        print(*measure(*KINDS[options.only]))
        return
    print(f"{SAMPLES} samples, {JOINTS} joints, {GRID}^3 voxels of {WIDTH}, {options.threads} thread(s)")
    rows = {}
    for kind in KINDS:  # each in its own process, for its own peak of memory
        command = [sys.executable, __file__, "--only", kind, "--threads", str(options.threads)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows[kind] = [float(number) for number in text.split()]
        print(f"{kind:5} {1000 * rows[kind][0]:10.1f} ms {rows[kind][1]:10.0f} MB")
    for kind in ("loop", "lean"):
        print(f"{rows[kind][0] / rows['once'][0]:.0f} times faster than {kind}")


if __name__ == "__main__":
    main()
