"""The HTTP interface: pictures in and people out, the Open Inference Protocol, probes, metrics, and a page."""

from __future__ import annotations

import asyncio
import hmac
import importlib.metadata
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from jotr_deploy.errors import KeypointFileError, SessionError, SourceError
from jotr_deploy.serving.admission import RETRY_AFTER_S, Admission
from jotr_deploy.serving.answer_formats import MEDIA_TYPES, Wanted
from jotr_deploy.serving.inference_models import InferenceModels
from jotr_deploy.serving.inference_protocol import BINARY, HEADER_LENGTH
from jotr_deploy.serving.refusals import Refused
from jotr_deploy.serving.request_context import ClientLeft, DeadlineExceeded, RequestContext
from jotr_deploy.serving.served_model import ServedModel
from jotr_deploy.serving.server_metrics import ServerMetrics

LEFT = 499
"""Status under which a request counts whose client has left; nobody receives it."""
LOG = logging.getLogger("jotr_deploy.serve")
PAGE = Path(__file__).with_name("page.html")

Handler = Callable[[Request], Awaitable[Response]]
Work = Callable[[bytes, RequestContext], Response]


@dataclass(frozen=True)
class AppOptions:
    """Limits of the server."""

    limit: int = 128  # requests being worked on or waiting
    body_bytes: int = 20_000_000
    all_bodies_bytes: int = 1_000_000_000
    deadline_s: float = 30.0
    token: str | None = None  # that every request but the probes has to show


class App:
    """The application and its state: open to requests once the model is loaded, until it drains."""

    def __init__(self, served: ServedModel, metrics: ServerMetrics, options: AppOptions) -> None:
        self._served, self._metrics, self._options = served, metrics, options
        self._models = InferenceModels(served)
        self._admission = Admission(options.limit, options.all_bodies_bytes)
        self._draining = False
        metrics.admitted.set_function(lambda: self._admission.admitted)
        metrics.ready.set_function(lambda: float(self.fault() is None))
        self.asgi = Starlette(routes=self._routes(), exception_handlers={HTTPException: self._no_such})
        self.asgi.router.redirect_slashes = False

    def drain(self) -> None:
        """Report the server as not ready, and close connections after their answer; requests are still served."""
        self._draining = True

    def fault(self) -> str | None:
        """Why the server is not ready; None if it is."""
        return "the server is about to stop" if self._draining else self._served.fault(2 * self._options.deadline_s)

    # ── frame of every endpoint ──────────────────────────────────────────────────────────────────────────────────

    def _routes(self) -> list[Route]:
        model = "/v2/models/{model}"
        version = f"{model}/versions/{{version}}"
        table: list[tuple[str, str, str, Handler, bool]] = [
            ("GET", "/", "page", self._page, False),
            ("POST", "/v1/people", "v1_people", self._people, True),
            ("GET", "/metrics", "metrics", self._metrics_text, True),
            ("GET", "/v2", "v2", self._about_server, True),
            ("GET", "/v2/health/live", "live", self._live, False),
            ("GET", "/v2/health/ready", "ready", self._ready, False),
            *(("GET", at, "v2_model", self._about_model, True) for at in (model, version)),
            *(("GET", f"{at}/ready", "v2_model_ready", self._model_ready, False) for at in (model, version)),
            *(("POST", f"{at}/infer", "v2_infer", self._infer, True) for at in (model, version)),
        ]
        return [
            Route(path, self._endpoint(name, handler, guarded), methods=[method])
            for method, path, name, handler, guarded in table
        ]

    def _endpoint(self, name: str, handler: Handler, guarded: bool) -> Handler:
        """A handler that answers whatever happens, counts it, and asks for the token if it is guarded."""

        async def answered(request: Request) -> Response:
            start_s = time.perf_counter()
            try:
                if guarded:
                    self._require_token(request)
                answer = await handler(request)
            except Exception as error:
                answer = self._error(name, error)
            took_s = time.perf_counter() - start_s
            self._metrics.requests.labels(name, answer.status_code).inc()
            self._metrics.request_seconds.labels(name).observe(took_s)
            if guarded:
                LOG.info("%s %d %.0f ms", name, answer.status_code, 1000 * took_s)
            if self._draining:
                answer.headers["Connection"] = "close"
            return answer

        return answered

    def _error(self, name: str, error: Exception) -> Response:
        """The answer to a request that failed. Messages have no pixels in them, and no paths of this machine."""
        if isinstance(error, Refused):
            if error.reason is not None:
                self._metrics.rejected.labels(error.reason).inc()
            return _refusal(error)
        if isinstance(error, (ClientDisconnect, ClientLeft)):
            self._metrics.cancelled.inc()
            return Response(status_code=LEFT)
        if isinstance(error, DeadlineExceeded):
            return _refusal(Refused(504, "the deadline of the request has passed", "allow more time, or send less"))
        if isinstance(error, (SourceError, KeypointFileError)):
            status = 422 if isinstance(error, SourceError) else 400
            camera = self._served.model.camera.file
            cause = error.cause if camera is None else error.cause.replace(str(camera.path), camera.path.name)
            return _refusal(Refused(status, cause, error.remedy))
        if isinstance(error, SessionError) and self.fault() is not None:
            return _refusal(Refused(503, str(self.fault()), "try again later", retry_after_s=RETRY_AFTER_S))
        number = secrets.token_hex(4)
        LOG.error("%s: error %s", name, number, exc_info=error)
        return _refusal(Refused(500, f"the server failed (error {number})", "see the log of the server"))

    async def _no_such(self, request: Request, error: Exception) -> Response:
        """JSON for what Starlette would answer in plain text: clients of the protocol parse every answer."""
        assert isinstance(error, HTTPException)
        self._metrics.requests.labels("other", error.status_code).inc()
        remedy = "see docs/serving.md for the addresses and methods"
        answer = _refusal(Refused(error.status_code, f"{error.detail.lower()} at this address", remedy))
        answer.headers.update(error.headers or {})
        return answer

    def _require_token(self, request: Request) -> None:
        token = self._options.token
        if token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            refused = Refused(401, "the token is missing or wrong", "send the header Authorization: Bearer TOKEN")
            refused.headers = {"WWW-Authenticate": "Bearer"}
            raise refused

    # ── work ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _require_ready(self) -> None:
        fault = self._served.fault(2 * self._options.deadline_s)  # requests are served while the server drains
        if fault is not None:
            raise Refused(503, fault, "try again later", retry_after_s=RETRY_AFTER_S, reason="not_ready")

    async def _worked(self, request: Request, work: Work, deadline_s: float | None = None) -> Response:
        """Admit a request, receive its body, and answer it from a thread of the pool.

        Raises:
            Refused, DeadlineExceeded, ClientLeft, ClientDisconnect
            Exception: what the work raises.
        """
        self._require_ready()
        self._admission.check()
        with self._admission.holding() as hold:
            body = await self._body(request, hold)
            context = RequestContext(min(deadline_s or self._options.deadline_s, self._options.deadline_s))
            self._admission.enter()
            return await self._in_pool(request, lambda: work(body, context), context)

    async def _body(self, request: Request, hold: Callable[[int], None]) -> bytes:
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "compressed bodies are not accepted", "send the body as it is: pictures are compressed")
        most = self._options.body_bytes
        too_large = Refused(413, f"the body is larger than {most / 1e6:g} MB", "make the picture smaller")
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > most:
            raise too_large
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise too_large
            hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    async def _in_pool(self, request: Request, work: Callable[[], Response], context: RequestContext) -> Response:
        submitted_s = time.perf_counter()

        def worked() -> Response:
            context.stages_s["queue"] = time.perf_counter() - submitted_s
            context.check()
            with context.entered():
                answer = work()
            self._metrics.stages(context.stages_s)
            return answer

        try:
            future = self._served.pool.submit(worked)
        except RuntimeError:  # shut down
            self._admission.leave()
            raise Refused(503, "the server is about to stop", "try again later", reason="not_ready") from None
        future.add_done_callback(lambda _: self._admission.leave())  # not before: the place is taken while it works
        done = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(_gone(request))
        try:
            either: set[asyncio.Future[Any]] = {done, gone}
            await asyncio.wait(either, timeout=max(context.left_s, 0), return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            context.cancel()
            done.cancel()
            raise ClientLeft if gone.done() else DeadlineExceeded
        finally:
            gone.cancel()

    # ── endpoints ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _page(self, request: Request) -> Response:
        policy = (
            "default-src 'none'; img-src blob:; connect-src 'self'; style-src 'unsafe-inline'; script-src 'nonce-{}'"
        )
        nonce = secrets.token_urlsafe(16)
        content = PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
        headers = {
            "Content-Security-Policy": f"{policy.format(nonce)}; frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        return Response(content, headers=headers, media_type="text/html")

    async def _people(self, request: Request) -> Response:
        query = request.query_params
        unknown = set(query) - {"fields", "max_people", "deadline_s"}
        if unknown:
            raise Refused(400, f"the parameter {min(unknown)!r:.80} is not known", "see docs/serving.md")
        wanted = Wanted.of(request.headers.get("accept"), query.get("fields"))
        most = _number("max_people", query.get("max_people"), int)
        deadline_s = _number("deadline_s", query.get("deadline_s"), float)

        def work(body: bytes, context: RequestContext) -> Response:
            return Response(self._served.answer(body, wanted, most, context), media_type=wanted.media_type)

        return await self._worked(request, work, deadline_s)

    async def _infer(self, request: Request) -> Response:
        model = self._known_model(request)
        length = request.headers.get(HEADER_LENGTH.lower())

        def work(body: bytes, context: RequestContext) -> Response:
            content, headers = self._models.infer(model, body, length, context)
            return Response(content, headers=headers)

        return await self._worked(request, work)

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, request: Request) -> Response:
        fault = self.fault()
        if fault is not None:
            return _refusal(Refused(503, fault, "try again later", retry_after_s=RETRY_AFTER_S))
        return _json({"ready": True})

    async def _model_ready(self, request: Request) -> Response:
        self._known_model(request)
        return await self._ready(request)

    async def _metrics_text(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _about_server(self, request: Request) -> Response:
        labels = list(self._served.bundle.manifest.labels)
        version = importlib.metadata.version("jotr-deploy")
        return _json(
            {"name": "jotr-deploy", "version": version, "extensions": [BINARY], "models": self._models.names,
             "media_types": list(MEDIA_TYPES), "labels": labels}
        )  # fmt: skip

    async def _about_model(self, request: Request) -> Response:
        self._require_ready()
        return _json(self._models.metadata(self._known_model(request)))

    def _known_model(self, request: Request) -> str:
        self._require_ready()
        return self._models.known(str(request.path_params["model"]), request.path_params.get("version"))


def _refusal(refused: Refused) -> Response:
    """JSON with `error`, as clients of the Open Inference Protocol expect it, and `remedy`."""
    content = json.dumps({"error": refused.cause, "remedy": refused.remedy}, ensure_ascii=False)
    return Response(content, refused.status, refused.headers, "application/json")


def _json(content: Mapping[str, Any]) -> Response:
    return Response(json.dumps(content, ensure_ascii=False), media_type="application/json")


def _number(name: str, text: str | None, kind: type[int] | type[float]) -> Any:
    """A positive number in a query; None without it."""
    if text is None:
        return None
    try:
        value = kind(text)
        if len(text) > 20 or not 0 < value < 1e6:
            raise ValueError
    except ValueError:
        raise Refused(400, f"{name}: {text!r:.80} is not a positive number", "see docs/serving.md") from None
    return value


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
