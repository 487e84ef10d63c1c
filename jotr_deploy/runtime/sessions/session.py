"""The common interface of all engines: feeds and results by tensor name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np

from jotr_deploy.errors import SessionError
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of one input or output; a dynamic dimension is its name, or "?" without one."""

    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype.name} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Kernel:
    """One step of a call as executed by an engine: several fused nodes, or glue between nodes."""

    name: str
    kind: str
    ms: float


class Session(ABC):
    """One loaded network.

    Not re-entrant: use one session per thread. Results are new arrays owned by the caller.
    """

    path: Path
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    metadata: Mapping[str, str] = MappingProxyType({})
    """Text that the exporter stored in the file besides the network; see `runtime.finding.network_metadata`."""
    _closed = False

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once.

        Args:
            feeds: every input by name, of the declared type; dimensions with the same name must agree.

        Raises:
            SessionError: an input is missing, unknown, or of another type or shape; or the session is closed.
        """
        if self._closed:
            raise SessionError(f"{self.path.name}: the session is closed", "open it again with open_session")
        self._check(feeds)
        return self._run({name: np.asarray(feeds[name], order="C") for name in self.inputs})

    @abstractmethod
    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """The engine's own call, with checked, contiguous feeds."""

    def _free(self) -> None:  # noqa: B027  an engine without resources to release needs no method of its own
        """Release the engine's resources; called once."""

    def close(self) -> None:
        """Release the engine's resources; the session cannot be used afterwards."""
        if not self._closed:
            self._closed = True
            self._free()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, feeds: Mapping[str, Array]) -> None:
        missing, unknown = self.inputs.keys() - feeds.keys(), feeds.keys() - self.inputs.keys()
        if missing or unknown:
            named = {"missing": missing, "unknown": unknown}
            raise self._wrong_feeds("; ".join(f"{kind} {', '.join(sorted(n))}" for kind, n in named.items() if n))
        sizes: dict[str, int] = {}
        for name, spec in self.inputs.items():
            array = feeds[name]
            if array.dtype != spec.dtype or array.ndim != len(spec.shape):
                raise self._wrong_feeds(f"{name} is {array.dtype} {list(array.shape)}")
            for size, wanted in zip(array.shape, spec.shape, strict=True):
                if wanted != "?" and (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted) != size:
                    raise self._wrong_feeds(f"{name} is {array.dtype} {list(array.shape)}")

    def _wrong_feeds(self, what: str) -> SessionError:
        expected = ", ".join(f"{name} {spec}" for name, spec in self.inputs.items())
        return SessionError(f"{self.path.name}: wrong input: {what}", f"this network takes {expected}")
