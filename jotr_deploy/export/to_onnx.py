"""Export of JOTR to ONNX: one file, dynamic batch, the sampling operator as one node with a function body."""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import nn

from jotr_deploy.export.fused import fuse
from jotr_deploy.model.jotr import INPUTS, JOTR, MeshOutput, PoseOutput
from jotr_deploy.plugins import DOMAIN
from jotr_deploy.plugins.onnx_function import OPSET, attach, inline, translation
from jotr_deploy.support.choices import Sampling

_SCOPES = "pkg.torch.onnx.name_scopes"


def export_onnx(model: JOTR, sampling: Sampling = "function") -> onnx.ModelProto:
    """The network as a checked ONNX model, deterministic to the byte, without traces of this machine.

    Args:
        model: evaluation mode is forced.
        sampling: "function" keeps `jotr::TrilinearSample3D` nodes with their local function (any runtime executes
            the body, TensorRT may take the plugin); "inline" leaves standard operators only.
    """
    with torch.no_grad():
        fused = fuse(model.eval())
    proto = _trace(fused)
    name_nodes(proto.graph)
    attach(proto)
    forget_where_it_came_from(proto, "jotr")
    onnx.checker.check_model(proto, full_check=True)
    flat = inline(proto)  # raises if the function cannot be inlined, in either form
    proto = proto if sampling == "function" else flat
    _require_dynamic_batch(proto)
    return proto


def _trace(model: JOTR) -> onnx.ModelProto:
    side, cells = model.config.crop_side, model.config.heatmap_side
    example = (torch.zeros(2, 3, side, side), torch.full((2, 30, 2), cells / 2.0), torch.ones(2, 30))
    outputs = PoseOutput if model.body is None else MeshOutput
    return traced(model, example, INPUTS, outputs._fields, {torch.ops.jotr.trilinear_sample_3d.default: translation()})


def traced(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    translations: dict[Any, Any] | None = None,
) -> onnx.ModelProto:
    """PyTorch's exporter without its output; the first dimension of every input is the batch.

    Args:
        module: in evaluation mode.
        example: inputs; not of batch 1, which would be specialised silently.
        inputs: their names.
        outputs: names.
        translations: of custom operators.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=({0: batch},) * len(example),
                custom_translation_table=translations,
                verify=False,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    proto: onnx.ModelProto = program.model_proto
    return proto


def name_nodes(graph: onnx.GraphProto) -> None:
    """Name every node by module scope and operator, `backbone.layer1.0.conv1/Conv`: later passes choose by scope."""
    weights = {tensor.name for tensor in graph.initializer}
    scope_of: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for node in graph.node:
        scope = _scope(node, weights) or next((scope_of[i] for i in node.input if i in scope_of), "")
        for output in node.output:
            scope_of[output] = scope
        stem = f"{scope}/{node.op_type}"
        node.name = f"{stem}_{seen[stem]}" if seen[stem] else stem
        seen[stem] += 1


def _scope(node: onnx.NodeProto, weights: set[str]) -> str | None:
    if node.op_type == "Conv" and node.input[1] in weights:
        return node.input[1].removesuffix(".weight")  # a folded norm would claim the convolution
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            scope = str(ast.literal_eval(entry.value)[-2])
            return None if scope.startswith("_") else scope  # the exporter's word for a lost module stack
    return None


def forget_where_it_came_from(proto: onnx.ModelProto, name: str) -> None:
    """Name the graph; drop source paths and stack traces, and shapes that later passes would have to keep true."""
    graph = proto.graph
    for holder in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *proto.functions):
        del holder.metadata_props[:]
        holder.doc_string = ""
    del graph.value_info[:]
    graph.name = name
    proto.producer_name, proto.producer_version = "jotr-deploy", ""


def _require_dynamic_batch(proto: onnx.ModelProto) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.shape.dim[0].dim_param != "batch":
            raise RuntimeError(f"export fixed the batch of {value.name}")
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    if opsets[""] != OPSET or any(f.opset_import[0].version != OPSET for f in proto.functions if f.domain == DOMAIN):
        raise RuntimeError(f"model and function import different opsets: {opsets}")
