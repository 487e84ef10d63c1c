"""The TensorRT copy of a network: the file its ONNX parser reads the same way in every version from 10.3 to 11.4."""

from __future__ import annotations

import onnx

from jotr_deploy.engines.tensorrt.versions import Version
from jotr_deploy.plugins import DOMAIN, NAME, VERSION
from jotr_deploy.plugins.onnx_function import OPSET, attach, inline
from jotr_deploy.support.choices import Plugin

# What each parser reads, from the version on that is named. The types of the operators widened after 19 (bfloat16 in
# 22), their meaning did not, and TensorRT takes types from the tensors.
NEWEST_OPSET = 20
_NEWER_OPSETS: tuple[tuple[Version, int], ...] = (((10, 9), 22), ((10, 13), 24))


def newest_opset(target: Version | None) -> int:
    """The newest opset that the parser of a TensorRT reads; None stands for every supported version."""
    return max([NEWEST_OPSET, *(opset for since, opset in _NEWER_OPSETS if target is not None and target >= since)])


def tensorrt_copy(model: onnx.ModelProto, plugin: Plugin, namespace: str = DOMAIN) -> onnx.ModelProto:
    """The same network in the form TensorRT parses; the model itself is left alone.

    With a plugin, the function's body is removed (10.15 and newer would build it instead) and attributes of every node
    name its plugin (10.6 to 10.9 recognise it by nothing else); with "none", standard operators replace the nodes.

    Args:
        model: a mesh network of any precision, with or without the function.
        plugin: "aot" asks for the kernel inside the engine, "library" for the C++ plugin, "none" for neither.
        namespace: under which the plugin is registered.
    """
    if plugin == "none":
        copy = inline(model)
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        del copy.functions[:]
        for node in sampling_nodes(copy):
            _name_plugin(node, plugin, namespace)
    needed = any(node.op_type == "Attention" and node.domain == "" for node in copy.graph.node)
    for opset in () if needed else copy.opset_import:
        if opset.domain == "" and opset.version > NEWEST_OPSET:
            opset.version = OPSET
    return copy


def portable(copy: onnx.ModelProto) -> onnx.ModelProto:
    """The reverse of `tensorrt_copy`: attributes dropped, the function's body back, so that any runtime reads it."""
    model = onnx.ModelProto()
    model.CopyFrom(copy)
    nodes = sampling_nodes(model)
    for node in nodes:
        del node.attribute[:]
    if nodes and not model.functions:
        attach(model)
    return model


def sampling_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes a plugin executes."""
    return [node for node in model.graph.node if node.domain == DOMAIN and node.op_type == NAME]


def _name_plugin(node: onnx.NodeProto, plugin: Plugin, namespace: str) -> None:
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("plugin_namespace", namespace))
    node.attribute.append(onnx.helper.make_attribute("plugin_version", str(VERSION)))
    if plugin == "aot":
        node.attribute.append(onnx.helper.make_attribute("aot", 1))
