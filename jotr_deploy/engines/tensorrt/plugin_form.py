"""Choice of the sampling implementation in an engine: one a process, because TensorRT registers a name only once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from jotr_deploy.engines.tensorrt.build import BuildError
from jotr_deploy.engines.tensorrt.onnx_copy import sampling_nodes
from jotr_deploy.plugins import DOMAIN, NAME, VERSION
from jotr_deploy.support.aliases import Say
from jotr_deploy.support.choices import Plugin


def default_plugin(trt: Any, model: onnx.ModelProto, say: Say) -> Plugin:
    """Default sampling implementation: the kernel inside the engine, else the library, else standard operators."""
    from jotr_deploy.plugins.library import find_library

    if not sampling_nodes(model):
        return "none"
    if _takes_kernels(trt):
        return "aot"
    if find_library() is not None:
        return "library"
    say(
        "sampling by standard operators, which is slower: kernels inside an engine need TensorRT 10.9 and NVRTC, "
        "and no plugin library is built (jotr-deploy plugins build)"
    )
    return "none"


def _takes_kernels(trt: Any) -> bool:
    """True if TensorRT supports kernels inside engines and NVRTC answers: its bindings come without the library."""
    from jotr_deploy.plugins.kernel import nvrtc_version

    takes = hasattr(trt.NetworkDefinitionCreationFlag, "PREFER_AOT_PYTHON_PLUGINS")
    return takes and nvrtc_version() is not None


def register(trt: Any, model: onnx.ModelProto, plugin: Plugin) -> tuple[str, Path | None]:
    """Make the plugin known to TensorRT in this process.

    Returns:
        Its namespace there, and the library if it comes from one.

    Raises:
        BuildError: the network has no node for it, or TensorRT does not take it.
        MissingDependency, SessionError: the plugin is not available, or the other one is registered already.
    """
    if plugin == "none":
        return DOMAIN, None
    if not sampling_nodes(model):
        raise BuildError(
            f"the network was exported with --sampling inline: it has no node for --plugin {plugin}",
            "use --plugin none, or export the bundle with --sampling function",
        )
    registry, library = trt.get_plugin_registry(), None
    if plugin == "aot":
        from jotr_deploy.plugins.qdp import register as register_kernel

        register_kernel()
    else:
        library = _load_library(trt, registry)
    namespace = _namespace(registry)
    if namespace is None:
        raise BuildError(
            f"TensorRT does not find {DOMAIN}::{NAME} after the plugin was registered",
            "use --plugin none; report this with the versions of `doctor`",
        )
    return namespace, library


def _load_library(trt: Any, registry: Any) -> Path:
    from jotr_deploy.plugins.library import need_library

    library = need_library()
    if _registered_from_python(trt, registry):
        raise BuildError(
            f"{DOMAIN}::{NAME} is registered already, as a kernel inside the engine",
            "use --plugin aot, or a process that has not registered it",
        )
    if _namespace(registry) is None and registry.load_library(str(library)) is None:
        raise BuildError(
            f"{library}: TensorRT does not load it; it belongs to another TensorRT, CUDA or processor",
            "build it again: jotr-deploy plugins build",
        )
    return library


def _registered_from_python(trt: Any, registry: Any) -> bool:
    quick = getattr(trt, "IPluginCreatorV3Quick", None)  # 10.6 and later
    return quick is not None and isinstance(registry.get_creator(NAME, str(VERSION), DOMAIN), quick)


def _namespace(registry: Any) -> str | None:
    """Namespace under which the plugin is registered, or None; up to 10.9 a library's may be empty."""
    for namespace in (DOMAIN, ""):
        if registry.get_creator(NAME, str(VERSION), namespace) is not None:
            return namespace
    return None
