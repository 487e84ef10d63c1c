"""Batches that are killed, compared with those left alone; and what several processes gain, as ratios.

python benchmarks/batch.py kills            50 random deaths of workers and of the command, then the same results
python benchmarks/batch.py throughput       workers against one process, on shards of a minute or more
python benchmarks/batch.py ray              a Ray cluster on this machine against --workers; needs the extra `ray`
python benchmarks/batch.py node             a node of a Ray cluster killed
python benchmarks/batch.py blocks FILM      what it changes that nothing is carried over a block's first frame
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from jotr_deploy.bundle import open_bundle, starter_path
from jotr_deploy.profiling.environment import load_average
from jotr_deploy.profiling.timed_picture import default_scene
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.runtime.sources.frame_source import BLOCK_FRAMES
from jotr_deploy.runtime.sources.opening import VideoWriter
from jotr_deploy.serving.batch.batch_options import BatchOptions
from jotr_deploy.serving.batch.batch_plan import Plan, planned
from jotr_deploy.support.processor import processor, usable_cores
from jotr_deploy.support.spans import Spans
from jotr_deploy.visual.result_files import read_people

TIMES = ("seconds", "milliseconds_per_frame")
KILLS, NODE_FILMS = 50, 30


def films(folder: Path, count: int, frames: int, width: int = 320) -> list[Path]:
    """Films of the scene in the package, which sways; each sways differently."""
    folder.mkdir(parents=True)
    with default_scene() as (picture, _):
        image = cv2.imread(str(picture))
    image = cv2.resize(image, (width, width * image.shape[0] // image.shape[1]))
    made = []
    for number in range(count):
        made.append(folder / f"film_{number}.mp4")
        with VideoWriter(made[-1], 25.0) as writer:
            for frame in range(frames):
                writer.write(np.roll(image, int(20 * np.sin(frame / 9 + number)), 1))
    return made


def plan_of(bundle: Path, sources: list[Path], output: Path, shard_frames: int, block: int) -> Plan:
    options = BatchOptions(block=block, device="cpu", people="detector", shard_minutes=shard_frames / 25 / 60)
    return planned(open_bundle(bundle), [str(each) for each in sources], output, options)


def results(output: Path) -> dict[str, Any]:
    """Every `.npz` as its hash, every JSON without its times."""
    found: dict[str, Any] = {}
    for path in sorted(output.glob("*/*")):
        if path.parent.name == ".batch":
            continue
        if path.suffix == ".json":
            told = json.loads(path.read_text())
            found[str(path.relative_to(output))] = {name: told[name] for name in told if name not in TIMES}
        else:
            found[str(path.relative_to(output))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


SCRIPT = """
import sys
from pathlib import Path
from jotr_deploy.serving.batch.batch_plan import Plan
from jotr_deploy.serving.batch.batch_state import State
from jotr_deploy.serving.batch.batch_worker import WorkerSettings
from jotr_deploy.serving.batch.local_workers import LocalWorkers
output, workers, attempts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
state = State(Plan.read(output), output)
with LocalWorkers(state, WorkerSettings(str(output), attempts, 1), workers) as local:
    local.run(lambda: None, lambda: 0)
"""
"""The command without its reading of arguments, so that a plan with a short block can be worked on."""


def command(output: Path, workers: int, attempts: int = 2) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(output), str(workers), str(attempts)])


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in found.stdout.split()]


def kills(bundle: Path, count: int, seed: int) -> None:
    """Kill workers and the command at random moments, start it again, and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = films(folder / "films", 4, 40)
        plan_of(bundle, sources, folder / "calm", 20, 10)
        start_s = time.perf_counter()
        assert command(folder / "calm", 2).wait() == 0
        calm_s = time.perf_counter() - start_s
        expected = results(folder / "calm")
        rng, done, rounds = random.Random(seed), {"worker": 0, "command": 0}, 0
        while sum(done.values()) < count:
            rounds += 1
            output = folder / f"killed_{rounds}"
            plan_of(bundle, sources, output, 20, 10)
            process = command(output, 2, attempts=1000)
            while (code := process.poll()) is None or code != 0:
                if code is not None:
                    process = command(output, 2, attempts=1000)
                time.sleep(rng.uniform(0.02, 0.35) * calm_s)
                if sum(done.values()) >= count:
                    process.wait()
                    continue
                who = rng.choice(["worker", "worker", "command"])
                victims = children(process.pid) if who == "worker" else [process.pid]
                if process.poll() is None and victims:
                    os.kill(rng.choice(victims), signal.SIGKILL)
                    done[who] += 1
            found = results(output)
            print(f"round {rounds}: {sum(done.values())} deaths so far, {len(found)} files,", end=" ")
            print("equal" if found == expected else "DIFFERENT")
            assert found == expected
        npz = sum(path.endswith(".npz") for path in expected)
        killed = f"{done['worker']} workers and {done['command']} commands killed"
        print(f"{killed}: all {npz} .npz equal to the byte each time, all JSON but for times")


ALONE = """
import sys
from pathlib import Path
from jotr_deploy.bundle import open_bundle
from jotr_deploy.runtime.run import RunOptions, open_model, run
bundle, output = open_bundle(Path(sys.argv[1])), Path(sys.argv[2])
options = RunOptions(people="detector", device="cpu", overlay=False, threads=1)
with open_model(bundle, options) as model:
    for film in sys.argv[3:]:
        run(bundle, film, output / Path(film).stem, options, model=model)
"""
"""Plain runs, one after the other in one process."""


def seconds_of(prefix: list[str], *arguments: object) -> float:
    """Duration of a Python script, its start included."""
    start_s = time.perf_counter()
    subprocess.run([*prefix, sys.executable, "-c", *map(str, arguments)], check=True)
    return time.perf_counter() - start_s


def throughput(bundle: Path, workers: int, rounds: int, frames: int, prefix: list[str]) -> None:
    """One film in one process, and a film for each of several workers: the ratio of the times is the efficiency."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = films(folder / "films", workers, frames)
        ratios = []
        for number in range(rounds):
            alone_s = seconds_of(prefix, ALONE, bundle, folder / f"alone_{number}", sources[0])
            plan_of(bundle, sources, folder / f"batch_{number}", 10**6, 1000)
            batch_s = seconds_of(prefix, SCRIPT, folder / f"batch_{number}", workers, 2)
            ratios.append(alone_s / batch_s)
            print(f"round {number + 1}: a film in one process {alone_s:.1f} s,", end=" ")
            print(f"{workers} films by {workers} workers {batch_s:.1f} s", flush=True)
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"throughput / (workers x one process): {spread}, aim >= 0.9")


@contextmanager
def cluster(nodes: int, cpus: int) -> Iterator[Any]:
    """A Ray cluster of several nodes on the loopback of this machine."""
    # On loopback; and a machine that is busy with other work starts slowly, which is no fault.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    for patience in ("raylet_start_wait_time_s", "gcs_server_request_timeout_seconds"):
        os.environ[f"RAY_{patience}"] = "600"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield made, [made.add_node(num_cpus=cpus) for _ in range(nodes)]
    finally:
        made.shutdown()


BY_RAY = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from batch import by_ray
by_ray(Path(sys.argv[1]), sys.argv[2])
"""


def by_ray(output: Path, address: str, told: Any = lambda: None) -> float:
    from jotr_deploy.serving.batch.batch_state import State
    from jotr_deploy.serving.batch.batch_worker import WorkerSettings
    from jotr_deploy.serving.batch.ray_workers import run_by_ray

    start_s = time.perf_counter()
    settings = WorkerSettings(str(output), threads=1)
    run_by_ray(State(Plan.read(output), output), settings, address, told, lambda: 0)
    return time.perf_counter() - start_s


def ray_against_workers(bundle: Path, workers: int, rounds: int, frames: int, prefix: list[str]) -> None:
    """A running Ray cluster against local processes, interleaved."""
    with tempfile.TemporaryDirectory() as name, cluster(1, workers) as (made, _):
        folder = Path(name)
        sources = films(folder / "films", workers, frames)
        ratios = []
        for number in range(rounds):
            plan_of(bundle, sources, folder / f"local_{number}", 10**6, 1000)
            local_s = seconds_of(prefix, SCRIPT, folder / f"local_{number}", workers, 2)
            plan_of(bundle, sources, folder / f"ray_{number}", 10**6, 1000)
            ray_s = seconds_of(prefix, BY_RAY, folder / f"ray_{number}", made.address)
            assert results(folder / f"ray_{number}") == results(folder / f"local_{number}")
            ratios.append(ray_s / local_s)
            print(f"round {number + 1}: {workers} workers {local_s:.1f} s, Ray {ray_s:.1f} s", flush=True)
        print(f"time by Ray / by workers: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), aim <= 1.1")


def node(bundle: Path, count: int, frames: int) -> None:
    """One of two nodes killed in the middle."""
    from jotr_deploy.serving.batch.batch_state import State

    with tempfile.TemporaryDirectory() as name, cluster(2, 1) as (made, nodes):
        folder = Path(name)
        sources = films(folder / "films", count, frames)
        plan = plan_of(bundle, sources, folder / "out", 10**6, 1000)
        state, killed_at = State(plan, folder / "out"), []

        def told() -> None:
            done = state.counts().done
            if done >= count // 4 and not killed_at:
                made.remove_node(nodes[0], allow_graceful=False)
                killed_at.append(done)

        by_ray(folder / "out", made.address, told)
        counts = state.counts()
        twice = len(list(state.folder.glob("*.2.attempt")))
        end = f"{counts.done} of {count} done, {len(counts.failed)} failed, {twice} begun twice"
        print(f"a node of two killed after {killed_at[0]} films: {end}")
        assert counts.done == count


def blocks(bundle: Path, film: Path, block: int) -> None:
    """The same film with and without dropping what is carried, and the frames around each drop."""
    with tempfile.TemporaryDirectory() as name:
        found = {}
        for size in (10**9, block):
            options = RunOptions(block=size, overlay=False, threads=1)
            spans = Spans()
            run(open_bundle(bundle), str(film), Path(name) / str(size), options, spans=spans)
            found[size] = read_people(Path(name) / str(size) / f"{film.stem}.npz")
    never, dropped = found[10**9], found[block]
    counts = [[len(each.at(frame)) for frame in each.numbers] for each in (never, dropped)]
    print(f"{film.name}: {len(never.numbers)} frames, dropped every {block}")
    print(f"  people in frames: {sum(counts[0])} without, {sum(counts[1])} with; frames with another count: "
          f"{sum(a != b for a, b in zip(*counts, strict=True))}")  # fmt: skip
    ids = [sorted(set(each.people.track_ids.tolist())) for each in (never, dropped)]
    print(f"  ids: {ids[0]} without, {ids[1]} with")
    frame_s: dict[int, float] = {}
    for span in spans.spans:  # of the run that drops
        frame_s[span.frame] = frame_s.get(span.frame, 0.0) + span.seconds
    drops = [frame_s[frame] for frame in frame_s if frame > 0 and frame % block == 0]
    others = [frame_s[frame] for frame in frame_s if frame > 0 and frame % block]
    times = median(drops) / median(others)
    share = 100 * (times - 1) / BLOCK_FRAMES
    print(f"  a frame at a drop takes {times:.1f} x another: {share:.2f} % of a film at one in {BLOCK_FRAMES}")
    by_phase: dict[int, list[float]] = {}
    jumps: dict[str, list[float]] = {"at drops": [], "in the same frames without": []}
    for frame in never.numbers.tolist():
        one, other = never.at(frame), dropped.at(frame)
        if len(one) != len(other):
            continue
        side = (one.boxes_px[:, 2] - one.boxes_px[:, 0])[:, None]
        apart = 100 * np.linalg.norm(one.keypoints_px[..., :2] - other.keypoints_px[..., :2], axis=-1) / side
        seen = one.keypoints_px[..., 2] > 0
        by_phase.setdefault(frame % block if frame >= block else -1, []).append(float(np.median(apart[seen])))
        for where, result in (("at drops", dropped), ("in the same frames without", never)):
            now, before = result.at(frame), result.at(frame - 1)
            if frame and frame % block == 0 and len(before) == len(now):
                step = 100 * np.linalg.norm(now.keypoints_px[..., :2] - before.keypoints_px[..., :2], axis=-1) / side
                jumps[where].append(float(np.median(step[seen])))
    for phase in (0, 1, 2, 3, 5, 8):
        values = by_phase.get(phase, [])
        if values:
            print(
                f"  {phase} frames after a drop: joints {median(values):.3f} % of the crop from those without (median)"
            )
    for where, values in jumps.items():
        print(f"  step of the joints from frame to frame, {where}: {median(values):.3f} % of the crop (median)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "throughput", "ray", "node", "blocks"])
    parser.add_argument("film", nargs="?", type=Path)
    parser.add_argument("--bundle", type=Path, default=starter_path())
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prefix", default="", help="command before each timed leg, such as one that stops other work")
    parser.add_argument("--block", type=int, default=20)
    told = parser.parse_args()
    print(f"$ python {' '.join(sys.argv)}")
    print(f"{processor()[0]}, {usable_cores()} cores, beside other work: load {load_average()}", flush=True)
    if told.what == "kills":
        kills(told.bundle, told.kills, told.seed)
    elif told.what == "throughput":
        throughput(told.bundle, told.workers, told.rounds, told.frames, told.prefix.split())
    elif told.what == "ray":
        ray_against_workers(told.bundle, told.workers, told.rounds, told.frames, told.prefix.split())
    elif told.what == "node":
        node(told.bundle, NODE_FILMS, told.frames)
    else:
        blocks(told.bundle, told.film, told.block)


if __name__ == "__main__":
    main()
