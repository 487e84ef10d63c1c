"""`jotr-deploy serve`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.choices import DEVICES, listed
from jotr_deploy.verbs.terminal import console, done, errors, exclusive, needs

if TYPE_CHECKING:
    from jotr_deploy.bundle import Bundle

HOST, PORT, PEOPLE, LIMIT, DEADLINE_S, DRAIN_S = "127.0.0.1", 8080, "auto", 128, 30.0, 10.0
"""Defaults of options."""


def serve(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default only this machine can reach the server.")
    ] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = PORT,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a secret that every request has to send, needed for other addresses.")
    ] = None,
    no_auth: Annotated[
        bool,
        typer.Option("--no-auth", help="Serve other machines without a token: something in front checks requests."),
    ] = False,
    people: Annotated[
        str, typer.Option(help="How people are found: auto, blazepose, detector, hog, or frame.")
    ] = PEOPLE,
    file: Annotated[str | None, typer.Option(help="Mesh file of the bundle, such as mesh.int8.onnx.")] = None,
    device: Annotated[str, typer.Option(help=f"Where networks run: {listed(DEVICES)}.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each network; all cores by default.")
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures worked on at once; by default 16 on a GPU, one more than cores without."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Requests worked on or waiting; others are answered 429 at once.")
    ] = LIMIT,
    deadline: Annotated[float, typer.Option(min=0.1, help="Longest time for a request, in seconds.")] = DEADLINE_S,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds between SIGTERM and the closing of the port, for balancers to notice.")
    ] = DRAIN_S,
    triton: Annotated[
        Path | None,
        typer.Option(help="Write a model repository for Triton into this new directory, and serve nothing."),
    ] = None,
) -> None:
    """Serve people over HTTP: pictures in, people out."""
    choice("--device", device, DEVICES)
    of_server = {
        "--host": host != HOST, "--port": port != PORT, "--token-file": token_file is not None, "--no-auth": no_auth,
        "--people": people != PEOPLE, "--file": file is not None, "--threads": threads is not None,
        "--at-once": at_once is not None, "--limit": limit != LIMIT, "--deadline": deadline != DEADLINE_S,
        "--drain": drain != DRAIN_S,
    }  # fmt: skip
    exclusive("--triton", triton is not None, {option: given or None for option, given in of_server.items()})
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.runtime.finding.people_source import PeopleBy

    choice("--people", people, get_args(PeopleBy))
    opened = open_bundle(bundle)
    if triton is not None:
        _write_repository(opened, triton, device)
        return
    needs("serve", "starlette", "uvicorn", "prometheus_client")
    from jotr_deploy.serving.app import AppOptions
    from jotr_deploy.serving.people_server import PeopleServer, ServerOptions, read_token, require_token
    from jotr_deploy.serving.served_model import ModelOptions

    if token_file is not None and no_auth:
        raise JotrDeployError("--token-file and --no-auth are both given", "leave one of them out")
    token = None if token_file is None else read_token(token_file)
    require_token(host, token, no_auth)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = PeopleServer(
        opened,
        ServerOptions(host, port, drain_s=drain),
        ModelOptions(file, device, threads, cast(PeopleBy, people), at_once=at_once),
        AppOptions(limit, deadline_s=deadline, token=token),
    )
    notes = escape(" · ".join(opened.manifest.labels))
    errors.print(f"[dim]{server.url}: loading {escape(str(bundle))}[/]", highlight=False, soft_wrap=True)

    def ready() -> None:
        console.print(f"[bold green]ready[/] {server.url} ({notes or 'no labels'}); Ctrl-C ends it",
                      highlight=False, soft_wrap=True)  # fmt: skip

    server.run(ready)


def _write_repository(bundle: Bundle, directory: Path, device: str) -> None:
    """Write the repository for Triton, and say how to start it."""
    needs("serve --triton", "onnxruntime")
    from jotr_deploy.serving.triton_repository import write_repository

    written = write_repository(bundle, directory, device)
    start = f"tritonserver --model-repository={directory.resolve()} --disable-auto-complete-config"
    if written.plugin:
        start += " --backend-config=tensorrt,plugins=PLUGIN.so"
    if written.engines:
        versions = " and ".join(written.tensorrt)
        errors.print(
            f"[yellow]note[/] {len(written.engines)} engines need a Triton with TensorRT {escape(versions)}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    done(directory, f"models {', '.join(written.models)}; never loaded by a Triton yet: see docs/serving.md", start)
