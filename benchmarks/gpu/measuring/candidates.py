"""Networks to compare, ready to be called and timed in turns; those of PyTorch."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jotr_deploy.model.jotr import INPUTS, JOTR
from jotr_deploy.runtime.sessions.cuda_session import CudaSession

WARM_UP = 5
EAGER, COMPILED = "PyTorch eager fp32", "torch.compile"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Candidate:
    """One network, ready to be called; every call ends when the GPU is done."""

    name: str
    on_device: Callable[[Mapping[str, torch.Tensor]], object]
    end_to_end: Callable[[Arrays], Arrays]
    max_batch: int | None = None
    session: CudaSession | None = None  # measures itself by events, too


def in_float32(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of tensors, left alone by autocast: rotations and skinning overflow in fp16."""

    def called(*arguments: torch.Tensor) -> Any:
        with torch.autocast(arguments[0].device.type, enabled=False):
            return call(*(argument.float() for argument in arguments))

    return called


def for_autocast(model: JOTR) -> JOTR:
    """A copy whose heads, pose prior, rotations and body stay in fp32."""
    model = copy.deepcopy(model)
    model.full_pose = in_float32(model.full_pose)  # type: ignore[method-assign]
    for part in (model.heads, model.body):
        part.forward = in_float32(part.forward)  # type: ignore[method-assign, union-attr]
    return model


def torch_candidates(model: JOTR, device: str = "cuda", compile_mode: str | None = None) -> Iterator[Candidate]:
    """Eager and, unless the mode is None, compiled, each in fp32 and in fp16 by autocast."""
    model = model.to(device).eval()
    for precision, network in (("fp32", model), ("fp16", for_autocast(model))):
        yield torch_candidate(f"PyTorch eager {precision}", network, device, precision == "fp16")
        if compile_mode is not None:
            compiled = torch.compile(network, mode=compile_mode, dynamic=False)
            yield torch_candidate(f"{COMPILED} {precision}", compiled, device, precision == "fp16")


def torch_candidate(name: str, network: Callable[..., Any], device: str, half: bool) -> Candidate:
    def on_device(feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=half):
            results = network(*(feeds[name] for name in INPUTS))._asdict()
        if device == "cuda":
            torch.cuda.synchronize()
        return results

    def end_to_end(feeds: Arrays) -> dict[str, np.ndarray]:
        results = on_device({name: torch.from_numpy(feed).to(device) for name, feed in feeds.items()})
        return {name: value.float().cpu().numpy() for name, value in results.items()}

    return Candidate(name, on_device, end_to_end)


def sample(
    candidates: Sequence[Candidate], feeds: Arrays, device: str, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of `rounds` calls of each kind, the candidates in turns: name -> kind -> samples."""
    tensors = {name: torch.from_numpy(feed).to(device) for name, feed in feeds.items()}
    taken: dict[str, dict[str, list[float]]] = {c.name: defaultdict(list) for c in candidates}
    for number in range(-WARM_UP, rounds):
        for candidate in candidates:
            found = {"network": milliseconds(candidate.on_device, tensors)}
            if candidate.session is not None:
                found |= {kind: candidate.session.times[kind] for kind in ("enqueue", "gpu")}
            found["end to end"] = milliseconds(candidate.end_to_end, feeds)
            if number >= 0:
                for kind, ms in found.items():
                    taken[candidate.name][kind].append(ms)
    return taken


def milliseconds(call: Callable[[Any], object], feeds: Any) -> float:
    start = time.perf_counter()
    call(feeds)
    return (time.perf_counter() - start) * 1e3
