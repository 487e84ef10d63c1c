"""The triangles of a bundle's meshes."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from jotr_deploy.body.smpl import FACES, VERTICES, read_array
from jotr_deploy.bundle import Bundle
from jotr_deploy.errors import BundleError

_EXPORT_AGAIN = "export it again: jotr-deploy export CHECKPOINT -o BUNDLE"


def read_faces(bundle: Bundle) -> NDArray[Any]:
    """(13776, 3) vertex numbers of every triangle.

    Raises:
        BundleError: the file is not listed, missing, changed, or not of this body.
        BodyFileError: it is no array.
    """
    path = bundle.file("faces")
    faces = read_array(path, _EXPORT_AGAIN)
    if faces.shape != (FACES, 3) or faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() >= VERTICES:
        raise BundleError(f"{path}: not the {FACES} triangles of a body of {VERTICES} vertices", _EXPORT_AGAIN)
    return faces
