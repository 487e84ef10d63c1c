"""`jotr-deploy view`."""

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
        str | None, typer.Option(help="Source of the run, for the pictures; found automatically if it has not moved.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle of the run, for the meshes; found automatically if it has not moved.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port, or the next free one after it; 0 takes any free port.")
    ] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default only this machine can open the page.")
    ] = "127.0.0.1",
) -> None:
    """Show the meshes of a run in the browser, with camera, pictures and joints."""
    needs("view", "viser")
    from jotr_deploy.visual.result_files import read_people
    from jotr_deploy.visual.viewer import Viewer
    from jotr_deploy.visual.viewer_data import Pictures, find_result

    file = find_result(result)
    recording = read_people(file, bundle)
    _ = recording.faces, recording.people[:1].vertices_m  # report a missing bundle before the page opens
    with ExitStack() as stack:
        unusable: list[str] = []
        frames = _open_frames(file, recording, source, unusable)
        pictures = None
        if frames is None:
            why = f": its pictures cannot be used ({unusable[0]})" if unusable else " is not found"
            errors.print(
                f"[yellow]note[/] {escape(recording.source + why)}, only meshes are shown; give --source",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
        else:
            stack.enter_context(frames)
            pictures = Pictures(((frame.index, frame.image_bgr) for frame in frames), recording.numbers)
        viewer = stack.enter_context(Viewer(recording, pictures, host, port))
        people = count(len(recording.people), "mesh", "meshes")
        shown = f"{people} in {count(recording.frames, 'frame')}; Ctrl-C ends it"
        if recording.found_by:
            found_by = f"[dim]people found by {escape(recording.found_by)}[/]"
            console.print(found_by, highlight=False, soft_wrap=True)
        with suppress(KeyboardInterrupt):
            console.print(f"[bold green]open[/] {viewer.url} ({shown})", highlight=False, soft_wrap=True)
            viewer.serve()


def _open_frames(file: Path, recording: PeopleFile, source: str | None, unusable: list[str]) -> FrameSource | None:
    """Frames of a result in its own pixels, undistorted if its camera has lens distortion; None if not found.

    `unusable` collects the reasons why sources that are there cannot be used.

    Raises:
        SourceError: the user's source cannot be read or shows something else; the lens parameters are damaged.
    """
    from jotr_deploy.runtime.sources.camera_files import lens_of_facts
    from jotr_deploy.runtime.sources.scene_camera import CameraChoice
    from jotr_deploy.runtime.undistorted import Undistorted

    lens = recording.facts.get("lens")
    camera = None if lens is None else CameraChoice(file=lens_of_facts(lens, file))
    frames = _frames_as_taken(file, recording, source, unusable)
    return frames if frames is None or camera is None else Undistorted(frames, camera)


def _frames_as_taken(file: Path, recording: PeopleFile, source: str | None, unusable: list[str]) -> FrameSource | None:
    """Frames of a result as captured: the user's source, or the first likely one of the right size; None without any.

    `unusable` is that of `_open_frames`.

    Raises:
        SourceError: the user's source cannot be read, or shows something else.
    """
    from jotr_deploy.runtime.sources.opening import open_source
    from jotr_deploy.visual.viewer_data import likely_sources

    unread: list[str] = []  # unreadable pictures count as missing, the others are shown
    if source is not None:
        frames = open_source(source, unread)
        if frames.size_px != recording.image_size_px:
            frames = open_source(source, unread, upright=True)
        if frames.size_px != recording.image_size_px:
            (width, height), (wide, high) = frames.size_px, recording.image_size_px
            raise SourceError(
                f"{source}: its pictures are {width} x {height} px, those of {file} were {wide} x {high} px",
                "give the source of the run, or leave --source out",
            )
        return frames
    for path in likely_sources(file, recording):
        for upright in (True, False):
            try:
                frames = open_source(path, unread, upright=upright)
            except SourceError as error:
                unusable.append(error.cause)
                continue
            if frames.size_px == recording.image_size_px:
                return frames
            (width, height), (wide, high) = frames.size_px, recording.image_size_px
            unusable.append(f"{width} x {height} px, the result has {wide} x {high}")
    return None
