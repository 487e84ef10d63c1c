"""Precisions of network files: their verification limits, hardware requirements and file names.

This is the only list of them. Manifests contain the strings; `Precision.of` parses user input.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from jotr_deploy.errors import choice

Limits = Mapping[str, tuple[str, float]]
"""Output of the mesh network or the extractor, or what a detector or pose network finds in a picture -> "max" or
"mean", and the largest allowed difference in `engines.verify.UNITS`."""


class Precision(str, Enum):
    """A precision; its value is the string used in manifests and file names."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"

    def __str__(self) -> str:
        return self.value

    def __format__(self, form: str) -> str:
        return format(self.value, form)

    @classmethod
    def of(cls, word: str) -> Precision:
        """The precision with that name.

        Raises:
            JotrDeployError: there is none of that name.
        """
        choice("--precision", word, tuple(cls))
        return cls(word)

    @property
    def limits(self) -> Limits | None:
        """Largest differences from the reference on random crops; None for eight bits, see `require_as_good`."""
        return LIMITS.get(self)

    @property
    def calibrated(self) -> bool:
        """True if `calibrate` makes the network, from calibrated ranges; otherwise a conversion of types is enough."""
        return self in (Precision.INT8, Precision.FP8)

    @property
    def capability(self) -> tuple[int, int]:
        """The lowest compute capability whose TensorRT engines support it."""
        return _CAPABILITY.get(self, (0, 0))

    @property
    def numpy_type(self) -> str:
        """Name of the element type in NumPy or ml_dtypes."""
        return _NUMPY_TYPES[self]

    def file(self, form: str = "onnx", role: str = "mesh") -> str:
        """Name of a network's file in a bundle: "mesh.fp16.onnx"; `form` such as "openvino.onnx"."""
        return f"{role}.{self}.{form}"


LIMITS: dict[Precision, dict[str, tuple[str, float]]] = {
    Precision.FP32: {
        "joints_img": ("max", 5e-5),
        "pose": ("max", 1e-4),
        "betas": ("max", 5e-5),
        "cam": ("max", 5e-5),
        "translation": ("max", 0.1),
        "joints3d": ("max", 0.1),
        "joints_proj": ("max", 2e-3),
        "vertices": ("max", 0.1),
        "boxes": ("max", 5e-3),
        "scores": ("max", 5e-3),
        "joints": ("max", 5e-3),
        "features": ("max", 1e-4),
    },
    Precision.FP16: {
        "joints_img": ("mean", 1e-3),
        "pose": ("mean", 3e-3),
        "betas": ("mean", 3e-3),
        "cam": ("mean", 2e-3),
        "translation": ("mean", 20.0),
        "joints3d": ("mean", 1.0),
        "joints_proj": ("mean", 0.1),
        "vertices": ("mean", 1.0),
        "features": ("max", 1e-3),
    },
}
# bfloat16 has three bits of mantissa fewer.
LIMITS[Precision.BF16] = {output: (kind, 8 * limit) for output, (kind, limit) in LIMITS[Precision.FP16].items()}
# A joint with two peaks that are nearly as high may change from one to the other in any type; the mean bears some.
LIMITS[Precision.FP16] |= {"boxes": ("mean", 0.01), "scores": ("mean", 0.01), "joints": ("mean", 5e-3)}
LIMITS[Precision.BF16] |= {"boxes": ("mean", 0.04), "scores": ("mean", 0.04), "joints": ("mean", 0.01)}

_CAPABILITY = {Precision.BF16: (8, 0), Precision.FP8: (8, 9)}

USUAL = {"tensorrt": Precision.FP16, "onnxruntime": Precision.FP16, "openvino": Precision.BF16}
"""The precision of an engine's files where nobody asks for one."""

_NUMPY_TYPES = {
    Precision.FP32: "float32",
    Precision.FP16: "float16",
    Precision.BF16: "bfloat16",
    Precision.INT8: "int8",
    Precision.FP8: "float8_e4m3fn",
}
