"""`jotr-deploy eval`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.choices import (
    DEVICES,
    FITS,
    PIXELS_BY,
    PROTOCOLS,
    TF32,
    VPOSER,
    choose_fit,
    explained,
    listed,
)
from jotr_deploy.verbs.terminal import bar, console, done, errors, needs, print_json, refuse_tf32_on_cpu

if TYPE_CHECKING:
    from jotr_deploy.evaluation.occlusion import OcclusionOptions


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    protocol: Annotated[str, typer.Option(help=f"Evaluation set: {listed(PROTOCOLS)}.")] = "synthetic",
    root: Annotated[
        Path | None, typer.Option(help="Folder with the data sets, laid out as in docs/datasets.md.")
    ] = None,
    h36m_regressor: Annotated[
        Path | None, typer.Option(help="J_regressor_h36m_correct.npy, needed for data sets.")
    ] = None,
    smpl: Annotated[
        Path | None, typer.Option(help="Folder with the SMPL files of all genders, needed for data sets.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes; training uses seeds below 1000.")] = 1000,
    scenes: Annotated[int | None, typer.Option(min=1, help="Number of synthetic scenes; 256 by default.")] = None,
    file: Annotated[str | None, typer.Option(help="Network file of the bundle; mesh.onnx by default.")] = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="Also compare every mesh file of the bundle with the fp32 one.")
    ] = False,
    pixels: Annotated[bool, typer.Option("--pixels", help="Also find the people in the pictures alone.")] = False,
    people: Annotated[
        str | None, typer.Option(help=f"How --pixels finds them: {explained(PIXELS_BY)}. By default: detector.")
    ] = None,
    align: Annotated[bool, typer.Option("--align", help="Align people to the given joints before measuring.")] = False,
    fit: Annotated[
        str | None, typer.Option(help=f"Fit everybody to the features of their crop first: {listed(FITS)}.")
    ] = None,
    vposer: Annotated[Path | None, typer.Option(help=VPOSER)] = None,
    visible_joints: Annotated[
        bool, typer.Option("--visible-joints", help="Also measure the visible joints alone, and PCKh.")
    ] = False,
    occlusion: Annotated[
        str | None,
        typer.Option(
            help="Also occlude each person with square patches of these sides (published: 40,80) on a crop of 224 px."
        ),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Stride between neighbouring patches on that crop, in pixels; 10 by default.")
    ] = None,
    textures: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures to cut patches from, such as DTD; synthetic textures by default."),
    ] = None,
    keep_joints: Annotated[
        bool, typer.Option("--keep-joints", help="Let the network keep the 2-D joints hidden by a patch.")
    ] = False,
    every: Annotated[int | None, typer.Option(min=1, help="Occlude people in every Nth picture only.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for heat maps and the patch manifest.")
    ] = None,
    device: Annotated[str, typer.Option(help=f"{listed(DEVICES)}.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for scenes and network; one per core by default.")
    ] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help=TF32)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure a bundle against ground truth: held-out synthetic scenes, or a data set."""
    choice("--device", device, DEVICES)
    refuse_tf32_on_cpu(tf32, device)
    choose_fit(fit, vposer)
    how = {"--stride": stride, "--textures": textures, "--every": every, "--output": output}
    attack = _attack(occlusion, how, keep_joints)
    needs("eval", "onnxruntime")
    errors.print(f"[dim]measuring[/] {escape(str(bundle))}", highlight=False, soft_wrap=True)
    from jotr_deploy import api
    from jotr_deploy.evaluation.evaluation_table import report
    from jotr_deploy.evaluation.occlusion_table import occlusion_report
    from jotr_deploy.evaluation.published.set_result import SetEvaluation
    from jotr_deploy.evaluation.published.set_table import set_report

    with bar() as progress:
        result = api.evaluate(
            bundle, protocol=protocol, root=root, h36m_regressor=h36m_regressor, smpl=smpl, seed=seed, scenes=scenes,
            file=file, drift=drift, pixels=pixels, people=cast(Any, people), occlusion=attack, align=align, fit=fit,
            vposer=vposer, visible_joints=visible_joints, device=device, threads=threads, tf32=tf32, progress=progress,
        )  # fmt: skip
    if isinstance(result, SetEvaluation):
        of_a_set = {"--root": root, "--h36m-regressor": h36m_regressor, "--smpl": smpl}
        same = f"--protocol {protocol} " + " ".join(f"{option} {path}" for option, path in of_a_set.items())
    else:
        same = f"--seed {seed}" + ("" if scenes is None else f" --scenes {scenes}")
    same += " --pixels" * pixels + ("" if people is None else f" --people {people}")
    same += " --align" if align else ""
    same += f" --fit {fit}" if fit else ""
    same += f" --vposer {vposer}" if vposer else ""
    same += " --visible-joints" if visible_joints else ""
    same += " --tf32" if tf32 else ""
    if as_json:
        print_json(result.as_dict())
        return
    console.print(set_report(result) if isinstance(result, SetEvaluation) else report(result))
    if result.occlusion is not None and occlusion is not None:
        console.print("", occlusion_report(result.occlusion))
        same += " ".join(["", "--occlusion", occlusion, *(f"{name} {value}" for name, value in how.items() if value)])
        same += " --keep-joints" if keep_joints else ""
    if result.occlusion is not None and output is not None:
        written = result.occlusion.written
        done(output, ", ".join(written), f"open {output / written[1]}")
    else:
        done(bundle, "measured; nothing was written", f"jotr-deploy eval {bundle} {same} --json > eval.json")


def _attack(sizes: str | None, how: Mapping[str, Any], keep_joints: bool) -> OcclusionOptions | None:
    if sizes is None:
        for option, value in {**how, "--keep-joints": keep_joints or None}.items():
            if value is not None:
                raise JotrDeployError(f"{option} needs --occlusion", f"add --occlusion 40,80, or leave {option} out")
        return None
    from jotr_deploy.evaluation.occlusion import OcclusionOptions
    from jotr_deploy.evaluation.patches import STRIDE, patch_sizes

    stride = STRIDE if how["--stride"] is None else how["--stride"]
    return OcclusionOptions(
        patch_sizes(sizes), stride, how["--textures"], keep_joints, how["--every"] or 1, how["--output"]
    )
