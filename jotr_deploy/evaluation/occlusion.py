"""Results of the adversarial protocol: every network under its own worst patches and under those of fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jotr_deploy.evaluation.attack import METRICS, MPJPE, Attack, Attacked
from jotr_deploy.evaluation.error_statistics import Figures, bootstrap_interval, mean, rounded
from jotr_deploy.evaluation.measured_joints import EvaluatedJoints, by_name
from jotr_deploy.evaluation.mesh_files import OpenFile, OpenFiles
from jotr_deploy.evaluation.patches import REFERENCE_SIDE, SIZES, STRIDE, PatchGrid, patch_grid
from jotr_deploy.evaluation.textures import drawn_textures, read_textures
from jotr_deploy.evaluation.visible_joints import VisibleJoints
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class OcclusionOptions:
    """Options of the protocol; pixels are those of a crop of 224."""

    sizes: tuple[int, ...] = SIZES
    stride: int = STRIDE
    textures: Path | None = None  # a folder of pictures; drawn ones by default
    keep_joints: bool = False
    every: int = 1  # attack the people of every Nth picture
    output: Path | None = None  # folder for the manifest and the heat maps


@dataclass(frozen=True)
class OcclusionProtocol:
    """Meaning of the figures, in words."""

    attacked: str
    patches: str
    textures: str
    joints_counted: str
    joints_under_a_patch: str
    worst: str


@dataclass(frozen=True)
class VisibleUnderAttack:
    """Errors over all joints and over the visible ones, of people with a visible joint."""

    clean: VisibleJoints
    worst: VisibleJoints  # at each person's place with the largest MPJPE over the visible joints


@dataclass(frozen=True)
class FileUnderAttack:
    """One file under the patches of one size."""

    name: str
    precision: str
    device: str
    clean: Figures
    grid_mean: Figures  # each person's mean over all places
    worst: Figures  # at each person's own worst place
    worse_by: float | None  # increase of the worst MPJPE over the clean one, as a share
    at_reference_worst: Figures | None  # at the worst places of the fp32 file
    worst_change_mm: float | None  # change of the worst MPJPE from the fp32 file
    interval_mm: tuple[float, float] | None  # its 95 % interval, paired bootstrap over people
    map_mm: tuple[tuple[float | None, ...], ...]  # mean MPJPE over people by row and column of the place
    not_finite: int  # people with a number that is not finite in any crop, left out
    nothing_counted: int  # people without a joint that counts, left out
    before_fit: FileUnderAttack | None = None  # the start of the fit, under its own worst patches
    at_start_worst: Figures | None = None  # after the fit, at the worst places of its start: the paper's figures
    visible_joints: VisibleUnderAttack | None = None


@dataclass(frozen=True)
class OccluderSize:
    """All files under the patches of one size."""

    size: int  # pixels of a crop of 224
    stride: int
    side_px: int  # pixels of the network's crop
    step_px: int
    places_each_way: int
    files: tuple[FileUnderAttack, ...]


@dataclass(frozen=True)
class WorstPlace:
    """Place where a patch hurts one person most, with everything needed to reproduce it."""

    person: str
    file: str
    size: int
    stride: int
    row: int
    column: int
    texture: str
    texture_xy_px: tuple[int, int]  # first column and row of the window in the texture
    clean_mm: float
    error_mm: float  # MPJPE


@dataclass(frozen=True)
class Occlusion:
    """Everything of an attack."""

    protocol: OcclusionProtocol
    seed: int
    people: int
    reference: str | None  # the fp32 file, where several are compared
    sizes: tuple[OccluderSize, ...]
    worst: tuple[WorstPlace, ...]
    worst_before_fit: tuple[WorstPlace, ...]  # those of the starts of the fit
    skipped_textures: tuple[str, ...]
    written: tuple[str, ...] = ()


def prepare(
    options: OcclusionOptions,
    files: OpenFiles,
    seed: int,
    evaluated: EvaluatedJoints = by_name,
    tick: Callable[[int, int], None] = lambda crops, all_crops: None,
) -> Attack:
    """An attack on the files, ready for people.

    Raises:
        JotrDeployError: a size or stride that is not in 1..224.
        SourceError: no texture can be read.
    """
    side = files.measured.network.crop_side
    grids = [patch_grid(size, options.stride, side) for size in options.sizes]
    made = drawn_textures(seed, side) if options.textures is None else read_textures(options.textures, seed, side)
    networks = [file.network for file in files.all]
    return Attack(networks, side, grids, made, seed, options.keep_joints, evaluated, tick, files.fit)


def occlusion(attack: Attack, files: OpenFiles, options: OcclusionOptions, seed: int) -> Occlusion:
    """Figures of an attack on all people added."""
    attacked = dict(zip((file.entry.name for file in files.all), attack.finish(), strict=True))
    reference = files.reference.entry.name if files.reference else None
    sizes: list[OccluderSize] = []
    worst: list[WorstPlace] = []
    worst_before: list[WorstPlace] = []
    for number, grid in enumerate(attack.grids):
        rows = []
        for file in files.all:
            own = attacked[file.entry.name]
            rows.append(_row(file, own, attacked[reference] if reference else None, number, grid, seed))
            worst += _places(attack, file.entry.name, own, number, grid)
            if own.before_fit:
                worst_before += _places(attack, file.entry.name, own.before_fit, number, grid)
        sizes.append(OccluderSize(grid.size, grid.stride, grid.side_px, grid.step_px, grid.count, tuple(rows)))
    return Occlusion(
        protocol=occlusion_protocol(attack, options),
        seed=seed,
        people=len(attack.keys),
        reference=reference,
        sizes=tuple(sizes),
        worst=tuple(worst),
        worst_before_fit=tuple(worst_before),
        skipped_textures=attack.textures.skipped,
    )


def _row(
    file: OpenFile, own: Attacked, reference: Attacked | None, number: int, grid: PatchGrid, seed: int
) -> FileUnderAttack:
    before_fit, at_start_worst = None, None
    if own.before_fit:
        both = _usable(own, number)[0] & _usable(own.before_fit, number)[0]
        starts = own.before_fit.patched_mm[number][both]
        at_start_worst = _figures(_at_worst(own.patched_mm[number][both], starts))
        before_fit = _row(file, own.before_fit, reference and reference.before_fit, number, grid, seed)
    patched, (fine, not_finite) = own.patched_mm[number], _usable(own, number)
    clean, worst = own.clean_mm[fine], _at_worst(patched[fine], patched[fine])
    frozen, change = None, None
    if reference is not None:
        both = fine & _usable(reference, number)[0]
        theirs = reference.patched_mm[number][both]
        frozen = _figures(_at_worst(patched[both], theirs))
        change = (_at_worst(patched[both], patched[both]) - _at_worst(theirs, theirs))[:, MPJPE]
    rows = _mean_known(patched[fine][..., MPJPE], 0).reshape(grid.count, grid.count)
    return FileUnderAttack(
        name=file.entry.name,
        precision=file.entry.precision or "",
        device=file.device,
        clean=_figures(clean),
        grid_mean=_figures(_mean_known(patched[fine], 1)),
        worst=_figures(worst),
        worse_by=rounded(worst[:, MPJPE].mean() / clean[:, MPJPE].mean() - 1) if len(clean) else None,
        at_reference_worst=frozen,
        worst_change_mm=None if change is None else mean(change),
        interval_mm=None if change is None else bootstrap_interval(change, seed),
        map_mm=tuple(tuple(rounded(value) for value in row) for row in rows.tolist()),
        not_finite=int(not_finite.sum()),
        nothing_counted=int((~fine & ~not_finite).sum()),
        before_fit=before_fit,
        at_start_worst=at_start_worst,
        visible_joints=_visible(own, fine, number),
    )


def _visible(own: Attacked, fine: Array, number: int) -> VisibleUnderAttack | None:
    if not own.joints or not len(own.joints[0]):
        return None  # not asked for, or of nobody
    clean, worst = own.joints[0], own.joints[1 + number]
    some = fine & worst.visible.any(1)
    return VisibleUnderAttack(VisibleJoints.of(clean[some]), VisibleJoints.of(worst[some]))


def _usable(own: Attacked, number: int) -> tuple[Array, Array]:
    """(N,) bool, people with an error; (N,) bool, people with numbers that are not finite."""
    clean, patched = own.clean_mm[:, MPJPE], own.patched_mm[number][..., MPJPE]
    not_finite = np.isinf(clean) | np.isinf(patched).any(1)
    return np.isfinite(clean) & np.isfinite(patched).any(1) & ~not_finite, not_finite


def _at_worst(errors: Array, chosen_by: Array) -> Array:
    """(N, 3) of (N, places, 3) at the place with the largest MPJPE in the other array; the first of several."""
    if not len(errors):
        return np.zeros((0, len(METRICS)))
    return np.asarray(errors[np.arange(len(errors)), np.nanargmax(chosen_by[..., MPJPE], 1)])


def _mean_known(values: Array, axis: int) -> Array:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _figures(errors: Array) -> Figures:
    return Figures(len(errors), *(mean(column) for column in errors.T))


def _places(attack: Attack, name: str, own: Attacked, number: int, grid: PatchGrid) -> Sequence[WorstPlace]:
    found = []
    for person in np.flatnonzero(_usable(own, number)[0]).tolist():
        errors = own.patched_mm[number][person, :, MPJPE]
        index = int(np.nanargmax(errors))
        window = attack.window(person, grid, index)
        found.append(WorstPlace(
            attack.keys[person], name, grid.size, grid.stride, *grid.place(index),
            attack.textures.names[window.picture], (window.x_px, window.y_px),
            round(float(own.clean_mm[person, MPJPE]), 3), round(float(errors[index]), 3),
        ))  # fmt: skip
    return found


def occlusion_protocol(attack: Attack, options: OcclusionOptions) -> OcclusionProtocol:
    """The adversarial protocol in plain words."""
    grids = attack.grids
    sides = ", ".join(f"{grid.size} px (here {grid.side_px}): {grid.count} x {grid.count} places" for grid in grids)
    return OcclusionProtocol(
        attacked=f"{len(attack.keys)} people, all who are measured in "
        + ("every picture" if options.every == 1 else f"one picture of {options.every}"),
        patches=f"opaque squares pasted into the crop; sides on a crop of {REFERENCE_SIDE}: {sides}; stride "
        f"{options.stride} px (here {grids[0].step_px}), from the top left, cut by the border",
        textures=f"for each person, size and place another window, drawn by the seed, of {attack.textures.source}",
        joints_counted="of the 14, those in the crop and not under the patch, also where a thing or the own body hides "
        "them; they alone decide the alignment of PA-MPJPE; PVE is of the whole mesh",
        joints_under_a_patch="given to the network as without the patch"
        if options.keep_joints
        else "withheld from the network: what hides a joint from it hides it from a pose network too",
        worst="each person's place with the largest MPJPE, each file its own; PA-MPJPE and PVE are those of that "
        "place; means over people" + ("; the start of the fit at its own" if attack.fitted else ""),
    )
