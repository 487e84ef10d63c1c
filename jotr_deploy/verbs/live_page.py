"""`run --live`: a page on this machine that shows people while they are recovered from a camera or film.

The page is one image that never finishes loading: JPEG after JPEG (`multipart/x-mixed-replace`), which every browser
shows without a script. It is served to this machine alone, and only to users who know its secret address.
"""

from __future__ import annotations

import secrets
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import JotrDeployError

Image = NDArray[np.uint8]

LAST_LOOK_S = 5.0
"""Longest wait, at the end of a run, for the browser that was opened to show any picture at all."""
LAST_BYTES_S = 1.0
"""Longest wait, at the end of the page, for browsers to receive the last picture."""
CLIENT_S = 10.0
"""Time after which a browser that accepts no more data is dropped."""

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>jotr-deploy, live</title>
<style>html, body {{ margin: 0; height: 100%; background: #181818 }}
img {{ display: block; width: 100%; height: 100%; object-fit: contain }}</style>
<img src="/{secret}/stream" alt="people, as they are recovered">
"""


class LivePage:
    """The page and its newest picture; a context manager. Pictures are skipped for browsers too slow to take them."""

    def __init__(self, open_browser: Callable[[str], object] | None = None) -> None:
        """Serve the page at a free port.

        Args:
            open_browser: called with the page's address once there is a picture.

        Raises:
            JotrDeployError: no port is available on this machine.
        """
        self._secret = secrets.token_hex(8)
        self._open_browser, self._expected = open_browser, open_browser is not None
        self._changed = Condition()
        self._newest, self._number = b"", 0  # JPEG, counted from 1
        self._watchers, self._seen, self._ended = 0, False, False
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        except OSError as error:
            raise JotrDeployError(f"no page can be opened on this machine ({error})", "leave --live out") from None
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/{self._secret}/"
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="live page", daemon=True)
        self._thread.start()

    @property
    def watched(self) -> bool:
        """True where a picture would be seen: a browser is connected, or about to be."""
        return self._expected or self._watchers > 0

    def show(self, picture_bgr: Image) -> None:
        """Put a picture (H, W, 3) uint8 on the page."""
        import cv2

        jpeg = cv2.imencode(".jpg", picture_bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        with self._changed:
            self._newest, self._number = jpeg, self._number + 1
            self._changed.notify_all()
        if self._open_browser is not None:  # some browsers take seconds to open
            Thread(target=self._open_browser, args=(self.url,), name="browser", daemon=True).start()
            self._open_browser = None

    def last_look(self) -> None:
        """Wait briefly for a browser that was opened but has shown nothing yet, as after a single picture."""
        with self._changed:
            if self._expected and self._number:
                self._changed.wait_for(lambda: self._seen, LAST_LOOK_S)

    def close(self) -> None:
        """End the page."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._watchers == 0, LAST_BYTES_S)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a browser."""
        if request.path == f"/{self._secret}/":
            page = _PAGE.format(secret=self._secret).encode()
            _head(request, "text/html; charset=utf-8", len(page))
            request.wfile.write(page)
        elif request.path == f"/{self._secret}/stream":
            self._send_pictures(request)
        else:
            request.send_error(404)

    def _send_pictures(self, request: BaseHTTPRequestHandler) -> None:
        _head(request, f"multipart/x-mixed-replace; boundary={self._secret}")
        next_part = f"\r\n--{self._secret}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
        request.wfile.write(next_part)
        sent = 0
        with self._changed:
            self._watchers += 1
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._ended or self._number > sent)  # noqa: B023
                    jpeg, number = self._newest, self._number
                if number == sent:
                    return
                request.wfile.write(jpeg + next_part)  # Chromium shows a part once the next part's header has arrived
                with self._changed:
                    sent, self._seen = number, True
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._watchers -= 1
                self._expected = False  # a viewer who left can come back by hand
                self._changed.notify_all()


def browser() -> Callable[[str], object] | None:
    """A function that opens a page in the user's browser; None without a graphical one (the terminal is in use)."""
    with suppress(webbrowser.Error):
        found = webbrowser.get()
        in_terminal = isinstance(found, webbrowser.GenericBrowser) and not isinstance(
            found, webbrowser.BackgroundBrowser
        )
        return None if in_terminal else found.open
    return None


def _head(request: BaseHTTPRequestHandler, kind: str, length: int | None = None) -> None:
    request.send_response(200)
    for name, value in {
        "Content-Type": kind,
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        **({} if length is None else {"Content-Length": str(length)}),
    }.items():
        request.send_header(name, value)
    request.end_headers()


def _handler(page: LivePage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_S

        def do_GET(self) -> None:
            with suppress(OSError):  # the browser has left
                page.answer(self)

        def log_message(self, format: str, *values: Any) -> None: ...

    return Handler
