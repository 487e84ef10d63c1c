"""Ranges of TensorRT versions in which a parser has an operator or a rule applies."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jotr_deploy.engines.tensorrt.build import BuildError

Version = tuple[int, int]
"""Major and minor."""

OLDEST: Version = (10, 3)
NEWEST: Version = (11, 4)
"""Newest version whose parser's tables were read; a network for all versions must suit each from `OLDEST` on."""


@dataclass(frozen=True)
class Versions:
    """TensorRT from `since` on and before `until`; by default every version."""

    since: Version | None = None
    until: Version | None = None

    def __contains__(self, version: Version) -> bool:
        return (self.since is None or self.since <= version) and (self.until is None or version < self.until)

    @property
    def all(self) -> bool:
        """True if it contains every version from `OLDEST` to `NEWEST`."""
        return OLDEST in self and NEWEST in self

    @property
    def any(self) -> bool:
        """True if it contains some version from `OLDEST` to `NEWEST`."""
        return (self.since is None or self.since <= NEWEST) and (self.until is None or self.until > OLDEST)

    def __str__(self) -> str:
        first = [f"{text(self.since)} and newer"] if self.since else []
        last = [f"before {text(self.until)}"] if self.until else []
        return f"TensorRT {', '.join(first + last) or 'of every version'}"


EVERY = Versions()


def text(version: Version) -> str:
    """`10.3`."""
    return ".".join(map(str, version))


def parse_version(said: str) -> Version:
    """`10.3`, or a whole version such as `10.16.1.11`, to major and minor.

    Raises:
        BuildError: it is neither.
    """
    numbers = re.match(r"(\d+)\.(\d+)(\.|$)", said)
    if numbers is None:
        raise BuildError(f"TensorRT {said!r}: not a version", "give major and minor, such as 10.3")
    return int(numbers[1]), int(numbers[2])
