"""Equivalent command lines of NVIDIA's own tools, to reproduce a build without this package."""

from __future__ import annotations

import shlex
from pathlib import Path

from jotr_deploy.engines.tensorrt.build import Recipe, Shapes
from jotr_deploy.support.choices import Plugin

_ENDS = ("min", "opt", "max")


def trtexec_command(copy: Path, engine: Path, recipe: Recipe, plugin: Plugin, library: Path | None = None) -> str:
    """`trtexec` command line for the same build from the TensorRT copy of the network.

    A kernel that goes into the engine is registered from Python, out of trtexec's reach: there the line times the
    engine that is already built.
    """

    def shapes(profile: Shapes, index: int) -> str:
        return ",".join(f"{name}:{'x'.join(map(str, shape[index]))}" for name, shape in profile.items())

    if plugin == "aot" and recipe.profiles:
        return shlex.join(["trtexec", f"--loadEngine={engine}", f"--shapes={shapes(recipe.profiles[0], 1)}"])
    words = ["trtexec", f"--onnx={copy}", f"--saveEngine={engine}", "--stronglyTyped", "--noTF32"]
    for number, profile in enumerate(recipe.profiles):
        words += [f"--profile={number}"] if len(recipe.profiles) > 1 else []
        words += [f"--{which}Shapes={shapes(profile, index)}" for index, which in enumerate(_ENDS)]
    words += [f"--builderOptimizationLevel={recipe.optimization_level}", "--profilingVerbosity=detailed"]
    words += [f"--timingCacheFile={recipe.timing_cache}"]
    if recipe.portable == "same-capability":
        words.append("--hardwareCompatibilityLevel=sameComputeCapability")
    if recipe.portable == "version":
        words.append("--versionCompatible")
    if recipe.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{recipe.workspace_bytes}B")
    if library is not None:
        words.append(f"--dynamicPlugins={library}")
    return shlex.join(words)


def polygraphy_command(copy: Path, engine: Path, recipe: Recipe, plugin: Plugin, library: Path | None = None) -> str:
    """Polygraphy's command line that compares the TensorRT copy in TensorRT and in ONNX Runtime, output by output.

    ONNX Runtime cannot run a copy with plugins: there the line runs the engine. Polygraphy leaves TF32 off by itself.
    """

    def shapes(profile: Shapes, index: int) -> list[str]:
        return [f"{name}:[{','.join(map(str, shape[index]))}]" for name, shape in profile.items()]

    feeds = ["--input-shapes", *shapes(recipe.profiles[0], 1)] if recipe.profiles else []
    if plugin != "none":
        loaded = [] if library is None else ["--plugins", str(library)]
        return shlex.join(["polygraphy", "run", str(engine), "--model-type", "engine", "--trt", *loaded, *feeds])
    words = ["polygraphy", "run", str(copy), "--trt", "--onnxrt", "--strongly-typed"]
    for profile in recipe.profiles:
        for index, which in enumerate(_ENDS):
            words += [f"--trt-{which}-shapes", *shapes(profile, index)]
    return shlex.join([*words, *feeds])
