"""Networks that `jotr-deploy fetch people` has put into the user's data folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from jotr_deploy.bundle import sha256_of
from jotr_deploy.errors import BundleError

DETECTOR, LANDMARKS, LICENCE, SOURCE = "detector.onnx", "landmarks.onnx", "LICENCE", "source.json"
_AGAIN = "fetch them again: jotr-deploy fetch people --force"


@dataclass(frozen=True)
class FetchedPeople:
    """BlazePose's two networks as ONNX, with the hashes of their files."""

    folder: Path
    sha256: dict[str, str]  # by file name
    terms: str  # licence under which they may be used and redistributed

    @property
    def detector(self) -> Path:
        """File of the person detector; see `third_party.blazepose_wheel` for its tensors."""
        return self.folder / DETECTOR

    @property
    def landmarks(self) -> Path:
        """File of the landmark network; see `third_party.blazepose_wheel` for its tensors."""
        return self.folder / LANDMARKS


def data_folder() -> Path:
    """`$XDG_DATA_HOME/jotr-deploy`, or `~/.local/share/jotr-deploy`; it need not exist."""
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share") / "jotr-deploy"


def people_folder() -> Path:
    """Folder of BlazePose's networks; it need not exist."""
    return data_folder() / "blazepose"


def fetched_people() -> FetchedPeople | None:
    """The fetched networks, checked to be intact; None if they were never fetched.

    Raises:
        BundleError: a file is missing or has changed since it was fetched.
    """
    folder = people_folder()
    if not folder.is_dir():
        return None
    try:
        source = json.loads((folder / SOURCE).read_text())
        expected = {name: str(source["sha256"][name]) for name in (DETECTOR, LANDMARKS)}
        made = f"from {source['package']} {source['version']}, converted from TFLite to ONNX"
        terms = f"{source['licence']} (https://www.apache.org/licenses/LICENSE-2.0), The MediaPipe Authors; {made}"
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(f"{folder / SOURCE}: missing or damaged", _AGAIN) from None
    for name, digest in expected.items():
        try:
            unchanged = sha256_of(folder / name) == digest
        except OSError as error:
            raise BundleError(f"{folder / name}: cannot be read ({error.strerror})", _AGAIN) from None
        if not unchanged:
            raise BundleError(f"{folder / name}: the file has changed since it was fetched (sha256 differs)", _AGAIN)
    return FetchedPeople(folder, expected, terms)


def require_fetched() -> FetchedPeople:
    """The fetched networks, for callers that cannot do without them.

    Raises:
        BundleError: they were never fetched, or a file is damaged.
    """
    found = fetched_people()
    if found is None:
        raise BundleError("BlazePose's networks have not been fetched", "get them with: jotr-deploy fetch people")
    return found
