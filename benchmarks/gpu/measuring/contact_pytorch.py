"""First contact: the whole network in PyTorch, eager and compiled, in fp32 and fp16: what the engines have to beat."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from measuring.report import Report, needs

BATCHES = (1, 8, 32)
ROUNDS, WARM_UP = 20, 3
Network = Callable[[Mapping[str, Any]], Any]


def measure(
    report: Report, device: str = "cuda", batches: Sequence[int] = BATCHES, config: Any = None, mode: str = "default"
) -> None:
    needs("torch", "numpy", "pydantic")
    import torch
    from measuring.candidates import torch_candidates

    from jotr_deploy.export.assemble import load_stand_in
    from jotr_deploy.profiling.eager import torch_tf32

    model = load_stand_in(config).model
    with torch_tf32(False):
        candidates = list(torch_candidates(model, device, mode))
        eager = [candidate for candidate in candidates if "eager" in candidate.name]
        compiled = [candidate for candidate in candidates if "compile" in candidate.name]
        feeds = {batch: random_feeds(model.config, batch, device) for batch in batches}
        references = {batch: eager[0].on_device(feeds[batch])["vertices"] for batch in batches}
        for candidate in eager:
            for batch in batches:
                what = f"{candidate.name}, batch {batch}"
                with report.attempt(what):
                    timed(report, what, candidate.on_device, feeds[batch], references[batch])
        longest = 0.0
        for batch in batches:
            for candidate in compiled:
                what = f"{candidate.name} ({mode}), batch {batch}"
                if report.seconds_left < 1.3 * longest + 5:
                    report.left_out(what, f"no time left: compiling takes {longest:.0f} s")
                    continue
                begun = time.perf_counter()
                with report.attempt(what):
                    candidate.on_device(feeds[batch])
                    took = time.perf_counter() - begun
                    longest = max(longest, took)
                    note = f"compiled in {took:.0f} s"
                    timed(report, what, candidate.on_device, feeds[batch], references[batch], note)
                torch._dynamo.reset()


def random_feeds(config: Any, batch: int, device: str) -> dict[str, Any]:
    """Random crops and joints; the time does not depend on them."""
    import torch

    generator = torch.Generator().manual_seed(batch)
    side, cells = config.crop_side, config.heatmap_side
    values = {
        "image": torch.rand((batch, 3, side, side), generator=generator),
        "joints": torch.rand((batch, 30, 2), generator=generator) * cells,
        "joints_mask": (torch.rand((batch, 30), generator=generator) < 0.8).float(),
    }
    return {name: value.to(device) for name, value in values.items()}


def timed(report: Report, what: str, network: Network, feeds: Mapping[str, Any], expected: Any, note: str = "") -> None:
    """A row with the median time of a call, and how far its vertices are from those of eager fp32."""
    found = network(feeds)["vertices"]
    distance = (found.double() - expected.double()).norm(dim=-1) * 1000
    times = []
    for number in range(-WARM_UP, ROUNDS):
        begun = time.perf_counter()
        network(feeds)
        if number >= 0:
            times.append((time.perf_counter() - begun) * 1e3)
    drift = f"vertices {float(distance.mean()):.3g} mm from eager fp32, at most {float(distance.max()):.3g}"
    report.value(what, statistics.median(times), "ms", note=", ".join(filter(None, [drift, note])))
    report.check(f"{what}: finite", bool(distance.isfinite().all()))
