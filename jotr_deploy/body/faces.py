"""The triangles of a bundle's meshes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.bundle import Bundle
from jotr_deploy.errors import BundleError
from jotr_deploy.support.read_errors import read_errors

VERTICES, FACES = 6890, 13776
_EXPORT_AGAIN = "export it again: jotr-deploy export CHECKPOINT -o BUNDLE"


def read_faces(bundle: Bundle) -> NDArray[Any]:
    """(13776, 3) vertex numbers of every triangle.

    Raises:
        BundleError: the file is not listed, missing, changed, or does not hold the triangles of this body.
    """
    path = bundle.file("faces")
    with read_errors(path, BundleError, "a NumPy array file", _EXPORT_AGAIN, ("a NumPy array (.npy)",)):
        faces = np.asarray(np.load(path, allow_pickle=False))
    if faces.shape != (FACES, 3) or faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() >= VERTICES:
        raise BundleError(f"{path}: not the {FACES} triangles of a body of {VERTICES} vertices", _EXPORT_AGAIN)
    return faces
