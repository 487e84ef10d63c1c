"""Answers other than a result: an HTTP status with one line of cause and one of remedy."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """A request that gets no result."""

    def __init__(
        self, status: int, cause: str, remedy: str, *, retry_after_s: int | None = None, reason: str | None = None
    ) -> None:
        """`reason` is the label under which the metrics count a request that the server had no room for."""
        super().__init__(cause)
        self.status, self.cause, self.remedy, self.reason = status, cause, remedy, reason
        self.headers: Mapping[str, str] = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
