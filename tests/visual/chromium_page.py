"""A page in headless Chromium, driven by its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import numpy as np

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_S, ANSWER_S = 60, 120  # a busy machine that draws 3-D without a GPU

OPTIONS = (
    *("--headless", "--no-sandbox", "--no-first-run", "--disable-sync", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)


class ChromiumPage:
    """A context manager: one tab of this size, with what it asked the network for and what it complained about."""

    def __init__(self, url: str, folder: Path, size_px: tuple[int, int] = (1000, 640)) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._url, self._folder, self._size = url, folder, size_px
        self._number = itertools.count(1)

    def __enter__(self) -> ChromiumPage:
        from websockets.sync.client import connect

        size = "{},{}".format(*self._size)
        command = [PROGRAM, *OPTIONS, f"--window-size={size}", f"--user-data-dir={self._folder}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = self._port()
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=ANSWER_S) as answer:
                (tab,) = (each for each in json.load(answer) if each["type"] == "page")
            self._socket = connect(tab["webSocketDebuggerUrl"], max_size=None)
            for domain in ("Network", "Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
            self.call("Page.navigate", url=self._url)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _port(self) -> int:
        written, until = self._folder / "DevToolsActivePort", time.monotonic() + START_S
        while time.monotonic() < until:
            if written.is_file() and written.read_text().count("\n"):
                return int(written.read_text().split()[0])
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"{PROGRAM} did not start: exit code {self._process.poll()}")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol and its result; events that come before it are noted."""
        number = next(self._number)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=ANSWER_S))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            if not about["request"]["url"].startswith(("data:", "blob:")):
                self.requests.append(about["request"]["url"])
        elif message.get("method") == "Network.webSocketCreated":
            self.requests.append(about["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"].get("exception", {}).get("description", "exception"))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, script: str, what: str) -> Any:
        """The first true value of an expression."""
        until = time.monotonic() + ANSWER_S
        while time.monotonic() < until:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.2)
        raise AssertionError(f"the page never showed {what}; {self.complaints}")

    def picture(self, file: Path | None = None) -> np.ndarray:
        """(H, W, 3) uint8 BGR of what is seen, also written to a file if given."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if file is not None:
            file.write_bytes(data)
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def click(self, x: float, y: float) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """With the left button, in a few steps."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=start[0], y=start[1])
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], button="left", clickCount=1)
        for x, y in np.linspace(start, end, 6)[1:].tolist():
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], button="left", clickCount=1)
