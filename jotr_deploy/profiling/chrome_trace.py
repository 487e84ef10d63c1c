"""Spans as a Chrome trace, for chrome://tracing or ui.perfetto.dev: one row a thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jotr_deploy.support.spans import NO_FRAME, Span
from jotr_deploy.support.writing import written_aside

_PROCESS = 1


def trace_events(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Complete events, microseconds since the first span began; before them the names of process and threads."""
    spans = sorted(spans, key=lambda span: span.start_s)
    rows = {thread: row for row, thread in enumerate(dict.fromkeys(span.thread for span in spans), 1)}
    zero_s = spans[0].start_s if spans else 0.0
    named = [_name("process_name", 0, "jotr-deploy"), *(_name("thread_name", row, name) for name, row in rows.items())]
    return named + [_complete(span, rows[span.thread], zero_s) for span in spans]


def _complete(span: Span, row: int, zero_s: float) -> dict[str, Any]:
    start_us, end_us = (round((moment_s - zero_s) * 1e6, 3) for moment_s in (span.start_s, span.end_s))
    return {
        "name": span.stage,
        "cat": "stage",
        "ph": "X",
        "pid": _PROCESS,
        "tid": row,
        "ts": start_us,
        "dur": round(end_us - start_us, 3),
        "args": {} if span.frame == NO_FRAME else {"frame": span.frame},
    }


def _name(what: str, row: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": _PROCESS, "tid": row, "args": {"name": name}}


def write_trace(spans: Sequence[Span], path: Path) -> None:
    """Write spans as a trace.

    Raises:
        OutputError: it cannot be written.
    """
    with written_aside(path) as aside, aside.open("w") as file:
        json.dump({"displayTimeUnit": "ms", "traceEvents": trace_events(spans)}, file)
