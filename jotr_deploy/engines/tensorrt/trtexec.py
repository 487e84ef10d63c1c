"""Equivalent build by TensorRT's own tool, to reproduce it without this package."""

from __future__ import annotations

import shlex
from pathlib import Path

from jotr_deploy.engines.tensorrt.build import Recipe
from jotr_deploy.support.choices import Plugin


def trtexec_command(copy: Path, engine: Path, recipe: Recipe, plugin: Plugin, library: Path | None = None) -> str:
    """`trtexec` command line for the same build from the TensorRT copy of the network.

    A kernel that goes into the engine is registered from Python, out of trtexec's reach: there the line times the
    engine that is already built.
    """

    def shapes(index: int) -> str:
        return ",".join(f"{name}:{'x'.join(map(str, shape[index]))}" for name, shape in recipe.shapes.items())

    if plugin == "aot":
        return shlex.join(["trtexec", f"--loadEngine={engine}", f"--shapes={shapes(1)}"])
    words = ["trtexec", f"--onnx={copy}", f"--saveEngine={engine}", "--stronglyTyped", "--noTF32"]
    ends = ("min", "opt", "max") if recipe.shapes else ()
    words += [f"--{which}Shapes={shapes(index)}" for index, which in enumerate(ends)]
    words += [f"--builderOptimizationLevel={recipe.optimization_level}", "--profilingVerbosity=detailed"]
    words += [f"--timingCacheFile={recipe.timing_cache}"]
    if recipe.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{recipe.workspace_bytes}B")
    if library is not None:
        words.append(f"--dynamicPlugins={library}")
    return shlex.join(words)
