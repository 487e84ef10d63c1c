"""Files derived from others of a bundle: their sources, and the checks that decide whether they are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import onnx

from jotr_deploy.bundle import Bundle, FileEntry, replace_file
from jotr_deploy.engines.fp16_weights import widen_weights
from jotr_deploy.engines.low_precision import to_low_precision
from jotr_deploy.engines.verify import (
    BATCHES,
    INT8_CROPS,
    Difference,
    measure,
    require,
    require_as_good,
    vertices_error,
)
from jotr_deploy.errors import BundleError
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.aliases import Say
from jotr_deploy.support.choices import Backend, NetworkRole
from jotr_deploy.support.precisions import Precision
from jotr_deploy.support.read_errors import read_onnx

MESH = "mesh.onnx"


class Original(ABC):
    """Network of a bundle that files for engines are made from, with its typing and the limits for such files."""

    role: NetworkRole
    fixed_batch: ClassVar[bool] = False
    """True if its file may have a fixed batch."""

    def file(self, precision: Precision, form: str = "onnx") -> str:
        """Name in the bundle of a file made from it: "mesh.fp16.onnx"; `form` such as "openvino.onnx"."""
        return precision.file(form, self.role)

    def in_calls_of(self, batches: Sequence[int]) -> str:
        """Batch sizes used by `measured`, as text for messages; a detector takes one picture at a time."""
        return "" if self.role == "detector" else f" at batch {', '.join(map(str, batches))}"

    @abstractmethod
    def entry(self, bundle: Bundle, precision: Precision) -> FileEntry:
        """Entry of the file that one of this precision is made from.

        Raises:
            BundleError: there is none.
        """

    def load(self, bundle: Bundle, precision: Precision) -> onnx.ModelProto:
        """Model of that file, with weights stored as float16 widened to float32.

        Raises:
            BundleError: as `entry`, or the file is not intact.
        """
        return widen_weights(read_onnx(bundle.file(self.role, self.entry(bundle, precision).name)))

    @abstractmethod
    def typed(self, model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
        """Copy of the model from `load` with float16 or bfloat16 written into it.

        Raises:
            BundleError: this is not possible.
        """

    @abstractmethod
    def refuse(self, backend: Backend, precision: Precision, plugin: str | None = None) -> None:
        """Refuse combinations that make no sense for this network, before anything is made.

        Raises:
            JotrDeployError: such a combination.
        """

    @abstractmethod
    def measured(
        self,
        bundle: Bundle,
        path: Path,
        precision: Precision,
        batches: Sequence[int],
        what: str,
        backend: str = "auto",
        device: str = "cpu",
    ) -> list[Difference]:
        """Differences, within limits, of a file in its own engine from the network in ONNX Runtime.

        Args:
            bundle: with the network in it.
            path: of the file.
            precision: of the file.
            batches: rows in one call.
            what: description of the file for messages.
            backend: engine that runs it.
            device: device of that engine.

        Raises:
            VerificationError: above the limits.
        """


class Mesh(Original):
    """The mesh network; the eight-bit forms are made from the files that `calibrate` makes."""

    role = "mesh"

    def entry(self, bundle: Bundle, precision: Precision) -> FileEntry:
        """Entry of `mesh.onnx`, or of the calibrated file for eight bits."""
        return bundle.entry("mesh", calibrated(bundle, precision).name if precision.calibrated else MESH)

    def typed(self, model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
        """Copy of the model typed by `to_low_precision`."""
        return to_low_precision(model, precision)

    def refuse(self, backend: Backend, precision: Precision, plugin: str | None = None) -> None:
        """Refuse nothing: each engine knows the precisions that it supports for this network."""

    def measured(
        self,
        bundle: Bundle,
        path: Path,
        precision: Precision,
        batches: Sequence[int],
        what: str,
        backend: str = "auto",
        device: str = "cpu",
    ) -> list[Difference]:
        """Differences of every output; an 8-bit form must not be clearly further away than the calibrated file."""
        config = bundle.manifest.model
        with open_session(bundle.file("mesh", MESH), "onnxruntime", "cpu") as reference:
            with open_session(path, backend, device) as found:
                rows = measure(reference, found, config, batches, INT8_CROPS if precision.calibrated else 1)
            if precision.calibrated:
                with open_session(calibrated(bundle, precision), "onnxruntime", "cpu") as own:
                    require_as_good(rows, measure(reference, own, config, batches, INT8_CROPS), what)
            else:
                require(rows, precision, what)
        return rows


MESH_NETWORK = Mesh()


def calibrated(bundle: Bundle, precision: Precision) -> Path:
    """The portable eight-bit file of a bundle.

    Raises:
        BundleError: it was never calibrated, or the file is not intact.
    """
    name = precision.file()
    if not any(entry.name == name for entry in bundle.manifest.files):
        option = "" if precision is Precision.INT8 else f" --precision {precision}"
        raise BundleError(
            f"{bundle.path}: no network in it is calibrated for {precision}",
            f"jotr-deploy calibrate {bundle.path} --synthetic 256{option}",
        )
    return bundle.file("mesh", name)


def add_model(
    bundle: Bundle,
    original: Original,
    name: str,
    model: onnx.ModelProto,
    precision: Precision,
    backend: str,
    say: Say,
) -> tuple[Bundle, list[Difference]]:
    """Add an ONNX file made from a network of the bundle to it, verified in the engine that will run it.

    Returns:
        The bundle as it now is, and every output's difference.

    Raises:
        VerificationError: see `Original.measured`; nothing is kept.
    """
    differences: list[Difference] = []
    source = original.entry(bundle, precision)
    has_own_error = precision.calibrated and original.role == "mesh"  # measured by `calibrate`, on pictures

    def write(path: Path) -> FileEntry:
        onnx.save(model, path)
        against = MESH if original.role == "mesh" else source.name
        say(f"comparing with {against}{original.in_calls_of(BATCHES)}")
        differences.extend(original.measured(bundle, path, precision, BATCHES, name, backend))
        return FileEntry(
            role=original.role,
            name=name,
            sha256="",
            precision=precision,
            backend="onnx" if backend == "onnxruntime" else backend,
            recipe=source.recipe,
            batch=source.batch or "dynamic",
            error_mm=source.error_mm if has_own_error else vertices_error(differences),
        )

    return replace_file(bundle, name, write), differences
