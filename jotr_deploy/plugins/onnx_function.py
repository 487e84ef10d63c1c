"""The sampling operator as an ONNX local function: a file that holds it runs in plain ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx.inliner
import onnx.parser

from jotr_deploy.plugins import DOMAIN, NAME, VERSION

OPSET = 19
"""Opset of the model and of the function's body: the two must agree, or inlining silently leaves the function."""

# Products of three hats relu(1 - |q (n - 1) - i|), then one matrix product. CastLike keeps one body for every type.
_BODY = f"""
<opset_import: ["" : {OPSET}], domain: "{DOMAIN}">
{NAME} (features, points) => (samples) {{
 i0 = Constant <value = int64 {{0}}> ()
 i1 = Constant <value = int64 {{1}}> ()
 f1 = Constant <value = float {{1.0}}> ()
 one = CastLike (f1, points)
 keep = Constant <value_ints = [0]> ()
 D1 = Shape <start = 1, end = 2> (features)
 H1 = Shape <start = 2, end = 3> (features)
 W1 = Shape <start = 3, end = 4> (features)
 C1 = Shape <start = 4, end = 5> (features)
 D0 = Squeeze (D1)
 H0 = Squeeze (H1)
 W0 = Squeeze (W1)
 rD = Range (i0, D0, i1)
 rH = Range (i0, H0, i1)
 rW = Range (i0, W0, i1)
 iD = CastLike (rD, points)
 iH = CastLike (rH, points)
 iW = CastLike (rW, points)
 nD = Sub (D0, i1)
 nH = Sub (H0, i1)
 nW = Sub (W0, i1)
 sD = CastLike (nD, points)
 sH = CastLike (nH, points)
 sW = CastLike (nW, points)
 x, y, z = Split <axis = -1, num_outputs = 3> (points)
 x1 = Mul (x, sW)
 y1 = Mul (y, sH)
 z1 = Mul (z, sD)
 x2 = Sub (x1, iW)
 y2 = Sub (y1, iH)
 z2 = Sub (z1, iD)
 x3 = Abs (x2)
 y3 = Abs (y2)
 z3 = Abs (z2)
 x4 = Sub (one, x3)
 y4 = Sub (one, y3)
 z4 = Sub (one, z3)
 x5 = Relu (x4)
 y5 = Relu (y4)
 z5 = Relu (z4)
 ax = Constant <value_ints = [2, 3]> ()
 ay = Constant <value_ints = [2, 4]> ()
 az = Constant <value_ints = [3, 4]> ()
 x6 = Unsqueeze (x5, ax)
 y6 = Unsqueeze (y5, ay)
 z6 = Unsqueeze (z5, az)
 zy = Mul (z6, y6)
 w4 = Mul (zy, x6)
 w5 = CastLike (w4, features)
 DH = Mul (D1, H1)
 DHW = Mul (DH, W1)
 ws = Concat <axis = 0> (keep, keep, DHW)
 w = Reshape (w5, ws)
 fs = Concat <axis = 0> (keep, DHW, C1)
 f = Reshape (features, fs)
 samples = MatMul (w, f)
}}
"""


def function_proto() -> onnx.FunctionProto:
    """The local function: what a runtime without the plugin executes."""
    return onnx.parser.parse_function(_BODY)


def schema() -> onnx.defs.OpSchema:
    """The operator's signature as an ONNX schema."""
    parameter = onnx.defs.OpSchema.FormalParameter
    return onnx.defs.OpSchema(
        NAME,
        DOMAIN,
        VERSION,
        inputs=[parameter("features", "T"), parameter("points", "P")],
        outputs=[parameter("samples", "T")],
        type_constraints=[
            ("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], ""),
            ("P", ["tensor(float)"], ""),
        ],
    )


def translation() -> Callable[[Any, Any], Any]:
    """Translation of `jotr::trilinear_sample_3d` for the PyTorch exporter: records one node, no function."""
    import onnxscript

    emit: Callable[[Any, Any], Any] = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, VERSION), NAME, schema())
    return emit


def attach(model: onnx.ModelProto) -> None:
    """Add the function to a model that has `jotr` nodes, after export: the exporter itself would inline it."""
    model.functions.append(function_proto())
    if DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every function inlined: standard operators only.

    Raises:
        ValueError: a `jotr` node is left, because function and model import different opsets.
    """
    flat = onnx.inliner.inline_local_functions(model)
    left = [node.name for node in flat.graph.node if node.domain == DOMAIN]
    if left:
        raise ValueError(f"inlining left {left}: the function's body must import the model's own opset")
    for opset in [o for o in flat.opset_import if o.domain == DOMAIN]:
        flat.opset_import.remove(opset)
    return flat
