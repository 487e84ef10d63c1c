"""The fakes are as strict as the bindings: a wrong name, type or order fails, and what is kept alive is seen."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from contracts.fakes import VERSIONS, Signature, dump, fake_tensorrt


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> Any:
    with fake_tensorrt(request.param) as module:
        yield module


def test_the_module_is_the_one_that_is_imported_and_goes_again(trt: Any) -> None:
    import tensorrt  # type: ignore[import-not-found]

    assert tensorrt is trt
    assert tensorrt.__version__ == dump(".".join(trt.__version__.split(".")[:2]))["version"]


def test_nothing_is_left_in_the_interpreter() -> None:
    with fake_tensorrt():
        pass
    assert "tensorrt" not in sys.modules


@pytest.mark.parametrize(
    ("misuse", "kind"),
    [
        (lambda trt, b, n, c: trt.Bilder, AttributeError),
        (lambda trt, b, n, c: trt.IBuilderConfig(), TypeError),  # the builder makes it
        (lambda trt, b, n, c: trt.Builder(None), TypeError),
        (lambda trt, b, n, c: trt.BuilderFlag.NOTHING, AttributeError),
        (lambda trt, b, n, c: 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED, TypeError),
        (lambda trt, b, n, c: b.create_network(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED), TypeError),
        (lambda trt, b, n, c: b.build_serialized_network(n), TypeError),
        (lambda trt, b, n, c: b.build_serialized_network(network=n, configuration=c), TypeError),
        (lambda trt, b, n, c: c.set_timing_cache(b"", False), TypeError),
        (lambda trt, b, n, c: c.create_timing_cache("text"), TypeError),
        (lambda trt, b, n, c: setattr(c, "optimization_level", 3), AttributeError),
        (lambda trt, b, n, c: setattr(c, "builder_optimization_level", "3"), TypeError),
        (lambda trt, b, n, c: setattr(c, "builder_optimization_level", True), TypeError),
        (lambda trt, b, n, c: setattr(n, "num_inputs", 3), AttributeError),
        (lambda trt, b, n, c: trt.OnnxParser(n, trt.Logger()).parse_from_file(b"m.onnx"), TypeError),
        (lambda trt, b, n, c: setattr(c, "progress_monitor", forgetful(trt)), TypeError),
    ],
)
def test_misuse_fails_as_in_the_bindings(trt: Any, misuse: Any, kind: type[Exception]) -> None:
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    with pytest.raises(kind):
        misuse(trt, builder, network, builder.create_builder_config())


def forgetful(trt: Any) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            """Without the base's constructor there is nothing that TensorRT could call."""

    return Monitor()


def test_calls_are_recorded_with_their_arguments(trt: Any) -> None:
    config = trt.Builder(trt.Logger()).create_builder_config()
    config.builder_optimization_level = 4
    config.set_memory_pool_limit(pool=trt.MemoryPoolType.WORKSPACE, pool_size=7)
    assert trt.calls[-2:] == ["IBuilderConfig.builder_optimization_level=", "IBuilderConfig.set_memory_pool_limit"]
    assert trt.arguments["IBuilderConfig.set_memory_pool_limit"][0]["pool_size"] == 7
    assert config.builder_optimization_level == 4


def test_a_callback_that_nobody_keeps_is_gone(trt: Any) -> None:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

    config = trt.Builder(trt.Logger()).create_builder_config()
    config.progress_monitor = Monitor()
    assert config.progress_monitor is None


def test_what_is_not_released_is_seen(trt: Any) -> None:
    builder = trt.Builder(trt.Logger())
    config = builder.create_builder_config()
    assert trt.alive() == {"Builder": 1, "IBuilderConfig": 1}
    del builder, config
    assert trt.alive() == {}


def test_a_behaviour_can_be_replaced() -> None:
    with fake_tensorrt("10.3", {"Runtime.deserialize_cuda_engine": lambda runtime, plan: None}) as trt:
        assert trt.Runtime(trt.Logger()).deserialize_cuda_engine(b"plan") is None


@pytest.mark.parametrize(
    ("text", "names", "returns"),
    [
        ("() -> None", [], "None"),
        ("(flags: int = 0) -> INetworkDefinition", ["flags"], "INetworkDefinition"),
        ("(name: str, shape: Sequence[int]) -> bool", ["name", "shape"], "bool"),
        ("(type: str, version: str, plugin_namespace: str = '') -> object", ["type", "version", "plugin_namespace"],
         "object"),
    ],
)  # fmt: skip
def test_signatures_are_understood(text: str, names: list[str], returns: str) -> None:
    signature = Signature.parse(text)
    assert ([parameter.name for parameter in signature.parameters], signature.returns) == (names, returns)
