"""The `.npz` of people, as `visual.result_files.PeopleWriter` writes it, in memory: an answer to a request."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np

from jotr_deploy.people import LAYOUT
from jotr_deploy.support.aliases import Array
from jotr_deploy.visual.result_files import FORMAT, PeopleFile


def npz_bytes(recording: PeopleFile, vertices: bool) -> bytes:
    """The file of these people; without `vertices`, readers compute them with the bundle of `mesh_sha256`."""
    arrays: dict[str, Array] = {
        "format": np.array(FORMAT, np.int64),
        "source": np.array(recording.source, np.str_),
        "image_size_px": np.array(recording.image_size_px, np.int64),
        "fps": np.array(recording.fps, np.float64),
        "labels": np.array(list(recording.labels), np.str_),
        "crop_side": np.array(recording.crop_side, np.int64),
        "mesh_sha256": np.array(recording.mesh_sha256, np.str_),
        "bundle": np.array(recording.bundle, np.str_),
        **({"faces": np.asarray(recording.faces, np.int32)} if vertices else {}),
        "numbers": recording.numbers.astype(np.int64),
        "names": np.array(list(recording.names), np.str_),
        "times_s": recording.times_s.astype(np.float64),
        "facts": np.array(json.dumps(dict(recording.facts), ensure_ascii=False), np.str_),
        **{name: getattr(recording.people, name) for name in LAYOUT if vertices or name != "vertices_m"},
        "frame": recording.frame.astype(np.int64),
    }
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return whole.getvalue()
