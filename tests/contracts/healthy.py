"""What a healthy TensorRT does, as far as a builder and a session can see it.

A plan is the ONNX model behind a header with the profile; running a context runs that model in ONNX Runtime, reading
and writing the addresses it was given. With the host memory of a fake CUDA those are addresses of this process.
"""

from __future__ import annotations

import ctypes
import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from jotr_deploy.engines.tensorrt.onnx_copy import portable
from jotr_deploy.plugins import DOMAIN, NAME

MAGIC = b"FAKE PLAN\n"
TIMING = b"FAKE TIMING CACHE\n"


def major(trt: Any) -> int:
    return int(trt.__version__.split(".")[0])


# ── building ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _create_network(builder: Any, flags: int) -> Any:
    strongly_typed = 1 << int(builder.state.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert flags & strongly_typed, "the recipe is strongly typed"
    return builder.state.trt.create("INetworkDefinition", flags=flags, model=None)


def _parser(parser: Any, network: Any, logger: Any) -> None:
    parser.state.network, parser.state.errors = network, []


def _parse(parser: Any, model: Any, path: str | None) -> bool:
    proto = onnx.load_from_string(bytes(model))
    parser.state.errors = list(_unsupported(parser.state.trt, proto))
    parser.state.network.state.model = proto
    return not parser.state.errors


def _parse_from_file(parser: Any, path: str) -> bool:
    return _parse(parser, onnx.load(path).SerializeToString(), path)


def _unsupported(trt: Any, proto: onnx.ModelProto) -> Iterator[Any]:
    """A plugin node is found by name, version and namespace, or it is an error."""
    assert not proto.functions, "10.15 and newer take the function's body instead of the plugin"
    for index, node in enumerate(proto.graph.node):
        if node.domain != DOMAIN:
            continue
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        version, namespace = (given[name].decode() for name in ("plugin_version", "plugin_namespace"))
        if (node.op_type, version, namespace) not in trt.creators:
            yield parser_error(trt, index, node.name, node.op_type, "Plugin not found, are the plugin name, version, "
                               "and namespace correct?")  # fmt: skip


def parser_error(trt: Any, index: int, node: str, operator: str, text: str, stack: tuple[str, ...] = ()) -> Any:
    """A `ParserError`, as `OnnxParser.get_error` returns it."""
    return trt.create("ParserError", index=index, node=node, operator=operator, text=text, stack=stack)


def _set_shape(profile: Any, name: str, low: Any, best: Any, high: Any) -> None:
    if not all(a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
        raise ValueError(f"Shape provided for {name} is inconsistent with the order min <= opt <= max.")
    profile.state.shapes[name] = [list(low), list(best), list(high)]


def _add_profile(config: Any, profile: Any) -> int:
    config.state.profiles.append(profile)
    return len(config.state.profiles) - 1


def _create_config(builder: Any) -> Any:
    return builder.state.trt.create("IBuilderConfig", profiles=[], cache=None)


def _create_timing_cache(config: Any, data: Any) -> Any:
    trt, entries = config.state.trt, bytes(data)
    cache = trt.create("ITimingCache", entries=entries.removeprefix(TIMING))
    cache.state.valid = not entries or entries.startswith(TIMING)
    return cache


def _set_timing_cache(config: Any, cache: Any, ignore_mismatch: bool) -> bool:
    assert not ignore_mismatch, "timings of another GPU must not be used"
    if cache.state.valid:
        config.state.cache = cache
    return cache.state.valid


def _combine(cache: Any, other: Any, ignore_mismatch: bool) -> bool:
    lines = {*cache.state.entries.splitlines(), *other.state.entries.splitlines()}
    cache.state.entries = b"".join(line + b"\n" for line in sorted(lines))
    return other.state.valid and not ignore_mismatch


def _memory(trt: Any, data: bytes) -> Any:
    memory = trt.create("IHostMemory")
    memory.extend(data)
    return memory


def _build(builder: Any, network: Any, config: Any, *kernel_text: Any) -> Any:
    trt, model = builder.state.trt, network.state.model
    assert model is not None, "nothing was parsed"
    dynamic = any(value.type.tensor_type.shape.dim[0].HasField("dim_param") for value in model.graph.input)
    assert bool(config.state.profiles) == dynamic, "a dynamic batch needs a profile, a fixed one none"
    monitor = config.progress_monitor
    if not _progress(monitor):
        return None
    if config.state.cache is not None:
        config.state.cache.state.entries += b"timed " + trt.__version__.encode() + b"\n"
    name = network.name or model.graph.name
    profile, *others = [each.state.shapes for each in config.state.profiles] or [{}]
    plugins = sorted({f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain == DOMAIN})
    header = {"version": trt.__version__, "name": name, "profile": profile, "others": others, "plugins": plugins}
    return _memory(trt, MAGIC + json.dumps(header).encode() + b"\n" + model.SerializeToString())


def _progress(monitor: Any) -> bool:
    """Two nested phases; False as soon as the application wants to stop."""
    if monitor is None:
        return True
    monitor.phase_start("Building Engine", None, 2)
    monitor.phase_start("Tactic Selection", "Building Engine", 3)
    going_on = all(monitor.step_complete("Tactic Selection", step) for step in range(3))
    monitor.phase_finish("Tactic Selection")
    going_on = going_on and all(monitor.step_complete("Building Engine", step) for step in range(2))
    monitor.phase_finish("Building Engine")
    return going_on


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _deserialize(runtime: Any, plan: Any) -> Any:
    trt, data = runtime.state.trt, bytes(plan)
    if not data.startswith(MAGIC):
        return None
    header, _, model = data.removeprefix(MAGIC).partition(b"\n")
    built = json.loads(header)
    if built["version"] != trt.__version__:
        return None
    return trt.create("ICudaEngine", model=onnx.load_from_string(model), **{"others": [], **built})


def _tensors(engine: Any) -> list[Any]:
    graph = engine.state.model.graph
    return [*graph.input, *graph.output]


def _tensor(engine: Any, name: str) -> Any:
    return next(value for value in _tensors(engine) if value.name == name)


def _mode(engine: Any, name: str) -> Any:
    modes = engine.state.trt.TensorIOMode
    return modes.INPUT if any(value.name == name for value in engine.state.model.graph.input) else modes.OUTPUT


def _shape(engine: Any, name: str) -> Any:
    sizes = _tensor(engine, name).type.tensor_type.shape.dim
    return engine.state.trt.Dims([size.dim_value if size.HasField("dim_value") else -1 for size in sizes])


def _dims(dims: Any, shape: Any = ()) -> None:
    dims.extend(shape)


def _dtype(engine: Any, name: str) -> Any:
    names = {1: "FLOAT", 10: "HALF", 7: "INT64", 6: "INT32", 9: "BOOL"}
    return getattr(engine.state.trt.DataType, names[_tensor(engine, name).type.tensor_type.elem_type])


def _profile_shape(engine: Any, name: str, profile: int) -> Any:
    return [engine.state.trt.Dims(shape) for shape in [engine.state.profile, *engine.state.others][profile][name]]


def _information(inspector: Any, form: Any) -> str:
    trt, engine = inspector.state.trt, inspector.state.engine
    layers = []
    for node in engine.state.model.graph.node:
        kind = {"LayerType": "PluginV3"} if node.domain == DOMAIN else {"LayerType": node.op_type}
        layers.append({"Name": node.name, **kind})
    names = [value.name for value in _tensors(engine)]
    bindings: dict[str, Any] = {"Bindings": names}
    if major(trt) >= 11:
        bindings = {"I/O Tensors": [{"Name": n, "IOMode": _mode(engine, n).name.title()} for n in names]}
    return json.dumps({"Layers": layers, **bindings})


def _create_context(engine: Any, *how: Any) -> Any:
    return engine.state.trt.create("IExecutionContext", owner=engine, shapes={}, addresses={}, stale=True, chosen=0)


def _choose_profile(context: Any, index: int, stream: int) -> bool:
    """Every shape and address has to be given again afterwards."""
    if stream == 0 or index > len(context.state.owner.state.others):
        return False
    context.state.chosen, context.state.shapes = index, {}
    return True


def _set_input_shape(context: Any, name: str, shape: Any) -> bool:
    engine = context.state.owner
    own = list(_shape(engine, name))
    low, _, high = _profile_shape(engine, name, context.state.chosen) if -1 in own else (own, own, own)
    fits = len(shape) == len(low) and all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True))
    if fits:
        context.state.shapes[name], context.state.stale = list(shape), True
    return fits


def _context_shape(context: Any, name: str) -> Any:
    engine = context.state.owner
    shape = context.state.shapes.get(name) or list(_shape(engine, name))
    if shape[0] == -1 and context.state.shapes:
        shape[0] = next(iter(context.state.shapes.values()))[0]
    return engine.state.trt.Dims(shape)


def _infer_shapes(context: Any) -> list[str]:
    return [
        value.name for value in context.state.owner.state.model.graph.input if value.name not in context.state.shapes
    ]


def _set_address(context: Any, name: str, address: int) -> bool:
    context.state.addresses[name] = address
    return any(value.name == name for value in _tensors(context.state.owner))


def _execute(context: Any, stream: int) -> bool:
    """Run the model on the memory behind the addresses; False where a shape or an address is missing."""
    engine, graph = context.state.owner, context.state.owner.state.model.graph
    if stream == 0 or _infer_shapes(context) or any(v.name not in context.state.addresses for v in _tensors(engine)):
        return False
    feeds = {value.name: _view(context, value.name) for value in graph.input}
    for name, result in _run(engine, feeds).items():
        _view(context, name)[...] = result
    context.state.stale = False
    return True


def _view(context: Any, name: str) -> np.ndarray:
    shape = tuple(_context_shape(context, name))
    dtype = np.dtype({"FLOAT": "f4", "HALF": "f2", "INT64": "i8"}[_dtype(context.state.owner, name).name])
    size = int(np.prod(shape)) * dtype.itemsize
    memory = (ctypes.c_ubyte * size).from_address(context.state.addresses[name])
    return np.frombuffer(memory, dtype).reshape(shape)


def _run(engine: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = _session(portable(engine.state.model).SerializeToString(deterministic=True))
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@functools.lru_cache(maxsize=4)  # many tests build an engine of one network
def _session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


# ── plugins ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _registry(owner: Any) -> Any:
    return owner.state.trt.create("IPluginRegistry")


def _load_library(registry: Any, path: str) -> Any:
    """The library of this project, which holds one plugin; None when that is registered already."""
    creator = (NAME, "1", DOMAIN)
    if creator in registry.state.trt.creators:
        return None
    registry.state.trt.creators.add(creator)
    return path


def _get_creator(registry: Any, name: str, version: str, namespace: str) -> Any:
    return (name, version, namespace) if (name, version, namespace) in registry.state.trt.creators else None


BEHAVIOURS = {
    "Builder.create_network": _create_network,
    "Builder.create_builder_config": _create_config,
    "Builder.create_optimization_profile": lambda builder: builder.state.trt.create("IOptimizationProfile", shapes={}),
    "Builder.build_serialized_network": _build,
    "Builder.get_plugin_registry": _registry,
    "Runtime.get_plugin_registry": _registry,
    "get_plugin_registry": lambda trt: trt.create("IPluginRegistry"),
    "OnnxParser.__init__": _parser,
    "OnnxParser.parse": _parse,
    "OnnxParser.parse_from_file": _parse_from_file,
    "OnnxParser.num_errors": lambda parser: len(parser.state.errors),
    "OnnxParser.get_error": lambda parser, index: parser.state.errors[index],
    "ParserError.code": lambda error: error.state.trt.ErrorCode.UNSUPPORTED_NODE,
    "ParserError.desc": lambda error: error.state.text,
    "ParserError.node": lambda error: error.state.index,
    "ParserError.node_name": lambda error: error.state.node,
    "ParserError.node_operator": lambda error: error.state.operator,
    "ParserError.file": lambda error: "ModelImporter.cpp",
    "ParserError.func": lambda error: "parseNode",
    "ParserError.line": lambda error: 1,
    "ParserError.local_function_stack": lambda error: list(error.state.stack),
    "ParserError.local_function_stack_size": lambda error: len(error.state.stack),
    "IOptimizationProfile.set_shape": _set_shape,
    "IBuilderConfig.add_optimization_profile": _add_profile,
    "IBuilderConfig.create_timing_cache": _create_timing_cache,
    "IBuilderConfig.set_timing_cache": _set_timing_cache,
    "IBuilderConfig.get_timing_cache": lambda config: config.state.cache,
    "ITimingCache.serialize": lambda cache: _memory(cache.state.trt, TIMING + cache.state.entries),
    "ITimingCache.combine": _combine,
    "IHostMemory.nbytes": len,
    "Dims.__init__": _dims,
    "Runtime.deserialize_cuda_engine": _deserialize,
    "ICudaEngine.num_io_tensors": lambda engine: len(_tensors(engine)),
    "ICudaEngine.num_layers": lambda engine: len(engine.state.model.graph.node),
    "ICudaEngine.num_optimization_profiles": lambda engine: 1 + len(engine.state.others),
    "ICudaEngine.device_memory_size_v2": lambda engine: 1 << 20,
    "ICudaEngine.get_tensor_name": lambda engine, index: _tensors(engine)[index].name,
    "ICudaEngine.get_tensor_mode": _mode,
    "ICudaEngine.get_tensor_shape": _shape,
    "ICudaEngine.get_tensor_dtype": _dtype,
    "ICudaEngine.get_tensor_profile_shape": _profile_shape,
    "ICudaEngine.get_tensor_location": lambda engine, name: engine.state.trt.TensorLocation.DEVICE,
    "ICudaEngine.is_shape_inference_io": lambda engine, name: False,
    "ICudaEngine.create_engine_inspector": lambda engine: engine.state.trt.create("EngineInspector", engine=engine),
    "ICudaEngine.create_execution_context": _create_context,
    "EngineInspector.get_engine_information": _information,
    "IExecutionContext.engine": lambda context: context.state.owner,
    "IExecutionContext.set_optimization_profile_async": _choose_profile,
    "IExecutionContext.set_input_shape": _set_input_shape,
    "IExecutionContext.get_tensor_shape": _context_shape,
    "IExecutionContext.infer_shapes": _infer_shapes,
    "IExecutionContext.set_tensor_address": _set_address,
    "IExecutionContext.get_tensor_address": lambda context, name: context.state.addresses.get(name, 0),
    "IExecutionContext.execute_async_v3": _execute,
    "IPluginRegistry.load_library": _load_library,
    "IPluginRegistry.get_creator": _get_creator,
    "Logger.log": lambda logger, severity, text: None,
    "ILogger.log": lambda logger, severity, text: None,
}
