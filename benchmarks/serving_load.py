"""A load generator for `serving.py` and `serving_soak.py`: clients in a closed loop, over connections that stay open.

As a program it is a process of its own, so that it does not share the interpreter with the server:

python benchmarks/serving_load.py 127.0.0.1 8080 CLIENTS REQUESTS PICTURE...
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """One request; `number` tells its answer apart."""

    number: int
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """Answer of the server; status 0 and the error's name where there was none."""

    number: int
    status: int
    seconds: float
    body: bytes


async def loaded(
    host: str, port: int, clients: int, requests: Iterable[Request], seen: Callable[[Answer], None]
) -> float:
    """Send every request, `clients` at a time, and return the seconds that it took. 429 is sent again when told."""
    left = iter(requests)
    start_s = time.perf_counter()
    await asyncio.gather(*(_client(host, port, left, seen) for _ in range(clients)))
    return time.perf_counter() - start_s


async def _client(host: str, port: int, left: Iterable[Request], seen: Callable[[Answer], None]) -> None:
    connection = None
    for request in left:
        start_s = time.perf_counter()
        try:
            if connection is None:
                connection = await asyncio.open_connection(host, port)
            status, headers, body = await _sent(*connection, request)
            while status == 429:
                seen(Answer(request.number, 429, time.perf_counter() - start_s, body))
                await asyncio.sleep(float(headers["retry-after"]))
                status, headers, body = await _sent(*connection, request)
            if headers.get("connection") == "close":
                connection[1].close()
                connection = None
        except (OSError, asyncio.IncompleteReadError) as error:
            status, body = 0, type(error).__name__.encode()
            if connection is not None:
                connection[1].close()
            connection = None
        seen(Answer(request.number, status, time.perf_counter() - start_s, body))
    if connection is not None:
        connection[1].close()
        with suppress(OSError):
            await connection[1].wait_closed()


async def _sent(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request
) -> tuple[int, dict[str, str], bytes]:
    lines = [f"POST {request.path} HTTP/1.1", "Host: x", f"Content-Length: {len(request.body)}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + request.body)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def main() -> None:
    host, port, clients, count, *pictures = sys.argv[1:]
    files = [Path(picture).read_bytes() for picture in pictures]
    answers: list[Answer] = []
    requests = (Request(k, "/v1/people", {}, files[k % len(files)]) for k in range(int(count)))
    took_s = asyncio.run(loaded(host, int(port), int(clients), requests, answers.append))
    codes = [answer.status for answer in answers]
    print(
        json.dumps(
            {
                "seconds": took_s,
                "latencies_s": sorted(answer.seconds for answer in answers if answer.status == 200),
                "codes": {code: codes.count(code) for code in set(codes)},
            }
        )
    )


if __name__ == "__main__":
    main()
