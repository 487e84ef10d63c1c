"""Text of a benchmark for a terminal 80 columns wide; the mean and full names are in its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jotr_deploy.profiling.bench_result import GPU_PARTS, BenchResult, NetworkResult, StageResult, Timing
from jotr_deploy.profiling.choose import Choice
from jotr_deploy.profiling.environment import Environment
from jotr_deploy.profiling.frame_times import FrameProfile
from jotr_deploy.profiling.layer_times import Profile
from jotr_deploy.profiling.p99_search_result import TargetResult

NOTHING = "-"
_LITTLE_MS = 0.1  # blocks without arithmetic that take less everywhere are not shown
P99_SAMPLES = 100
"""Fewest samples of a p99; with fewer it is little more than the slowest one."""

RARE = f"*: p99 of fewer than {P99_SAMPLES} samples is little else than the slowest one."


def report(result: BenchResult) -> Group:
    """Everything of a result, ready to print."""
    parts: list[RenderableType] = [_networks(result), Text()]
    if any(row.gpu_ms for network in result.networks for row in network.batches):
        parts += [_on_gpu(result), Text()]
    parts += [_files(result.networks), Text(), _stages(result.stages)]
    parts += [Text(), *_lines(result), Text(), _environment(result.environment)]
    return Group(*parts)


def choices_report(choices: Sequence[Choice]) -> Group:
    """Table of every file in every engine, with the chosen one marked and notes on those left out."""
    engines = tuple(dict.fromkeys(engine for choice in choices for engine in (*choice.timings, *choice.left_out)))
    table = _table("One person, milliseconds a call, p50", "network", *engines)
    for choice in choices:
        figures = []
        for engine in engines:
            timing = choice.timings.get(engine)
            figure = NOTHING if timing is None else milliseconds(timing.p50_ms)
            figures.append(f"[bold green]{figure} chosen[/]" if engine == choice.chosen else figure)
        table.add_row(_name(choice.file), *figures)
    notes = [f"{choice.file} not in {name}: {why}" for choice in choices for name, why in choice.left_out.items()]
    busy = any(timing.busy for choice in choices for timing in choice.timings.values())
    warnings = ["the rest of the machine was busy nearly all the time: choose again when it is quiet"] if busy else []
    return Group(table, Text(), *_remarks(notes, warnings))


def target_report(result: TargetResult) -> Group:
    """Table of all candidates, with the chosen one marked; `~` marks a probe of a few calls."""
    table = _table(
        f"Within {result.p99_ms:g} ms, milliseconds a call",
        "network", "format", "engine", "batch", "p99", "people/s", "",
    )  # fmt: skip
    for each in result.tried:
        verdict = "fits" if each.fits(result.p99_ms) else "slow" if each.measured else "~"
        mark = {id(result.chosen): "[bold green]chosen[/]", id(result.nearest): "[yellow]nearest[/]"}
        table.add_row(
            _name(each.file), escape(each.precision) or NOTHING, each.engine, str(each.batch),
            figures(each.timing)[2], f"{each.people_per_s:.1f}", mark.get(id(each), verdict),
        )  # fmt: skip
    lines = ["~: a probe of a few calls, which promise too little or too slow ones.", RARE]
    return Group(table, Text(), *map(Text, lines), *_remarks(result.notes, result.warnings), Text(),
                 _environment(result.environment))  # fmt: skip


def frames_report(profile: FrameProfile) -> Group:
    """Table of the time of every stage per frame, the latency of a frame, and the stage that sets the rate."""
    table = _table("Stages, milliseconds a frame", "stage", "p50", "p90", "p99", "mean", "n", "share", "waits")
    waits_ms = {link.stage: link.waits_ms for link in profile.path}
    for stage in profile.stages:
        tally, waits = (str(stage.timing.kept), f"{stage.share:.1%}"), waits_ms.get(stage.name)
        table.add_row(escape(stage.name), *figures(stage.timing), *tally, _optional_ms(waits))
    table.add_section()
    if profile.latency:
        tally = (str(profile.latency.kept), NOTHING)
        table.add_row("frame", *figures(profile.latency), *tally, milliseconds(sum(waits_ms.values())))
    return Group(table, Text(), *map(Text, _frame_lines(profile)))


def _frame_lines(profile: FrameProfile) -> Iterator[str]:
    yield "frame: from the start of its first stage to the end of its last; waits: for its turn in that stage, mean."
    timings = [stage.timing for stage in profile.stages] + ([profile.latency] if profile.latency else [])
    if any(timing.kept < P99_SAMPLES for timing in timings):
        yield RARE
    if profile.path:
        links = [
            part
            for link in profile.path
            for part in (("waits", link.waits_ms), (link.stage, link.ms))
            if part[0] != "waits" or part[1] >= _LITTLE_MS
        ]
        yield f"critical path of a frame, ms: {', '.join(f'{name} {milliseconds(ms)}' for name, ms in links)}"
    if profile.frames_per_s is not None:
        yield f"{profile.frames_per_s:.1f} frames/s over {profile.frames} frames."
    if profile.bound:
        yield profile.bound


def layers_report(found: Profile) -> Group:
    """Table of every block in every file, with the sum of all kernels and its lower bound."""
    table = _table(f"Kernels, milliseconds a call, batch {found.batch}", "block", "GFLOP")
    for layers in found.files:
        table.add_column(_name(layers.file).replace(".", "\n"), justify="right")
    by_file = [{block.name: block for block in layers.blocks} for layers in found.files]
    for name, block in {block.name: block for layers in found.files for block in layers.blocks}.items():
        if not block.gflop and max(blocks[name].ms for blocks in by_file if name in blocks) < _LITTLE_MS:
            continue
        figures = [milliseconds(blocks[name].ms) if name in blocks else NOTHING for blocks in by_file]
        table.add_row(name, f"{block.gflop:.2f}" if block.gflop else NOTHING, *figures)
    table.add_section()
    gflop = sum(block.gflop for block in found.files[0].blocks)
    table.add_row("all", f"{gflop:.2f}", *(milliseconds(layers.ms) for layers in found.files))
    for what in ("computing", "weights"):
        table.add_row(what, "", *(milliseconds(getattr(layers, f"{what}_ms")) for layers in found.files))
    table.add_row("all / floor", "", *(f"{layers.ms / layers.floor_ms:.1f}x" for layers in found.files))
    speeds = ", ".join(f"{name} {speed:.0f}" for name, speed in found.peaks.items())
    lines = (
        f"computing: the arithmetic at the speed of a large matrix product, GFLOP/s: {speeds}.",
        f"weights: reading them once at {found.memory_gb_per_s:.1f} GB/s. The larger of the two is the floor.",
    )
    return Group(table, Text(), *map(Text, lines), *_remarks(found.notes, ()))


def _networks(result: BenchResult) -> Table:
    table = _table(
        "Network, milliseconds a call",
        "batch", "network", "p50", "p90", "p99", "people/s", "n", "busy", "gain",
    )  # fmt: skip
    rows = [(row, network) for network in result.networks for row in network.batches]
    for batch in dict.fromkeys(row.batch for row, _ in rows):
        table.add_section()
        shown = str(batch)
        for row, network in (pair for pair in rows if pair[0].batch == batch):
            table.add_row(
                shown,
                _name(network.name),
                *figures(row.timing)[:-1],
                number(row.people_per_s, ".1f"),
                *counts(row.timing),
                number(row.speed_up, ".2f", "x"),
            )
            shown = ""
    return table


def _on_gpu(result: BenchResult) -> Table:
    table = _table(
        "On the GPU, milliseconds a call, medians", "batch", "network", "enqueue", "GPU", "H2D", "D2H", "end to end"
    )
    rows = [(row, network) for network in result.networks for row in network.batches]
    for row, network in sorted(rows, key=lambda pair: pair[0].batch):
        if row.gpu_ms and row.timing:
            times = (*(row.gpu_ms[part] for part in GPU_PARTS), row.timing.p50_ms)
            table.add_row(str(row.batch), _name(network.name), *map(milliseconds, times))
    return table


def _files(networks: tuple[NetworkResult, ...]) -> Table:
    table = _table(
        "Start and memory",
        "network", "format", "engine", "file MB", "cold s", "peak MB", "body",
    )  # fmt: skip
    for network in networks:
        table.add_row(
            _name(network.name),
            network.precision or NOTHING,
            network.engine if network.device == "cpu" else f"{network.engine}, {network.device}",
            number(network.size_mb, ".0f"),
            number(network.cold_start_s, ".2f"),
            number(network.peak_memory_mb, ".0f"),
            number(network.body_share, ".1%"),
        )
    return table


def _stages(stages: tuple[StageResult, ...]) -> Table:
    table = _table("Stages, milliseconds a frame", "stage", "p50", "p90", "p99", "mean", "n", "busy", "share")
    for stage in stages:
        table.add_row(stage.name, *figures(stage.timing), *counts(stage.timing), number(stage.share, ".1%"))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        words = column in ("network", "stage", "format", "engine", "block", "engine", "format", "")
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _name(file: str) -> str:
    return escape(file.removesuffix(".onnx"))


def rare(timing: Timing) -> str:
    """Mark of a p99 from too few samples."""
    return "" if timing.kept >= P99_SAMPLES else "*"


def figures(timing: Timing | None) -> tuple[str, ...]:
    """p50, p90, p99 and mean."""
    if timing is None:
        return (NOTHING,) * 4
    p50, p90, p99, mean = map(milliseconds, (timing.p50_ms, timing.p90_ms, timing.p99_ms, timing.mean_ms))
    return p50, p90, f"{p99}{rare(timing)}", mean


def milliseconds(value: float) -> str:
    """Number with about three digits at any magnitude."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _optional_ms(value: float | None) -> str:
    return NOTHING if value is None else milliseconds(value)


def counts(timing: Timing | None) -> tuple[str, str]:
    """Numbers of samples kept, and of those dropped because the machine was busy."""
    if timing is None:
        return "0", NOTHING
    return str(timing.kept), "busy" if timing.busy else str(timing.dropped)


def number(value: float | None, form: str, unit: str = "") -> str:
    """Figure as text, or the sign for none."""
    return NOTHING if value is None else f"{value:{form}}{unit}"


def _lines(result: BenchResult) -> Iterator[Text]:
    for line in result.timed:
        yield Text(line)
    timings = [row.timing for network in result.networks for row in network.batches]
    timings += [stage.timing for stage in result.stages]
    if any(timing and timing.kept < P99_SAMPLES for timing in timings):
        yield Text(RARE)
    yield from _remarks((*result.notes, *result.labels), result.warnings)


def _remarks(notes: Sequence[str], warnings: Sequence[str]) -> Iterator[Text]:
    for kind, style, texts in (("note", "yellow", notes), ("warning", "bold red", warnings)):
        for text in texts:
            yield Text.assemble((kind, style), f" {text}")


def _environment(machine: Environment) -> Text:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    threads = "each engine's default" if machine.threads is None else str(machine.threads)
    lines = [
        f"{machine.cpu}, {machine.cores} cores, {machine.hardware_threads} hardware threads, "
        f"{machine.memory_gb:g} GB; {' '.join(machine.flags) or 'no known vector instructions'}",
        *([machine.gpu_products] if machine.gpu_products else []),
        f"{machine.os}, Python {machine.python}; {versions}",
        f"threads: {threads}; load average before the run: {' '.join(f'{load:g}' for load in machine.load_average)}",
    ]
    return Text("\n".join(lines), style="dim")
