"""Values that options and arguments accept, each list in one place; precisions are in `precisions`.

The library's signatures use the types, the command line takes its choices and help texts from the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from jotr_deploy.errors import JotrDeployError, choice

Backend = Literal["tensorrt", "onnxruntime", "openvino"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

NetworkRole = Literal["mesh", "detector", "pose", "features"]
NETWORKS: tuple[NetworkRole, ...] = get_args(NetworkRole)
"""Networks of a bundle that files for engines are made from."""

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)

PixelsBy = Literal["detector", "blazepose"]
PIXELS_BY: Mapping[PixelsBy, str] = {
    "detector": "the bundle's own detector and pose network",
    "blazepose": "the networks of `fetch people`",
}
"""Networks that find the people of `eval --pixels`."""

TF32 = (
    "Let CUDA round float32 products to TF32: faster, less exact. A TensorRT engine keeps the types it was built with."
)
"""Help of the option `--tf32`."""

CalibrationMethod = Literal["minmax", "entropy", "percentile", "mse"]
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)

Sampling = Literal["function", "inline"]
SAMPLINGS: Mapping[Sampling, str] = {
    "function": "one node with its body",
    "inline": "standard operators",
}
"""Forms of the sampling operator in an exported network."""

Plugin = Literal["aot", "library", "none"]
PLUGINS: Mapping[Plugin, str] = {
    "aot": "a kernel inside the engine",
    "library": "the plugin library",
    "none": "standard operators",
}
"""Forms of the sampling operator in a TensorRT engine."""

FITS = ("default", "release_natural", "release_advocc")
"""Presets of a fit, keys of `fitting.options.PRESETS`, which needs PyTorch to import."""


@dataclass(frozen=True)
class FitChoice:
    """A fit that is asked for."""

    preset: str  # of `FITS`
    vposer: Path | None = None  # VPoser v1.0 folder or snapshot: the pose is fitted in its latent


def choose_fit(preset: str | None, vposer: str | Path | None, dashes: str = "--") -> FitChoice | None:
    """The fit of these options, which messages name with `dashes` before them; None without a preset.

    Raises:
        JotrDeployError: no such preset, or a pose prior without one.
    """
    if preset is None:
        if vposer is not None:
            raise JotrDeployError(
                f"{dashes}vposer needs {dashes}fit", f"add {dashes}fit default, or leave {dashes}vposer out"
            )
        return None
    choice(f"{dashes}fit", preset, FITS)
    return FitChoice(preset, None if vposer is None else Path(vposer))


VPOSER = "VPoser v1.0 folder or snapshot: with --fit, fit poses in its latent, instead of holding them near the start."
"""Help of the option `--vposer` beside `--fit`."""

Portable = Literal["same-capability", "version"]
PORTABLE: Mapping[Portable, str] = {
    "same-capability": "for every GPU of this compute capability, from TensorRT 10.9",
    "version": "for later versions of this TensorRT's major",
}
"""Machines that a TensorRT engine is built for beyond the one that builds it."""

SYNTHETIC = "synthetic"
SPLITS: Mapping[str, str] = {
    "3dpw": "test",
    "3dpw-oc": "test",
    "3dpw-pc": "test",
    "3dpw-crowd": "validation",
    "3dpw-occ-3dnbf": "all",
    "3doh": "test",
}
"""Data sets that `eval` supports, keys of `datasets.published.sets.SETS`, and the split of each."""
PROTOCOLS = (SYNTHETIC, *SPLITS)


def listed(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def explained(words: Mapping[str, str]) -> str:
    """`a: description; b: description`."""
    return "; ".join(f"{word}: {what}" for word, what in words.items())
