"""Data sets that can be read, by name. Layouts and folders: docs/datasets.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from jotr_deploy.datasets.published import crowdpose, human36m, mscoco, muco, three_doh, three_dpw
from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.datasets.published.packed import Annotations
from jotr_deploy.errors import DatasetError

Recipe = Literal["paper", "code"]
Reader = Callable[[Path, list[Path]], Iterator[Annotation]]
"""Folder of the set and files of the split -> its people."""


@dataclass(frozen=True)
class AnnotatedSet:
    """Data set of pictures with people."""

    title: str
    folder: str  # under the root
    is_3d: bool  # depths are measured
    files: Mapping[str, tuple[str, ...]]  # by split, under the folder
    read: Reader
    as_code: Reader | None = None  # as the published code reads it, where that differs

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of its splits."""
        return tuple(self.files)

    def missing(self, root: Path, split: str) -> list[Path]:
        """Missing files of a split."""
        return [path for path in self.paths(root, split) if not path.is_file()]

    def paths(self, root: Path, split: str) -> list[Path]:
        """Paths of the files of a split."""
        return [root / self.folder / file for file in self.files[split]]


SETS: dict[str, AnnotatedSet] = {
    "h36m": AnnotatedSet("Human3.6M", "Human36M", True, {"train": human36m.FILES}, human36m.read_human36m),
    "mscoco": AnnotatedSet("MSCOCO", "MSCOCO", False, {"train": mscoco.FILES}, mscoco.read_mscoco),
    "muco": AnnotatedSet("MuCo-3DHP", "MuCo", True, {"train": muco.FILES}, muco.read_muco),
    "crowdpose": AnnotatedSet(
        "CrowdPose", "CrowdPose", False, {"train": crowdpose.FILES}, crowdpose.read_crowdpose,
        partial(crowdpose.read_crowdpose, worse_fits=True),
    ),
    "3dpw": AnnotatedSet("3DPW", "3DPW", True, three_dpw.FILES, three_dpw.read_3dpw),
    "3dpw-oc": AnnotatedSet("3DPW-OC", "3DPW", True, three_dpw.OC_FILES, three_dpw.read_3dpw),
    "3dpw-pc": AnnotatedSet("3DPW-PC", "3DPW", True, three_dpw.PC_FILES, three_dpw.read_3dpw),
    "3dpw-crowd": AnnotatedSet("3DPW-Crowd", "3DPW", True, three_dpw.CROWD_FILES, three_dpw.read_3dpw_crowd),
    "3dpw-occ-3dnbf": AnnotatedSet("3DPW-Occ of 3DNBF", "3DPW", True, three_dpw.OCC_FILES, three_dpw.read_3dpw_occ),
    "3doh": AnnotatedSet("3DOH50K", "3DOH", True, {"test": three_doh.FILES}, three_doh.read_3doh),
}  # fmt: skip


def read_set(name: str, root: Path, split: str, recipe: Recipe = "paper") -> Annotations:
    """Read all people of a set, in the order of its files.

    Args:
        name: a key of `SETS`.
        root: where the folders of the sets lie.
        split: one of the set's.
        recipe: "code" reads the same as the published code, plain mistakes included: the worse fits of CrowdPose.

    Raises:
        DatasetError: no such set or split; files are missing, truncated or not of the expected layout. Pictures are not
            checked: see `pictures.read_picture`.
    """
    if name not in SETS:
        raise DatasetError(f"data set '{name}' is not known", f"known: {', '.join(SETS)}")
    known = SETS[name]
    if split not in known.files:
        raise DatasetError(f"{known.title} has no split '{split}'", f"it has: {', '.join(known.splits)}")
    if absent := known.missing(root, split):
        files = ", ".join(str(path.relative_to(root)) for path in absent)
        raise DatasetError(f"{root}: {known.title} ({split}) is not complete, missing: {files}", _remedy(known, root))
    read = known.as_code if known.as_code and recipe == "code" else known.read
    return Annotations(read(root / known.folder, known.paths(root, split)))


def there(root: Path) -> list[tuple[str, str]]:
    """(name, split) of sets that are complete under a root; pictures are not checked."""
    return [(name, split) for name, known in SETS.items() for split in known.splits if not known.missing(root, split)]


def _remedy(known: AnnotatedSet, root: Path) -> str:
    complete = ", ".join(f"{name} ({split})" for name, split in there(root)) or "none"
    return (
        f"register with the authors of {known.title} and put its files where docs/datasets.md says; "
        f"what needs no data set (synthetic) works without, other sets that are there: {complete}"
    )
