"""TFLite-to-ONNX converter for the operators of the two BlazePose networks; anything else is refused by name.

TFLite is channels-last (NHWC, kernels OHWI), ONNX channels-first. Everything inside is NCHW, with one transpose at the
input, one at each 4-D output and one before a reshape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.support.aliases import Array
from jotr_deploy.third_party.tflite import Network, Operator, Unsupported, read_tflite

OPSET, IR_VERSION = 17, 8  # Resize of opset 19 long had no CUDA kernel
BATCH = "N"
_SAME = 0
_NO_ACTIVATION, _RELU6 = 0, 3


def to_onnx(data: bytes, names: Mapping[str, str], metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Convert a TFLite network, pruned to the requested outputs.

    Args:
        data: bytes of the file.
        names: TFLite names -> ONNX names of the inputs and the requested outputs.
        metadata: stored in the model's metadata.

    Returns:
        A model of opset 17 with a dynamic batch; weights are stored in float16 if that loses nothing.

    Raises:
        Damaged, Unsupported: see `read_tflite`; `Unsupported` also for a missing input or output.
    """
    network = read_tflite(data)
    model = _Converter(network, names).model()
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TFLite's SAME padding of one dimension, before and after; the odd pixel comes last."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


class _Converter:
    def __init__(self, network: Network, names: Mapping[str, str]) -> None:
        self._network, self._names = network, names
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._constants = {k: t.constant for k, t in enumerate(network.tensors) if t.constant is not None}
        self._padded: dict[int, tuple[int, Array]] = {}  # output of a PAD -> its input and padding (4, 2)
        self._outputs = [k for k in network.outputs if network.tensors[k].name in names]
        absent = names.keys() - {network.tensors[k].name for k in (*network.inputs, *network.outputs)}
        if absent:
            raise Unsupported(f"no input or output {', '.join(sorted(absent))}")

    def model(self) -> onnx.ModelProto:
        network = self._network
        inputs = []
        for k in network.inputs:
            name, shape = self._public(k), network.tensors[k].shape
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape[1:]]))
            self._add("Transpose", [name], self._value(k), perm=[0, 3, 1, 2])
        for operator in self._needed():
            _CONVERTERS[operator.kind](self, operator)
        outputs = [self._output(k) for k in self._outputs]
        graph = helper.make_graph(self._nodes, "network", inputs, outputs, list(self._weights.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="jotr-deploy")

    def _needed(self) -> list[Operator]:
        """Operators needed for the requested outputs, in order."""
        wanted, found = set(self._outputs), []
        for operator in reversed(self._network.operators):
            if wanted.intersection(operator.outputs):
                wanted.update(operator.inputs)
                found.append(operator)
        self._users = [(operator.kind, operator.inputs) for operator in found]
        return found[::-1]

    def _public(self, k: int) -> str:
        return self._names[self._network.tensors[k].name]

    def _value(self, k: int) -> str:
        """The ONNX name of a tensor."""
        if k < 0 or k in self._constants:
            raise Unsupported("a constant or missing tensor as an operator's data input")
        return f"t{k}"

    def _shape(self, k: int) -> tuple[int, ...]:
        return self._network.tensors[k].shape

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{kind}_{output}", **attributes))

    def _output(self, k: int) -> onnx.ValueInfoProto:
        """Give a tensor its public name, 4-D ones channels last."""
        name, shape = self._public(k), self._shape(k)
        if len(shape) == 4:
            self._add("Transpose", [self._value(k)], name, perm=[0, 2, 3, 1])
        else:
            self._add("Identity", [self._value(k)], name)
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape[1:]])

    def _constant(self, values: Any, dtype: Any) -> str:
        """Name of a small constant, shared by all nodes that use it."""
        array = np.array(values, dtype)
        name = f"{array.dtype}_{'_'.join(map(str, array.reshape(-1).tolist()))}_{array.ndim}"
        self._weights.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def _weight(self, array: Array, name: str) -> str:
        """Name of float32 weights, stored as float16 if that loses nothing."""
        if name in self._weights or f"{name}_float16" in self._weights:
            return name
        half = np.ascontiguousarray(array, np.float16)
        if np.array_equal(half.astype(np.float32), array.astype(np.float32)):
            self._weights[f"{name}_float16"] = numpy_helper.from_array(half, f"{name}_float16")
            self._add("Cast", [f"{name}_float16"], name, to=TensorProto.FLOAT)
        else:
            self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
        return name

    def _of_constant(self, operator: Operator, place: int) -> Array:
        k = operator.inputs[place] if place < len(operator.inputs) else -1
        if k not in self._constants:
            raise Unsupported(f"{operator.kind} whose input {place} is not constant")
        return self._constants[k]

    def _activated(self, activation: int, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """Add a node and the activation fused into it."""
        if activation == _NO_ACTIVATION:
            self._add(kind, inputs, output, **attributes)
        elif activation == _RELU6:
            self._add(kind, inputs, f"{output}_linear", **attributes)
            limits = [self._constant(limit, np.float32) for limit in (0, 6)]
            self._add("Clip", [f"{output}_linear", *limits], output)
        else:
            raise Unsupported(f"activation {activation} of {kind}")

    def _alias(self, operator: Operator) -> None:
        """Skip DENSIFY and DEQUANTIZE of constants: weights are dense already, and float16 to float32 is exact."""
        self._constants[operator.outputs[0]] = self._of_constant(operator, 0)

    def _pad(self, operator: Operator) -> None:
        """Fold a PAD into the convolutions that read it."""
        padding, k = self._of_constant(operator, 1), operator.outputs[0]
        users = {kind for kind, inputs in self._users if k in inputs}
        if padding.shape != (4, 2) or padding[0].any() or padding[3].any() or (padding < 0).any():
            raise Unsupported(f"PAD by {padding.tolist()}")
        if k in self._outputs or not users <= {"CONV_2D", "DEPTHWISE_CONV_2D"}:
            raise Unsupported(f"PAD before {', '.join(sorted(users)) or 'an output'}")
        self._padded[k] = operator.inputs[0], padding

    def _convolution(self, operator: Operator) -> None:
        depthwise = operator.kind == "DEPTHWISE_CONV_2D"
        source, padding = self._padded.get(operator.inputs[0], (operator.inputs[0], np.zeros((4, 2), np.int64)))
        weights = self._of_constant(operator, 1)
        if weights.ndim != 4 or len(self._shape(source)) != 4:
            raise Unsupported(f"{operator.kind} that is not 2-D")
        # To OIHW, from 1HWO for a depthwise kernel and OHWI for any other
        weights = weights.transpose(3, 0, 1, 2) if depthwise else weights.transpose(0, 3, 1, 2)
        groups = self._shape(source)[3] // weights.shape[1]
        if groups * weights.shape[1] != self._shape(source)[3] or (groups != 1 and not depthwise):
            raise Unsupported(f"{operator.kind} of {self._shape(source)[3]} channels by {weights.shape[1]}")
        activation, dilations = (4, (6, 5)) if depthwise else (3, (5, 4))
        stride = operator.option(2, "i"), operator.option(1, "i")
        dilation = tuple(operator.option(field, "i", 1) for field in dilations)
        pads = padding[1:3].astype(int)
        if operator.option(0) == _SAME:
            sizes = self._shape(operator.inputs[0])[1:3]
            pads = pads + [same_padding(*each) for each in zip(sizes, weights.shape[2:], stride, dilation, strict=True)]
        inputs = [self._value(source), self._weight(weights, f"w{operator.inputs[1]}")]
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            inputs.append(self._weight(self._of_constant(operator, 2), f"b{operator.inputs[2]}"))
        self._activated(
            operator.option(activation), "Conv", inputs, self._value(operator.outputs[0]),
            kernel_shape=weights.shape[2:], strides=stride, dilations=dilation, group=groups,
            pads=[*pads[:, 0].tolist(), *pads[:, 1].tolist()],
        )  # fmt: skip

    def _sum(self, operator: Operator) -> None:
        shapes = {self._shape(k) for k in operator.inputs}
        if len(shapes) != 1 or len(operator.inputs) != 2:
            raise Unsupported(f"ADD of shapes {sorted(shapes)}")
        inputs = [self._value(k) for k in operator.inputs]
        self._activated(operator.option(0), "Add", inputs, self._value(operator.outputs[0]))

    def _max_pool(self, operator: Operator) -> None:
        kernel = operator.option(4, "i"), operator.option(3, "i")
        stride = operator.option(2, "i"), operator.option(1, "i")
        pads = np.zeros((2, 2), int)
        if operator.option(0) == _SAME:
            sizes = self._shape(operator.inputs[0])[1:3]
            pads = np.array([same_padding(*each) for each in zip(sizes, kernel, stride, strict=True)])
        self._activated(
            operator.option(5), "MaxPool", [self._value(operator.inputs[0])], self._value(operator.outputs[0]),
            kernel_shape=kernel, strides=stride, pads=[*pads[:, 0].tolist(), *pads[:, 1].tolist()],
        )  # fmt: skip

    def _resize(self, operator: Operator) -> None:
        before, after = self._shape(operator.inputs[0]), self._shape(operator.outputs[0])
        if (2 * before[1], 2 * before[2]) != after[1:3]:
            raise Unsupported(f"RESIZE_BILINEAR from {before} to {after}")
        mode = "align_corners" if operator.option(2) else "half_pixel" if operator.option(3) else "asymmetric"
        inputs = [self._value(operator.inputs[0]), "", self._constant([1, 1, 2, 2], np.float32)]
        self._add(
            "Resize", inputs, self._value(operator.outputs[0]), mode="linear", coordinate_transformation_mode=mode
        )

    def _depth_to_space(self, operator: Operator) -> None:
        value, output = self._value(operator.inputs[0]), self._value(operator.outputs[0])
        self._add("DepthToSpace", [value], output, blocksize=operator.option(0, "i"), mode="DCR")

    def _sigmoid(self, operator: Operator) -> None:
        self._add("Sigmoid", [self._value(operator.inputs[0])], self._value(operator.outputs[0]))

    def _reshape(self, operator: Operator) -> None:
        """Convert a RESHAPE, which assumes channels-last memory order; the batch stays the first axis."""
        before, after = self._shape(operator.inputs[0]), self._shape(operator.outputs[0])
        if len(after) not in (2, 3) or before[:1] != (1,) or after[0] != 1:
            raise Unsupported(f"RESHAPE from {before} to {after}")
        value, output = self._value(operator.inputs[0]), self._value(operator.outputs[0])
        if len(before) == 4:
            self._add("Transpose", [value], f"{output}_nhwc", perm=[0, 2, 3, 1])
            value = f"{output}_nhwc"
        self._add("Reshape", [value, self._constant([0, -1, *after[2:]], np.int64)], output)

    def _concatenate(self, operator: Operator) -> None:
        rank = len(self._shape(operator.outputs[0]))
        axis = operator.option(0, "i") % rank
        if operator.option(1) != _NO_ACTIVATION or axis == 0:
            raise Unsupported("CONCATENATION with an activation, or over the batch")
        inputs = [self._value(k) for k in operator.inputs]
        axis = {1: 2, 2: 3, 3: 1}[axis] if rank == 4 else axis
        self._add("Concat", inputs, self._value(operator.outputs[0]), axis=axis)


_CONVERTERS = {
    "ADD": _Converter._sum,
    "CONCATENATION": _Converter._concatenate,
    "CONV_2D": _Converter._convolution,
    "DEPTHWISE_CONV_2D": _Converter._convolution,
    "DEPTH_TO_SPACE": _Converter._depth_to_space,
    "DEQUANTIZE": _Converter._alias,
    "DENSIFY": _Converter._alias,
    "LOGISTIC": _Converter._sigmoid,
    "MAX_POOL_2D": _Converter._max_pool,
    "PAD": _Converter._pad,
    "RESHAPE": _Converter._reshape,
    "RESIZE_BILINEAR": _Converter._resize,
}
