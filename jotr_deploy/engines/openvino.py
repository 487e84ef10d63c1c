"""`build-engine --backend openvino`: files that OpenVINO loads directly, and computes in float32 or lower precision."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx

from jotr_deploy.bundle import Bundle
from jotr_deploy.engines.derived_files import MESH_NETWORK, Original, add_model
from jotr_deploy.engines.int8 import for_cpu
from jotr_deploy.engines.verify import Difference
from jotr_deploy.errors import BundleError, JotrDeployError
from jotr_deploy.plugins.onnx_function import inline
from jotr_deploy.runtime.sessions.openvino_stages import STAGES
from jotr_deploy.support.aliases import Say
from jotr_deploy.support.choices import listed
from jotr_deploy.support.precisions import Precision

PRECISIONS = (Precision.FP32, Precision.BF16, Precision.INT8)
"""Precisions of OpenVINO's CPU device."""

HEATMAPS = "heatmaps"
LOW_PRECISION = (("f32", (HEATMAPS,)), ("bf16", ("pose", "betas", "cam")), ("f32", ()))
"""Stages with their precision: bfloat16 is too coarse for heat-map peaks, and for a body it resolves 4 mm in 1 m."""


def build_openvino(
    bundle: Bundle,
    precision: Precision | str,
    say: Say = lambda step: None,
    original: Original = MESH_NETWORK,
) -> tuple[Bundle, str, list[Difference]]:
    """Add a file for OpenVINO of one of its networks to a bundle, verified there.

    fp32 is the exported network without the operator of this package, so that it loads faster. bf16 computes it in
    bfloat16 where the CPU has that, but for heat maps and body; a detector or pose network as a whole. int8 is the
    calibrated network, its float part in bfloat16 likewise.

    Returns:
        The updated bundle, the name of the file, and the difference of every output.

    Raises:
        JotrDeployError: a precision that OpenVINO's CPU does not have.
        BundleError: int8 of a bundle that was never calibrated.
        VerificationError: above the limits; nothing is kept.
    """
    precision = Precision.of(precision)
    original.refuse("openvino", precision)
    if precision not in PRECISIONS:
        raise JotrDeployError(
            f"--backend openvino --precision {precision}: its CPU does not compute in it",
            f"give --precision {listed(PRECISIONS)}",
        )
    name = original.file(precision, "openvino.onnx")
    say("writing the network for OpenVINO")
    plain = original.load(bundle, precision)
    if original.role == "mesh":
        model = for_openvino(
            for_cpu(plain) if precision.calibrated else plain, low_precision=precision is not Precision.FP32
        )
    else:
        model = (
            in_stages(for_cpu(plain), [("f32", ())]) if precision.calibrated else in_stages(plain, [(precision, ())])
        )
    bundle, differences = add_model(bundle, original, name, model, precision, "openvino", say)
    return bundle, name, differences


def for_openvino(model: onnx.ModelProto, low_precision: bool) -> onnx.ModelProto:
    """Copy of a model with standard operators only, and the stages of `LOW_PRECISION` in its metadata."""
    plain = inline(model)
    if low_precision:
        _name_heatmaps(plain.graph)
        return in_stages(plain, LOW_PRECISION)
    return plain


def in_stages(model: onnx.ModelProto, stages: Sequence[tuple[str, Sequence[str]]]) -> onnx.ModelProto:
    """The model, with the stages that `openvino_stages` reads among its metadata."""
    kept = {each.key: each.value for each in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, STAGES: json.dumps(stages)})
    return model


def _name_heatmaps(graph: onnx.GraphProto) -> None:
    """Rename the heat-map tensor, which joins the picture's features, to `HEATMAPS`."""
    inside = {name for node in graph.node if node.name.startswith("backbone") for name in node.output}
    joined = [node for node in graph.node if node.name.startswith("backbone") and node.op_type == "Concat"]
    outside = [name for node in joined for name in node.input if name not in inside]
    if len(outside) != 1:
        raise BundleError("no heat maps join the backbone: not a mesh network of this version", "export it again")
    for node in graph.node:
        for names in (node.input, node.output):
            for slot, name in enumerate(names):
                if name == outside[0]:
                    names[slot] = HEATMAPS
