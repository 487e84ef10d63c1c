"""One contract for every engine: feeds and results by tensor name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import SessionError

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of one input or output; a dynamic dimension is its name."""

    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype.name} [{', '.join(map(str, self.shape))}]"


class Session(ABC):
    """One loaded network.

    Not re-entrant: use one session a thread. Results are fresh arrays that the caller owns.
    """

    path: Path
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once.

        Args:
            feeds: every input by name, of the declared type; dimensions of one name agree.

        Raises:
            SessionError: an input is missing, unknown, or of another type or shape.
        """
        self._check(feeds)
        return self._run({name: np.ascontiguousarray(feeds[name]) for name in self.inputs})

    @abstractmethod
    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """The engine's own call, with checked, contiguous feeds."""

    def close(self) -> None:  # noqa: B027  an engine without anything to free needs no method of its own
        """Free what the engine holds; the session cannot be used afterwards."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, feeds: Mapping[str, Array]) -> None:
        missing, unknown = self.inputs.keys() - feeds.keys(), feeds.keys() - self.inputs.keys()
        if missing or unknown:
            raise self._wrong_feeds(f"missing {sorted(missing)}, unknown {sorted(unknown)}")
        sizes: dict[str, int] = {}
        for name, spec in self.inputs.items():
            array = feeds[name]
            if array.dtype != spec.dtype or array.ndim != len(spec.shape):
                raise self._wrong_feeds(f"{name} is {array.dtype} {list(array.shape)}")
            for size, wanted in zip(array.shape, spec.shape, strict=True):
                if (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted) != size:
                    raise self._wrong_feeds(f"{name} is {array.dtype} {list(array.shape)}")

    def _wrong_feeds(self, what: str) -> SessionError:
        expected = ", ".join(f"{name} {spec}" for name, spec in self.inputs.items())
        return SessionError(f"{self.path.name}: wrong input: {what}", f"this network takes {expected}")
