"""`build_engine` against strict fakes of TensorRT and CUDA: what it asks for, in which order, what it keeps.

The fakes run the network in ONNX Runtime where TensorRT would; nothing here says anything of TensorRT's numbers.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import onnx
import pytest
from contracts import healthy
from contracts.fakes import VERSIONS
from engines.tensorrt.fake_machine import LIBRARY, content, with_network
from tiny import TINY

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.engines import verify
from jotr_deploy.engines.tensorrt import plugin_form
from jotr_deploy.engines.tensorrt.build import BuildError
from jotr_deploy.engines.tensorrt.engine import Options, build_engine, check_network, plan_network
from jotr_deploy.engines.tensorrt.onnx_copy import sampling_nodes
from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.plugins import NAME, kernel, library
from jotr_deploy.plugins.onnx_function import inline
from jotr_deploy.runtime.sessions import open_session, tensorrt_engine
from jotr_deploy.runtime.sessions.tensorrt_engine import header_and_plan
from jotr_deploy.support.precisions import Precision

BATCH = (1, 2, 3)


@pytest.mark.parametrize(("version", "plugin"), [*((version, "library") for version in VERSIONS),
                                                 ("10.3", "none"), ("10.9", "aot"), ("11.4", "aot")])  # fmt: skip
def test_an_engine_joins_the_bundle(bundle: Bundle, machine: Any, version: str, plugin: Any) -> None:
    with machine(version) as m:
        built = build_engine(bundle, precision="fp32", batch=BATCH, plugin=plugin)
        assert m.trt.alive() == {}
        entry = open_bundle(bundle.path).entry("mesh", "mesh.fp32.sm87.engine")
        assert entry == built.bundle.entry("mesh", "mesh.fp32.sm87.engine")
        assert (entry.precision, entry.backend, entry.batch) == ("fp32", "tensorrt", "1:2:3")
        assert entry.built_with == {**tensorrt_engine.environment(), "plugin": plugin}
        assert entry.error_mm is not None
        assert entry.error_mm.max < 0.1
        assert {row.batch for row in built.differences} == set(BATCH)
        nodes = 0 if plugin == "none" else len(sampling_nodes(onnx.load(bundle.file("mesh"))))
        assert built.layers.plugin == nodes
        assert built.layers.tensors[:3] == ("image", "joints", "joints_mask")
        copy = onnx.load(built.copy)
        assert not copy.functions
        assert len(sampling_nodes(copy)) == nodes
        assert built.bundle.file("mesh").name == "mesh.onnx"  # still the one `run` takes when nobody says otherwise
        assert not [name for name in content(bundle.path) if name.startswith(".")]


def test_the_builder_is_told_everything_in_order(bundle: Bundle, machine: Any) -> None:
    with machine() as m:
        build_engine(
            bundle, precision="fp32", batch=BATCH, plugin="library", workspace_bytes=1 << 20, optimization_level=1
        )
        told = [call for call in m.trt.calls if not call.startswith(("IPluginRegistry", "ICudaEngine", "IExecution"))]
        start = told.index("Builder.__init__")
        assert told[start : told.index("EngineInspector.get_engine_information") + 1] == [
            "Builder.__init__",
            "Builder.create_network",
            "OnnxParser.__init__",
            "OnnxParser.parse",
            "Builder.create_builder_config",
            "Builder.create_optimization_profile",
            "IOptimizationProfile.set_shape",
            "IOptimizationProfile.set_shape",
            "IOptimizationProfile.set_shape",
            "IBuilderConfig.add_optimization_profile",
            "IBuilderConfig.set_memory_pool_limit",
            "IBuilderConfig.builder_optimization_level=",
            "IBuilderConfig.profiling_verbosity=",
            "IBuilderConfig.clear_flag",
            "IBuilderConfig.progress_monitor=",
            "IBuilderConfig.create_timing_cache",
            "IBuilderConfig.set_timing_cache",
            "Builder.build_serialized_network",
            "IBuilderConfig.get_timing_cache",
            "ITimingCache.serialize",
            "Runtime.__init__",
            "Runtime.deserialize_cuda_engine",
            "EngineInspector.get_engine_information",
        ]
        side = TINY.crop_side
        shapes = {given["input"]: given for given in m.trt.arguments["IOptimizationProfile.set_shape"]}
        assert shapes["image"] == {
            "input": "image", "min": (1, 3, side, side), "opt": (2, 3, side, side), "max": (3, 3, side, side),
        }  # fmt: skip
        assert shapes["joints_mask"]["max"] == (3, 30)
        pool = m.trt.arguments["IBuilderConfig.set_memory_pool_limit"]
        assert pool == [{"pool": m.trt.MemoryPoolType.WORKSPACE, "pool_size": 1 << 20}]
        assert m.trt.arguments["IBuilderConfig.clear_flag"] == [{"flag": m.trt.BuilderFlag.TF32}]


def test_the_engine_is_built_on_the_gpu_that_is_current(bundle: Bundle, machine: Any) -> None:
    """Also in the thread that builds, where CUDA would start with the first one."""
    built_on = []

    def build(builder: Any, network: Any, config: Any, *more: Any) -> Any:
        built_on.append(m.device_of.get(threading.current_thread()))
        return healthy._build(builder, network, config)

    with machine(overrides={"Builder.build_serialized_network": build}) as m:
        m.device = 3
        build_engine(bundle, precision="fp32", batch=(1, 1, 1), plugin="none")
    assert built_on == [3]


def test_fp16_is_written_into_the_network(bundle: Bundle, machine: Any) -> None:
    with machine():
        built = build_engine(bundle, precision="fp16", batch=(1, 1, 1), plugin="aot")
        kinds = {tensor.data_type for tensor in onnx.load(built.copy).graph.initializer}
        assert built.engine.name == "mesh.fp16.sm87.engine"
        assert onnx.TensorProto.FLOAT16 in kinds


def test_the_engine_answers_until_the_machine_changes(bundle: Bundle, machine: Any) -> None:
    with machine("10.16"):
        built = build_engine(bundle, precision="fp32", batch=BATCH, plugin="none")
        with open_session(built.engine) as session:
            found = session(verify.random_crops(TINY, 2))
        assert found["vertices"].shape == (2, 6890, 3)
    with machine("11.4") as m:
        with pytest.raises(SessionError) as caught:
            open_session(built.engine)
        assert "built with TensorRT 10.16.1.11, this machine has 11.4.0.106" in caught.value.cause
        assert "Runtime.deserialize_cuda_engine" not in m.trt.calls


@pytest.mark.parametrize("version", VERSIONS)
def test_several_batches_have_a_profile_each(bundle: Bundle, machine: Any, version: str) -> None:
    with machine(version) as m:
        built = build_engine(bundle, precision="fp32", batch=((1, 1, 1), (2, 3, 3)), plugin="none")
        entry = built.bundle.entry("mesh", built.engine.name)
        assert m.trt.calls.count("IBuilderConfig.add_optimization_profile") == 2
        assert entry.batch == "1,3"
        assert {row.batch for row in built.differences} == {1, 2, 3}
        assert header_and_plan(built.engine.read_bytes())[0] == {}  # trtexec and Polygraphy open the file itself
        assert "--profile=1" in built.trtexec
        with open_session(built.engine) as session:
            assert session(verify.random_crops(TINY, 4))["vertices"].shape == (4, 6890, 3)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_for_every_gpu_of_a_capability(bundle: Bundle, machine: Any, version: str) -> None:
    with machine(version) as m:
        if version == "10.3":
            with pytest.raises(BuildError) as caught:
                build_engine(bundle, precision="fp32", batch=(1, 1, 1), plugin="none", portable="same-capability")
            assert caught.value.cause.startswith("--portable same-capability needs TensorRT 10.9, this is 10.3")
            return
        built = build_engine(bundle, precision="fp32", batch=(1, 1, 1), plugin="none", portable="same-capability")
        (told,) = m.trt.arguments["IBuilderConfig.hardware_compatibility_level="]
        assert told["value"] == m.trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
        assert built.bundle.entry("mesh", built.engine.name).built_with["portable"] == "same-capability"


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_for_later_versions(bundle: Bundle, machine: Any, version: str) -> None:
    with machine(version) as m:
        built = build_engine(bundle, precision="fp32", batch=(1, 1, 1), portable="version")
        assert m.trt.arguments["IBuilderConfig.set_flag"] == [{"flag": m.trt.BuilderFlag.VERSION_COMPATIBLE}]
        assert built.plugin == "none"
        assert m.trt.calls.count("Runtime.engine_host_code_allowed=") == 2  # inspected, and verified


def test_attention_in_one_node_is_another_file(bundle: Bundle, machine: Any) -> None:
    with machine("10.16"):
        usual = build_engine(bundle, precision="fp32", batch=(1, 1, 1), plugin="none")
        built = build_engine(usual.bundle, precision="fp32", batch=(1, 1, 1), plugin="none", attention=True)
        assert built.engine.name == "mesh.fp32.attention.sm87.engine"
        assert usual.engine.is_file()
        operators = [node.op_type for node in onnx.load(built.copy).graph.node]
        assert operators.count("Attention") > 1
        assert "Softmax" not in [node.op_type for node in onnx.load(built.copy).graph.node if "attn" in node.name]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(
    ("target", "rules"),
    [
        ((10, 14), set()),
        ((11, 4), set()),
        (None, set()),  # for the versions that have it
    ],
)
def test_attention_in_one_node_breaks_no_rule(bundle: Bundle, precision: str, target: Any, rules: set[str]) -> None:
    assert {found.rule for found in check_network(bundle, precision, "none", target, attention=True)} == rules


@pytest.mark.parametrize("version", ["10.3", "10.9"])
def test_attention_in_one_node_needs_a_parser_that_knows_it(bundle: Bundle, machine: Any, version: str) -> None:
    major, minor = version.split(".")
    with pytest.raises(BuildError) as checked:
        check_network(bundle, "fp32", "none", (int(major), int(minor)), attention=True)
    assert checked.value.cause == f"--attention: TensorRT {version} does not have ONNX's operator Attention"
    assert checked.value.remedy == "leave --attention out; it is for TensorRT 10.14 and newer"
    with machine(version) as m, pytest.raises(BuildError) as built:
        build_engine(bundle, precision="fp32", attention=True)
    assert (built.value.cause, built.value.remedy) == (checked.value.cause, checked.value.remedy)
    assert m.trt.calls == []


def test_progress_is_passed_on(bundle: Bundle, machine: Any) -> None:
    heard: list[tuple[str, str | None, int, int]] = []
    with machine():
        build_engine(
            bundle, precision="fp32", batch=(1, 1, 1), plugin="none", progress=lambda *step: heard.append(step)
        )
    assert heard == [
        ("Building Engine", None, 0, 2),
        ("Tactic Selection", "Building Engine", 0, 3),
        ("Tactic Selection", "Building Engine", 1, 3),
        ("Tactic Selection", "Building Engine", 2, 3),
        ("Tactic Selection", "Building Engine", 3, 3),
        ("Tactic Selection", "Building Engine", 3, 3),
        ("Building Engine", None, 1, 2),
        ("Building Engine", None, 2, 2),
        ("Building Engine", None, 2, 2),
    ]


def test_a_second_build_replaces_the_first(bundle: Bundle, machine: Any) -> None:
    with machine():
        once = build_engine(bundle, precision="fp32", batch=(1, 1, 1), plugin="none").bundle
        again = build_engine(once, precision="fp32", batch=BATCH, plugin="none").bundle
    engines = [entry for entry in again.manifest.files if entry.name.endswith(".engine")]
    assert [entry.batch for entry in engines] == ["1:2:3"]


# ── before any GPU is touched ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("precision", "option"), [("int8", ""), ("fp8", " --precision fp8")])
def test_a_network_that_is_not_calibrated(bundle: Bundle, precision: str, option: str) -> None:
    with pytest.raises(BundleError) as caught:
        build_engine(bundle, precision=precision)
    assert caught.value.cause == f"{bundle.path}: no network in it is calibrated for {precision}"
    assert caught.value.remedy == f"jotr-deploy calibrate {bundle.path} --synthetic 256{option}"


@pytest.mark.parametrize(
    ("precision", "capability", "instead"),
    [("bf16", "7.5", "fp16"), ("fp8", "7.5", "int8 or fp16"), ("fp8", "8.7", "int8 or fp16")],
)
def test_a_gpu_that_lacks_the_type(
    bundle: Bundle, machine: Any, monkeypatch: pytest.MonkeyPatch, precision: str, capability: str, instead: str
) -> None:
    here = {"tensorrt": "10.16.1.11", "gpu": "Some GPU", "capability": capability}
    monkeypatch.setattr("jotr_deploy.engines.tensorrt.engine.environment", lambda: here)
    with machine() as m:
        with pytest.raises(BuildError) as caught:
            plan_network(onnx.load(bundle.file("mesh")), Precision(precision), (1, 1, 1), Options(plugin="none"))
        assert caught.value.cause == f"Some GPU (compute capability {capability}) has no {precision}"
        assert caught.value.remedy == f"build {instead}"
        assert "Builder.__init__" not in m.trt.calls


def test_a_network_that_breaks_a_rule_never_reaches_the_gpu(bundle: Bundle, machine: Any) -> None:
    model = onnx.load(bundle.file("mesh"))
    next(node for node in model.graph.node if node.op_type == "Sin").op_type = "Bernoulli"
    broken = with_network(bundle, model)
    assert {finding.rule for finding in check_network(broken, "fp32")} == {"operators"}
    with machine() as m:
        with pytest.raises(BuildError, match=r"\(Bernoulli\): the parser has no such operator"):
            build_engine(broken, precision="fp32", plugin="none")
        assert m.gpu.calls == []
        assert "Builder.__init__" not in m.trt.calls


def test_check_only_needs_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    for precision in ("fp32", "fp16", "bf16"):
        for plugin in (None, "none"):
            assert check_network(bundle, precision, plugin) == []


# ── who samples ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("version", "nvrtc", "found", "chosen"),
    [
        ("10.3", True, LIBRARY, "library"),
        ("10.3", True, None, "none"),
        ("10.9", True, LIBRARY, "aot"),
        ("11.4", False, LIBRARY, "library"),
        ("11.4", False, None, "none"),
    ],
)
def test_the_first_plugin_that_is_there(
    bundle: Bundle, machine: Any, monkeypatch: pytest.MonkeyPatch, version: str, nvrtc: bool, found: Any, chosen: str
) -> None:
    said: list[str] = []
    with machine(version) as m:
        monkeypatch.setattr(kernel, "nvrtc_version", lambda: (13, 0) if nvrtc else None)
        monkeypatch.setattr(library, "find_library", lambda: found)
        model = onnx.load(bundle.file("mesh"))
        assert plugin_form.default_plugin(m.trt, model, said.append) == chosen
    assert ("standard operators, which is slower" in " ".join(said)) == (chosen == "none")


def test_an_older_registry_files_the_library_under_no_name(bundle: Bundle, machine: Any) -> None:
    def load(registry: Any, path: str) -> str:
        registry.state.trt.creators.add((NAME, "1", ""))
        return path

    with machine("10.3", {"IPluginRegistry.load_library": load}):
        built = build_engine(bundle, precision="fp32", batch=(1, 1, 1), plugin="library")
        node = sampling_nodes(onnx.load(built.copy))[0]
    assert {attribute.name: attribute.s.decode() for attribute in node.attribute} == {
        "plugin_namespace": "",
        "plugin_version": "1",
    }


def test_a_library_that_this_process_has_is_not_loaded_again(bundle: Bundle, machine: Any) -> None:
    with machine() as m:
        for _ in range(2):
            bundle = build_engine(bundle, precision="fp32", batch=(1, 1, 1), plugin="library").bundle
        assert m.trt.arguments["IPluginRegistry.load_library"] == [{"plugin_path": str(LIBRARY)}]


def test_an_inlined_export_has_nothing_for_a_plugin(bundle: Bundle, machine: Any) -> None:
    inlined = with_network(bundle, inline(onnx.load(bundle.file("mesh"))))
    with machine("10.9"):
        with pytest.raises(BuildError, match="it has no node for --plugin aot"):
            build_engine(inlined, precision="fp32", plugin="aot")
        assert build_engine(inlined, precision="fp32", batch=(1, 1, 1)).plugin == "none"


def test_a_network_without_a_body(bundle: Bundle, machine: Any) -> None:
    model = onnx.load(bundle.file("mesh"))
    kept = [value for value in model.graph.output if value.name in ("pose", "betas")]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    with machine():
        built = build_engine(with_network(bundle, model), precision="fp32", batch=(1, 1, 1), plugin="none")
    assert built.bundle.entry("mesh", built.engine.name).error_mm is None
