"""PyTorch eager as a reference: the plain network, nothing merged or compiled. Imports PyTorch when called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jotr_deploy.config import ModelConfig
from jotr_deploy.support.aliases import Array

if TYPE_CHECKING:
    from jotr_deploy.model.jotr import JOTR

Call = Callable[[Mapping[str, Array]], Mapping[str, Array]]

EAGER = "PyTorch eager"


def build(config: ModelConfig, with_body: bool) -> JOTR:
    """PyTorch network without weights; the body is the stand-in, which has SMPL's shapes."""
    from jotr_deploy.body.smpl import stand_in
    from jotr_deploy.model.jotr import JOTR

    return JOTR(config, stand_in() if with_body else None).eval().requires_grad_(False)


def random_network(config: ModelConfig, with_body: bool) -> JOTR:
    """Network with random weights, which do not affect its time."""
    from jotr_deploy.model.initialise import initialise

    return initialise(build(config, with_body))


def under_session_call(model: JOTR, device: str) -> Call:
    """Network with the call of a session: feeds and results by name, in main memory."""
    import torch

    from jotr_deploy.model.jotr import INPUTS

    model.to(device)

    def call(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            result = model(*(torch.from_numpy(feeds[name]).to(device) for name in INPUTS))
            return {name: value.cpu().numpy() for name, value in result._asdict().items()}

    return call


@contextmanager
def torch_tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid PyTorch inside the block to round float32 products to TF32; its convolutions do by default."""
    import torch

    switches: tuple[Any, Any] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = allowed
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Set PyTorch's number of threads inside the block; None leaves its default."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
