"""Result files: everyone of a picture or clip in one `.npz`, and a picture's meshes as OBJ.

The `.npz` of people, format 2, is an uncompressed zip of NumPy arrays; none of them needs pickle.

    every field of `People`  (M, ...)   the people of all frames, one row each, in the order of the frames
    frame                    (M,) int64 0-based frame of each row
    numbers                  (K,) int64 0-based frames that were processed, ascending; those with nobody too
    names                    (K,) str   file names of these pictures; (0,) of a video or stream
    times_s                  (K,) float64 when these frames are shown, seconds; NaN where unknown
    faces                    (F, 3) int32 triangles of the body, counter-clockwise from outside
    format                   () int64   2
    source                   () str     what the frames came from
    image_size_px            (2,) int64 width, height
    fps                      () float64 frames a second, 0 where there is no such thing
    labels                   (K,) str   what a reader must know about the numbers, such as "stand-in body"
    crop_side                () int64   side of the network's input crop, pixels
    mesh_sha256              () str     of the `mesh.onnx` of the bundle
    bundle                   () str     where that bundle was
    facts                    () str     JSON: what was used, and what was left out

`vertices_m` and `faces` are there only where they were asked for: a mesh takes 83 kB, the rest of a person 1 kB. The
body of the bundle makes them again from pose and shape. Format 1 always had them, and had none of `times_s`,
`mesh_sha256`, `bundle` and `facts`.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jotr_deploy.bundle import Bundle
from jotr_deploy.errors import UPGRADE, BundleError, SourceError, first_line, one_line
from jotr_deploy.geometry.scene_frame import scene_translation_m
from jotr_deploy.people import LATER, LAYOUT, People
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_kinds import describe_file
from jotr_deploy.support.writing import folder_beside, output_errors, written_aside
from jotr_deploy.visual.rebuilt_meshes import BundleMeshes, PosedPeople, PutOff

FORMAT = 2
PUBLISHED = "published"


@dataclass(frozen=True, repr=False)
class PeopleFile(PutOff):
    """Everyone of a picture or clip, and where they came from.

    `people.vertices_m` and `faces` that a file does not hold are made by the bundle at first use; `read_people` says
    which errors that may raise.
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
        """The people of one frame; nobody where there was nobody."""
        first, last = np.searchsorted(self.frame, [frame_index, frame_index + 1])
        return self.people[int(first) : int(last)]

    def time_s(self, frame_index: int) -> float | None:
        """When a frame is shown, by its stamp or else by the frame rate; None where neither is known."""
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
        """The networks that found the people, each with its hash; empty where none did or nothing tells."""
        told = self.facts.get("networks")
        rows = [row for row in told if isinstance(row, dict)] if isinstance(told, list) else []
        found = [row for row in rows if row.get("role") in ("detector", "pose")]
        return one_line(", ".join(f"{row.get('name')} ({str(row.get('sha256'))[:12]})" for row in found))

    def places_m(self, people: People) -> Array:
        """(N, 3) where people of this file stand in one scene: exact, but where each has the published camera."""
        own = PUBLISHED in self.camera
        return scene_translation_m(people, self.image_size_px) if own else people.translation_m


class PeopleWriter:
    """Collect the people of a clip into one `.npz` file, in memory that does not grow with the clip.

    A context manager. The file appears, whole, when the block ends well; an exception, whatever its kind, leaves
    nothing behind and an older file of that name as it was. Until then the rows lie in a hidden folder beside it.

    Without `vertices`, neither they nor `faces` are stored: readers need the bundle for them, known by `mesh_sha256`.
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
        self._columns = tuple(name for name in LAYOUT if vertices or name != "vertices_m")
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
        """Raises OutputError where the folder of the file is missing or not writable."""
        self._folder = folder_beside(self._path)
        return self

    def append(self, frame_index: int, people: People, picture: str | None = None, time_s: float | None = None) -> None:
        """Add the people of the next frame; every processed frame is added, also one with nobody.

        Args:
            frame_index: above that of the frame before.
            people: of the frame.
            picture: name of its file; of all frames or, as in a video, of none.
            time_s: when it is shown, if that is known.

        Raises:
            OutputError: where they cannot be written, as on a full disk.
            ValueError: where the frame does not come after the one before.
        """
        if self._numbers and frame_index <= self._numbers[-1]:
            raise ValueError(f"frame {frame_index} does not come after frame {self._numbers[-1]}")
        with output_errors(self._path):
            for name in self._columns:
                self._spill(name, getattr(people, name))
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
        """One zip out of the spilled columns, each removed as soon as it is in."""
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
            for name in (*self._columns, "frame"):
                shape, dtype = LAYOUT.get(name, ((), np.int64))
                self._spill(name, np.empty((0, *shape), dtype))
                layout = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (self._rows, *shape)}
                column = self._folder / f"{name}.rows"
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, layout)
                    with column.open("rb") as spilled:
                        shutil.copyfileobj(spilled, member, 1 << 20)
                column.unlink()


def read_people(path: Path, bundle: Bundle | Path | str | None = None) -> PeopleFile:
    """Read what `PeopleWriter` wrote.

    Vertices and faces that are not stored are made when they are first asked for, by the body of the bundle that made
    the file: `bundle`, or the one that is still where it was, or that of this package. Asking raises BundleError where
    it is not there, is another one, or has no body. Nothing else needs a bundle.

    Args:
        path: of the file.
        bundle: opened, or its directory; for files that hold no vertices.

    Raises:
        SourceError: where the file is missing, damaged, something else, or of a newer format.
        BundleError: where `bundle` is none, or not the one that made the file.
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
    except Exception as error:  # anything can be in a file that something else wrote, or that was cut off
        why = first_line(error) if zipfile.is_zipfile(path) else f"it is {describe_file(path)}"
        cause = f"{path}: not a file of people, or a damaged one ({why})"
        raise SourceError(cause, "give a .npz file of people that jotr-deploy wrote, or write it again") from error
    raise SourceError(
        f"{path}: a file of people of format {made_with}, this version reads up to {FORMAT}",
        UPGRADE,
    )


def _people_file(archive: Mapping[str, Array], made_with: int, path: Path, bundle: Bundle | Path | None) -> PeopleFile:
    """Raises KeyError or ValueError where the arrays do not make a file of people."""
    width, height = (int(side) for side in archive["image_size_px"])
    about = {} if made_with == 1 else _later_than_format_1(archive)
    whole = made_with == 1 or "vertices_m" in archive
    optional = LATER | (set() if whole else {"vertices_m"})
    arrays = {name: archive[name] for name in LAYOUT if name in archive or name not in optional}
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
    """The fields of `PeopleFile` that format 2 added."""
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
    """Raises ValueError where arrays do not fit each other."""
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
    """Write meshes as one Wavefront OBJ, an object `person_k` each, k from 0.

    Args:
        path: the file to make or replace.
        vertices_m: (N, V, 3) camera frame, x right, y down, z into the scene, metres. In the file y points up and z
            towards the camera, as viewers expect.
        faces: (F, 3) counter-clockwise from outside; in the file their indices start at 1.

    Raises:
        OutputError: where it cannot be written; nothing is left behind then.
    """
    faces = np.asarray(faces)
    with written_aside(path) as aside, aside.open("w", encoding="ascii") as file:
        print("# jotr-deploy: metres, x right, y up, z towards the camera", file=file)
        for k, mesh in enumerate(np.asarray(vertices_m, np.float64) * (1.0, -1.0, -1.0)):
            print(f"o person_{k}", file=file)
            file.write("v %.6f %.6f %.6f\n" * len(mesh) % tuple(mesh.ravel()))
            file.write("f %d %d %d\n" * len(faces) % tuple((faces + 1 + k * len(mesh)).ravel()))
