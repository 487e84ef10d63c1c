"""Reuse of pictures, since drawing one costs more than training on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from jotr_deploy.support.aliases import Array

Drawn = TypeVar("Drawn")

_BEFORE = 1 << 40
"""Offset of the negative numbers of the pictures before the first one."""


@dataclass
class Reused(Generic[Drawn]):
    """Endless stream of new pictures, each used `uses` times, `lag` pictures apart.

    Sample n is use `n % uses` of picture `n // uses - (n % uses) * lag`: a batch has pictures of all ages, hardly
    any twice, and depends on nothing but its numbers. Those still in use are kept in memory; missing ones, as
    after a resumed run, are drawn again. With several worker processes `lag` should be a multiple of the pictures that
    one round of the workers' batches draws, or a picture's uses fall to different workers.
    """

    draw: Callable[[int], Drawn]
    uses: int
    lag: int
    _kept: Callable[[int], Drawn] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._keep()

    def _keep(self) -> None:
        self._kept = lru_cache(maxsize=self.uses * self.lag + self.uses)(self.draw)

    def __call__(self, index: int) -> tuple[Drawn, int]:
        """Picture of a sample, and the number of this use."""
        age, use = divmod(index, self.uses)
        number = age - use * self.lag
        return self._kept(number if number >= 0 else _BEFORE + number), use

    def drawn_for(self, samples: int) -> int:
        """Number of pictures that the first samples of this many take, those before the first one included."""
        ages = -(-samples // self.uses)
        return min(self.uses * ages, ages + (self.uses - 1) * self.lag)

    def __getstate__(self) -> dict[str, object]:
        """State for a worker process, without the pictures that are kept."""
        return {"draw": self.draw, "uses": self.uses, "lag": self.lag}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._keep()


@dataclass
class Pool(Generic[Drawn]):
    """The same `size` pictures round after round, each round in an order of its own.

    For runs too short to draw new ones all the time. All of them are kept in memory.
    """

    draw: Callable[[int], Drawn]
    size: int
    seed: int
    _kept: Callable[[int], Drawn] = field(init=False, repr=False)
    _order: Callable[[int], Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._kept = lru_cache(maxsize=self.size)(self.draw)
        self._order = lru_cache(maxsize=2)(self._drawn_order)

    def _drawn_order(self, round_: int) -> Array:
        return np.random.default_rng((self.seed, round_)).permutation(self.size)

    def __call__(self, index: int) -> tuple[Drawn, int]:
        """Picture of a sample, and the number of this use."""
        use, place = divmod(index, self.size)
        return self._kept(int(self._order(use)[place])), use

    def __getstate__(self) -> dict[str, object]:
        """State for a worker process, without the pictures that are kept."""
        return {"draw": self.draw, "size": self.size, "seed": self.seed}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.__post_init__()
