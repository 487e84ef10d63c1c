"""`bench`: times of everything in a bundle on this machine, side by side with PyTorch eager."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from jotr_deploy.body.faces import read_faces
from jotr_deploy.bundle import Bundle
from jotr_deploy.errors import SessionError
from jotr_deploy.fitting.fitter import open_fitter
from jotr_deploy.profiling.bench_result import (
    GPU_PART,
    GPU_PARTS,
    BenchResult,
    NetworkResult,
    StageResult,
    Timing,
    batch_results,
    ratio,
    timings,
)
from jotr_deploy.profiling.cold import cold_start
from jotr_deploy.profiling.eager import EAGER
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.interleave import Job, collect, plan_rounds, timed, warm_up
from jotr_deploy.profiling.networks import Network, Opened, open_networks
from jotr_deploy.profiling.quiet_samples import BUSY_SHARE, Judge, Key
from jotr_deploy.profiling.timed_picture import Scene, frame_job, open_scene
from jotr_deploy.runtime.finding.people_networks import ROLES, PeopleNetworks, file_for, open_people_networks
from jotr_deploy.support.aliases import Progress
from jotr_deploy.support.choices import FitChoice

COLD_STARTS = 3
_FRAME, _COLD = "frame", "cold"
_NO_BODY = "{} without body"
_GPU_LINE = (
    "on the GPU: medians of the same calls; enqueue: host time to hand the network to the GPU; GPU, H2D and D2H: by "
    "events on the GPU, the network and the copies to and from it; end to end: the wall clock of the table above."
)

_FIT_LINE = (
    "features: the extractor; render: posing, selecting and drawing in all steps of the fit, and the energy; "
    "backward: their gradients."
)


def bench(
    bundle: Bundle,
    *,
    batches: Sequence[int] = (1, 4, 16),
    threads: int | None = None,
    tf32: bool = False,
    device: str = "auto",
    seconds: float = 30.0,
    source: Path | None = None,
    keypoints: Path | None = None,
    eager: bool = True,
    fit: FitChoice | None = None,
    progress: Progress = lambda step, done, total: None,
) -> BenchResult:
    """Measure every network of a bundle, the stages of a frame, cold starts and memory.

    Args:
        bundle: opened.
        batches: people in one call of the network.
        threads: width of the engines, PyTorch included; None leaves each engine's default.
        tf32: let ONNX Runtime and PyTorch round float32 products to TF32 on CUDA.
        device: "auto", "cpu" or "cuda".
        seconds: about how long to measure, at most twice that; warm-up and cold starts come on top.
        source: a picture in place of the one in this package.
        keypoints: its joints; without them people are found by the bundle's detector, and without one the whole
            picture is one person.
        eager: also measure PyTorch eager, where PyTorch is installed.
        fit: a fit, whose stages are then part of a frame.
        progress: called with each step.

    Raises:
        JotrDeployError: a bundle, picture or keypoint file that cannot be used.
    """
    load, batches = load_average(), tuple(dict.fromkeys(batches))
    with ExitStack() as stack:
        fitter = None
        if fit is not None:
            fitter = stack.enter_context(open_fitter(bundle, fit.preset, device, threads, vposer=fit.vposer))
        finders = PeopleNetworks()
        if keypoints is None and bundle.has("detector"):
            finders = stack.enter_context(open_people_networks(bundle, device=device, threads=threads, tf32=tf32))
        scene = stack.enter_context(open_scene(source, keypoints, bundle.manifest.model, finders))
        opened = stack.enter_context(open_networks(bundle, device, threads, eager, tf32))
        faces = read_faces(bundle) if "vertices" in opened.first.outputs else None
        frame, notes = frame_job(scene, opened.first, faces, fitter), [*opened.notes, *scene.notes]
        if fit is not None and fitter is not None:
            prior = fitter.prior_used
            latent = f" in the latent of {prior['name']} ({prior['sha256'][:12]})" if prior else ""
            notes.append(f"fit: preset {fit.preset}, features by {fitter.name}, optimised{latent} on {fitter.device}")
        if finders.detector is not None:
            notes += [f"people are found by {name}" for name in _made_files(bundle, device)]
        groups = {_FRAME: [frame]}
        for batch in batches:
            groups[f"batch {batch}"] = _network_jobs(opened, scene, batch, batch == min(batches), notes)
        found, peaks = _measure(groups, opened.networks, seconds, notes, progress)
    by_key = {key: timing for group in found.values() for key, timing in group.items()}
    return BenchResult(
        bundle=str(bundle.path),
        labels=bundle.manifest.labels,
        timed=_timed(scene, min(batches), any(network.times for network in opened.networks), fit is not None),
        networks=tuple(_network_result(network, batches, by_key, peaks) for network in opened.networks),
        stages=_stage_results(frame, by_key),
        notes=tuple(notes),
        warnings=tuple(_warnings(found)),
        environment=environment(threads, any(network.device == "cuda" for network in opened.networks), load, tf32),
    )


def _made_files(bundle: Bundle, device: str) -> list[str]:
    """Files of the detector and the pose network that are used here in place of those they were made from."""
    used = [file_for(bundle, role, device) for role in ROLES if bundle.has(role)]
    return [entry.name for entry in used if entry != bundle.entry(entry.role)]


def _network_jobs(opened: Opened, scene: Scene, batch: int, with_share: bool, notes: list[str]) -> list[Job]:
    """Jobs of every network that accepts this batch; `with_share` adds those without body."""
    feeds, jobs = scene.batch(batch), []
    for network in opened.networks:
        try:
            network.call(feeds)
        except SessionError as error:
            notes.append(f"{network.name} left out at batch {batch}: {error.cause}")
            continue
        jobs.append(timed((network.name, batch), partial(network.call, feeds), _gpu_parts(network, batch)))
        if with_share and network.no_body is not None:
            jobs.append(timed((_NO_BODY.format(network.name), batch), partial(network.no_body, feeds)))
    return jobs


def _gpu_parts(network: Network, batch: int) -> dict[Key, Callable[[], float]]:
    """Times that a session on a GPU measures itself, in seconds."""
    times = network.times
    if times is None:
        return {}

    def seconds(part: str) -> float:
        return times()[part] / 1000

    return {(GPU_PART.format(network.name, part), batch): partial(seconds, part) for part in GPU_PARTS}


def _measure(
    groups: Mapping[str, Sequence[Job]],
    networks: Sequence[Network],
    seconds: float,
    notes: list[str],
    progress: Progress,
) -> tuple[dict[str, dict[Key, Timing]], Mapping[str, list[int]]]:
    """Measure in this process, then cold starts; figures by group, and peak memory by network in bytes."""
    judge = Judge()
    plan = plan_rounds(warm_up(groups, seconds, progress), seconds)
    collect(groups, plan, judge, "measuring", progress, at_most_s=2 * seconds)
    found = {name: timings(jobs, plan[name], judge) for name, jobs in groups.items()}
    starts, peaks = _cold_jobs(networks, notes, progress)
    collect({_COLD: starts}, {_COLD: COLD_STARTS}, judge, "cold starts", progress)
    found[_COLD] = timings(starts, COLD_STARTS, judge)
    return found, peaks


def _cold_jobs(
    networks: Sequence[Network], notes: list[str], progress: Progress
) -> tuple[list[Job], Mapping[str, list[int]]]:
    """Jobs of cold starts, and the mapping that receives peak memory. A first, untimed start fills the disk cache."""
    jobs, peaks = [], defaultdict(list)

    def start(network: Network) -> Mapping[Key, float]:
        cold = cold_start(network.name, network.cold_arguments)
        peaks[network.name].append(cold.peak_bytes)
        return {(_COLD, network.name): cold.seconds}

    for done, network in enumerate(networks):
        progress("first cold start", done, len(networks))
        try:
            start(network)
        except SessionError as error:
            notes.append(f"no cold start: {error.cause}")
            continue
        jobs.append(Job(((_COLD, network.name),), partial(start, network)))
    return jobs, peaks


def _network_result(
    network: Network,
    batches: Sequence[int],
    found: Mapping[Key, Timing],
    peaks: Mapping[str, list[int]],
) -> NetworkResult:
    smallest = min(batches)
    without = ratio(found.get((_NO_BODY.format(network.name), smallest)), found.get((network.name, smallest)), "p10_ms")
    cold, peak = found.get((_COLD, network.name)), peaks.get(network.name)
    return NetworkResult(
        name=network.name,
        engine=network.engine,
        precision=network.precision,
        device=network.device,
        size_mb=None if network.size_bytes is None else round(network.size_bytes / 1e6, 1),
        batches=batch_results(network.name, batches, found, EAGER),
        body_share=None if without is None else round(1 - without, 4),
        cold_start_s=None if cold is None else round(cold.p50_ms / 1000, 2),
        peak_memory_mb=None if not peak else round(max(peak) / 1e6, 1),
    )


def _stage_results(frame: Job, found: Mapping[Key, Timing]) -> tuple[StageResult, ...]:
    rows = [(str(key[1]), found[key]) for key in frame.keys]
    whole = sum(timing.p50_ms for _, timing in rows)
    return tuple(
        StageResult(name, timing, None if timing.busy else round(timing.p50_ms / whole, 4)) for name, timing in rows
    )


def _timed(scene: Scene, smallest: int, on_gpu: bool, fits: bool = False) -> tuple[str, ...]:
    (width, height), count = scene.size_px, len(scene.people)
    people = "1 person" if count == 1 else f"{count} people"
    people += " found by the bundle's detector" if scene.finder else ""
    return (
        "network: wall clock of one call, crops in memory to all outputs in memory, body included; people/s = batch / "
        "p50; gain: p50 of PyTorch eager / p50. All take turns in the same rounds, and each starts when the threads of "
        "the one before are idle.",
        *((_GPU_LINE,) if on_gpu else ()),
        f"body: what of it the body takes at batch {smallest}: the p10 of the same file without body against its own, "
        "because the median repeats less well than the body is long.",
        f"stages: one frame of {width} x {height} with {people}, from a file in the disk cache to meshes drawn.",
        *((_FIT_LINE,) if fits else ()),
        f"cold: start of a process to its first result at batch 1, files in the disk cache, median of "
        f"{COLD_STARTS}; peak: resident memory of that process.",
        f"busy: samples dropped because the rest of the machine then used over {BUSY_SHARE:.0%} of its cores.",
    )


def _warnings(found: Mapping[str, Mapping[Key, Timing]]) -> Iterator[str]:
    busy = [name for name, group in found.items() if any(timing.busy for timing in group.values())]
    if busy:
        yield (
            f"the rest of the machine was busy nearly all the time during: {', '.join(busy)}. Nothing was dropped "
            "there: these figures are upper bounds, and ratios, which would mean nothing, are left out"
        )
