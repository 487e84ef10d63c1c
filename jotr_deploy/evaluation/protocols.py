"""Evaluation protocols by name, and the evaluation on drawn scenes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np

from jotr_deploy.bundle import Bundle
from jotr_deploy.datasets.joint_errors import DEVIATION, HIDDEN_FACTOR, NOT_FOUND
from jotr_deploy.evaluation import held_out_scenes
from jotr_deploy.evaluation.attack import Attack
from jotr_deploy.evaluation.collector import Collector, Measured
from jotr_deploy.evaluation.drift import bundle_drift
from jotr_deploy.evaluation.end_to_end import HALF_VISIBLE, FromPixels, open_people
from jotr_deploy.evaluation.error_statistics import MOSTLY_VISIBLE, Errors
from jotr_deploy.evaluation.evaluation_result import BeforeFit, Evaluation, Protocol
from jotr_deploy.evaluation.fit_stage import FitStage, fit_protocol
from jotr_deploy.evaluation.held_out_scenes import held_out
from jotr_deploy.evaluation.matching import LEAST_IOU
from jotr_deploy.evaluation.measured_joints import EVALUATED, EVALUATED_IN_SMPL30
from jotr_deploy.evaluation.mesh_files import OpenFiles, open_files
from jotr_deploy.evaluation.occlusion import OcclusionOptions
from jotr_deploy.evaluation.occlusion_files import finish_attack, open_attack
from jotr_deploy.evaluation.visible_joints import TruePlaces, VisibleJoints, visible_protocol
from jotr_deploy.evaluation.workers import in_order, worker_count
from jotr_deploy.geometry.crop import JOINTS_MARGIN, VALID_CONFIDENCE
from jotr_deploy.support.aliases import Progress
from jotr_deploy.support.choices import SYNTHETIC, FitChoice, PixelsBy

_FOUND_BY: Mapping[PixelsBy, str] = {
    "detector": "boxes by the bundle's detector, joints and crop boxes by its pose network",
    "blazepose": f"joints by BlazePose; boxes for matching are their extent, {JOINTS_MARGIN:g} times as large",
}
_PIXELS = (
    f"; by score, each takes the free true box, clipped to the picture, with the highest IoU of at least {LEAST_IOU}; "
    f"recall: of people at least {held_out_scenes.LEAST_HEIGHT_PX:g} px tall and {HALF_VISIBLE:.0%} visible; "
    f"errors: of the counted people who are found"
)
ALIGNED = "; the people found were moved onto the joints given first"
ATTACK_STEP = "people x patches"


@dataclass(frozen=True)
class SyntheticOptions:
    """Options of the evaluation on drawn scenes."""

    seed: int = held_out_scenes.SEED
    scenes: int = held_out_scenes.SCENES
    file: str | None = None  # of role mesh in the bundle; None is the first
    drift: bool = False
    pixels: bool = False
    people: PixelsBy = "detector"  # the networks that find people with `pixels`
    device: str = "auto"
    threads: int | None = None
    occlusion: OcclusionOptions | None = None
    align: bool = False  # align people to the joints given before measuring
    fit: FitChoice | None = None  # before measuring
    visible_joints: bool = False  # also errors over the visible joints, and PCKh
    tf32: bool = False  # on CUDA in ONNX Runtime


def evaluate_synthetic(
    bundle: Bundle, options: SyntheticOptions, progress: Progress = lambda step, done, total: None
) -> Evaluation:
    """Measure a bundle on held-out scenes; equal options give equal results.

    Args:
        bundle: as opened.
        options: see there.
        progress: called with a step, the scenes done, and all scenes; of an attack with the crops.

    Raises:
        BundleError: a file that is asked for is missing, changed or without a body, or there is no detector.
        SessionError, MissingDependency: it cannot be opened here.
        JotrDeployError: a process that draws scenes was killed; for an attack, see `open_attack`.
    """
    crop_factor = bundle.manifest.model.crop_factor
    with ExitStack() as stack:
        files = stack.enter_context(
            open_files(
                bundle,
                options.file,
                options.drift,
                options.device,
                options.threads,
                options.align,
                options.fit,
                options.tf32,
            )
        )
        from_pixels = None
        if options.pixels:
            source = stack.enter_context(
                open_people(bundle, options.device, options.threads, options.tf32, options.people)
            )
            from_pixels = FromPixels(source, files.measured.network, files.fit)
        tick = partial(progress, ATTACK_STEP)
        attack = stack.enter_context(open_attack(options.occlusion, files, options.seed, tick=tick))
        collector = Collector([file.network for file in files.all], fit=files.fit)
        drawn = _collect(collector, from_pixels, attack, options, crop_factor, progress)
        measured = files.by_name(collector.finish())
        own = measured[files.measured.entry.name]
        return Evaluation(
            bundle=str(bundle.path),
            file=files.measured.entry.name,
            precision=files.measured.entry.precision or "",
            device=files.measured.device,
            labels=bundle.manifest.labels,
            protocol=synthetic_protocol(options, crop_factor, drawn, len(own.samples), files.fit),
            errors=Errors.of(own.samples),
            not_finite=int((~own.samples.finite).sum()),
            pixels=from_pixels.result(own.samples) if from_pixels else None,
            drift=bundle_drift(files, {name: each.samples for name, each in measured.items()}, options.seed),
            occlusion=finish_attack(attack, options.occlusion, files, options.seed),
            fit=collector.fit_counts if files.fit else None,
            before_fit=_before_fit(files, measured, from_pixels, options),
            visible_joints=VisibleJoints.of(own.joints) if options.visible_joints else None,
        )


def _before_fit(
    files: OpenFiles, measured: Mapping[str, Measured], from_pixels: FromPixels | None, options: SyntheticOptions
) -> BeforeFit | None:
    starts = {name: each.before_fit for name, each in measured.items() if each.before_fit}
    own = starts.get(files.measured.entry.name)
    if own is None:
        return None
    return BeforeFit(
        errors=Errors.of(own.samples),
        not_finite=int((~own.samples.finite).sum()),
        pixels=from_pixels.before_fit(own.samples) if from_pixels else None,
        drift=bundle_drift(files, {name: each.samples for name, each in starts.items()}, options.seed),
        visible_joints=VisibleJoints.of(own.joints) if options.visible_joints else None,
    )


def _collect(
    collector: Collector,
    from_pixels: FromPixels | None,
    attack: Attack | None,
    options: SyntheticOptions,
    crop_factor: float,
    progress: Progress,
) -> int:
    """Send all scenes through the collectors; returns the number of people drawn."""
    drawn, counted = 0, 0
    progress("scenes", 0, options.scenes)
    workers = worker_count(options.scenes, options.threads)
    with in_order(partial(held_out, options.seed, crop_factor=crop_factor), options.scenes, workers) as scenes:
        for done, scene in enumerate(scenes, 1):
            chosen = np.flatnonzero(scene.counted)
            if from_pixels:
                from_pixels.add(scene, counted)
            people, truth, joints_px = scene.given[chosen], scene.truth[chosen], scene.joints_px[chosen]
            evaluated_px = joints_px[:, list(EVALUATED_IN_SMPL30)] if options.visible_joints else None
            places = TruePlaces.in_crops(evaluated_px, joints_px, people.boxes_px, truth)
            collector.add(scene.image_bgr, people, truth, places)
            drawn, counted = drawn + len(scene.boxes_px), counted + len(chosen)
            if attack and options.occlusion and (done - 1) % options.occlusion.every == 0:
                attack.expected = round(counted / done * options.scenes / options.occlusion.every)
                keys = [f"{done - 1}/{person}" for person in chosen]
                attack.add(scene.image_bgr, people, truth, joints_px, keys, evaluated_px)
            if not attack:
                progress("scenes", done, options.scenes)
    return drawn


def synthetic_protocol(
    options: SyntheticOptions, crop_factor: float, drawn: int, counted: int, fit: FitStage | None
) -> Protocol:
    """Description of the synthetic protocol."""
    return Protocol(
        protocol=SYNTHETIC,
        scenes=f"{options.scenes} drawn scenes of seed {options.seed}; "
        f"training uses seeds below {held_out_scenes.SEED}",
        people=f"{counted} of {drawn}: at least {held_out_scenes.LEAST_HEIGHT_PX:g} px tall (whole body) and "
        f"{held_out_scenes.LEAST_VISIBLE:.0%} of the silhouette visible",
        joint_set=f"{len(EVALUATED)} joints: {', '.join(EVALUATED)}",
        regressor="by name from the 30-joint set, the bundle's regressor against that of the scenes' body; "
        "the stand-in body has no H36M regressor",
        alignment="MPJPE and PVE: pelvis (of the 30-joint set) on pelvis, the truth in the frame of a camera that "
        "looks at the middle of the box; PA-MPJPE: a similarity for each person" + (ALIGNED if options.align else ""),
        box=f"true box of the whole body, square about its centre, longer side times {crop_factor:g}",
        joints_given=f"joints of COCO-17 in the picture, {NOT_FOUND:.0%} missing, the others off by normal errors of "
        f"{DEVIATION:.1%} of the crop's side, hidden ones of {HIDDEN_FACTOR:g} times that, drawn by seed, scene and "
        "person; pelvis and neck as midpoints",
        confidence=f"joints above {VALID_CONFIDENCE} and inside the crop are given to the network",
        occlusion=f"mostly visible: at least {MOSTLY_VISIBLE:.0%} of the silhouette visible; a joint is hidden when "
        "a thing, another person or the own body is in front of it, or when it lies outside the picture",
        pixels=_FOUND_BY[options.people] + _PIXELS if options.pixels else None,
        fit=fit_protocol(fit),
        visible_joints=visible_protocol(options.visible_joints),
        seed=options.seed,
        scene_count=options.scenes,
    )
