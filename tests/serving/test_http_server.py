"""The protocol below the application: slow, silent and deaf clients, and the end of the server."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest
from running_server import WAIT_S, closed, post
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.serving.http_server import Server, listening
from jotr_deploy.serving.people_server import is_loopback, read_token, require_token

RECEIVE_S = 1.0
LARGE = 30_000_000


async def work(request: Request) -> Response:
    try:
        await request.body()
    except ClientDisconnect:
        return Response(status_code=499)
    await asyncio.sleep(float(request.query_params.get("s", 0)))
    return Response(bytes(int(request.query_params.get("size", 2))))


@pytest.fixture(scope="module")
def server() -> Iterator[SimpleNamespace]:
    opened = listening("127.0.0.1", 0)
    app = Starlette(routes=[Route("/work", work, methods=["GET", "POST"])])
    serving = Server(app, receive_s=RECEIVE_S, drain_s=0, answer_s=WAIT_S, draining=lambda: None)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [opened]})
    thread.start()
    address = opened.getsockname()
    yield SimpleNamespace(address=address, url=f"http://127.0.0.1:{address[1]}")
    serving.stop()
    thread.join(WAIT_S)
    assert not thread.is_alive()


@contextmanager
def connected(server: SimpleNamespace) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=WAIT_S) as connection:
        yield connection


GET = b"GET /work HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "sent", [b"", b"GET /wo", GET[:-2], post(b"abc", "/work", 100)], ids=["silent", "line", "head", "body"]
)
def test_who_does_not_finish_a_request_is_dropped(server: SimpleNamespace, sent: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(sent)
        assert closed(connection)


def test_who_sends_a_byte_at_a_time_is_dropped_too(server: SimpleNamespace) -> None:
    with connected(server) as connection:
        connection.sendall(post(b"", "/work", 1_000_000))
        dropped = False
        for _ in range(100 * round(RECEIVE_S / 0.001)):
            try:
                connection.sendall(b"a")
            except OSError:
                dropped = True
                break
            time.sleep(0.001)
        assert dropped


def test_a_second_request_has_the_limit_of_the_first(server: SimpleNamespace) -> None:
    with connected(server) as connection:
        connection.sendall(GET.replace(b"/work", b"/work?size=0"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(GET[:-2])
        assert closed(connection)


def test_the_time_of_the_work_does_not_count(server: SimpleNamespace) -> None:
    with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
        for _ in range(2):  # over one connection
            assert client.post(f"/work?s={1.5 * RECEIVE_S}", content=b"abc").status_code == 200


def test_who_does_not_read_the_answer_is_dropped(server: SimpleNamespace) -> None:
    with connected(server) as connection:
        connection.sendall(GET.replace(b"/work", f"/work?size={LARGE}".encode()))
        time.sleep(3 * RECEIVE_S)
        read = 0
        try:
            while part := connection.recv(1 << 16):
                read += len(part)
        except ConnectionResetError:
            pass
        assert read < LARGE


def test_who_reads_slowly_but_steadily_gets_everything(server: SimpleNamespace) -> None:
    with connected(server) as connection:
        connection.sendall(GET.replace(b"/work", f"/work?size={LARGE}".encode()))
        start_s, read = time.monotonic(), 0
        while read < LARGE:
            read += len(connection.recv(1 << 20))
            time.sleep(0.05)
        assert time.monotonic() - start_s > RECEIVE_S  # by what was slept


def test_sigterm_lets_balancers_know_before_the_socket_closes() -> None:
    said: list[str] = []

    async def end() -> tuple[bool, bool]:
        server = Server(None, receive_s=1, drain_s=0.05, answer_s=1, draining=lambda: said.append("draining"))
        server.handle_exit(signal.SIGTERM, None)
        at_once = server.should_exit
        await asyncio.sleep(0.2)
        return at_once, server.should_exit

    assert asyncio.run(end()) == (False, True)
    assert said == ["draining"]


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)])
def test_a_second_sigterm_or_an_interrupt_ends_at_once(signals: tuple[signal.Signals, ...]) -> None:
    async def end() -> bool:
        server = Server(None, receive_s=1, drain_s=WAIT_S, answer_s=1, draining=lambda: None)
        for each in signals:
            server.handle_exit(each, None)
        return server.should_exit

    assert asyncio.run(end())


def test_an_address_that_cannot_be_opened_is_reported() -> None:
    with listening("127.0.0.1", 0) as taken:
        for host, port in (("127.0.0.1", taken.getsockname()[1]), ("203.0.113.1", 0), ("no such host.", 0)):
            with pytest.raises(JotrDeployError, match="cannot be opened"):
                listening(host, port)


@pytest.mark.parametrize(
    ("host", "inside"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.2", False), ("example.org", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_other_machines_need_a_token(host: str, inside: bool) -> None:
    assert is_loopback(host) == inside
    require_token(host, "a token", False)
    require_token(host, None, True)
    if not inside:
        with pytest.raises(JotrDeployError, match="everybody who reaches this address"):
            require_token(host, None, False)


def test_a_token_is_a_secret_in_a_file(tmp_path) -> None:
    file = tmp_path / "token"
    file.write_text("  0123456789abcdef\n")
    assert read_token(file) == "0123456789abcdef"
    for content, cause in (("", "not a secret"), ("short", "not a secret"), ("two words and more", "not a secret"),
                           ("é" * 20, "not ASCII")):  # fmt: skip
        file.write_text(content)
        with pytest.raises(JotrDeployError, match=cause):
            read_token(file)
    with pytest.raises(JotrDeployError, match="No such file"):
        read_token(tmp_path / "none")
