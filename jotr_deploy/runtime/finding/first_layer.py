"""First layer of a network file, which distinguishes some networks with identical inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jotr_deploy.errors import SessionError
from jotr_deploy.support.read_errors import read_onnx

if TYPE_CHECKING:
    import onnx

_PASSED_ON = frozenset({"Identity", "Cast", "DequantizeLinear", "QuantizeLinear"})


def first_convolution(path: Path) -> tuple[int, int, int, int] | None:
    """Shape of the weights of the first convolution: outputs, inputs, height, width.

    None if it is unknown: not an ONNX file, or no 2-D convolution whose weights are stored in the file.
    """
    if path.suffix.lower() != ".onnx" or not path.is_file():
        return None
    try:
        graph = read_onnx(path, external=False).graph
    except SessionError:  # such as a file that only another engine can read
        return None
    shapes = _weights(graph)
    convolutions = (node for node in graph.node if node.op_type == "Conv" and len(node.input) > 1)
    shape = next((shapes.get(node.input[1]) for node in convolutions), None)
    return (shape[0], shape[1], shape[2], shape[3]) if shape is not None and len(shape) == 4 else None


def _weights(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the constants of a graph by name, as stored or after a type conversion."""
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            shapes.update((node.output[0], tuple(each.t.dims)) for each in node.attribute if each.HasField("t"))
        elif node.op_type in _PASSED_ON and node.input and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return shapes
