"""The command line of measures against the truth: `eval`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.verbs.terminal import bar, console, done, errors, needs, print_json

if TYPE_CHECKING:
    from jotr_deploy.evaluation.occlusion import OcclusionOptions


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    protocol: Annotated[
        str, typer.Option(help="On what: synthetic, 3dpw, 3dpw-oc, 3dpw-pc, 3dpw-crowd or 3doh.")
    ] = "synthetic",
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets, as docs/datasets.md has it.")] = None,
    h36m_regressor: Annotated[Path | None, typer.Option(help="J_regressor_h36m_correct.npy, for data sets.")] = None,
    smpl: Annotated[Path | None, typer.Option(help="Folder of SMPL's files, all genders, for data sets.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes; training uses those below 1000.")] = 1000,
    scenes: Annotated[int | None, typer.Option(min=1, help="How many to draw; 256 by default.")] = None,
    file: Annotated[str | None, typer.Option(help="Network file of the bundle; mesh.onnx by default.")] = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="Also compare every file of the bundle with the fp32 one.")
    ] = False,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Also find the people with the bundle's own detector and pose network.")
    ] = False,
    align: Annotated[
        bool, typer.Option("--align", help="Move people onto the joints given before they are measured.")
    ] = False,
    occlusion: Annotated[
        str | None,
        typer.Option(help="Also hide each person by patches of these sides, 40,80 as published, of a crop of 224 px."),
    ] = None,
    stride: Annotated[int | None, typer.Option(help="From patch to patch on that crop; 10 by default.")] = None,
    textures: Annotated[
        Path | None, typer.Option(help="Folder of pictures that patches are cut from, such as DTD; else drawn ones.")
    ] = None,
    keep_joints: Annotated[
        bool, typer.Option("--keep-joints", help="Give the network the 2-D joints under a patch too.")
    ] = False,
    every: Annotated[int | None, typer.Option(min=1, help="Hide people in one picture of so many.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for heat maps and the manifest of the patches.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Cores for scenes and network; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure a bundle against the truth of held-out scenes, or of a data set."""
    choice("--device", device, ("auto", "cpu", "cuda"))
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
            file=file, drift=drift, pixels=pixels, occlusion=attack, align=align, device=device, threads=threads,
            progress=progress,
        )  # fmt: skip
    if isinstance(result, SetEvaluation):
        of_a_set = {"--root": root, "--h36m-regressor": h36m_regressor, "--smpl": smpl}
        same = f"--protocol {protocol} " + " ".join(f"{option} {path}" for option, path in of_a_set.items())
    else:
        same = f"--seed {seed}" + ("" if scenes is None else f" --scenes {scenes}")
    same += " --align" if align else ""
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
                raise JotrDeployError(
                    f"{option} is given without --occlusion", "it is about patches: --occlusion 40,80 asks for them"
                )
        return None
    from jotr_deploy.evaluation.occlusion import OcclusionOptions
    from jotr_deploy.evaluation.patches import STRIDE, patch_sizes

    stride = STRIDE if how["--stride"] is None else how["--stride"]
    return OcclusionOptions(
        patch_sizes(sizes), stride, how["--textures"], keep_joints, how["--every"] or 1, how["--output"]
    )
