"""`jotr-deploy serve` as a process, and its page in a browser."""

from __future__ import annotations

import base64
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from outcome import Outcome
from running_server import SCENE, WAIT_S, closed, running
from visual.chromium_page import PROGRAM, ChromiumPage

pytestmark = pytest.mark.slow


@contextmanager
def served(*options: str, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the address of a server that is ready."""
    command = [sys.executable, "-m", "jotr_deploy.cli", "serve", "starter", "--port", "0", "--threads", "1", *options]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            line = process.stdout.readline()
            assert line.startswith("ready"), log.read_text()
            yield process, re.search(r"http://\S+", line).group()
        finally:
            process.kill()


def test_sigterm_under_load_loses_no_request(tmp_path: Path) -> None:
    """Clients behind a balancer that looks at `ready` 10 times a second; the port closes after it has noticed."""
    codes: Counter[object] = Counter()
    sending = threading.Event()
    sending.set()

    def client(url: str) -> None:
        with httpx.Client(base_url=url, timeout=WAIT_S) as connection:
            while sending.is_set():
                try:
                    codes[connection.post("/v1/people?fields=score", content=SCENE.read_bytes()).status_code] += 1
                except httpx.HTTPError as error:
                    codes[type(error).__name__] += 1

    def balancer(url: str) -> None:
        with httpx.Client(base_url=url, timeout=WAIT_S) as connection:
            while connection.get("/v2/health/ready").status_code == 200:
                time.sleep(0.1)
        sending.clear()

    log = tmp_path / "log"
    with served("--drain", "3", log=log) as (process, url):
        threads = [threading.Thread(target=each, args=(url,)) for each in (client, client, client, balancer)]
        for thread in threads:
            thread.start()
        while codes[200] < 5:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(WAIT_S)
        assert process.wait(WAIT_S) == 0
    assert set(codes) == {200}
    assert "v1_people 200" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_an_interrupt_ends_it_and_a_stalled_client_does_not_keep_it(tmp_path: Path) -> None:
    with served(log=tmp_path / "log") as (process, url):
        host, _, port = url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
            connection.sendall(b"POST /v1/people HTTP/1.1\r\n")
            process.send_signal(signal.SIGINT)
            assert closed(connection)
        assert process.wait(WAIT_S) in (0, 130)


@pytest.mark.parametrize(
    ("options", "cause", "remedy"),
    [
        (("none",), "none: no such folder", "starter"),
        (("starter", "--host", "0.0.0.0"), "everybody who reaches this address", "--token-file"),
        (("starter", "--token-file", "none"), "none: cannot be read", "a secret"),
        (("starter", "--token-file", "none", "--no-auth"), "both given", "leave one"),
        (("starter", "--device", "tpu"), "--device: 'tpu' is not known", "cpu"),
        (("starter", "--people", "luck"), "--people: 'luck' is not known", "detector"),
        (("starter", "--port", "0", "--file", "mesh.int4.onnx"), "has no mesh.int4.onnx", "it has mesh.onnx"),
    ],
)
def test_what_cannot_be_served_is_refused(
    cli: Callable[..., Outcome], options: tuple[str, ...], cause: str, remedy: str
) -> None:
    outcome = cli("serve", *options)
    assert outcome.code == 2
    said = outcome.err.splitlines()[-2:]
    assert cause in said[0]
    assert remedy in said[1]


def test_a_port_in_use_is_refused(cli: Callable[..., Outcome]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = cli("serve", "starter", "--port", taken.getsockname()[1])
    assert outcome.code == 2
    assert "cannot be opened (Address already in use)" in outcome.mistake[0]


@pytest.mark.skipif(PROGRAM is None, reason="Chromium is missing: apt-get install chromium")
def test_a_picture_dropped_on_the_page_comes_back_with_its_people(tmp_path: Path) -> None:
    drop = """
        (async () => {
            const bytes = Uint8Array.from(atob("CONTENT"), each => each.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "a.jpg"));
            window.dispatchEvent(new DragEvent("drop", {dataTransfer: carried, cancelable: true}));
        })()"""

    def dropped(data: bytes) -> str:
        return drop.replace("CONTENT", base64.b64encode(data).decode())

    with running() as server, ChromiumPage(f"{server.url}/", tmp_path / "profile") as page:
        page.until("document.readyState === 'complete'", "itself")
        page.run(dropped(SCENE.read_bytes()))
        said = "document.getElementById('said').textContent"
        page.until(f"{said}.startsWith('2 people')", "two people")
        assert "stand-in body" in page.run(said)
        page.until("document.getElementById('overlay').naturalWidth === 960", "the drawn picture")
        with_people = page.picture()
        assert (abs(with_people.astype(int) - with_people[:1, :1]) > 60).any(-1).mean() > 0.1  # not an empty page
        page.run(dropped(b"no picture"))
        page.until(f"{said}.includes('not a picture')", "the refusal")
        assert page.run("document.getElementById('overlay').hidden")
        assert page.complaints == []
        assert {address.rpartition("/")[0] for address in page.requests} <= {
            server.url, f"{server.url}/v1", f"{server.url}/"[:-1],
        }  # fmt: skip


@pytest.mark.skipif(PROGRAM is None, reason="Chromium is missing: apt-get install chromium")
def test_the_page_asks_for_the_token_when_the_server_does(tmp_path: Path) -> None:
    from jotr_deploy.serving.app import AppOptions

    token = "a-secret-of-some-length"
    with running(app=AppOptions(token=token)) as server, ChromiumPage(f"{server.url}/", tmp_path / "profile") as page:
        page.until("document.readyState === 'complete'", "itself")
        assert page.run("document.getElementById('asked').hidden")
        content = base64.b64encode(SCENE.read_bytes()).decode()
        page.run(f"take([new Blob([Uint8Array.from(atob('{content}'), each => each.charCodeAt(0))])])")
        page.until("!document.getElementById('asked').hidden", "the field for the token")
        page.run(
            f"document.getElementById('token').value = '{token}';"
            "document.getElementById('token').dispatchEvent(new Event('change'))"
        )
        page.until("document.getElementById('said').textContent.startsWith('2 people')", "two people")
