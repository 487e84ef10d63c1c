"""Results of a search under a limit on the p99, as values."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from shlex import quote
from typing import Any

from jotr_deploy.errors import JotrDeployError, SessionError
from jotr_deploy.profiling.bench_result import Timing
from jotr_deploy.profiling.environment import Environment

_UNITS_MS = {"": 1.0, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Tried:
    """Candidate: one file in one engine at one batch."""

    file: str
    precision: str
    backend: str  # value for `open_session`; "auto" for a file that was made for one engine
    engine: str  # its name
    device: str
    batch: int
    timing: Timing  # of one call; from a few calls where more were not worth it
    people_per_s: float  # batch / p50
    measured: bool  # measured, not only probed

    @property
    def promise_per_s(self) -> float:
        """People a second by the fastest calls: estimates a quiet machine, even from few calls in a noisy moment."""
        return 1000 * self.batch / self.timing.p10_ms if self.timing.p10_ms else 0.0

    def fits(self, p99_ms: float) -> bool:
        """True if it was measured and is within the limit."""
        return self.measured and self.timing.p99_ms <= p99_ms


@dataclass(frozen=True)
class TargetResult:
    """Candidates that were tried, and the best of them."""

    bundle: str
    p99_ms: float  # the limit
    device: str  # as requested
    tried: tuple[Tried, ...]  # the most people a second first
    chosen: Tried | None  # None: nothing is within the limit
    nearest: Tried | None  # the nearest to the limit, if nothing is within it
    notes: tuple[str, ...]  # files left out, with reasons
    warnings: tuple[str, ...]
    environment: Environment

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {**asdict(self), "command": self.command}

    @property
    def command(self) -> str | None:
        """Command that runs the chosen file; `p99_search.remember_chosen` sees to its engine."""
        if self.chosen is None:
            return None
        threads = self.environment.threads
        where = ("" if self.device == "auto" else f" --device {self.device}") + (
            f" --threads {threads}" if threads else ""
        )
        where += " --tf32" if self.environment.tf32 else ""
        return f"jotr-deploy run {quote(self.bundle)} IMAGE -o DIR --file {quote(self.chosen.file)}{where}"

    def error(self) -> JotrDeployError | None:
        """Error to raise if nothing is within the limit."""
        if self.chosen is not None:
            return None
        said, near = "", self.nearest
        if near is not None:
            said = f"; nearest is {near.file} in {near.engine} at batch {near.batch} with {near.timing.p99_ms:g} ms"
        return SessionError(
            f"{self.bundle}: nothing that was measured has a p99 within {self.p99_ms:g} ms here{said}",
            "give a longer --target-p99, or add a faster file: jotr-deploy calibrate, jotr-deploy build-engine",
        )


def parse_target(text: str) -> float:
    """Milliseconds of a limit such as "20ms", "0.02s" or "20", which are milliseconds.

    Raises:
        JotrDeployError: not a time above zero.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s|)\s*", text)
    milliseconds = float(found[1]) * _UNITS_MS[found[2]] if found else 0.0
    if not milliseconds:
        raise JotrDeployError(f"--target-p99 {text}: not a time above zero", "give one such as 20ms or 0.02s")
    return milliseconds
