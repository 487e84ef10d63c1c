"""A server in a thread of this process, a client for it, and connections by hand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import jotr_deploy
from jotr_deploy.bundle import open_bundle, starter_path
from jotr_deploy.serving.app import AppOptions
from jotr_deploy.serving.people_server import PeopleServer, ServerOptions
from jotr_deploy.serving.served_model import ModelOptions

WAIT_S = 40
SCENE = Path(jotr_deploy.__file__).parent / "visual" / "scene.jpg"


class Running:
    """A server that is ready, or about to be."""

    def __init__(self, server: PeopleServer) -> None:
        self.server, self.url = server, server.url
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        self.address = host, int(port)
        self.client = httpx.Client(base_url=server.url, timeout=WAIT_S)

    def metric(self, name: str, **labels: str) -> float:
        """A number of `/metrics`; 0 if it was never counted."""
        return self.server.metrics.registry.get_sample_value(name, labels) or 0.0

    @contextmanager
    def connection(self, *parts: bytes) -> Iterator[socket.socket]:
        """A connection over which some bytes have been sent."""
        with socket.create_connection(self.address, timeout=WAIT_S) as connection:
            for part in parts:
                connection.sendall(part)
            yield connection


@contextmanager
def running(
    bundle: Path | None = None,
    server: ServerOptions = ServerOptions(port=0, drain_s=0),  # noqa: B008
    model: ModelOptions = ModelOptions(threads=1, at_once=2),  # noqa: B008
    app: AppOptions = AppOptions(deadline_s=WAIT_S),  # noqa: B008
) -> Iterator[Running]:
    """A server that is ready."""
    opened = PeopleServer(open_bundle(bundle or starter_path()), server, model, app)
    ready = threading.Event()
    thread = threading.Thread(target=opened.run, args=(ready.set,))
    thread.start()
    found = Running(opened)
    try:
        assert ready.wait(WAIT_S)
        yield found
    finally:
        found.client.close()
        opened.stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def until(true: Callable[[], Any], what: str) -> Any:
    """The first true value of a function."""
    end_s = time.monotonic() + WAIT_S
    while not (value := true()):
        assert time.monotonic() < end_s, what
        time.sleep(0.005)
    return value


def closed(connection: socket.socket) -> bool:
    """Wait until the other side has closed a connection; False if it answers instead."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def post(body: bytes = b"", path: str = "/v1/people", length: int | None = None) -> bytes:
    """A request as bytes."""
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + body
