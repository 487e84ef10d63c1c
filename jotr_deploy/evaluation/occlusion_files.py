"""Attack in the course of an evaluation, and its files: a manifest to reproduce it, and heat maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from jotr_deploy.evaluation.attack import Attack
from jotr_deploy.evaluation.measured_joints import EvaluatedJoints, by_name
from jotr_deploy.evaluation.mesh_files import OpenFiles
from jotr_deploy.evaluation.occlusion import FileUnderAttack, Occlusion, OcclusionOptions, occlusion, prepare
from jotr_deploy.evaluation.patches import REFERENCE_SIDE
from jotr_deploy.runtime.sources.images import write_image
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.writing import folder_made, output_errors, written_aside
from jotr_deploy.visual.heat_map import HeatMap, draw_heat_map

MANIFEST = "occlusion.json"


@contextmanager
def open_attack(
    options: OcclusionOptions | None,
    files: OpenFiles,
    seed: int,
    evaluated: EvaluatedJoints = by_name,
    tick: Callable[[int, int], None] = lambda crops, all_crops: None,
) -> Iterator[Attack | None]:
    """Attack on the files, ready for people; None if none is requested.

    The folder of its results exists inside the block, so that hours of work do not end without a place for them.

    Raises:
        JotrDeployError: a size or stride that is not in 1..224.
        SourceError: no texture can be read.
        OutputError: the folder cannot be made.
    """
    if options is None:
        yield None
        return
    attack = prepare(options, files, seed, evaluated, tick)
    with ExitStack() as stack:
        if options.output is not None:
            stack.enter_context(output_errors(options.output))
            stack.enter_context(folder_made(options.output))
        yield attack


def finish_attack(
    attack: Attack | None, options: OcclusionOptions | None, files: OpenFiles, seed: int
) -> Occlusion | None:
    """Figures over all people, written to the folder of the options if there is one.

    Raises:
        OutputError: a file cannot be written.
    """
    if attack is None or options is None:
        return None
    found = occlusion(attack, files, options, seed)
    return write_occlusion(found, attack, options.output) if options.output else found


def write_occlusion(found: Occlusion, attack: Attack, output: Path) -> Occlusion:
    """Write manifest and heat maps into a folder; returns the result with the file names.

    Raises:
        OutputError: a file cannot be written.
    """
    written = []
    for size, grid in zip(found.sizes, attack.grids, strict=True):
        maps = {file.name: np.array(file.map_mm, np.float64) for file in size.files}
        span = _span(np.stack(list(maps.values())))
        for file in size.files:
            title = f"{file.name}: mean MPJPE under a patch of {size.size} of {REFERENCE_SIDE} px, clean {_clean(file)}"
            heat = HeatMap(maps[file.name], grid.boxes_px, attack.crop_side, attack.joints_px, span, title, "mm")
            name = f"occlusion_{size.size}_{file.name}.png"
            write_image(output / name, draw_heat_map(heat))
            written.append(name)
    named = replace(found, written=(MANIFEST, *written))
    with written_aside(output / MANIFEST) as aside:
        aside.write_text(json.dumps(asdict(named), indent=2) + "\n")
    return named


def _span(values: Array) -> tuple[float, float]:
    """Smallest and largest number over all files, so that their pictures are comparable."""
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def _clean(file: FileUnderAttack) -> str:
    return "-" if file.clean.mpjpe_mm is None else f"{file.clean.mpjpe_mm:.1f} mm"
