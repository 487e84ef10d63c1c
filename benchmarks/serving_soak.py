"""A server under load, under attack, and at its end; every part prints what it saw, and fails loudly.

python benchmarks/serving_soak.py starter [answers] [mutated] [rude] [drain]

answers: many clients, every answer compared with that of `run`, and the counts with those of `/metrics`.
mutated: requests with changes, none of which may be answered 500; memory before and after.
rude: clients that stall, trickle and vanish beside good ones.
drain: SIGTERM under load behind a balancer that watches `ready`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image, ImageEnhance
from serving_load import Answer, Request, loaded

from jotr_deploy.bundle import open_bundle
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.timed_picture import default_scene
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.serving.answer_formats import PERSON_FIELDS
from jotr_deploy.visual.result_files import PeopleFile, read_people

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving"))
from mutated_requests import mutated_requests

FIELDS = ("box_px", "score", "keypoints_px", "joints_m", "translation_m", "focal_px", "principal_px", "pose_rad")
METRES, PIXELS = 1e-5, 0.01
LONG_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("parts", nargs="*", default=["answers", "mutated", "rude", "drain"])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--mutated", type=int, default=10_000)
    arguments = parser.parse_args()
    load = load_average()
    for part in arguments.parts:
        {"answers": answers, "mutated": mutated, "rude": rude, "drain": drain}[part](arguments)
    print(environment(None, False, load))


class Served:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log
        self.host, _, port = url.removeprefix("http://").rpartition(":")
        self.port = int(port)

    def metric(self, pattern: str) -> float:
        """Sum of the numbers of `/metrics` whose name and labels match."""
        lines = httpx.get(f"{self.url}/metrics", timeout=LONG_S).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(pattern, line))

    @property
    def megabytes(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 1e6


@contextmanager
def served(bundle: Path, *options: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "jotr_deploy.cli", "serve", str(bundle), "--port", "0", "--threads", "1"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with (
            log.open("w") as errors,
            subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            try:
                line = process.stdout.readline()  # type: ignore[union-attr]
                assert line.startswith("ready"), log.read_text()
                found = re.search(r"http://\S+", line)
                assert found is not None
                yield Served(process, found.group(), log)
            finally:
                process.kill()


def pictures(folder: Path, count: int) -> list[Path]:
    """Different pictures: parts of the package's own, mirrored, darker and brighter, in three formats."""
    with default_scene() as (picture, _):
        scene = Image.open(picture).convert("RGB")
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        x, y, cut = (int(each) for each in rng.integers(0, (200, 120, 200)))
        part = scene.crop((x, y, x + 960 - 200 - cut // 2, y + 720 - 120)).resize((480, 380))
        part = ImageEnhance.Brightness(part).enhance(float(rng.uniform(0.7, 1.2)))
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else part
        found.append(folder / f"{number:02d}{('.jpg', '.png', '.webp')[number % 3]}")
        part.save(found[-1])
    return found


def expected(bundle: Path, files: list[Path], out: Path) -> list[PeopleFile]:
    """What `run` makes of every picture."""
    opened = open_bundle(bundle)
    for file in files:
        run(opened, str(file), out, RunOptions(threads=1, overlay=False))
    return [read_people(out / f"{file.stem}.npz", opened) for file in files]


def answers(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder, served(arguments.bundle, "--deadline", "600") as server:
        files = pictures(Path(folder), arguments.pictures)
        contents = [file.read_bytes() for file in files]
        wanted = expected(arguments.bundle, files, Path(folder) / "out")
        worst: dict[str, float] = {}
        codes: Counter[int] = Counter()
        wrong: list[str] = []

        def seen(answer: Answer) -> None:
            codes[answer.status] += 1
            if answer.status == 200:
                fault = compared(json.loads(answer.body)["people"], wanted[answer.number % len(files)], worst)
                wrong.extend([f"picture {answer.number % len(files)}: {fault}"] if fault else [])

        path = f"/v1/people?fields={','.join(FIELDS)}"
        requests = (Request(k, path, {}, contents[k % len(files)]) for k in range(arguments.requests))
        took_s = asyncio.run(loaded(server.host, server.port, arguments.clients, requests, seen))
        print(f"{arguments.requests} requests of {len(files)} pictures by {arguments.clients} clients: {took_s:.0f} s")
        print(f"  people a picture {np.mean([len(each.people) for each in wanted]):.2f}; answers {dict(codes)}")
        print("  largest differences from run: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()))
        counted = {
            code: int(server.metric(rf'jotr_requests_total{{code="{code}",endpoint="v1_people"}}')) for code in codes
        }
        print(f"  by /metrics {counted}; still admitted {server.metric('jotr_admitted '):g}")
        assert not wrong, wrong[:5]
        assert counted == dict(codes)


def compared(people: list[dict[str, object]], wanted: PeopleFile, worst: dict[str, float]) -> str | None:
    """The difference of an answer beyond the limits; the largest of each field are kept in `worst`."""
    if len(people) != len(wanted.people):
        return f"{len(people)} people, not {len(wanted.people)}"
    for name in FIELDS:
        found = np.array([person[name] for person in people], np.float64)
        true = getattr(wanted.people, PERSON_FIELDS[name])
        difference = float(np.abs(found.reshape(true.shape) - true).max(initial=0))
        worst[name] = max(worst.get(name, 0.0), difference)
        limit = PIXELS if name.endswith("_px") else METRES if name.endswith("_m") else 1e-4
        if difference > limit:
            return f"{name} differs by {difference:.2g}"
    return None


def mutated(arguments: argparse.Namespace) -> None:
    with default_scene() as (picture, _), served(arguments.bundle) as server:
        small = io_small(picture)
        codes: Counter[int] = Counter()
        failed: list[bytes] = []
        megabytes: list[float] = []
        count = arguments.mutated

        def seen(answer: Answer) -> None:
            codes[answer.status] += 1
            if answer.status in (0, 500):
                failed.append(answer.body)

        rng = np.random.default_rng(1)
        for part in range(5):
            requests = (
                Request(k, path, headers, body)
                for k, (path, headers, body) in enumerate(mutated_requests(rng, small, count // 5))
            )
            asyncio.run(loaded(server.host, server.port, 8, requests, seen))
            megabytes.append(server.megabytes)
            print(f"  {(part + 1) * (count // 5)} mutated requests: {server.megabytes:.0f} MB", flush=True)
        print(f"{count} mutated requests: answers {dict(sorted(codes.items()))}")
        print(f"  memory after each fifth, MB: {[round(each) for each in megabytes]}")
        assert not failed, failed[:3]
        assert "Traceback" not in server.log.read_text()
        assert httpx.get(f"{server.url}/v2/health/ready", timeout=LONG_S).status_code == 200


def io_small(picture: Path) -> bytes:
    """The package's picture at a third of its size, as JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.jpg"
        Image.open(picture).resize((320, 240)).save(file)
        return file.read_bytes()


def rude(arguments: argparse.Namespace) -> None:
    with default_scene() as (picture, _), served(arguments.bundle, "--limit", "32", "--deadline", "600") as server:
        content = io_small(picture)
        ending = threading.Event()
        kinds: Counter[str] = Counter()

        def misbehave(kind: str) -> None:
            while not ending.is_set():
                with suppress(OSError), socket.create_connection((server.host, server.port), timeout=60) as connection:
                    kinds[kind] += 1
                    head = f"POST /v1/people HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                    if kind == "vanishes":
                        connection.sendall(head + content)
                        ending.wait(0.2)
                        continue
                    connection.sendall(head[:10] if kind == "stalls in the head" else head + content[:100])
                    while not ending.wait(0.1):
                        if kind == "trickles":
                            connection.sendall(b"a")

        def leg(good: int) -> float:
            codes: Counter[int] = Counter()
            requests = (Request(k, "/v1/people?fields=score", {}, content) for k in range(good))
            took_s = asyncio.run(
                loaded(server.host, server.port, 4, requests, lambda answer: codes.update([answer.status]))
            )
            assert codes == {200: good}, codes
            return good / took_s

        rates: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(4):
            for with_rude in (False, True):
                ending.clear()
                names = ["stalls in the head"] * 20 + ["stalls in the body"] * 20 + ["trickles"] * 20 + ["vanishes"]
                threads = [threading.Thread(target=misbehave, args=(name,)) for name in names if with_rude]
                for thread in threads:
                    thread.start()
                time.sleep(0.5)
                rates[with_rude].append(leg(40))
                ending.set()
                for thread in threads:
                    thread.join()
        ratios = [beside / alone for alone, beside in zip(rates[False], rates[True], strict=True)]
        print(f"good clients beside 61 rude ones: all answered 200; rate / rate alone {np.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f}); connections {dict(kinds)}")  # fmt: skip


def drain(arguments: argparse.Namespace) -> None:
    with default_scene() as (picture, _), served(arguments.bundle, "--drain", "3", "--deadline", "600") as server:
        content, codes, sending = io_small(picture), Counter[object](), threading.Event()
        sending.set()

        def client() -> None:
            with httpx.Client(base_url=server.url, timeout=LONG_S) as connection:
                while sending.is_set():
                    try:
                        codes[connection.post("/v1/people?fields=score", content=content).status_code] += 1
                    except httpx.HTTPError as error:
                        codes[type(error).__name__] += 1

        def balancer() -> None:
            with httpx.Client(base_url=server.url, timeout=LONG_S) as connection:
                while connection.get("/v2/health/ready").status_code == 200:
                    time.sleep(0.2)
                time.sleep(0.5)  # until its news is everywhere
                sending.clear()

        threads = [threading.Thread(target=each) for each in (*[client] * 16, balancer)]
        for thread in threads:
            thread.start()
        while codes[200] < 100:
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        code = server.process.wait(LONG_S)
        print(f"SIGTERM under the load of 16 clients behind a balancer: answers {dict(codes)}, exit code {code}")
        assert set(codes) == {200}
        assert code == 0


if __name__ == "__main__":
    main()
