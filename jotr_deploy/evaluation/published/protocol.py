"""Evaluation of a bundle on a data set, as in the published code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jotr_deploy.bundle import STAND_IN_LABEL, Bundle
from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.datasets.published.pictures import read_picture
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.evaluation.attack import Attack
from jotr_deploy.evaluation.collector import Collector, Measured
from jotr_deploy.evaluation.drift import bundle_drift
from jotr_deploy.evaluation.fit_stage import FitStage, fit_protocol
from jotr_deploy.evaluation.measured_joints import EVALUATED, load_h36m_regressor
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.evaluation.mesh_files import OpenFiles, open_files
from jotr_deploy.evaluation.occlusion import OcclusionOptions
from jotr_deploy.evaluation.occlusion_files import finish_attack, open_attack
from jotr_deploy.evaluation.protocols import ALIGNED, ATTACK_STEP
from jotr_deploy.evaluation.published.acceleration import acceleration_errors_mm, tracks_of
from jotr_deploy.evaluation.published.paper_rows import PAPER, PUBLISHED
from jotr_deploy.evaluation.published.set_people import Everybody, read_everybody
from jotr_deploy.evaluation.published.set_result import (
    MotionFigures,
    SetBeforeFit,
    SetEvaluation,
    SetProtocol,
    by_sequence,
)
from jotr_deploy.evaluation.published.true_bodies import TrueBodies
from jotr_deploy.evaluation.visible_joints import TruePlaces, VisibleJoints, visible_protocol
from jotr_deploy.geometry.crop import JOINTS_MARGIN, VALID_CONFIDENCE
from jotr_deploy.support.aliases import Array, Progress
from jotr_deploy.support.choices import FitChoice

_STAND_IN, _SMPL = "the stand-in body", "SMPL"


@dataclass(frozen=True)
class SetOptions:
    """Options of the evaluation on a published set."""

    protocol: str
    root: Path  # folder that contains the folders of the sets
    h36m_regressor: Path
    smpl: Path  # folder of the body's files
    seed: int  # of the resamples of a drift
    file: str | None = None  # of role mesh in the bundle; None is the first
    drift: bool = False
    device: str = "auto"
    threads: int | None = None
    occlusion: OcclusionOptions | None = None
    align: bool = False  # align people to the joints given before measuring
    fit: FitChoice | None = None  # before measuring
    visible_joints: bool = False  # also errors over the visible joints, and PCKh
    tf32: bool = False  # on CUDA in ONNX Runtime


def evaluate_set(
    bundle: Bundle, options: SetOptions, progress: Progress = lambda step, done, total: None
) -> SetEvaluation:
    """Measure a bundle on a set; equal options give equal results.

    Args:
        bundle: as opened.
        options: see there.
        progress: called with a step, the pictures done, and all pictures.

    Raises:
        BodyFileError: the regressor or a body is missing or of another shape.
        DatasetError: a file or a picture of the set is missing or not as it should be.
        BundleError: a file that is asked for is missing, changed or without a body.
        SessionError, MissingDependency: it cannot be opened here.
        JotrDeployError: an attack on people with unknown cameras, or see `open_attack`.
    """
    evaluated = load_h36m_regressor(options.h36m_regressor)
    crop_factor = bundle.manifest.model.crop_factor
    everybody = read_everybody(options.protocol, options.root, crop_factor)
    people = everybody.people
    if options.occlusion:
        _require_cameras(everybody, "--occlusion")
    if options.visible_joints:
        _require_cameras(everybody, "--visible-joints")
    bodies = TrueBodies(options.smpl, {person.fit.gender for person in people if person.fit})
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
        tick = partial(progress, ATTACK_STEP)
        attack = stack.enter_context(open_attack(options.occlusion, files, options.seed, evaluated, tick))
        every = options.occlusion.every if options.occlusion else 1
        collector = Collector([file.network for file in files.all], evaluated, files.fit)
        rows = evaluated.rows_14 if options.visible_joints else None
        _collect(collector, everybody, bodies, attack, every, rows, progress)
        entry = files.measured.entry
        measured = files.by_name(collector.finish())
        own = measured[entry.name]
        total, sequences = _figures(own.samples, people)
        return SetEvaluation(
            bundle=str(bundle.path),
            file=entry.name,
            precision=entry.precision or "",
            device=files.measured.device,
            labels=bundle.manifest.labels,
            protocol=set_protocol(options, everybody, bodies, total.accelerations, crop_factor, files.fit),
            everybody=total,
            sequences=sequences,
            published=PUBLISHED.get(options.protocol),
            left_out=everybody.left_out,
            not_finite=int((~own.samples.finite).sum()),
            warnings=_warnings(bundle, bodies),
            drift=bundle_drift(files, {name: each.samples for name, each in measured.items()}, options.seed),
            occlusion=finish_attack(attack, options.occlusion, files, options.seed),
            fit=collector.fit_counts if files.fit else None,
            before_fit=_before_fit(files, measured, people, options),
            visible_joints=VisibleJoints.of(own.joints) if options.visible_joints else None,
        )


def _before_fit(
    files: OpenFiles, measured: Mapping[str, Measured], people: Sequence[Annotation], options: SetOptions
) -> SetBeforeFit | None:
    starts = {name: each.before_fit for name, each in measured.items() if each.before_fit}
    own = starts.get(files.measured.entry.name)
    if own is None:
        return None
    everybody, sequences = _figures(own.samples, people)
    return SetBeforeFit(
        everybody=everybody,
        sequences=sequences,
        not_finite=int((~own.samples.finite).sum()),
        drift=bundle_drift(files, {name: each.samples for name, each in starts.items()}, options.seed),
        visible_joints=VisibleJoints.of(own.joints) if options.visible_joints else None,
    )


def _collect(
    collector: Collector,
    everybody: Everybody,
    bodies: TrueBodies,
    attack: Attack | None,
    every: int,
    rows: Array | None,
    progress: Progress,
) -> None:
    """Send everybody who can be evaluated through the networks; an attack covers those in every Nth picture.

    `rows` regress the evaluated joints from a mesh, for errors of the visible ones.
    """
    pictures = [picture for picture in everybody.pictures if picture.people]
    if attack:
        attack.expected = sum(len(picture.people) for picture in pictures[::every])
    progress("pictures", 0, len(pictures))
    for done, picture in enumerate(pictures, 1):
        image_bgr, truth = read_picture(picture.people[0]), bodies.truth(picture.people)
        places, evaluated_px = None, None
        if rows is not None:
            evaluated_px = bodies.joints_px(picture.people, rows)
            places = TruePlaces.in_crops(evaluated_px, bodies.joints_px(picture.people), picture.given.boxes_px, truth)
        collector.add(image_bgr, picture.given, truth, places)
        if attack and (done - 1) % every == 0:
            keys = [person.key for person in picture.people]
            attack.add(image_bgr, picture.given, truth, bodies.joints_px(picture.people), keys, evaluated_px)
        if not attack:
            progress("pictures", done, len(pictures))


def _figures(samples: Samples, people: Sequence[Annotation]) -> tuple[MotionFigures, dict[str, MotionFigures]]:
    """Figures of all people and of each sequence."""
    frames = np.array([person.frame for person in people], np.int64)
    measured, accelerations_mm = acceleration_errors_mm(samples.gap_m, tracks_of(people), frames)
    sequences = np.array([person.sequence for person in people], np.str_)
    return by_sequence(samples, sequences, measured, accelerations_mm)


def _require_cameras(everybody: Everybody, option: str) -> None:
    without = [person for person in everybody.people if person.camera is None]
    if without:
        raise JotrDeployError(
            f"{everybody.title} has no camera parameters, so joints cannot be projected into its pictures",
            f"leave {option} out, or measure the people of another protocol",
        )


def _warnings(bundle: Bundle, bodies: TrueBodies) -> tuple[str, ...]:
    own = STAND_IN_LABEL in bundle.manifest.labels
    if own == bodies.stand_in:
        return ()
    found, true = (_STAND_IN if stand_in else _SMPL for stand_in in (own, bodies.stand_in))
    return (
        f"the meshes of the bundle are of {found}, the true ones of {true}: their vertices are other places of a "
        "body, so these figures say nothing of the network",
    )


def set_protocol(
    options: SetOptions,
    everybody: Everybody,
    bodies: TrueBodies,
    accelerations: int,
    crop_factor: float,
    fit: FitStage | None,
) -> SetProtocol:
    """Description of the protocol of a set."""
    name, align = options.protocol, options.align
    people, published = everybody.people, PUBLISHED.get(name)
    genders = _counts(person.fit.gender for person in people if person.fit)
    found = _counts(person.found_skeleton for person in people)
    body = _STAND_IN if bodies.stand_in else _SMPL
    return SetProtocol(
        protocol=name,
        data_set=f"{everybody.title}, {everybody.split} split; {len({p.image for p in people})} pictures",
        people=f"{len(people)} of {everybody.count}"
        + (f"; the paper evaluates {published.people}" if published and published.people else ""),
        joint_set=f"{len(EVALUATED)} joints: {', '.join(EVALUATED)}",
        regressor="the H36M regressor times the mesh, found and true, relative to the H36M pelvis",
        alignment="MPJPE: H36M pelvis on H36M pelvis; PVE: pelvis of the 30-joint set on pelvis, true meshes by the "
        "neutral body's regressor; in the picture's camera frame, nothing turned; PA-MPJPE: a similarity for each "
        "person" + (ALIGNED if align else ""),
        truth=f"{body} of each person's gender, pose, shape and place: {genders}",
        box=f"the joints found, width and height times {JOINTS_MARGIN}, clipped to the picture as published, square "
        f"about its centre, longer side times {crop_factor:g}",
        joints_given=f"as shipped with the set, found by networks: {found}; pelvis, and neck where it was not "
        "found, as midpoints, their confidence the product of both",
        confidence=f"joints above {VALID_CONFIDENCE} make the box; of these, those inside the crop are given to the "
        "network",
        pictures="as stored, EXIF rotation ignored",
        acceleration="of the evaluated joints relative to their pelvis, mm/frame^2: mean length of the second "
        "difference of found minus true over three consecutive frames, never across a gap; who has the same gender "
        f"and shape in a sequence is one person; {accelerations} times here",
        published=f"{published.paper}, {published.table}" if published else f"{PAPER} has no row for this set",
        fit=fit_protocol(fit),
        visible_joints=visible_protocol(options.visible_joints),
    )


def _counts(words: Iterable[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(words).items())) or "nobody"
