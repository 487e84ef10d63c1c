"""`run --live` in the terminal: frame rate and stage times during the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from statistics import median

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from jotr_deploy.support.spans import Spans
from jotr_deploy.verbs.terminal import errors

WINDOW_S = 2.0
"""Length of the sliding window that the figures cover."""
_REFRESH_S = 0.25


@contextmanager
def shown(spans: Spans) -> Iterator[Callable[[int, int | None], None]]:
    """Callback for each finished frame; redraws a few times a second, and once more at the end."""
    done, total, drawn_s = 0, None, 0.0
    with Live(console=errors, auto_refresh=False) as live:

        def progress(now_done: int, of: int | None) -> None:
            nonlocal done, total, drawn_s
            done, total = now_done, of
            if time.perf_counter() - drawn_s >= _REFRESH_S:
                drawn_s = time.perf_counter()
                live.update(table(spans, done, total), refresh=True)

        yield progress
        live.update(table(spans, done, total), refresh=True)
    if not errors.is_terminal:
        errors.print()  # the table ends without a line break there


def table(spans: Spans, done: int, total: int | None) -> RenderableType:
    """Table of frames done, frames per second, and each stage's median milliseconds over the last `WINDOW_S`."""
    kept = spans.spans
    since_s = (kept[-1].end_s if kept else 0.0) - WINDOW_S
    recent = list(takewhile(lambda span: span.end_s >= since_s, reversed(kept)))
    seconds: dict[str, list[float]] = {}
    for span in reversed(recent):
        seconds.setdefault(span.stage, []).append(span.seconds)
    ends_s = sorted(span.end_s for span in recent if span.stage == recent[0].stage)
    rate = (len(ends_s) - 1) / (ends_s[-1] - ends_s[0]) if len(ends_s) > 1 and ends_s[-1] > ends_s[0] else None
    title = f"frame {done}" + (f" of {total}" if total else "") + ("" if rate is None else f", {rate:.1f} frames/s")
    found = Table(box=box.SIMPLE_HEAD)
    stages = [stage for stage in spans.stages if stage in seconds]
    for stage in stages:
        found.add_column(stage, justify="right", no_wrap=True)
    found.add_row(*(f"{1000 * median(seconds[stage]):.1f}" for stage in stages))
    return Group(f"{title}; milliseconds per frame", found)  # a title of the table would wrap at its width
