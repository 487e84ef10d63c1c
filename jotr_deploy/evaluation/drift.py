"""Drift of the files of a bundle from its fp32 network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jotr_deploy.evaluation.error_statistics import bootstrap_interval, mean, rounded
from jotr_deploy.evaluation.evaluation_result import Drift, FileDrift
from jotr_deploy.evaluation.measured_joints import BODY_PARTS
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.evaluation.mesh_files import OpenFiles
from jotr_deploy.evaluation.metrics import distances_mm


def bundle_drift(files: OpenFiles, samples: Mapping[str, Samples], seed: int) -> Drift | None:
    """Compare all opened files with the fp32 file; None if no comparison was requested.

    Args:
        files: of the bundle.
        samples: predictions of every file by its name, all of the same people.
        seed: of the resamples.
    """
    if files.reference is None:
        return None
    reference = files.reference.entry.name
    rows = [
        file_drift(
            file.entry.name,
            file.entry.precision or "",
            file.device,
            samples[file.entry.name],
            samples[reference],
            seed,
        )
        for file in files.compared
    ]
    return Drift(reference, len(samples[reference]), tuple(rows), files.not_run)


def file_drift(name: str, precision: str, device: str, found: Samples, reference: Samples, seed: int) -> FileDrift:
    """Compare one file with the fp32 file on the same people; people with numbers that are not finite are counted
    and otherwise left out.
    """
    finite = found.finite & reference.finite
    distance_mm = distances_mm(found.joints_m[finite], reference.joints_m[finite])
    person_mm = distance_mm.mean(1)
    change_mm = (found.joints_mm - reference.joints_mm)[finite].mean(1)
    return FileDrift(
        name=name,
        precision=precision,
        device=device,
        mean_mm=mean(person_mm),
        p95_mm=rounded(float(np.percentile(person_mm, 95))) if len(person_mm) else None,
        parts_mm={part: mean(distance_mm[:, list(joints)]) for part, joints in BODY_PARTS.items()},
        mpjpe_change_mm=mean(change_mm),
        interval_mm=bootstrap_interval(change_mm, seed),
        not_finite=int((~found.finite).sum()),
    )
