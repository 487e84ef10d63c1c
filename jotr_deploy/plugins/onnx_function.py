"""The sampling operator as an ONNX local function: a file that holds it runs in plain ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx.inliner
import onnx.parser
import onnx.shape_inference

from jotr_deploy.plugins import DOMAIN, NAME, VERSION

OPSET = 19
"""Opset of the model and of the function's body: the two must agree, or inlining silently leaves the function."""

# Products of three hats relu(1 - |q (n - 1) - i|), then one matrix product: the volume's sizes, then what uses them.
_BODY = """
<opset_import: ["" : {opset}], domain: "{domain}">
{name} (features, points) => (samples) {{
{sizes}
 one = Constant <value = float {{1.0}}> ()
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
 w = Reshape (w5, ws)
 f = Reshape (features, fs)
 samples = MatMul (w, f)
}}
"""

# Sizes read from the volume. CUDA has no kernels for some of this, and each copy to the CPU forbids CUDA graphs.
_READ = """
 i0 = Constant <value = int64 {0}> ()
 i1 = Constant <value = int64 {1}> ()
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
 iD = Cast <to = 1> (rD)
 iH = Cast <to = 1> (rH)
 iW = Cast <to = 1> (rW)
 nD = Sub (D0, i1)
 nH = Sub (H0, i1)
 nW = Sub (W0, i1)
 sD = Cast <to = 1> (nD)
 sH = Cast <to = 1> (nH)
 sW = Cast <to = 1> (nW)
 DH = Mul (D1, H1)
 DHW = Mul (DH, W1)
 ws = Concat <axis = 0> (keep, keep, DHW)
 fs = Concat <axis = 0> (keep, DHW, C1)"""

Sizes = tuple[int, int, int, int]
"""D, H, W and C of a feature volume."""


def _constant(sizes: Sizes) -> str:
    """The same as constants."""
    depth, height, width, channels = sizes
    cells = depth * height * width
    lines = [
        f"ws = Constant <value_ints = [0, 0, {cells}]> ()",
        f"fs = Constant <value_ints = [0, {cells}, {channels}]> ()",
    ]
    for axis, size in zip("DHW", (depth, height, width), strict=True):
        centres = ", ".join(f"{index}.0" for index in range(size))
        lines.append(f"i{axis} = Constant <value = float[{size}] {{{centres}}}> ()")
        lines.append(f"s{axis} = Constant <value = float {{{size - 1}.0}}> ()")
    return "\n".join(f" {line}" for line in lines)


def function_proto(sizes: Sizes | None = None) -> onnx.FunctionProto:
    """The local function: what a runtime without the plugin executes.

    Args:
        sizes: of every volume that it will sample; None leaves them to be read from the volume at each call.
    """
    lines = _READ if sizes is None else _constant(sizes)
    return onnx.parser.parse_function(_BODY.format(opset=OPSET, domain=DOMAIN, name=NAME, sizes=lines))


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
    """Add the function to a model that has `jotr` nodes, after export: the exporter itself would inline it.

    Its sizes are constants if the model fixes those of its volumes.
    """
    model.functions.append(function_proto(_volume_sizes(model)))
    if DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))


def _volume_sizes(model: onnx.ModelProto) -> Sizes | None:
    """D, H, W and C of the volumes that a model samples; None if they differ, or are not fixed."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    dims = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.input)}
    sampled = [node.input[0] for node in graph.node if node.domain == DOMAIN and node.op_type == NAME]
    found = {tuple(dim.dim_value for dim in dims.get(name, ())[1:]) for name in sampled}
    sizes = found.pop() if len(found) == 1 else ()
    return sizes if len(sizes) == 4 and all(sizes) else None


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
