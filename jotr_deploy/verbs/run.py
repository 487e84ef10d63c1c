"""`jotr-deploy run`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.choices import DEVICES, TF32, VPOSER, choose_fit
from jotr_deploy.verbs.recovery_options import (
    Align,
    Camera,
    Coco,
    Device,
    Every,
    File,
    Fit,
    Focal,
    Fov,
    Glb,
    KeepGoing,
    MaxPeople,
    Obj,
    OverlayScale,
    Roi,
    Save2d,
    SaveFit,
    Smooth,
    Vertices,
    region,
    require_fit_alone,
    require_overlay_scale,
)
from jotr_deploy.verbs.terminal import bar, console, count, done, errors, needs, print_json, refuse_tf32_on_cpu

if TYPE_CHECKING:
    from jotr_deploy.runtime.summary import FitOutcome, RunSummary
    from jotr_deploy.support.aliases import FrameProgress
    from jotr_deploy.support.spans import Spans
    from jotr_deploy.verbs.live_page import LivePage

INTERRUPTED, NOT_CLEAN = 130, 3


def run(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    source: Annotated[
        str, typer.Argument(help="Image, folder of images, glob in quotes, video, number of a camera, or URL.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Results directory; by default a new one, jotr-results/NAME, or none with --live.",
        ),
    ] = None,
    keypoints: Annotated[
        Path | None, typer.Option(help="2-D joints: a file or a folder of files, see docs/joints.md.")
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="Boxes as JSON; the bundle's pose network finds the joints.")
    ] = None,
    skeleton: Annotated[
        str | None, typer.Option(help="Joint order of the keypoint file: a name from docs/joints.md.")
    ] = None,
    joints_in: Annotated[
        str,
        typer.Option(help="Coordinates of the file: auto, pixels, normalised, or unrotated (before EXIF rotation)."),
    ] = "auto",
    people: Annotated[
        str,
        typer.Option(
            help="How people are found without a file: auto, blazepose, detector, hog, or frame (the whole frame)."
        ),
    ] = "auto",
    every: Every = 1,
    max_people: MaxPeople = None,
    roi: Roi = None,
    smooth: Smooth = None,
    align: Align = None,
    fit: Fit = None,
    vposer: Annotated[Path | None, typer.Option(help=VPOSER)] = None,
    camera: Camera = None,
    fov: Fov = None,
    focal: Focal = None,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Do not write overlays.")] = False,
    overlay_scale: OverlayScale = None,
    save_2d: Save2d = False,
    vertices: Vertices = False,
    obj: Obj = False,
    glb: Glb = False,
    coco: Coco = False,
    save_fit: SaveFit = False,
    keep_going: KeepGoing = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Show people in the browser during the run, with rates and timings in the terminal."
        ),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Report where the time went, and write a trace for the browser.")
    ] = False,
    overlap: Annotated[
        bool | None,
        typer.Option("--overlap/--no-overlap", help="Process several frames at once; by default where it helps."),
    ] = None,
    file: File = None,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU cores for the network; all by default.")] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help=TF32)] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 3 (results are written) if anything was skipped, unused or left out."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Recover the people in an image, a folder, a glob, a video or a camera stream."""
    choice("--device", device, DEVICES)
    refuse_tf32_on_cpu(tf32, device)
    if not source:
        raise JotrDeployError(
            "SOURCE is empty", "give an image, a folder, a glob in quotes, a video, a camera number or a URL"
        )
    _refuse_without_a_file(joints_in, skeleton, keypoints, boxes)
    require_overlay_scale(overlay_scale, not no_overlay, "--no-overlay")
    fitted = choose_fit(fit, vposer)
    require_fit_alone(fit, align, save_fit)
    written = output is not None or not live
    if not written:
        _refuse_unwritten({
            "--overlay-scale": overlay_scale is not None, "--save-2d": save_2d, "--vertices": vertices,
            "--obj": obj, "--glb": glb, "--coco": coco, "--save-fit": save_fit,
        })  # fmt: skip
    needs("run", "onnxruntime")
    from jotr_deploy.runtime.sources.captures import shown

    errors.print(f"[dim]reading[/] {escape(shown(source))}", highlight=False, soft_wrap=True)
    from jotr_deploy.api import fitter_of
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.runtime.finding.people_source import PeopleBy
    from jotr_deploy.runtime.joint_files.coordinates import JOINTS_IN, JointsIn
    from jotr_deploy.runtime.motion.smoothing import Mode
    from jotr_deploy.runtime.run import RunOptions
    from jotr_deploy.runtime.run import run as run_source
    from jotr_deploy.runtime.sources.scene_camera import choose_camera
    from jotr_deploy.support.spans import Spans

    choice("--people", people, get_args(PeopleBy))
    choice("--joints-in", joints_in, JOINTS_IN)
    if smooth is not None:
        choice("--smooth", smooth, get_args(Mode))
    options = RunOptions(
        vertices=vertices, overlay=not no_overlay, overlay_scale=overlay_scale or 1.0, save_2d=save_2d, obj=obj,
        glb=glb, coco=coco, keypoints=keypoints, boxes=boxes, skeleton=skeleton, joints_in=cast(JointsIn, joints_in),
        people=cast(PeopleBy, people), every=every, roi_px=region(roi), max_people=max_people,
        smooth=cast(Mode, smooth), keep_going=keep_going, overlap=overlap, file=file, device=device, threads=threads,
        tf32=tf32, write=written, align=align, camera=choose_camera(camera, fov, focal), save_fit=save_fit,
    )  # fmt: skip
    spans = Spans()
    opened = open_bundle(bundle)
    with _page() if live else nullcontext() as page, _watched(live, spans) as (progress, told):
        opens = None if fitted is None else fitter_of(opened, fitted, device, threads, told)
        summary = run_source(opened, source, output, options, progress, spans, page, opens)
        if page is not None and summary.ended != "interrupted":
            page.last_look()
    _print(summary, spans, profile, as_json, people)
    if summary.ended == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if strict and (unclean := list(summary.unclean())):
        errors.print(f"[yellow]strict[/] {count(len(unclean), 'issue')} found, see the summary", highlight=False)
        raise typer.Exit(NOT_CLEAN)


def _refuse_without_a_file(joints_in: str, skeleton: str | None, keypoints: Path | None, boxes: Path | None) -> None:
    """Refuse options that describe a file of joints or boxes when none is given."""
    if joints_in != "auto" and keypoints is None and boxes is None:
        raise JotrDeployError("--joints-in needs a file", "add --keypoints or --boxes, or leave --joints-in out")
    if skeleton is not None and keypoints is None:
        raise JotrDeployError("--skeleton needs --keypoints", "add the keypoint file, or leave --skeleton out")


def _refuse_unwritten(wanted: Mapping[str, bool]) -> None:
    """Refuse options for result files when no results are written."""
    for option in (option for option, given in wanted.items() if given):
        raise JotrDeployError(f"{option} with --live writes nothing without a results directory", "add -o DIR")


def _page() -> LivePage:
    """Print the address of the page, and open it in a browser when a user is at the terminal."""
    from jotr_deploy.verbs.live_page import LivePage, browser

    page = LivePage(browser() if errors.is_terminal else None)
    errors.print(
        f"[bold green]open[/] {page.url} (live results, on this machine only; Ctrl-C ends the run)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    return page


@contextmanager
def _watched(live: bool, spans: Spans) -> Iterator[tuple[FrameProgress, Callable[[int, int, int], None]]]:
    """Callbacks for each frame and for each step of a fit: a bar, or with `live` a table of the last few seconds."""
    if live:
        from jotr_deploy.verbs.live import shown

        with shown(spans) as progress:
            yield progress, lambda people, done, total: None
    else:
        with bar() as tell:
            frames: tuple[int, int | None] = 0, None

            def progress(done: int, total: int | None) -> None:
                nonlocal frames
                frames = done, total
                tell("frames", done, total)

            def told(people: int, done: int, total: int) -> None:
                tell(f"frames (fitting {count(people, 'person', 'people')}: {done / total:.0%})", *frames)

            yield progress, told


def _print(summary: RunSummary, spans: Spans, profile: bool, as_json: bool, people: str) -> None:
    """Print the result of a run, and its profile if requested."""
    result = None if summary.output is None else Path(summary.output, summary.files[-1]).with_suffix(".npz")
    trace = None if result is None else result.with_name(f"{result.stem}_trace.json")
    profiled = _profile(spans, trace, as_json) if profile else {}
    if as_json:
        print_json({**summary.as_dict(), "output": summary.output, **profiled})
        return
    _report(summary, result, with_times=not profile)
    _say_what_to_fetch(summary, people)


def _profile(spans: Spans, trace: Path | None, quiet: bool) -> dict[str, Any]:
    """Write the trace next to the results and print the profile unless `quiet`; return both for the JSON."""
    from jotr_deploy.profiling.bench_table import frames_report
    from jotr_deploy.profiling.chrome_trace import write_trace
    from jotr_deploy.profiling.frame_times import frame_profile

    if trace is not None:
        write_trace(spans.spans, trace)
    found = frame_profile(spans.spans)
    if not quiet:
        console.print(frames_report(found))
        if trace is not None:
            console.print(f"[dim]trace[/] {escape(str(trace))}: open it at chrome://tracing", highlight=False)
    return {"profile": found.as_dict(), "trace": None if trace is None else str(trace)}


def _notes(summary: RunSummary) -> Iterator[str]:
    """Notes on the pictures, the joint file, the camera, the networks that found people, and the alignment."""
    sizes = ", ".join(f"{width} x {height}" for width, height in summary.sizes_px[:3])
    sizes += f" and {len(summary.sizes_px) - 3} more sizes" if len(summary.sizes_px) > 3 else ""
    yield f"read: {count(summary.frames_read, 'frame')} of {sizes} px"
    if summary.joints:
        used, entries = summary.joints["entries_used"], summary.joints["entries"]
        matched = count(summary.joints["pictures_matched"], "picture")
        yield f"joints: {used} of {count(entries, 'entry', 'entries')} used, {matched} matched"
    if summary.camera != ["published"]:
        yield f"camera: {'; '.join(summary.camera)}"
    if summary.networks:
        named = ", ".join(f"{used['file']} ({used['sha256'][:12]})" for used in summary.networks)
        yield f"people found by {named}"
    done = summary.alignment
    if done is not None and done.moved:
        change = f"mean joint error {done.before_percent:.2f} % of the crop before, {done.after_percent:.2f} % after"
        kept = f"; {count(done.kept, 'mesh', 'meshes')} kept as recovered" if done.kept else ""
        yield f"aligned: {count(done.moved, 'mesh', 'meshes')}, {change}{kept}"
    elif done is not None and summary.people:
        yield "aligned: none; no joints, or no better fit"


def _fit_note(fit: FitOutcome) -> str:
    """Number of people for whom the fit lowered the energy, and why the others are unchanged."""
    name = f"fit {fit.preset}"
    if fit.prior is not None:
        name += f" in the latent of {fit.prior['name']} ({fit.prior['sha256'][:12]})"
    if not fit.accepted + fit.unchanged:
        return f"{name}: nobody to fit"
    everybody = count(fit.accepted + fit.unchanged, "mesh", "meshes")
    details = [
        f"{number} {what}"
        for number, what in ((fit.mirrored, "mirrored in depth"), (fit.warm, "begun at the pose of the frame before"))
        if number
    ]
    found = f"{name}: a lower energy for {fit.accepted} of {everybody}"
    found += f" ({', '.join(details)})" if details else ""
    why = [
        f"{number} {what}"
        for number, what in (
            (fit.no_better, "as nothing better was found or their features disagree"),
            (fit.outside, "outside the picture"),
            (fit.not_before_camera, "not in front of the camera"),
        )
        if number
    ]
    unchanged = f"; {fit.unchanged} returned unchanged: {', '.join(why)}" if why else ""
    return f"{found}{unchanged}; alignment to joints is off during a fit"


def _say_what_to_fetch(summary: RunSummary, people: str) -> None:
    """Hint at `fetch` when the starter bundle's own networks found people because better ones were never fetched."""
    from jotr_deploy.bundle import starter_path

    own = bool(summary.networks) and all("/" not in used["file"] for used in summary.networks)
    if people == "auto" and own and summary.bundle == str(starter_path()):
        fetch = "[bold]jotr-deploy fetch people[/]"
        console.print(
            f"These networks were trained on synthetic people; for real ones: {fetch}", highlight=False, soft_wrap=True
        )


def _report(summary: RunSummary, result: Path | None, with_times: bool) -> None:
    if with_times:
        times = summary.milliseconds_per_frame
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in times.items())
        line = f"ms per frame, mean: {stages}; all {sum(times.values()):.1f}"
        console.print(f"[dim]{line}[/]", highlight=False, soft_wrap=True)
    for note in _notes(summary):
        console.print(f"[dim]{escape(note)}[/]", highlight=False, soft_wrap=True)
    if summary.fit is not None:
        console.print(f"[dim]{escape(_fit_note(summary.fit))}[/]", highlight=False, soft_wrap=True)
        if summary.fit.prior is not None:
            from jotr_deploy.export.assemble import VPOSER as LICENCE

            console.print(f"[dim]licence[/] {LICENCE.asset}: {LICENCE.terms}", highlight=False, soft_wrap=True)
    for label in summary.labels:
        console.print(f"[yellow]note[/] {escape(label)}", highlight=False, soft_wrap=True)
    kinds: dict[str, list[str]] = {}
    for kind, why in (*summary.unclean(), *(("from an earlier run", file) for file in summary.earlier)):
        kinds.setdefault(kind, []).append(why)
    for kind, lines in kinds.items():
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        console.print(f"[yellow]{kind}[/] {escape(lines[0])}{more}", highlight=False, soft_wrap=True)
    found, frames = count(summary.people, "person", "people"), count(summary.frames, "frame")
    if summary.tracks:
        found = f"{count(summary.tracks, 'person', 'people')}, {count(summary.people, 'mesh', 'meshes')}"
    if result is None:
        run = f"jotr-deploy run {quote(summary.bundle)} {quote(summary.source)} -o DIR"
        done(summary.source, f"{found} in {frames}, nothing written", f"{run} keeps the results")
        return
    drawn = [f for f in summary.files if "_overlay" in f] or [f for f in summary.files if f.endswith("_2d.mp4")]
    picture = result.with_name(drawn[0]) if drawn else None
    film = f" ({summary.film})" if summary.film else ""
    if summary.film and "ffmpeg" not in summary.film:
        film = f" ({summary.film}; install ffmpeg for one that plays in browsers)"
    look = "" if picture is None else f"look at {quote(str(picture))}{film}, or "
    files = count(len(summary.files), "file")
    done(result.parent, f"{found} in {frames}, {files}", f"{look}jotr-deploy view {quote(str(result))}")
