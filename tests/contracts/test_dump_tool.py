"""The tool that writes the dumps: one spelling for every version, and the committed files are what it writes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from contracts.fakes import VERSIONS, dump

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import dump_tensorrt_api as tool  # noqa: E402
from make_tensorrt_stub import library_for  # noqa: E402


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        (None, []),
        ("create_network(self: tensorrt_bindings.tensorrt.Builder, flags: int = 0) -> "
         "tensorrt_bindings.tensorrt.INetworkDefinition\n\n\nprose", ["(flags: int = 0) -> INetworkDefinition"]),
        ("create_network(self: tensorrt_bindings.tensorrt.Builder, flags: typing.SupportsInt = 0) -> "
         "tensorrt_bindings.tensorrt.INetworkDefinition", ["(flags: int = 0) -> INetworkDefinition"]),
        ("create_network(*args, **kwargs)\nOverloaded function.\n\n1. create_network(self: X) -> None\n\n"
         "2. create_network(self: X, a: typing_extensions.Buffer) -> bool", ["() -> None", "(a: buffer) -> bool"]),
        ("create_network(arg0: nvinfer1::X, arg1: List[int]) -> str", ["(arg1: Sequence[int]) -> str"]),
    ],
)  # fmt: skip
def test_docstrings_become_signatures(doc: str | None, expected: list[str]) -> None:
    assert tool.signatures(doc, "create_network") == expected


def test_an_enums_default_is_its_name() -> None:
    assert tool.spelled("strategy: A = <ExecutionContextAllocationStrategy.STATIC: 0>") == (
        "strategy: A = ExecutionContextAllocationStrategy.STATIC"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dump_is_small_and_sorted(version: str) -> None:
    text = Path(__file__).with_name(f"tensorrt-{version}.json").read_text()
    assert len(text) < 400_000
    assert text == json.dumps(dump(version), indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_dump_is_what_the_tool_writes(version: str) -> None:
    folder = os.environ.get("TENSORRT_WHEELS")
    wheels = sorted(Path(folder).glob(f"*bindings-{dump(version)['version']}-*.whl")) if folder else []
    if not wheels:
        pytest.skip(
            f"set TENSORRT_WHEELS to a folder with the tensorrt bindings {version} for this Python "
            "(pip download --no-deps tensorrt-cu13-bindings, cu12 for 10.3 and 10.9)"
        )
    assert json.loads(tool.dump_wheel(wheels[0], "cc")) == dump(version)


@pytest.mark.parametrize(
    ("symbol", "library"),
    [
        ("createNvOnnxParser_INTERNAL", "libnvonnxparser.so.10"),
        ("initLibNvInferPlugins", "libnvinfer_plugin.so.10"),
        ("createInferBuilder_INTERNAL", "libnvinfer.so.10"),
    ],
)
def test_a_stub_library_gets_its_symbols(symbol: str, library: str) -> None:
    libraries = ["libnvinfer_plugin.so.10", "libnvinfer.so.10", "libnvonnxparser.so.10"]
    assert library_for(symbol, libraries) == library
