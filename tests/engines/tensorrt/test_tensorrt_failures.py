"""Every step of `build_engine` can fail: the message is clear, nothing is kept, everything is released."""

from __future__ import annotations

import _thread
import errno
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contracts import healthy
from engines.tensorrt.fake_machine import LIBRARY, Machine, content

from jotr_deploy.bundle import Bundle
from jotr_deploy.engines.tensorrt.build import BuildError
from jotr_deploy.engines.tensorrt.engine import build_engine
from jotr_deploy.errors import JotrDeployError, MissingDependency, OutputError, SessionError, VerificationError
from jotr_deploy.plugins import NAME

BATCH = (1, 2, 3)


def no_builder(m: Machine) -> dict[str, Any]:
    def refuse(builder: Any, logger: Any) -> None:
        m.log("CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    return {"Builder.__init__": refuse}


def parse_errors(*errors: Any) -> Any:
    def faults(m: Machine) -> dict[str, Any]:
        def parse(parser: Any, model: bytes, path: Any) -> bool:
            parser.state.errors = [healthy.parser_error(m.trt, *error) for error in errors]
            return False

        return {"OnnxParser.parse": parse}

    return faults


def null_plan(m: Machine) -> dict[str, Any]:
    def build(builder: Any, network: Any, config: Any, *more: Any) -> None:
        m.log("Error Code 10: Internal Error (Could not find any implementation for node\n fusion.decoder/Softmax.)")

    return {"Builder.build_serialized_network": build}


def wrong_shape(m: Machine) -> dict[str, Any]:
    def refuse(*arguments: Any) -> None:
        raise ValueError("Shape provided for min is inconsistent")

    return {"IOptimizationProfile.set_shape": refuse}


def wrong_numbers(m: Machine) -> dict[str, Any]:
    def execute(context: Any, stream: int) -> bool:
        def run() -> None:
            healthy._execute(context, stream)
            healthy._view(context, "vertices")[...] += 0.01

        m.gpu.queue(stream, run)
        return True

    return {"IExecutionContext.execute_async_v3": execute}


def registered_as_kernel(m: Machine) -> dict[str, Any]:
    return {"IPluginRegistry.get_creator": lambda *name: m.trt.create("IPluginCreatorV3Quick")}


def always(name: str, answer: Any) -> Any:
    return lambda m: {name: lambda *arguments: answer}


LOOK = "jotr-deploy build-engine BUNDLE --check-only looks for the cause without a GPU; else report this with `doctor`"
RANGE = "give --batch MIN:OPT:MAX, such as 1:4:16"

FAILURES = {
    "no builder": (no_builder, BuildError,
        "TensorRT does not start (CUDA initialization failure with error: 35)",
        "jotr-deploy doctor shows the driver, CUDA and TensorRT here"),
    "parse error": (parse_errors((7, "heads.root/Atan", "Atan", "no importer\nfor it"), (9, "b", "B", "c")), BuildError,
        "TensorRT cannot parse heads.root/Atan [Atan]: UNSUPPORTED_NODE: no importer for it (and 1 more)", LOOK),
    "parse error in a function": (parse_errors((3, "", "CastLike", "unknown type", ("Outer", "Inner"))), BuildError,
        "TensorRT cannot parse node 3 [CastLike] in Outer > Inner: UNSUPPORTED_NODE: unknown type", LOOK),
    "parse error at an input": (parse_errors((-1, "", "", "bad type")), BuildError,
        "TensorRT cannot parse input ModelImporter.cpp: UNSUPPORTED_NODE: bad type", LOOK),
    "parse error at the plugin": (parse_errors((5, "fusion.decoder/TrilinearSample3D", NAME, "Plugin not found")),
        BuildError, "TensorRT cannot parse fusion.decoder/TrilinearSample3D [TrilinearSample3D]: UNSUPPORTED_NODE: "
        "Plugin not found", "use --plugin none, which needs no plugin"),
    "parse error without a word": (parse_errors(), BuildError,
        "TensorRT cannot parse the network: no reason given", LOOK),
    "plugin not registered": (always("IPluginRegistry.get_creator", None), BuildError,
        "TensorRT does not find jotr::TrilinearSample3D after the plugin was registered",
        "use --plugin none; report this with the versions of `doctor`"),
    "library refused": (always("IPluginRegistry.load_library", None), BuildError,
        f"{LIBRARY}: TensorRT does not load it; it belongs to another TensorRT, CUDA or processor",
        "build it again: jotr-deploy plugins build"),
    "plugin registered already": (registered_as_kernel, BuildError,
        "jotr::TrilinearSample3D is registered already, as a kernel inside the engine",
        "use --plugin aot, or a process that has not registered it"),
    "shape refused": (wrong_shape, BuildError,
        "TensorRT refuses the shapes (1, 3, 64, 64), (2, 3, 64, 64), (3, 3, 64, 64) of image: "
        "Shape provided for min is inconsistent", RANGE),
    "profile refused": (always("IBuilderConfig.add_optimization_profile", -1), BuildError,
        "TensorRT refuses the range of batch sizes: no reason given", RANGE),
    "null plan": (null_plan, BuildError,
        "TensorRT did not build the engine: Error Code 10: Internal Error (Could not find any implementation for node "
        "fusion.decoder/Softmax.)", LOOK),
    "null engine": (always("Runtime.deserialize_cuda_engine", None), BuildError,
        "TensorRT does not open the engine it has built (no reason given)", LOOK),
    "null context": (always("ICudaEngine.create_execution_context", None), SessionError, None, None),
    "wrong numbers": (wrong_numbers, VerificationError, None,
        "nothing was kept; report this with the versions of `doctor`"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_clear_and_keeps_nothing(bundle: Bundle, machine: Any, name: str) -> None:
    faults, kind, cause, remedy = FAILURES[name]
    before = content(bundle.path)
    with machine("11.4") as m:
        m.trt.behaviours.update(faults(m))
        with pytest.raises(JotrDeployError) as caught:
            build_engine(bundle, precision="fp32", batch=BATCH, plugin="library")
        assert type(caught.value) is kind
        assert cause is None or caught.value.cause == cause
        assert remedy is None or caught.value.remedy == remedy
        assert "\n" not in caught.value.cause
        assert content(bundle.path) == before
        assert m.trt.alive() == {}


def test_vertices_above_the_limit_are_named_in_millimetres(bundle: Bundle, machine: Any) -> None:
    with machine() as m:
        m.trt.behaviours.update(wrong_numbers(m))
        with pytest.raises(VerificationError, match=r"fp32 engine: vertices .* 17\.3 mm at batch 1, limit 0\.1 mm"):
            build_engine(bundle, precision="fp32", batch=(1, 1, 1), plugin="none")


def test_an_older_engine_survives_a_failure(bundle: Bundle, machine: Any) -> None:
    with machine() as m:
        old = build_engine(bundle, precision="fp32", batch=(1, 1, 1), plugin="none").bundle
        before = content(bundle.path)
        m.trt.behaviours.update(wrong_numbers(m))
        with pytest.raises(VerificationError):
            build_engine(old, precision="fp32", batch=(1, 1, 1), plugin="none")
        assert content(bundle.path) == before


def test_a_full_disk_keeps_nothing(bundle: Bundle, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before, write = content(bundle.path), Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".engine":
            write(path, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with machine(), pytest.raises(OutputError, match=r"engine: cannot be written \(No space left on device\)"):
        build_engine(bundle, precision="fp32", batch=BATCH, plugin="none")
    assert content(bundle.path) == before


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """A shell starts what runs in the background deaf to it, the tests too."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_cancels_the_build(bundle: Bundle, machine: Any) -> None:
    before, answers = content(bundle.path), []

    def build(builder: Any, network: Any, config: Any, *more: Any) -> None:
        config.progress_monitor.phase_start("Building Engine", None, 100)
        time.sleep(0.1)  # the main thread is waiting by now
        _thread.interrupt_main()
        for _ in range(200):
            answers.append(config.progress_monitor.step_complete("Building Engine", 0))
            if not answers[-1]:
                return
            time.sleep(0.01)

    with machine(overrides={"Builder.build_serialized_network": build}) as m:
        with pytest.raises(KeyboardInterrupt):
            build_engine(bundle, precision="fp32", batch=BATCH, plugin="none")
        assert answers[-1] is False
        assert m.trt.alive() == {}
    assert content(bundle.path) == before


def test_a_failing_progress_display_cancels_and_is_not_swallowed(bundle: Bundle, machine: Any) -> None:
    def progress(*step: Any) -> None:
        raise RuntimeError("terminal gone")

    with machine(), pytest.raises(RuntimeError, match="terminal gone"):
        build_engine(bundle, precision="fp32", batch=BATCH, plugin="none", progress=progress)


def test_without_tensorrt(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependency, match=r"pip install '\.\[tensorrt\]' in a clone of jotr-deploy"):
        build_engine(bundle, precision="fp32")


def test_without_the_reference_nothing_is_built(bundle: Bundle, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with machine() as m:
        with pytest.raises(MissingDependency, match="engines are verified against it"):
            build_engine(bundle, precision="fp32", plugin="none")
        assert m.trt.calls == []
