"""uvicorn with the limits that it lacks: slow clients are dropped, and SIGTERM drains before anything closes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from jotr_deploy.errors import JotrDeployError

KEEP_ALIVE_S = 5
BACKLOG = 512
LEAST_READ = 100_000
"""Bytes of an answer that a client has to take in the time that it has for a request."""


class Server(uvicorn.Server):
    """Server that on SIGTERM first reports itself as not ready, and keeps serving until balancers know.

    A second SIGTERM, or Ctrl-C, closes the socket at once; requests at hand are still answered, unless it comes again.
    """

    def __init__(
        self, app: Any, *, receive_s: float, drain_s: float, answer_s: float, draining: Callable[[], None]
    ) -> None:
        """Prepare the server.

        Args:
            app: ASGI application.
            receive_s: limit for receiving a request, and for a client to take another part of its answer.
            drain_s: time between SIGTERM and the closing of the socket.
            answer_s: longest wait for requests at hand after that.
            draining: called at SIGTERM.
        """
        super().__init__(
            uvicorn.Config(
                app, http=limited(receive_s), ws="none", lifespan="off", log_config=None, access_log=False,
                server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(answer_s)),
            )
        )  # fmt: skip
        self._drain_s, self._draining, self._begun = drain_s, draining, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if sig == signal.SIGTERM and not self._begun and self._drain_s > 0:
            self._begun = True
            self._draining()
            asyncio.get_running_loop().call_later(self._drain_s, self.stop)
            return
        self._draining()
        self.force_exit = self.should_exit  # asked for the second time after the end has begun
        self.stop()

    def stop(self) -> None:
        """Close the socket, answer the requests at hand, and end."""
        self.should_exit = True


def listening(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        JotrDeployError: the address cannot be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        number = None if isinstance(error, socket.gaierror) else error.errno
        why = error.strerror if number is None else os.strerror(number)  # the text may repeat the address
        raise JotrDeployError(
            f"{host}:{port}: cannot be opened ({why})",
            "give another --port, above 1023; --host 127.0.0.1 serves this machine alone, 0.0.0.0 everybody who can "
            "reach it",
        ) from None


def limited(receive_s: float) -> type[asyncio.Protocol]:
    """Uvicorn's protocol, with a limit in seconds for receiving a request, and for taking parts of an answer."""
    return type("Limited", (LimitedProtocol,), {"receive_s": receive_s})


class LimitedProtocol(H11Protocol):
    """Closes connections that say nothing, send a request too slowly, or do not read their answer.

    The limit is for a whole request, so that one byte a second does not extend it. The time in which the server works
    does not count; a connection between two requests is closed by `KEEP_ALIVE_S`. An answer may take longer, as long as
    the client goes on reading.
    """

    receive_s: float
    _receiving: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the limit: the head of a request has to come."""
        super().connection_made(transport)
        self._receiving = self.loop.call_later(self.receive_s, self._drop)

    def data_received(self, data: bytes) -> None:
        """Begin the limit with a request, and end it once the whole request is there."""
        super().data_received(data)
        state = self.conn.their_state
        partial_head = state is h11.IDLE and bool(self.conn.trailing_data[0])
        if state is h11.SEND_BODY or partial_head:
            if self._receiving is None:
                self._receiving = self.loop.call_later(self.receive_s, self._drop)
        elif self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def pause_writing(self) -> None:
        """Begin to watch a client that reads more slowly than the answer is written."""
        super().pause_writing()
        self._watch_reading()

    def _watch_reading(self) -> None:
        """Look again after a while whether the client has taken enough of the rest."""
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.receive_s, self._drop_unless_read, left)

    def _drop_unless_read(self, left_before: int) -> None:
        if left_before - self.transport.get_write_buffer_size() < LEAST_READ:
            self._drop()
        else:
            self._watch_reading()

    def resume_writing(self) -> None:
        """End it: the client reads on."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the limits."""
        for timer in (self._receiving, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _drop(self) -> None:
        self._receiving = None
        if not self.transport.is_closing():
            self.transport.abort()
