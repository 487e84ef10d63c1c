"""`jotr-deploy fetch`: networks that find people, downloaded on request."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from jotr_deploy.errors import choice
from jotr_deploy.verbs.terminal import console, done, needs, print_json, steps


def fetch(
    what: Annotated[str, typer.Argument(help="people: BlazePose's networks, which find people and their joints.")],
    wheel: Annotated[
        Path | None,
        typer.Option("--from", help="Wheel that contains them, for machines without network access or pip."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch them again even if they are already present.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fetch networks that find people in photographs (Apache-2.0, 36 MB, from your package index)."""
    choice("WHAT", what, ("people",))
    needs("fetch", "onnxruntime")
    from jotr_deploy.errors import BundleError
    from jotr_deploy.runtime.finding.fetched_networks import fetched_people
    from jotr_deploy.third_party.blazepose_wheel import PACKAGE, VERSION, fetch_people

    found = None
    if not force and wheel is None:
        with suppress(BundleError):  # fetching repairs damaged files
            found = fetched_people()
    fresh = found is None
    if found is None:
        with steps() as say:
            found = fetch_people(wheel, say)
    if as_json:
        print_json({"folder": str(found.folder), "package": f"{PACKAGE} {VERSION}", "licence": "Apache-2.0",
                    "fetched": fresh, "sha256": found.sha256})  # fmt: skip
        return
    for name, digest in found.sha256.items():
        megabytes = (found.folder / name).stat().st_size / 1e6
        console.print(f"  {name}  {megabytes:.1f} MB  sha256 {digest[:12]}", highlight=False)
    console.print(f"[dim]licence[/] Apache-2.0, from {PACKAGE} {VERSION} by The MediaPipe Authors", highlight=False)
    what_was_done = (
        "fetched and compared with the originals" if fresh else "already present; --force fetches them again"
    )
    done(escape(str(found.folder)), what_was_done, "jotr-deploy run starter PHOTO")
