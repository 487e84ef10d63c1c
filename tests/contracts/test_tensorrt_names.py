"""Every TensorRT name, attribute and keyword of this package exists in every TensorRT it says it runs with."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from contracts.fakes import VERSIONS, Signature, dump
from contracts.uses import Use, uses_in

import jotr_deploy

PACKAGE = Path(jotr_deploy.__file__).parent
APIS = {version: dump(version) for version in VERSIONS}

# Names that are looked for before they are used, and the first of these versions that has them.
GUARDED = {
    "NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS": "10.9",
    "tensorrt.IPluginCreatorV3Quick": "10.9",
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": "10.9",
}


# A file that only runs from this version on.
GUARDED_FILES = {"qdp.py": "10.9"}


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "tensorrt" in path.read_text()]


@functools.cache
def uses() -> list[Use]:
    return [use for path in sources() for use in uses_in(path, APIS)]


def at_least(version: str, first: str) -> bool:
    return VERSIONS.index(version) >= VERSIONS.index(first)


def fault(api: dict[str, Any], use: Use) -> str | None:
    """What is wrong with a use in one version, or None."""
    if use.owner == "?":
        return "nobody knows what this is an attribute of: say it in RECEIVERS"
    if use.owner == "tensorrt":
        known = {*api["classes"], *api["functions"], *api["values"], "__version__", "plugin"}
        return None if use.name in known else "no such name"
    if use.owner == "tensorrt.plugin":
        name, _, member = use.name.partition(".")
        said = api["plugin"].get(name)
        return None if said and (not member or member in said["members"]) else "no such name"
    description = api["classes"].get(use.owner)
    if description is None:
        return "no such class"
    if "members" in description:
        return None if use.name in {*description["members"], "name"} else "no such member"
    if use.name in description["values"] or f"{use.owner}.{use.name}" in api["classes"]:
        return None
    if use.name in description["properties"]:
        read_only = use.kind == "write" and description["properties"][use.name].endswith("read only")
        return "it is read only" if read_only else "it is no method" if use.kind == "call" else None
    if use.name not in description["methods"]:
        return "no such attribute"
    if use.kind == "write":
        return "it is a method"
    return None if use.kind == "read" or callable_so(description["methods"][use.name], use) else "called otherwise"


def callable_so(overloads: list[str], use: Use) -> bool:
    for text in overloads:
        parameters = Signature.parse(text).parameters
        names = [parameter.name for parameter in parameters]
        if use.kind == "override":
            if names == list(use.keywords):
                return True
            continue
        if use.name == "__init__":
            return True
        given = [*names[: use.positional], *use.keywords]
        required = [parameter.name for parameter in parameters if parameter.default is None]
        if use.positional <= len(names) and set(use.keywords) <= set(names) and set(required) <= set(given):
            return True
    return False


@pytest.mark.parametrize("version", VERSIONS)
def test_every_use_is_there(version: str) -> None:
    faults = []
    for use in uses():
        first = GUARDED.get(f"{use.owner}.{use.name}") or GUARDED_FILES.get(use.file)
        if first and not at_least(version, first):
            continue
        if problem := fault(APIS[version], use):
            faults.append(f"{use}: {problem}")
    assert not faults, "\n".join(faults)


def test_the_guards_are_needed_and_end() -> None:
    """Each guarded name is used, absent from the version before, and there from the one it names on."""
    used = {f"{use.owner}.{use.name}" for use in uses()} | {use.owner for use in uses()}
    for name, first in GUARDED.items():
        owner, _, member = name.rpartition(".")
        assert name in used
        for version in VERSIONS:
            api = APIS[version]
            there = member in (api["classes"].get(owner, {}).get("members") or api["classes"])
            assert there == at_least(version, first), (name, version)


def test_what_is_found_is_what_the_builder_does() -> None:
    """The finder itself: a fixed point of the recipe, seen in the syntax tree with its owner and arguments."""
    found = {f"{use.owner}.{use.name}" for use in uses()}
    assert {
        "tensorrt.Builder",
        "Builder.create_network",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse",
        "ParserError.local_function_stack",
        "IOptimizationProfile.set_shape",
        "IBuilderConfig.add_optimization_profile",
        "IBuilderConfig.progress_monitor",
        "ITimingCache.combine",
        "IProgressMonitor.step_complete",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.get_tensor_profile_shape",
        "IExecutionContext.execute_async_v3",
        "EngineInspector.get_engine_information",
        "IPluginRegistry.load_library",
    } <= found


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("trt.Bilder(log)", "no such name"),
        ("trt.BuilderFlag.FP16", "no such member"),
        ("config.set_flags(1)", "no such attribute"),
        ("config.num_optimization_profiles = 2", "it is read only"),
        ("config.set_timing_cache(cache, ignore_missmatch=True)", "called otherwise"),
        ("config.set_timing_cache(cache)", "called otherwise"),
        ("config.builder_optimization_level(3)", "it is no method"),
        ("thing.set_memory_pool_limit(1, 2)", "nobody knows what this is an attribute of: say it in RECEIVERS"),
        ("trt.Builder(log).create_network(1, 2)", "called otherwise"),
        ("class M(trt.IProgressMonitor):\n    def step_complete(self, name, step): ...", "called otherwise"),
    ],
)
def test_a_wrong_name_is_caught(tmp_path: Path, line: str, problem: str) -> None:
    source = tmp_path / "wrong.py"
    source.write_text(line)
    assert problem in [fault(APIS["11.4"], use) for use in uses_in(source, APIS)]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_dumps_are_of_the_versions_they_say(version: str) -> None:
    assert APIS[version]["version"].startswith(version)
    assert ("plugin" in APIS[version]) == at_least(version, "10.9")
