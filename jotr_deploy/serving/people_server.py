"""Life of a server: the port opens at once, the model loads beside it, and SIGTERM drains it."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jotr_deploy.bundle import Bundle
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.serving.app import App, AppOptions
from jotr_deploy.serving.http_server import Server, listening
from jotr_deploy.serving.served_model import ModelOptions, ServedModel
from jotr_deploy.serving.server_metrics import ServerMetrics

LEAST_TOKEN = 16


@dataclass(frozen=True)
class ServerOptions:
    """Address and times of a server."""

    host: str = "127.0.0.1"
    port: int = 8080
    receive_s: float = 30.0
    drain_s: float = 10.0


class PeopleServer:
    """A server of one bundle."""

    def __init__(self, bundle: Bundle, options: ServerOptions, model: ModelOptions, app: AppOptions) -> None:
        """Open the port; connections wait until `run`.

        Raises:
            JotrDeployError: the address cannot be opened.
        """
        self.metrics = ServerMetrics()
        self.served = ServedModel(bundle, model, self.metrics)
        self.app = App(self.served, self.metrics, app)
        self._socket = listening(options.host, options.port)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._server = Server(
            self.app.asgi, receive_s=options.receive_s, drain_s=options.drain_s, answer_s=app.deadline_s,
            draining=self.app.drain,
        )  # fmt: skip
        self._fault: BaseException | None = None

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM, Ctrl-C or `stop`; `ready` is called once the model is loaded.

        Raises:
            JotrDeployError: the model cannot be loaded.
        """

        def load() -> None:
            try:
                self.served.load()
            except BaseException as error:
                self._fault = error
                self.stop()
            else:
                ready()

        loading = threading.Thread(target=load, name="load", daemon=True)
        loading.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            if self.served.loaded or self._fault is not None:
                self.served.close()
        if self._fault is not None:
            raise self._fault

    def stop(self) -> None:
        """Stop as Ctrl-C does; from any thread."""
        self.app.drain()
        self._server.stop()


def require_token(host: str, token: str | None, open_to_all: bool) -> None:
    """Refuse to serve other machines without a token.

    Raises:
        JotrDeployError: neither a token nor the explicit wish to do without.
    """
    if not (is_loopback(host) or token or open_to_all):
        raise JotrDeployError(
            f"--host {host}: everybody who reaches this address could use the server",
            "give --token-file FILE with a secret, or --no-auth where something in front of the server checks requests",
        )


def is_loopback(host: str) -> bool:
    """True for addresses that only this machine reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The secret in a file, without surrounding white space.

    Raises:
        JotrDeployError: it cannot be read, or is no secret.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise JotrDeployError(f"{path}: cannot be read ({why})", "give a text file with a secret") from None
    if len(token) < LEAST_TOKEN or len(token.split()) != 1:
        raise JotrDeployError(
            f"{path}: not a secret of at least {LEAST_TOKEN} characters",
            "make one: python -c 'import secrets; print(secrets.token_urlsafe())' > FILE",
        )
    return token
