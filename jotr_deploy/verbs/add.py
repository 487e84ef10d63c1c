"""`jotr-deploy add`: third-party networks that find people."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.verbs.terminal import console, done, needs, print_json, steps

if TYPE_CHECKING:
    from jotr_deploy.bundle import Licence


def add(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    detector: Annotated[Path | None, typer.Option(help="Person detector: .onnx, .engine or .plan.")] = None,
    pose: Annotated[Path | None, typer.Option(help="2-D pose network: .onnx, .engine or .plan.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="weights.pt of a run of the task features, for the fit; alone.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the result to a new bundle here, leaving BUNDLE unchanged."),
    ] = None,
    people: Annotated[
        str | None, typer.Option(help="blazepose: both networks downloaded by jotr-deploy fetch people.")
    ] = None,
    detector_format: Annotated[str | None, typer.Option(help="By default recognised by the file's tensors.")] = None,
    pose_format: Annotated[str | None, typer.Option(help="By default recognised by the file's tensors.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Network setting ROLE.KEY=VALUE, such as detector.threshold=0.4.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the files, as listed by doctor.")] = None,
    redistributable: Annotated[
        bool, typer.Option("--redistributable", help="The licence permits redistribution of the files.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option("--try", help="Also try them on this picture of people; the result is drawn into try-NAME.jpg."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Add your own detector and 2-D pose network, or BlazePose's, to a bundle; or features for the fit."""
    if features is not None:
        others = (detector, pose, people, detector_format, pose_format, settings, licence, redistributable, picture)
        if any(others):
            raise JotrDeployError(
                "--features is given with options of other networks", "give it alone; other networks in another call"
            )
        _features(bundle, features, output, as_json)
        return
    files: dict[Literal["detector", "pose"], Path | None] = {"detector": detector, "pose": pose}
    formats = {"detector": detector_format, "pose": pose_format}
    if people is not None:
        choice("--people", people, ("blazepose",))
        if detector or pose or licence or redistributable:
            raise JotrDeployError(
                "--people is given together with a file or a licence",
                "give it alone: it includes both networks and their licence",
            )
    elif detector is None and pose is None:
        raise JotrDeployError(
            "neither a detector nor a pose network is given",
            "give --detector FILE, --pose FILE or both, --people blazepose, or --features WEIGHTS",
        )
    if redistributable and not licence:
        raise JotrDeployError(
            "--redistributable is given without --licence", "name the licence that permits it: --licence TEXT"
        )
    from jotr_deploy.bundle import to_write
    from jotr_deploy.runtime.finding.fetched_networks import require_fetched
    from jotr_deploy.third_party.addition import NewNetwork, add_networks, recipes_of

    named = [f"{role}.format={name}" for role, name in formats.items() if name is not None]
    recipes = recipes_of([*named, *(settings or [])])
    if people is not None:
        fetched = require_fetched()
        files, licence, redistributable = {"detector": fetched.detector, "pose": fetched.landmarks}, fetched.terms, True
    for role, file in files.items():
        if recipes[role] and file is None:
            raise JotrDeployError(
                f"{role}.{next(iter(recipes[role]))} is set without --{role}", f"give the file too: --{role} FILE"
            )
    networks = [NewNetwork(role, file, recipes[role]) for role, file in files.items() if file is not None]
    with steps() as say, to_write(bundle, output) as opened:
        added = add_networks(opened, networks, licence, redistributable, say, picture)
    target = output or bundle
    if as_json:
        print_json([{**asdict(each), "licence": each.licence.model_dump()} for each in added])
        return
    for each in added:
        lines = [f"[bold]{each.name}[/] {escape(each.about)}; {escape(each.found)}"]
        lines += [f"[dim]replaced[/] {escape(name)}" for name in each.replaced]
        lines.append(licence_line(each.licence))
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)
    tried = added[0].tried
    if tried is not None:
        console.print(escape(f"{tried.picture}, drawn into {tried.drawing}:"), highlight=False, soft_wrap=True)
        for number, person in enumerate(tried.people, 1):
            console.print(f"  person {number}: {person.line}", highlight=False, soft_wrap=True)
    what = " and ".join(f"{each.name}, {each.size_bytes / 1e6:.1f} MB" for each in added)
    done(target, what, f"jotr-deploy run {target} IMAGE -o DIR")


def _features(bundle: Path, weights: Path, output: Path | None, as_json: bool) -> None:
    """Put trained features in, and say what they are."""
    needs("add --features", "torch", "onnxscript", "onnxruntime")
    from jotr_deploy.bundle import to_write
    from jotr_deploy.export.features import add_features

    with steps() as say, to_write(bundle, output) as opened:
        added = add_features(opened, weights, say=say)
    target = output or bundle
    if as_json:
        print_json({
            "bundle": str(target), "size_bytes": added.size_bytes, "least_cosine": added.least_cosine,
            "replaced": added.replaced, "licence": added.licence.model_dump(),
        })  # fmt: skip
        return
    console.print(f"least cosine to PyTorch {added.least_cosine:.5f}", highlight=False)
    console.print(licence_line(added.licence), highlight=False, soft_wrap=True)
    done(target, f"features, {added.size_bytes / 1e6:.1f} MB", f"jotr-deploy doctor {target}")


def licence_line(licence: Licence) -> str:
    """Text that is printed of a licence."""
    may = "may be passed on" if licence.redistributable else "may NOT be passed on"
    return f"[dim]licence[/] {escape(licence.asset)}: {escape(licence.terms)}; {may}"
