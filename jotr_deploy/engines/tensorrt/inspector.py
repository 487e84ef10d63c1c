"""Layers of an engine, as reported by TensorRT's inspector."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jotr_deploy.engines.tensorrt.build import REPORT, BuildError, without_frames
from jotr_deploy.plugins import NAME
from jotr_deploy.runtime.sessions.tensorrt_engine import listening
from jotr_deploy.support.choices import Portable


@dataclass(frozen=True)
class Layers:
    """The layers of an engine."""

    count: int
    plugin: int
    """Number of layers that are the sampling plugin."""
    tensors: tuple[str, ...]
    """Names of inputs and outputs."""


def read_layers(information: str) -> Layers:
    """Parse the inspector's JSON; in 11.0 "Bindings" became "I/O Tensors"."""
    content = json.loads(information)
    layers = content.get("Layers", [])
    tensors = content.get("I/O Tensors") or content.get("Bindings") or []
    names = tuple(tensor["Name"] if isinstance(tensor, dict) else str(tensor) for tensor in tensors)
    return Layers(len(layers), sum(_is_plugin(layer) for layer in layers), names)


def _is_plugin(layer: Any) -> bool:
    """True for a layer of a plugin type that names our operator, in the node name or in the plugin's own."""
    if not isinstance(layer, dict):
        return False
    return "plugin" in str(layer.get("LayerType", "")).lower() and NAME in json.dumps(layer)


@without_frames
def inspect(trt: Any, plan: bytes, portable: Portable | None = None) -> Layers:
    """Open a plan and list its layers.

    Raises:
        BuildError: TensorRT does not open its own plan.
    """
    log = listening(trt)
    runtime = trt.Runtime(log)
    if portable == "version":
        runtime.engine_host_code_allowed = True  # such a plan carries a runtime of its own
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(f"TensorRT does not open the engine it has built ({log.reason()})", REPORT)
    inspector = engine.create_engine_inspector()
    return read_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
