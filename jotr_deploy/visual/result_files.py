"""Result files: all people of a picture or clip in one `.npz`, and a picture's meshes as OBJ.

The `.npz` of people, format 2, is an uncompressed zip of NumPy arrays; none of them needs pickle.

    every field of `People`  (M, ...)   the people of all frames, one row each, in the order of the frames
    frame                    (M,) int64 0-based frame of each row
    numbers                  (K,) int64 0-based frames that were processed, ascending; those with nobody too
    names                    (K,) str   file names of these pictures; (0,) for a video or stream
    times_s                  (K,) float64 when these frames are shown, seconds; NaN where unknown
    faces                    (F, 3) int32 triangles of the body, counter-clockwise from outside
    format                   () int64   2
    source                   () str     source of the frames
    image_size_px            (2,) int64 width, height
    fps                      () float64 frames a second, 0 where that does not apply
    labels                   (K,) str   notes that accompany the numbers, such as "stand-in body"
    crop_side                () int64   side of the network's input crop, pixels
    mesh_sha256              () str     of the `mesh.onnx` of the bundle
    bundle                   () str     path that the bundle had
    facts                    () str     JSON: everything used and left out

A run with a fit adds what it did with each person, the fields of `people.PeopleFit`:

    fit_tried, fit_outside, fit_accepted, fit_mirrored, fit_warm    (M,) bool
    fit_energy_before, fit_energy_after                             (M,) float64, NaN of people not tried
    fit_terms                                                       (T,) str, names of the terms of the energy
    fit_terms_before, fit_terms_after                               (M, T) float64, without their weights
    fit_occlusion                                                   (M, G, G) bool, cells of the crop

`vertices_m` and `faces` are stored on request only: a mesh takes 83 kB, the rest of a person 1 kB. The body of the
bundle computes them from pose and shape. Format 1 always had them, but none of `times_s`, `mesh_sha256`, `bundle` and
`facts`.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jotr_deploy.bundle import Bundle
from jotr_deploy.errors import UPGRADE, BundleError, SourceError, first_line, one_line
from jotr_deploy.geometry.scene_frame import scene_translation_m
from jotr_deploy.people import LATER, LAYOUT, People, PeopleFit
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_kinds import describe_file
from jotr_deploy.support.writing import folder_beside, output_errors, written_aside
from jotr_deploy.visual.rebuilt_meshes import BundleMeshes, PosedPeople, PutOff

FORMAT = 2
PUBLISHED = "published"


@dataclass(frozen=True, repr=False)
class PeopleFile(PutOff):
    """People of a picture or clip, and their source.

    `people.vertices_m` and `faces` that a file does not contain are computed with the bundle on first access;
    `read_people` lists the errors that this may raise.
    """

    people: People  # all M rows
    frame: Array  # (M,) int64 0-based frame of each row, ascending
    numbers: Array  # (K,) int64 0-based frames that were processed, ascending; those with nobody too
    faces: Array  # (F, 3) int32
    source: str
    image_size_px: tuple[int, int]  # width, height
    fps: float  # 0 where there is no such thing
    labels: tuple[str, ...]
    crop_side: int
    names: tuple[str, ...] = ()  # K, of the pictures that were processed; none of a video
    times_s: Array = field(default_factory=lambda: np.zeros(0))  # (K,) float64, NaN where unknown; or none
    mesh_sha256: str = ""  # of the bundle's `mesh.onnx`; empty where unknown
    bundle: str = ""  # where the bundle was; empty where unknown
    facts: Mapping[str, Any] = field(default_factory=dict)  # what was used, and what was left out

    @property
    def frames(self) -> int:
        """Number of frames processed."""
        return len(self.numbers)

    def at(self, frame_index: int) -> People:
        """People of one frame; may be empty."""
        first, last = np.searchsorted(self.frame, [frame_index, frame_index + 1])
        return self.people[int(first) : int(last)]

    def time_s(self, frame_index: int) -> float | None:
        """Presentation time of a frame, stored or else from the frame rate; None if neither is known."""
        place = int(np.searchsorted(self.numbers, frame_index))
        stamped = place < len(self.times_s) and self.numbers[place] == frame_index
        if stamped and np.isfinite(self.times_s[place]):
            return float(self.times_s[place])
        return frame_index / self.fps if self.fps else None

    @property
    def camera(self) -> tuple[str, ...]:
        """Source of the cameras of the pictures, in words; "published" where each person has their own."""
        told = self.facts.get("camera")
        return tuple(map(str, told)) if isinstance(told, list) and told else (PUBLISHED,)

    @property
    def found_by(self) -> str:
        """Networks that found the people, each with its hash; empty if none did or none are recorded."""
        told = self.facts.get("networks")
        rows = [row for row in told if isinstance(row, dict)] if isinstance(told, list) else []
        found = [row for row in rows if row.get("role") in ("detector", "pose")]
        return one_line(", ".join(f"{row.get('name')} ({str(row.get('sha256'))[:12]})" for row in found))

    def places_m(self, people: People) -> Array:
        """(N, 3) positions of people in one scene; approximate if each has the published camera, else exact."""
        own = PUBLISHED in self.camera
        return scene_translation_m(people, self.image_size_px) if own else people.translation_m


class PeopleWriter:
    """Writer of the people of a clip into one `.npz` file, in memory that does not grow with the clip.

    A context manager. The file appears, whole, if the block ends without an exception; otherwise nothing is left
    behind, and an older file of that name stays. Until then the rows are in a hidden folder beside it.

    Without `vertices`, neither they nor `faces` are stored: readers need the bundle with `mesh_sha256` for them.
    `facts` may be set until the block ends.
    """

    def __init__(
        self,
        path: Path,
        *,
        faces: Array,
        source: str,
        image_size_px: tuple[int, int],
        fps: float,
        labels: Sequence[str],
        crop_side: int,
        vertices: bool = True,
        mesh_sha256: str = "",
        bundle: str = "",
    ) -> None:
        self.facts: dict[str, Any] = {}
        self._path = path
        self._columns = {name: each for name, each in LAYOUT.items() if vertices or name != "vertices_m"}
        self._fit_columns: dict[str, tuple[tuple[int, ...], type]] | None = None  # as the first frame has them
        self._about: dict[str, Array] = {
            "format": np.array(FORMAT, np.int64),
            "source": np.array(source, np.str_),
            "image_size_px": np.array(image_size_px, np.int64),
            "fps": np.array(fps, np.float64),
            "labels": np.array(list(labels), np.str_),
            "crop_side": np.array(crop_side, np.int64),
            "mesh_sha256": np.array(mesh_sha256, np.str_),
            "bundle": np.array(bundle, np.str_),
            **({"faces": np.asarray(faces, np.int32)} if vertices else {}),
        }
        self._numbers: list[int] = []
        self._times_s: list[float] = []
        self._names: list[str] = []
        self._rows = 0

    def __enter__(self) -> PeopleWriter:
        """Enter the block; OutputError if the folder of the file is missing or not writable."""
        self._folder = folder_beside(self._path)
        return self

    def append(self, frame_index: int, people: People, picture: str | None = None, time_s: float | None = None) -> None:
        """Add the people of the next frame; every processed frame is added, even without people.

        Args:
            frame_index: larger than that of the previous frame.
            people: of the frame.
            picture: name of its file, for all frames or, as in a video, for none.
            time_s: its presentation time, if known.

        Raises:
            OutputError: they cannot be written, for example on a full disk.
            ValueError: the frame does not come after the previous one.
        """
        if self._numbers and frame_index <= self._numbers[-1]:
            raise ValueError(f"frame {frame_index} does not come after frame {self._numbers[-1]}")
        fitted = columns_of(people.fit)
        layout = {name: (rows.shape[1:], rows.dtype.type) for name, rows in fitted.items()}
        if self._fit_columns is None:
            self._fit_columns = layout
            self._about |= {} if people.fit is None else {"fit_terms": np.array(list(people.fit.terms_before), np.str_)}
        if layout != self._fit_columns:
            raise ValueError(f"the fit of frame {frame_index} is not like that of the frames before")
        with output_errors(self._path):
            for name in self._columns:
                self._spill(name, getattr(people, name))
            for name, rows in fitted.items():
                self._spill(name, rows)
            self._spill("frame", np.full(len(people), frame_index, np.int64))
        self._numbers.append(frame_index)
        self._names += [] if picture is None else [picture]
        self._times_s.append(np.nan if time_s is None else time_s)
        self._rows += len(people)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with output_errors(self._path):
                    whole = self._folder / self._path.name
                    self._assemble(whole)
                    whole.replace(self._path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _spill(self, name: str, rows: Array) -> None:
        with (self._folder / f"{name}.rows").open("ab") as spill:
            spill.write(np.ascontiguousarray(rows).data)

    def _assemble(self, target: Path) -> None:
        """Combine the spilled columns into one zip, removing each as soon as it is stored."""
        with zipfile.ZipFile(target, "w") as archive:
            columns = {
                "numbers": np.array(self._numbers, np.int64),
                "names": np.array(self._names, np.str_),
                "times_s": np.array(self._times_s, np.float64),
                "facts": np.array(json.dumps(self.facts, ensure_ascii=False), np.str_),
            }
            for name, array in {**self._about, **columns}.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            layout = {**self._columns, **(self._fit_columns or {}), "frame": ((), np.int64)}
            for name, (shape, dtype) in layout.items():
                self._spill(name, np.empty((0, *shape), dtype))
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (self._rows, *shape)}
                column = self._folder / f"{name}.rows"
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    with column.open("rb") as spilled:
                        shutil.copyfileobj(spilled, member, 1 << 20)
                column.unlink()


_TERMS = ("terms_before", "terms_after")


def columns_of(fit: PeopleFit | None) -> dict[str, Array]:
    """Arrays of a fit by their names in a file; none without a fit."""
    if fit is None:
        return {}
    plain = {f.name: getattr(fit, f.name) for f in dataclass_fields(fit)}
    terms = {name: np.stack([*plain[name].values()], -1).astype(np.float64) for name in _TERMS}
    return {f"fit_{name}": rows for name, rows in {**plain, **terms}.items()}


def _fit_of(archive: Mapping[str, Array]) -> PeopleFit | None:
    """Reverse of `columns_of`, with the names of the terms."""
    if "fit_tried" not in archive:
        return None
    rows: dict[str, Any] = {f.name: archive[f"fit_{f.name}"] for f in dataclass_fields(PeopleFit)}
    names = [str(name) for name in archive["fit_terms"]]
    for name in _TERMS:
        rows[name] = dict(zip(names, rows[name].T, strict=True))
    return PeopleFit(**rows)


def read_people(path: Path, bundle: Bundle | Path | str | None = None) -> PeopleFile:
    """Read what `PeopleWriter` wrote.

    Vertices and faces that are not stored are computed on first access, with the body of the bundle that made
    the file: `bundle`, or the one at its recorded path, or that of this package. Access raises BundleError if
    it is missing, is another one, or has no body. Nothing else needs a bundle.

    Args:
        path: of the file.
        bundle: opened, or its directory; for files without vertices.

    Raises:
        SourceError: the file is missing, damaged, something else, or of a newer format.
        BundleError: `bundle` is not a bundle, or not the one that made the file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            made_with = int(archive["format"])
            if made_with < 1:
                raise ValueError(f"format {made_with}")
            if made_with <= FORMAT:
                return _people_file(archive, made_with, path, Path(bundle) if isinstance(bundle, str) else bundle)
    except BundleError:
        raise
    except OSError as error:
        cause = f"{path}: cannot be read ({error.strerror or first_line(error)})"
        raise SourceError(cause, "give a .npz file of people that jotr-deploy wrote") from error
    except Exception as error:  # a file from another program, or a truncated one, can contain anything
        why = first_line(error) if zipfile.is_zipfile(path) else f"it is {describe_file(path)}"
        cause = f"{path}: not a result of `jotr-deploy run`, or damaged ({why})"
        raise SourceError(cause, "give a .npz file of people that jotr-deploy wrote, or write it again") from error
    raise SourceError(
        f"{path}: a file of people of format {made_with}, this version reads up to {FORMAT}",
        UPGRADE,
    )


def _people_file(archive: Mapping[str, Array], made_with: int, path: Path, bundle: Bundle | Path | None) -> PeopleFile:
    """Build the result from its arrays; KeyError or ValueError if they are not those of a result."""
    width, height = (int(side) for side in archive["image_size_px"])
    about = {} if made_with == 1 else _later_than_format_1(archive)
    whole = made_with == 1 or "vertices_m" in archive
    optional = LATER | (set() if whole else {"vertices_m"})
    arrays: dict[str, Any] = {name: archive[name] for name in LAYOUT if name in archive or name not in optional}
    arrays["fit"] = _fit_of(archive)
    made_by = about.get("mesh_sha256", ""), about.get("bundle", "")
    meshes = BundleMeshes(path, *made_by, None if made_with == 1 else bundle)
    content = PeopleFile(
        people=People(**arrays) if whole else PosedPeople.of(arrays, meshes),
        frame=archive["frame"].astype(np.int64),
        numbers=archive["numbers"].astype(np.int64),
        faces=archive["faces"].astype(np.int32) if whole else np.zeros((0, 3), np.int32),
        source=str(archive["source"]),
        image_size_px=(width, height),
        fps=float(archive["fps"]),
        labels=tuple(str(label) for label in archive["labels"]),
        crop_side=int(archive["crop_side"]),
        names=tuple(str(name) for name in archive["names"]),
        **about,
    )
    _check(content)
    if not whole:
        content.put_off(faces=meshes.faces)
    return content


def _later_than_format_1(archive: Mapping[str, Array]) -> dict[str, Any]:
    """Fields of `PeopleFile` that format 2 added."""
    facts = json.loads(str(archive["facts"]))
    if not isinstance(facts, dict):
        raise ValueError("facts is not a JSON object")
    return {
        "times_s": archive["times_s"].astype(np.float64),
        "mesh_sha256": str(archive["mesh_sha256"]),
        "bundle": str(archive["bundle"]),
        "facts": facts,
    }


def _check(content: PeopleFile) -> None:
    """Check that arrays agree with each other; ValueError if not."""
    if content.frame.shape != (len(content.people),) or np.any(np.diff(content.frame) < 0):
        raise ValueError("the rows do not follow the frames")
    if content.numbers.ndim != 1 or np.any(np.diff(content.numbers) <= 0) or set(content.frame) - set(content.numbers):
        raise ValueError("the frames are not those that were processed")
    if content.names and len(content.names) != content.frames:
        raise ValueError(f"{len(content.names)} names of {content.frames} frames")
    if len(content.times_s) and content.times_s.shape != content.numbers.shape:
        raise ValueError(f"times_s is {content.times_s.shape}, expected {content.numbers.shape}")
    if content.faces.ndim != 2 or content.faces.shape[1] != 3:
        raise ValueError(f"faces is {content.faces.shape}, expected (F, 3)")


def write_obj(path: Path, vertices_m: Array, faces: Array) -> None:
    """Write meshes as one Wavefront OBJ with objects `person_k`, k from 0.

    Args:
        path: the file to make or replace.
        vertices_m: (N, V, 3) camera frame, x right, y down, z into the scene, metres. In the file y points up and z
            towards the camera, as viewers expect.
        faces: (F, 3) counter-clockwise from outside; in the file their indices start at 1.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    faces = np.asarray(faces)
    with written_aside(path) as aside, aside.open("w", encoding="ascii") as file:
        print("# jotr-deploy: metres, x right, y up, z towards the camera", file=file)
        for k, mesh in enumerate(np.asarray(vertices_m, np.float64) * (1.0, -1.0, -1.0)):
            print(f"o person_{k}", file=file)
            file.write("v %.6f %.6f %.6f\n" * len(mesh) % tuple(mesh.ravel()))
            file.write("f %d %d %d\n" * len(faces) % tuple((faces + 1 + k * len(mesh)).ravel()))
