"""Engine files derived from a bundle's detector or pose network, kept only if they find the same people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from jotr_deploy.bundle import Bundle, FileEntry
from jotr_deploy.engines.derived_files import Original
from jotr_deploy.engines.low_precision import Rule, to_low_precision
from jotr_deploy.engines.verify import Difference, require
from jotr_deploy.errors import BundleError, JotrDeployError, VerificationError, first_line
from jotr_deploy.geometry.boxes import iou
from jotr_deploy.plugins.onnx_function import inline
from jotr_deploy.runtime.finding.detection import Detector, open_detector
from jotr_deploy.runtime.finding.detection.one_stage import OneStage
from jotr_deploy.runtime.finding.people_networks import Role
from jotr_deploy.runtime.finding.pose import PoseNetwork, open_pose_network
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.sources.images import read_image
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.choices import Backend, listed
from jotr_deploy.support.precisions import Precision
from jotr_deploy.third_party.trial import FOUND_IOU, PICTURE, sample

NEAR_THRESHOLD = 0.05
"""Margin above the threshold within which rounding may add or remove a person or joint."""
LOW_EVERYWHERE: Mapping[str, Rule] = {"": "low"}
"""Precision rule for third-party networks, whose scopes are unknown; see `low_precision.SCOPES`."""

_CALLED = {"detector": "detector", "pose": "pose network"}

PRECISIONS: Mapping[Backend, tuple[Precision, ...]] = {
    "tensorrt": (Precision.FP16, Precision.FP32),
    "onnxruntime": (Precision.FP16,),
    "openvino": (Precision.BF16,),
}
_WHY: Mapping[tuple[Backend, Precision], str] = {
    ("tensorrt", Precision.BF16): "bfloat16 needs operators of a newer opset than a third-party {role} has",
    ("onnxruntime", Precision.FP32): "ONNX Runtime already runs the bundle's {role} in this precision",
    ("onnxruntime", Precision.BF16): "ONNX Runtime cannot execute it on a CPU, so it cannot be verified",
    (
        "openvino",
        Precision.FP32,
    ): "OpenVINO runs the bundle's {role} in this precision anyway, if bench --choose finds it faster",
    ("openvino", Precision.FP16): "OpenVINO does not compute in it on a CPU",
}
_GIVE_A_PHOTO = "give a photo of fully visible people: --try PHOTO"
_AS_IT_IS = "nothing was kept; use the original network, or give another --precision"


class PeopleNetwork(Original):
    """Bundle's detector or pose network, verified on the picture inside this package and on one of the user's."""

    fixed_batch = True

    def __init__(self, role: Role, picture: Path | None = None) -> None:
        self.role, self.picture = role, picture

    def entry(self, bundle: Bundle, precision: Precision) -> FileEntry:
        """Original network from `add`, which is listed before the files derived from it."""
        entry = bundle.entry(self.role)
        if not entry.name.endswith(".onnx"):
            raise BundleError(
                f"{bundle.path}: its {_CALLED[self.role]} is {entry.name}, but engine files are only made from ONNX",
                f"add its ONNX file: jotr-deploy add {bundle.path} --{self.role} FILE.onnx",
            )
        return entry

    def load(self, bundle: Bundle, precision: Precision) -> onnx.ModelProto:
        """Model with inlined functions, and without initialisers among its inputs, as older exporters list them."""
        model = inline(super().load(bundle, precision))
        constants = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in constants]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        return model

    def typed(self, model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
        """Model converted to a lower precision throughout."""
        kinds = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS
        try:
            if any(attribute.type in kinds for node in model.graph.node for attribute in node.attribute):
                raise ValueError("a node contains a subgraph")
            return to_low_precision(model, precision, LOW_EVERYWHERE, of_others=True)
        except (ValueError, RuntimeError, BundleError, onnx.checker.ValidationError) as error:
            raise BundleError(
                f"the {_CALLED[self.role]} cannot be converted to {precision} ({first_line(error)})", "use it as it is"
            ) from error

    def refuse(self, backend: Backend, precision: Precision, plugin: str | None = None) -> None:
        """Refuse a plugin, and precisions that the backend does not support for these networks."""
        called = _CALLED[self.role]
        if plugin not in (None, "none"):
            raise JotrDeployError(
                f"--plugin {plugin}: a {called} has no sampling operator to replace", "leave --plugin out"
            )
        if precision in PRECISIONS[backend]:
            return
        why = f"only the mesh network is calibrated, not the {called}"
        if not precision.calibrated:
            why = _WHY[backend, precision].format(role=called)
        raise JotrDeployError(f"--precision {precision}: {why}", f"give --precision {listed(PRECISIONS[backend])}")

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
        """Differences from the original, per picture for a detector and per batch of people for a pose network."""
        own = self.entry(bundle, precision)
        with (
            open_session(bundle.file(self.role, own.name), "onnxruntime", "cpu") as plain,
            open_session(path, backend, device) as made,
        ):
            if self.role == "pose":
                people = [(sample().image_bgr, sample().boxes_px), *self._people(bundle)]
                pose = open_pose_network(plain, own.recipe), open_pose_network(made, own.recipe)
                rows = compare_joints(*pose, people, batches)
            else:
                reference = open_detector(plain, own.recipe)
                pictures = [sample().image_bgr, *(image for image, _ in self._people(bundle))]
                rows = compare_people(reference, open_detector(made, own.recipe), pictures, what)
        if not rows:
            raise VerificationError(f"{what}: {own.name} itself finds nothing in {PICTURE} to compare", _GIVE_A_PHOTO)
        try:
            require(rows, precision, what)
        except VerificationError as error:
            raise VerificationError(error.cause, _AS_IT_IS) from None
        return rows

    def _people(self, bundle: Bundle) -> list[tuple[Array, Array]]:
        """User's picture and the boxes of the people in it; without a detector the whole picture is one person."""
        if self.picture is None:
            return []
        image_bgr = read_image(self.picture)
        height, width = image_bgr.shape[:2]
        boxes_px = np.array([[-0.5, -0.5, width - 0.5, height - 0.5]], np.float32)
        if bundle.has("detector"):
            with open_session(bundle.file("detector")) as session:
                boxes_px = open_detector(session, bundle.entry("detector").recipe)(image_bgr)[0]
        if not len(boxes_px):
            raise VerificationError(f"{self.picture}: the bundle's detector finds nobody", _GIVE_A_PHOTO)
        return [(image_bgr, boxes_px)]


def compare_people(reference: Detector, found: Detector, pictures: Sequence[Array], what: str) -> list[Difference]:
    """Compare the people found by two detectors in pictures (H, W, 3) uint8; no rows if the first finds nobody.

    Raises:
        VerificationError: only one of them finds a person.
    """
    gaps: dict[str, list[Array]] = {"boxes": [], "scores": [], "joints": []}
    for image_bgr in pictures:
        expected_px, expected_scores, expected_joints = _people_of(reference, image_bgr)
        boxes_px, scores, joints_px = _people_of(found, image_bgr)
        ours, theirs = _pairs(expected_px, boxes_px)
        sure = _option(reference, "threshold") + NEAR_THRESHOLD
        for alone, words in (
            (np.delete(expected_scores, ours), "does not find"),
            (np.delete(scores, theirs), "alone finds"),
        ):
            if (alone > sure).any():
                score = alone.max()
                raise VerificationError(
                    f"{what}: {words} somebody in the picture, with a score of {score:.2f}", _AS_IT_IS
                )
        expected_px = expected_px[ours]
        sides_px = _longer_side(expected_px)
        gaps["boxes"].append(np.abs(boxes_px[theirs] - expected_px) / sides_px[:, None])
        gaps["scores"].append(np.abs(scores[theirs] - expected_scores[ours]))
        if expected_joints is not None and joints_px is not None:
            threshold = _option(reference, "joint_threshold")
            gaps["joints"].append(joint_shares(expected_joints[ours], joints_px[theirs], sides_px, threshold))
    return [row for name, each in gaps.items() for row in _row(name, 1, each)]


def compare_joints(
    reference: PoseNetwork, found: PoseNetwork, people: Sequence[tuple[Array, Array]], batches: Sequence[int]
) -> list[Difference]:
    """Compare the joints found by two pose networks in pictures (H, W, 3) uint8 with boxes (N, 4).

    No rows if the first finds no joint.
    """
    threshold, rows = _option(reference, "threshold"), []
    for batch in batches:
        gaps = []
        for image_bgr, boxes_px in people:
            if not len(boxes_px):
                continue
            those_px = boxes_px[np.arange(batch) % len(boxes_px)]
            expected = reference(image_bgr, those_px)
            gaps.append(joint_shares(expected, found(image_bgr, those_px), _longer_side(those_px), threshold))
        rows += _row("joints", batch, gaps)
    return rows


def joint_shares(expected: Array, found: Array, sides_px: Array, threshold: float) -> Array:
    """Errors of joints (N, J, 3) relative to the side (N,) of each box.

    A joint that only one network finds counts as off by the whole box, unless rounding may have moved it across the
    threshold; then it is skipped, like a joint that neither finds.
    """
    shares = np.hypot(*np.moveaxis(found[..., :2] - expected[..., :2], -1, 0)) / sides_px[:, None]
    there, same = (expected[..., 2] > 0) | (found[..., 2] > 0), (expected[..., 2] > 0) == (found[..., 2] > 0)
    sure = np.maximum(expected[..., 2], found[..., 2]) > threshold + NEAR_THRESHOLD
    result: Array = np.where(same, shares, 1.0)[there & (same | sure)]
    return result


def _people_of(detector: Detector, image_bgr: Array) -> tuple[Array, Array, Array | None]:
    return detector.people(image_bgr) if isinstance(detector, OneStage) else (*detector(image_bgr), None)


def _pairs(expected_px: Array, boxes_px: Array) -> tuple[list[int], list[int]]:
    """Indices of matching boxes, greedily by IoU, which must be at least `FOUND_IOU`."""
    shared = iou(expected_px, boxes_px)
    ours: list[int] = []
    theirs: list[int] = []
    while shared.size and shared.max() >= FOUND_IOU:
        one, other = np.unravel_index(shared.argmax(), shared.shape)
        ours.append(int(one))
        theirs.append(int(other))
        shared[one], shared[:, other] = 0, 0
    return ours, theirs


def _row(name: str, batch: int, gaps: Sequence[Array]) -> list[Difference]:
    """One row, or none if nothing was compared."""
    values = np.concatenate([gap.ravel() for gap in gaps]) if gaps else np.zeros(0)
    if not len(values):
        return []
    return [Difference(name, batch, float(values.max()), float(values.mean()), bool(np.isfinite(values).all()))]


def _longer_side(boxes_px: Array) -> Array:
    longer: Array = (boxes_px[:, 2:] - boxes_px[:, :2]).max(1, initial=1.0)
    return longer


def _option(opened: Detector | PoseNetwork, name: str) -> float:
    """Threshold from its recipe; 0 for BlazePose's networks, which have none."""
    return float(getattr(opened.options, name, 0.0))
