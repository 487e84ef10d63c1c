"""Throughput and latency of the server against the same work without HTTP, as ratios.

python benchmarks/serving.py starter

One process has the loaded model. Legs are interleaved, the median of several is reported: pictures through the pool of
the model itself, from the bytes of a file to the bytes of an answer, and the same pictures sent by clients in another
process on the same cores. Then one client alone, the cost of a rejection, and the gain of batches with networks that
wait as if for an accelerator.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from PIL import Image
from pipeline import Waiting

from jotr_deploy.bundle import open_bundle
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.timed_picture import default_scene
from jotr_deploy.serving.answer_formats import Wanted
from jotr_deploy.serving.app import AppOptions
from jotr_deploy.serving.people_server import PeopleServer, ServerOptions
from jotr_deploy.serving.request_context import RequestContext
from jotr_deploy.serving.served_model import ModelOptions

LOAD = Path(__file__).with_name("serving_load.py")
LONG_S = 600.0
WAITS_S = {"detector": (0.0015, 0.0005), "pose": (0.001, 0.0001), "mesh": (0.0015, 0.0004)}
"""Seconds of a call, and of each of its rows, of the networks that wait."""


class WaitingByRows(Waiting):
    """A network that waits as if for an accelerator: a time for the call, and one for each row."""

    def __init__(self, inner: Any, call_s: float, row_s: float) -> None:
        super().__init__(inner, call_s)
        self.call_s, self.row_s = call_s, row_s

    def _run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        self.wait_s = self.call_s + self.row_s * len(next(iter(feeds.values())))
        return super()._run(feeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=200, help="of a leg")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of each network")
    arguments = parser.parse_args()
    load = load_average()
    with tempfile.TemporaryDirectory() as folder, running(arguments.bundle, arguments.threads) as server:
        files = pictures(Path(folder))
        against_the_pipeline(server, files, arguments)
        overload(server, files, arguments)
        one_client(server, files[0])
        rejections(server, files[0])
        batches(server, files, arguments)
    print(environment(None, False, load))


@contextmanager
def running(bundle: Path, threads: int) -> Iterator[PeopleServer]:
    """A server of this process that is ready."""
    options = AppOptions(limit=256, deadline_s=LONG_S)
    server = PeopleServer(open_bundle(bundle), ServerOptions(port=0, drain_s=0), ModelOptions(threads=threads), options)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    ready.wait(LONG_S)
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def pictures(folder: Path) -> list[Path]:
    """Twenty variants of the package's picture, some with two people, some with one."""
    with default_scene() as (picture, _):
        scene = Image.open(picture).convert("RGB")
    rng, found = np.random.default_rng(0), []
    for number in range(20):
        x, y = (int(each) for each in rng.integers(0, 120, 2))
        part = scene.crop((x, y, x + 840, y + 600)).resize((640, 457))
        file = io.BytesIO()
        (part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else part).save(file, "JPEG", quality=90)
        found.append(folder / f"{number}.jpg")
        found[-1].write_bytes(file.getvalue())
    return found


def in_process(server: PeopleServer, files: list[Path], count: int) -> float:
    """Seconds for `count` pictures through the pool, without HTTP."""
    contents = [file.read_bytes() for file in files]

    def work(number: int) -> None:
        context = RequestContext(LONG_S)
        with context.entered():
            server.served.answer(contents[number % len(contents)], Wanted(), None, context)

    start_s = time.perf_counter()
    list(server.served.pool.map(work, range(count)))
    return time.perf_counter() - start_s


def by_clients(server: PeopleServer, files: list[Path], clients: int, count: int) -> tuple[float, list[float]]:
    """Seconds for `count` pictures by clients in another process, and the latency of each."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    command = [sys.executable, LOAD, host, port, str(clients), str(count), *files]
    told = json.loads(subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout)
    assert {code: number for code, number in told["codes"].items() if code != "429"} == {"200": count}, told["codes"]
    return told["seconds"], told["latencies_s"]


def against_the_pipeline(server: PeopleServer, files: list[Path], arguments: argparse.Namespace) -> None:
    """Throughput by HTTP as a share of that in the process, and the tail of latencies."""
    clients, count = arguments.clients, arguments.requests
    shares, tails, rates = [], [], []
    for number in range(arguments.rounds + 1):  # the first warms up
        within_s = in_process(server, files, count)
        outside_s, latencies_s = by_clients(server, files, clients, count)
        if number == 0:
            continue
        shares.append(within_s / outside_s)
        rates.append(count / outside_s)
        tails.append(float(np.quantile(latencies_s, 0.99)) / (clients / (count / outside_s)))
    print(f"{clients} clients, {count} requests a leg, {arguments.rounds} interleaved rounds")
    print(f"  throughput by HTTP / in the process   {spread(shares)}   aim >= 0.95")
    print(f"  p99 / (clients / throughput)          {spread(tails)}   aim <= 1.25")
    print(f"  requests a second by HTTP             {spread(rates)}   on this machine, with what else ran on it")
    for role, network in server.served.networks.items():
        sample = {
            each.name: each.value
            for metric in server.metrics.network_batch_size.collect()
            for each in metric.samples
            if each.labels.get("network") == role and "le" not in each.labels
        }
        calls, rows = sample["jotr_network_batch_size_count"], sample["jotr_network_batch_size_sum"]
        print(f"  rows a call of {role:8s} {rows / calls:5.2f} (up to {network.most})")


def overload(server: PeopleServer, files: list[Path], arguments: argparse.Namespace) -> None:
    """Useful throughput with twice as many clients as are admitted, who come back when told."""
    admission, clients, rates = server.app._admission, arguments.clients, list[float]()
    for _ in range(arguments.rounds):
        enough_s, _ = by_clients(server, files, clients, arguments.requests)
        limit, admission.limit = admission.limit, clients // 2
        full_s, _ = by_clients(server, files, clients, arguments.requests)
        admission.limit = limit
        rates.append(enough_s / full_s)
    print(
        f"half of {clients} clients admitted: useful throughput {spread(rates)} of that with room for all; aim >= 0.9"
    )


def one_client(server: PeopleServer, file: Path) -> None:
    """What HTTP adds for a client alone."""
    content, within, outside = file.read_bytes(), [], []
    with httpx.Client(base_url=server.url, timeout=LONG_S) as client:
        for _ in range(30):
            start_s = time.perf_counter()
            in_process(server, [file], 1)
            within.append(time.perf_counter() - start_s)
            start_s = time.perf_counter()
            client.post("/v1/people", content=content)
            outside.append(time.perf_counter() - start_s)
    print(f"one client: {median(outside) / median(within):.2f} x the time in the process, medians of {len(within)}")


def rejections(server: PeopleServer, file: Path) -> None:
    """Cost of a rejection as a share of a request's."""
    admission, content = server.app._admission, file.read_bytes()
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=LONG_S) as client:
        start_s = time.process_time()
        for _ in range(20):
            assert client.post("/v1/people", content=content).status_code == 200
        served_s = (time.process_time() - start_s) / 20
        limit, admission.limit = admission.limit, 0
        start_s = time.process_time()
        for _ in range(200):
            assert client.post("/v1/people", content=content).status_code == 429
        refused_s = (time.process_time() - start_s) / 200
        admission.limit = limit
    print(f"a rejection costs {refused_s / served_s:.3f} of a request's processor time, its client's included")


def batches(server: PeopleServer, files: list[Path], arguments: argparse.Namespace) -> None:
    """Gain of batches across requests where networks take the time of an accelerator."""
    served, rates = server.served, {}
    for role, (call_s, row_s) in WAITS_S.items():
        session = served.networks[role]
        session._run_together = waiting(session._run_together, call_s, row_s)  # type: ignore[method-assign]
    pool, known = served.pool, [served.networks[role] for role in WAITS_S]
    ways = {"batched": (16, 16), "rows one by one": (1, 16), "pictures one by one": (1, 1)}
    for number in range(arguments.rounds + 1):
        for way, (most, threads) in ways.items():
            for session in known:
                session.most = most
            with ThreadPoolExecutor(threads) as served.pool:
                took_s = in_process(server, files[:1], arguments.requests)
            if number:
                rates.setdefault(way, []).append(arguments.requests / took_s)
    served.pool = pool
    print("networks that wait as a GPU would, up to 16 pictures at once")
    for way in list(ways)[1:]:
        ratios = [many / one for one, many in zip(rates[way], rates["batched"], strict=True)]
        print(f"  batched / {way:20} {spread(ratios)}")


def waiting(work: Any, call_s: float, row_s: float) -> Any:
    """The call of a batched session, with a network that waits in place of the real one."""
    kept: list[WaitingByRows] = []

    def call(inner: Any, taken: Any) -> None:
        if not kept:
            kept.append(WaitingByRows(inner, call_s, row_s))
        work(kept[0], taken)

    return call


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
