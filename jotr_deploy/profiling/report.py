"""`bench --report FILE`: a benchmark as one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from jotr_deploy.profiling.bench_result import GPU_PARTS, QUANTILES, BatchResult, BenchResult, NetworkResult, Timing
from jotr_deploy.profiling.bench_table import NOTHING, RARE, counts, figures, milliseconds, number, rare
from jotr_deploy.profiling.charts import Axis, Bar, Part, Series, bar_chart, line_chart, sample, stacked_chart
from jotr_deploy.profiling.html_page import card, cards, page, table
from jotr_deploy.support.writing import written_aside

DATA = "result"
"""Id of the page's element that contains the JSON of the result."""


def write_report(result: BenchResult, path: Path) -> None:
    """Write the page. Its figures are those of `result.as_dict()`, which it contains.

    Raises:
        OutputError: it cannot be written.
    """
    with written_aside(path) as aside:
        aside.write_text(report_page(result), encoding="utf-8")


def report_page(result: BenchResult) -> str:
    """Page as text."""
    return page(f"jotr-deploy bench {result.bundle}", _body(result))


def _body(result: BenchResult) -> Iterator[str]:
    yield from _header(result)
    yield "<h2>Where the time of a frame goes</h2>"
    yield cards(_stages(result))
    if any(network.batches for network in result.networks):
        yield "<h2>Engines</h2>"
        yield cards(_comparison(result))
        yield "<h2>Distributions</h2>"
        yield _legend(result)
        yield cards(_distributions(result))
        yield "<h2>Batch</h2>"
        yield _legend(result)
        yield cards(_batch_curves(result))
    yield "<h2>Figures</h2>"
    yield from _tables(result)
    yield from (f'<p class="soft">{escape(line)}</p>' for line in result.timed)
    if any(timing.kept and rare(timing) for timing in _timings(result)):
        yield f'<p class="soft">{escape(RARE)}</p>'
    data = json.dumps(result.as_dict()).replace("<", "\\u003c")  # so that nothing in it ends the element
    yield f'<script type="application/json" id="{DATA}">{data}</script>'


def _header(result: BenchResult) -> Iterator[str]:
    machine = result.environment
    yield f"<h1>{escape(result.bundle)}</h1>"
    yield '<p class="soft">jotr-deploy bench</p>'
    for kind, texts in (("said warning", result.warnings), ("said", (*result.labels, *result.notes))):
        yield from (f'<p class="{kind}">{escape(text)}</p>' for text in texts)
    threads = "each engine's default" if machine.threads is None else str(machine.threads)
    facts = {
        "processor": f"{machine.cpu}, {machine.cores} cores, {machine.hardware_threads} hardware threads, "
        f"{machine.memory_gb:g} GB",
        "instructions": ", ".join(machine.flags) or "no known vector instructions",
        **({"GPU": machine.gpu_products} if machine.gpu_products else {}),
        "system": f"{machine.os}, Python {machine.python}",
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        "threads": threads,
        "load before": " ".join(f"{load:g}" for load in machine.load_average),
    }
    yield f"<dl>{''.join(f'<dt>{name}</dt><dd>{escape(fact)}</dd>' for name, fact in facts.items())}</dl>"


def _stages(result: BenchResult) -> list[str]:
    whole_ms = sum(stage.timing.p50_ms for stage in result.stages)
    parts, bars = [], []
    for style, stage in enumerate(result.stages):
        timing, share = stage.timing, "" if stage.share is None else f", {stage.share:.1%}"
        parts.append(Part(stage.name, f"{milliseconds(timing.p50_ms)} ms{share}", style, timing.p50_ms))
        bars.append(Bar(stage.name, "", _p50_p99(timing), style, timing.p50_ms, timing.p99_ms))
    title = f"One frame: {milliseconds(whole_ms)} ms, the sum of the stages' p50"
    return [
        card(title, stacked_chart(title, parts), "One after another: each row begins where the one above ends."),
        card("Stages: p50, and p99 as a line", bar_chart("p50 and p99 of the stages", bars), "Less is better."),
    ]


def _p50_p99(timing: Timing) -> str:
    return f"{milliseconds(timing.p50_ms)} ms, p99 {milliseconds(timing.p99_ms)}{rare(timing)}"


def _comparison(result: BenchResult) -> list[str]:
    batch = min(row.batch for network in result.networks for row in network.batches)
    latency, cold, memory, size = [], [], [], []
    for style, network in enumerate(result.networks):
        kind = f"{network.precision or NOTHING}, {network.engine}, {network.device}"
        timing = next((row.timing for row in network.batches if row.batch == batch), None)
        name = _name(network)
        if timing:
            latency.append(Bar(name, kind, _p50_p99(timing), style, timing.p50_ms, timing.p99_ms))
        if network.cold_start_s is not None:
            cold.append(Bar(name, kind, f"{network.cold_start_s:.2f} s", style, network.cold_start_s))
        if network.peak_memory_mb is not None:
            memory.append(Bar(name, kind, f"{network.peak_memory_mb:.0f} MB", style, network.peak_memory_mb))
        if network.size_mb is not None:
            size.append(Bar(name, kind, f"{network.size_mb:.0f} MB", style, network.size_mb))
    shown = (
        (f"A call with batch {batch}: p50, and p99 as a line", latency, "Less is better."),
        ("Cold start: a new process to its first result", cold, "Less is better."),
        ("Peak memory of that process", memory, "Resident. Less is better."),
        ("File", size, "Less is better."),
    )
    return [card(title, bar_chart(title, bars), caption) for title, bars, caption in shown if bars]


def _distributions(result: BenchResult) -> list[str]:
    found = []
    for batch in _batches(result):
        series = []
        for style, network, row in _rows(result, batch):
            points = row.timing.quantiles_ms if row.timing else ()
            if points:
                series.append(Series(_name(network), style, tuple(zip(points, QUANTILES, strict=True))))
        x = Axis.over("ms a call", [at for one in series for at, per_cent in one.points if per_cent <= 95])
        title = f"Batch {batch}: per cent of the calls that take at most so long"
        y = Axis("%", 0, 100, ticks=(0, 25, 50, 75, 100))
        if series:
            found.append(card(title, line_chart(title, series, x, y, marks=False), "Steep is steady."))
    return found


def _batch_curves(result: BenchResult) -> list[str]:
    batches = _batches(result)
    low, high = min(batches), max(batches)
    x = Axis("batch", low / 1.15, high * 1.15, log=True, ticks=tuple(map(float, batches)))
    latency, rate = [], []
    for style, network in enumerate(result.networks):
        rows = [(row, row.timing) for row in network.batches if row.timing]
        latency.append(Series(_name(network), style, tuple((row.batch, timing.p50_ms) for row, timing in rows)))
        people = tuple((row.batch, row.people_per_s) for row, _ in rows if row.people_per_s is not None)
        rate.append(Series(_name(network), style, people))
    shown = (
        ("Latency of a call, p50", "ms a call", latency, "Less is better."),
        ("Throughput, batch / p50", "people/s", rate, "More is better."),
    )
    return [
        card(title, line_chart(title, series, x, _axis(label, series), marks=True), caption)
        for title, label, series, caption in shown
    ]


def _axis(label: str, series: Sequence[Series]) -> Axis:
    return Axis.over(label, [value for one in series for _, value in one.points])


def _tables(result: BenchResult) -> Iterator[str]:
    timed = ("p50", "p90", "p99", "mean")
    words = ("network", "engine", "precision", "device", "stage")
    yield "<h3>Networks, milliseconds a call</h3>"
    rows = [
        (str(batch), _name(network), *figures(row.timing), number(row.people_per_s, ".1f"), *counts(row.timing),
         number(row.speed_up, ".2f", "x"))
        for batch in _batches(result) for _, network, row in _rows(result, batch)
    ]  # fmt: skip
    yield table(("batch", "network", *timed, "people/s", "n", "busy", "gain"), rows, words)
    on_gpu = [
        (str(batch), _name(network), *(milliseconds(row.gpu_ms[part]) for part in GPU_PARTS))
        for batch in _batches(result) for _, network, row in _rows(result, batch) if row.gpu_ms
    ]  # fmt: skip
    if on_gpu:
        yield "<h3>On the GPU, milliseconds a call, medians</h3>"
        yield table(("batch", "network", "enqueue", "GPU", "H2D", "D2H"), on_gpu, words)
    yield "<h3>Start and memory</h3>"
    files = [
        (_name(network), network.engine, network.precision or NOTHING, network.device, number(network.size_mb, ".0f"),
         number(network.cold_start_s, ".2f"), number(network.peak_memory_mb, ".0f"), number(network.body_share, ".1%"))
        for network in result.networks
    ]  # fmt: skip
    yield table(("network", "engine", "precision", "device", "file MB", "cold s", "peak MB", "body"), files, words)
    yield "<h3>Stages, milliseconds a frame</h3>"
    stages = [
        (stage.name, *figures(stage.timing), *counts(stage.timing), number(stage.share, ".1%"))
        for stage in result.stages
    ]
    yield table(("stage", *timed, "n", "busy", "share"), stages, words)


def _legend(result: BenchResult) -> str:
    entries = (f"<li>{sample(style)}{escape(_name(network))}</li>" for style, network in enumerate(result.networks))
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _name(network: NetworkResult) -> str:
    return network.name.removesuffix(".onnx")


def _batches(result: BenchResult) -> list[int]:
    return sorted({row.batch for network in result.networks for row in network.batches})


def _rows(result: BenchResult, batch: int) -> Iterator[tuple[int, NetworkResult, BatchResult]]:
    """Style, network and row of every network at a batch."""
    for style, network in enumerate(result.networks):
        yield from ((style, network, row) for row in network.batches if row.batch == batch)


def _timings(result: BenchResult) -> Iterator[Timing]:
    yield from (row.timing for network in result.networks for row in network.batches if row.timing)
    yield from (stage.timing for stage in result.stages)
