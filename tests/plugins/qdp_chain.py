"""Does in its own process what TensorRT does with an ahead-of-time plugin, on symbols instead of numbers.

Run with the Python path of one version's bindings and of their stub; prints what the plugin answered as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import tensorrt as trt
import tensorrt_bindings

from jotr_deploy.errors import SessionError
from jotr_deploy.plugins import DOMAIN, NAME, qdp

FEATURES, POINTS = ["B", "D", "H", "W", "C"], ["B", "P", 3]


class Expression:
    """A symbol, a number, or [operation, left, right]."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def is_constant(self) -> bool:
        return isinstance(self.tree, int)

    def get_constant_value(self) -> int:
        return self.tree


class ExpressionBuilder:
    def constant(self, value: int) -> Expression:
        return Expression(value)

    def operation(self, operation: trt.DimensionOperation, left: Expression, right: Expression) -> Expression:
        return Expression([operation.name, left.tree, right.tree])


class Registry:
    def __init__(self) -> None:
        self.all_creators: list[Any] = []

    def register_creator(self, creator: Any, namespace: str) -> bool:
        self.all_creators.append(creator)
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        (found,) = [
            c for c in self.all_creators if (c.name, c.plugin_version, c.plugin_namespace) == (name, version, namespace)
        ]
        return found


class Scalars(dict):  # type: ignore[type-arg]
    nbSymExprs = 0  # noqa: N815  TensorRT's own name


class Launch: ...


def stand_in(registry: Registry) -> None:
    """What the bindings would get from TensorRT itself."""
    for module in (trt, tensorrt_bindings):
        module.get_plugin_registry = lambda: registry
        module.IDimensionExpr = Expression
        module.ISymExpr = type("ISymExpr", (), {"__init__": lambda self: None})
        module.DimsExprs = lambda length: [None] * length


def description(dtype: trt.DataType, shape: list[Any]) -> trt.DynamicPluginTensorDesc:
    described = trt.DynamicPluginTensorDesc()
    described.desc.type = dtype
    described.desc.format = trt.TensorFormat.LINEAR
    described.desc.dims = trt.Dims([size if isinstance(size, int) else -1 for size in shape])
    return described


def plugin_of(creator: Any, dtype: trt.DataType) -> dict[str, Any]:
    """Everything TensorRT asks of the plugin, in its order, for one type of features."""
    build = (trt.TensorRTPhase.BUILD, trt.QuickPluginCreationRequest.PREFER_AOT)
    plugin = creator.create_plugin(NAME, DOMAIN, trt.PluginFieldCollection([]), *build)
    output_types = plugin.get_output_data_types([dtype, trt.DataType.FLOAT], [5, 3])
    expressions = [[Expression(size) for size in shape] for shape in (FEATURES, POINTS)]
    (output_shape,) = plugin.get_output_shapes(expressions, [], ExpressionBuilder())

    inputs = [description(dtype, FEATURES), description(trt.DataType.FLOAT, POINTS)]
    outputs = [description(output_types[0], ["B", "P", "C"])]
    combinations = plugin.get_supported_format_combinations(inputs + outputs, 2)
    plugin.configure_plugin(inputs, outputs)
    tactics = plugin.get_valid_tactics()
    plugin.set_tactic(0)
    launch, scalars = Launch(), Scalars()
    plugin.get_launch_params(expressions, inputs + outputs, 2, launch, scalars, ExpressionBuilder())
    kernel, code = plugin.get_kernel([i.desc for i in inputs], [o.desc for o in outputs])
    return {
        "output_types": [t.name for t in output_types],
        "output_shape": [size.tree for size in output_shape],
        "combinations": [f"{c.type.name} {c.format.name}" for c in combinations],
        "tactics": tactics,
        "launch": {name: value.expr.tree for name, value in vars(launch).items()},
        "scalars": [scalars[i].expr.tree for i in range(scalars.nbSymExprs)],
        "scalar_types": [scalars[i].dtype.name for i in range(scalars.nbSymExprs)],
        "kernel": kernel,
        "code": code.decode(),
    }


def refusal(registry: Registry) -> str:
    """What `register` says when a library has brought the operator already."""
    registry.all_creators.append(type("Library", (), {"name": NAME, "plugin_namespace": DOMAIN}))
    try:
        qdp.register()
    except SessionError as error:
        return str(error)
    finally:
        registry.all_creators.clear()
    return "registered twice"


def main() -> None:
    registry = Registry()
    stand_in(registry)
    qdp.ptx_for = lambda: "the kernels as PTX"
    untouched = "tensorrt.plugin" not in sys.modules
    refused = refusal(registry)
    qdp.register()
    qdp.register()
    (creator,) = registry.all_creators
    types = {"float32": trt.DataType.FLOAT, "float16": trt.DataType.HALF, "bfloat16": trt.DataType.BF16}
    answers = {name: plugin_of(creator, dtype) for name, dtype in types.items()}
    print(json.dumps({"untouched": untouched, "refused": refused, "answers": answers}))


if __name__ == "__main__":
    main()
