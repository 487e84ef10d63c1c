"""What the bindings of each TensorRT offer, as `tools/dump_tensorrt_api.py` wrote it down."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSIONS = ("10.3", "10.9", "10.16", "11.4")


def dump(version: str) -> dict[str, Any]:
    """What the bindings of a version offer, as `tools/dump_tensorrt_api.py` wrote it down."""
    return json.loads(Path(__file__).with_name(f"tensorrt-{version}.json").read_text())


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    default: str | None


@dataclass(frozen=True)
class Signature:
    """One overload: "(flags: int = 0) -> INetworkDefinition"."""

    parameters: tuple[Parameter, ...]
    returns: str

    @classmethod
    def parse(cls, text: str) -> Signature:
        inner, _, returns = text.rpartition(" -> ")
        parts = [part.strip() for part in re.split(r",(?![^\[(]*[\])])", inner[1:-1]) if part.strip()]
        parameters = []
        for part in parts:
            name, _, rest = part.partition(":")
            kind, _, default = rest.partition(" = ")
            parameters.append(Parameter(name.strip(), kind.strip(), default.strip() or None))
        return cls(tuple(parameters), returns.strip())
