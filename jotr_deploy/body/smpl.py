"""SMPL-format body files, read safely: `.npz`, and `.pkl` without chumpy and without running anything from the file."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.body.faces import FACES, VERTICES
from jotr_deploy.errors import BodyFileError
from jotr_deploy.skeletons import SMPL_PARENTS
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_kinds import advice, describe_file
from jotr_deploy.support.read_errors import read_errors

JOINTS, BETAS = 24, 10
PARENTS = SMPL_PARENTS
FACE_VERTICES = (331, 2802, 6262, 3489, 3990)
"""Nose, left eye, right eye, left ear, right ear: rows 24..28 of the 30-joint set."""
HEAD_TOP_VERTEX = 412
"""Crown of the head, row 29 where no `J_regressor_extra.npy` is given."""

_STEMS = {
    "neutral": (
        "SMPL_NEUTRAL",
        "basicModel_neutral_lbs_10_207_0_v1.0.0",
        "basicmodel_neutral_lbs_10_207_0_v1.0.0",
        "basicmodel_neutral_lbs_10_207_0_v1.1.0",
    ),
    "male": ("SMPL_MALE", "basicmodel_m_lbs_10_207_0_v1.0.0", "basicmodel_m_lbs_10_207_0_v1.1.0"),
    "female": ("SMPL_FEMALE", "basicModel_f_lbs_10_207_0_v1.0.0", "basicmodel_f_lbs_10_207_0_v1.1.0"),
}
_NAMES = {
    gender: tuple(f"{stem}{suffix}" for stem in stems for suffix in (".npz", ".pkl"))
    for gender, stems in _STEMS.items()
}
OFFICIAL_NAMES = tuple(name for names in _NAMES.values() for name in names)
"""File names used by the body's distributors, neutral first; a folder is searched in this order."""

_SHAPES: dict[str, tuple[int, ...]] = {
    "v_template": (VERTICES, 3),
    "shapedirs": (VERTICES, 3, BETAS),
    "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
    "J_regressor": (JOINTS, VERTICES),
    "weights": (VERTICES, JOINTS),
    "f": (FACES, 3),
}
_LEAST_M, _MOST_M = 0.5, 5.0  # the longest side of a body at rest; SMPL's are 1.7
_ARCHIVES = ("a NumPy archive (.npz)",)
_PICKLES = ("a Python pickle", "a Python pickle (of protocol 0)")
_REGISTER = "get SMPL from https://smpl.is.tue.mpg.de, or export with --stand-in"


@dataclass(frozen=True)
class BodyModel:
    """The arrays of an SMPL-format body: metres, y up, x to the person's left."""

    v_template: Array  # (6890, 3) float32 rest vertices
    shapedirs: Array  # (6890, 3, 10) float32 metres per unit of shape
    posedirs: Array  # (6890, 3, 207) float32 metres per entry of R - I of joints 1..23
    J_regressor: Array  # (24, 6890) float32 skinning joints from shaped vertices
    weights: Array  # (6890, 24) float32 skinning weights
    faces: Array  # (13776, 3) int32
    head_top: Array  # (6890,) float32 row 29 of the 30-joint regressor
    stand_in: bool  # made by this project, free to pass on

    def regressor_30(self) -> Array:
        """(30, 6890) float32: the 24 joints, five face vertices, the head top (docs/network.md section 2)."""
        face = np.zeros((len(FACE_VERTICES), VERTICES), np.float32)
        face[np.arange(len(FACE_VERTICES)), FACE_VERTICES] = 1
        return np.concatenate([self.J_regressor, face, self.head_top[None]]).astype(np.float32)


def stand_in() -> BodyModel:
    """The licence-free stand-in body of this package: SMPL's shapes, nobody's data."""
    with resources.as_file(resources.files("jotr_deploy.body") / "stand_in.npz") as path:
        return load_body(path)


def load_body(path: Path, head_top: Array | None = None) -> BodyModel:
    """Read an SMPL-format body.

    Args:
        path: a `.npz` or `.pkl` file of any name, or a folder that holds one under an official name.
        head_top: (6890,) regressor row of the head top; without it vertex 412.

    Raises:
        BodyFileError: no such file, not readable without running code, or arrays of other shapes.
    """
    path = official_file(path) if path.is_dir() else path
    if not path.is_file():
        raise BodyFileError(f"{path}: no such body file", _REGISTER)
    kind = describe_file(path)
    if kind == "a zip archive":  # as SMPL is distributed; an .npz is one too
        raise BodyFileError(f"{path}: not an SMPL body: it is {kind}", advice(path) or _REGISTER)
    pickled = kind in _PICKLES or (path.suffix == ".pkl" and kind not in _ARCHIVES)
    arrays = _read_pickle(path) if pickled else read_npz(path)
    is_stand_in = "kind" in arrays
    if is_stand_in:
        arrays["posedirs"] = np.zeros(_SHAPES["posedirs"], np.float32)
    with read_errors(path, BodyFileError, "an SMPL body", _REGISTER, (kind,)):
        return body_from_arrays(arrays, str(path), is_stand_in, head_top)


def body_from_arrays(
    arrays: Mapping[str, Any], where: str, is_stand_in: bool = False, head_top: Array | None = None
) -> BodyModel:
    """Check shapes and types of SMPL arrays under their file names (`v_template`, `f`, `kintree_table` ...)."""
    missing = [name for name in (*_SHAPES, "kintree_table") if name not in arrays]
    if missing:
        raise BodyFileError(f"{where}: not an SMPL body, it lacks {', '.join(missing)}", _REGISTER)
    checked = {}
    for name, shape in _SHAPES.items():
        array = np.asarray(arrays[name])
        if name == "shapedirs" and array.ndim == 3:
            array = array[:, :, :BETAS]  # files of version 1.1 carry 300 directions
        if array.shape != shape:
            raise BodyFileError(f"{where}: {name} is {array.shape}, expected {shape}", _REGISTER)
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise BodyFileError(f"{where}: {name} holds values that are not finite numbers", _REGISTER)
        checked[name] = np.ascontiguousarray(array, np.int32 if name == "f" else np.float32)
    tall_m = float(np.ptp(checked["v_template"], axis=0).max())
    if not _LEAST_M < tall_m < _MOST_M:
        raise BodyFileError(f"{where}: the body measures {tall_m:.3g} m; SMPL files are in metres", _REGISTER)
    if checked["f"].min() < 0 or checked["f"].max() >= VERTICES:
        raise BodyFileError(f"{where}: f names vertices outside 0..{VERTICES - 1}", _REGISTER)
    tree = np.asarray(arrays["kintree_table"])
    if tree.dtype.kind not in "iuf" or tree.shape != (2, JOINTS) or tuple(tree[0, 1:].astype(np.int64)) != PARENTS[1:]:
        raise BodyFileError(f"{where}: kintree_table is not SMPL's tree of {JOINTS} joints", _REGISTER)
    if head_top is None:
        head_top = np.zeros(VERTICES, np.float32)
        head_top[HEAD_TOP_VERTEX] = 1
    faces = checked.pop("f")
    return BodyModel(**checked, faces=faces, head_top=head_top.astype(np.float32), stand_in=is_stand_in)


def load_head_top(path: Path) -> Array:
    """Row 3 (head top) of the published `J_regressor_extra.npy` (9, 6890) -> (6890,) float32."""
    remedy = "give the published J_regressor_extra.npy, or leave --extra-regressor out"
    rows = read_array(path, remedy)
    if rows.ndim != 2 or rows.shape[0] <= 3 or rows.shape[1] != VERTICES:
        raise BodyFileError(f"{path}: the regressor is {rows.shape}, expected (9, {VERTICES})", remedy)
    if rows.dtype.kind not in "fiu" or not np.isfinite(rows[3]).all():
        raise BodyFileError(f"{path}: the regressor holds values that are not finite numbers", remedy)
    return np.ascontiguousarray(rows[3], np.float32)


def read_npz(path: Path) -> dict[str, Array]:
    """Every array of an `.npz`, or BodyFileError."""
    what = "a body file (.npz or .pkl)"
    with read_errors(path, BodyFileError, what, _REGISTER, _ARCHIVES), np.load(path, allow_pickle=False) as archive:
        return {name: np.asarray(archive[name]) for name in archive.files}


def read_array(path: Path, remedy: str) -> Array:
    """The array of an `.npy`, or BodyFileError."""
    kinds = ("a NumPy array (.npy)",)
    with read_errors(path, BodyFileError, "a NumPy array file", remedy, kinds):
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise TypeError("several arrays")
    return found


def official_file(folder: Path, gender: str | None = None) -> Path:
    """The SMPL file in a folder, or in its `smpl/` or `models/`, by its official name.

    Args:
        folder: to look in.
        gender: neutral, male or female; None is the first file there is, neutral before the others.

    Raises:
        BodyFileError: there is none.
    """
    for name in OFFICIAL_NAMES if gender is None else _NAMES[gender]:
        for candidate in (folder / name, folder / "smpl" / name, folder / "models" / name):
            if candidate.is_file():
                return candidate
    if gender is None:
        looked = "looked for SMPL_NEUTRAL.pkl and its like"
        raise BodyFileError(f"{folder}: no SMPL file in this folder ({looked})", _REGISTER)
    raise BodyFileError(
        f"{folder}: no {gender} SMPL file in this folder (looked for SMPL_{gender.upper()}.pkl and its like)",
        "get SMPL from https://smpl.is.tue.mpg.de and put its neutral, male and female files into one folder",
    )


class _Inert:
    """Stands for a chumpy or SciPy object: keeps what the pickle says of it, does nothing with it."""

    def __init__(self, *args: Any) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def dense(self) -> Array:
        """The numbers inside: a chumpy leaf's `x`, or a compressed sparse column matrix as an array."""
        state = self.state
        if isinstance(state, tuple):  # (dict, slots)
            state = {**(state[0] or {}), **(state[1] or {})}
        if "x" in state:
            return np.asarray(state["x"])
        rows, columns = state["_shape"] if "_shape" in state else state["shape"]
        matrix = np.zeros((rows, columns))
        pointer = np.asarray(state["indptr"])
        column = np.repeat(np.arange(columns), np.diff(pointer))
        np.add.at(matrix, (np.asarray(state["indices"]), column), np.asarray(state["data"]))
        return matrix


def _safe_reconstructor(cls: type, base: type, state: Any) -> Any:
    if cls is not _Inert:
        raise pickle.UnpicklingError("an object of an unknown class")
    return _Inert()


_ALLOWED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): np.float64(0).__reduce__()[0] for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
    **{(module, "object"): object for module in ("__builtin__", "builtins")},
    **{(module, "_reconstructor"): _safe_reconstructor for module in ("copy_reg", "copyreg")},
}


class _NumbersOnly(pickle.Unpickler):
    """Rebuilds arrays; chumpy and sparse matrices become `_Inert`; every other name is refused."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) in _ALLOWED:
            allowed: Callable[..., Any] = _ALLOWED[module, name]
            return allowed
        if module.split(".")[0] == "chumpy" or (
            module.startswith("scipy.sparse") and name in ("csc_matrix", "csc_array")
        ):
            return _Inert
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read_pickle(path: Path) -> dict[str, Any]:
    with read_errors(path, BodyFileError, "an SMPL body", _REGISTER, _PICKLES):  # nothing in the file is run
        with path.open("rb") as file:
            content = _NumbersOnly(file, encoding="latin1").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it is not a dictionary")
        wanted = {*_SHAPES, "kintree_table"} & content.keys()
        return {k: content[k].dense() if isinstance(content[k], _Inert) else content[k] for k in wanted}
