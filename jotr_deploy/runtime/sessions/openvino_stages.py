"""Splitting of an OpenVINO model into several, because a model has only one precision.

A file that needs several has a list in its metadata: the stages in order, each with its precision and the tensors that
end it. Everything computed from those belongs to a later stage, which takes them as inputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jotr_deploy.errors import SessionError

STAGES = "jotr_deploy.stages"
"""Key of an ONNX file's metadata: JSON, a list of [precision, names of tensors]; the last stage needs no names."""


def stages(path: Path, model: Any) -> list[tuple[str, Any]]:
    """The models defined by the file's metadata, in order, each with its precision; by default the model in float32.

    Raises:
        SessionError: metadata that cannot be read, or that names tensors missing from the file.
    """
    if not model.has_rt_info(["framework", STAGES]):
        return [("f32", model)]
    try:
        wanted = [(str(precision), list(names)) for precision, names in json.loads(_metadata(model))]
        return _cut(model, wanted)
    except (ValueError, TypeError, KeyError):
        raise SessionError(f"{path}: its metadata names stages that are not in it", "build it again") from None


def _metadata(model: Any) -> str:
    return str(model.get_rt_info(["framework", STAGES]).value)


def _cut(model: Any, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, Any]]:
    import openvino as ov

    ports = {
        name: port
        for node in model.get_ordered_ops()
        if node.get_type_name() != "Result"
        for port in node.outputs()
        for name in port.get_names()
    }
    results = {name: each for each in model.get_results() for name in each.input_value(0).get_names()}
    parameters, stage_of = {each.get_friendly_name(): each for each in model.get_parameters()}, {}
    for stage, (_, names) in enumerate(wanted):
        for name in names:
            port = ports[name]
            parameter = ov.opset13.parameter(port.get_partial_shape(), port.get_element_type())
            parameter.set_friendly_name(f"stage.{name}")
            parameter.output(0).set_names({name})
            for target in port.get_target_inputs():
                if target.get_node().get_type_name() != "Result":
                    target.replace_source_output(parameter.output(0))
            if name not in results:
                results[name] = ov.opset13.result(port)
                port.set_names({name})
            parameters[parameter.get_friendly_name()] = parameter
            stage_of[parameter.get_friendly_name()] = stage + 1
    cut = []
    for stage, (precision, _) in enumerate(wanted):
        reached = {name: _reached(result) for name, result in results.items()}
        here = [name for name in results if max([stage_of.get(each, 0) for each in reached[name]], default=0) == stage]
        if here:
            needed = [parameters[each] for each in sorted(set().union(*(reached[name] for name in here)))]
            cut.append((precision, ov.Model([results[name] for name in here], needed)))
    return cut


def _reached(result: Any) -> set[str]:
    """Names of the parameters that a result depends on."""
    seen, waiting, found = set(), [result], set()
    while waiting:
        node = waiting.pop()
        if node.get_name() not in seen:
            seen.add(node.get_name())
            waiting += [port.get_node() for port in node.input_values()]
            if node.get_type_name() == "Parameter":
                found.add(node.get_friendly_name())
    return found
