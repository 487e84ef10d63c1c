"""The command line of `view`."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from jotr_deploy.errors import SourceError
from jotr_deploy.verbs.terminal import console, count, errors, needs

if TYPE_CHECKING:
    from jotr_deploy.runtime.sources.opening import FrameSource
    from jotr_deploy.visual.result_files import PeopleFile


def view(
    result: Annotated[Path, typer.Argument(help="Directory of a run, or its .npz.")],
    source: Annotated[
        str | None, typer.Option(help="What the run was given, for the pictures; found by itself where it still is.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="What made it, for the meshes; found by itself where it still is.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The first free port from this one on; 0: any.")] = 8080,
    host: Annotated[str, typer.Option(help="Who may open the page: by default this machine alone.")] = "127.0.0.1",
) -> None:
    """Show the meshes of a run over time in the browser, with camera, pictures and joints."""
    needs("view", "viser")
    from jotr_deploy.visual.result_files import read_people
    from jotr_deploy.visual.viewer import Viewer
    from jotr_deploy.visual.viewer_data import Pictures, find_result

    file = find_result(result)
    recording = read_people(file, bundle)
    _ = recording.faces, recording.people[:1].vertices_m  # a bundle that is missing is told before the page opens
    with ExitStack() as stack:
        frames = _open_frames(file, recording, source)
        pictures = None
        if frames is None:
            errors.print(
                f"[yellow]note[/] {escape(recording.source)} is not found, the meshes stand alone; --source names it",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
        else:
            stack.enter_context(frames)
            pictures = Pictures(((frame.index, frame.image_bgr) for frame in frames), recording.numbers)
        viewer = stack.enter_context(Viewer(recording, pictures, host, port))
        people = count(len(recording.people), "mesh", "meshes")
        shown = f"{people} in {count(recording.frames, 'frame')}; Ctrl-C ends it"
        with suppress(KeyboardInterrupt):
            console.print(f"[bold green]open[/] {viewer.url} ({shown})", highlight=False, soft_wrap=True)
            viewer.serve()


def _open_frames(file: Path, recording: PeopleFile, source: str | None) -> FrameSource | None:
    """The frames of a result: those the user names, or the first likely ones of the right size; None without any.

    Raises:
        SourceError: the source that the user names cannot be read, or shows something else.
    """
    from jotr_deploy.runtime.sources.opening import open_source
    from jotr_deploy.visual.viewer_data import likely_sources

    unread: list[str] = []  # a picture that cannot be read is not there, the others are
    if source is not None:
        frames = open_source(source, unread)
        if frames.size_px != recording.image_size_px:
            frames = open_source(source, unread, upright=True)
        if frames.size_px != recording.image_size_px:
            (width, height), (wide, high) = frames.size_px, recording.image_size_px
            raise SourceError(
                f"{source}: its pictures are {width} x {height} px, those of {file} were {wide} x {high} px",
                "give what the run was given, or leave --source out",
            )
        return frames
    for path in likely_sources(file, recording):
        for upright in (True, False):
            with suppress(SourceError):
                frames = open_source(path, unread, upright=upright)
                if frames.size_px == recording.image_size_px:
                    return frames
    return None
