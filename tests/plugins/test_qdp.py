"""The quick deployable plugin: its whole Python chain under the bindings of several TensorRT versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from recorded_cuda import Cuda

from jotr_deploy.errors import JotrDeployError, MissingDependency, SessionError
from jotr_deploy.plugins import kernel, qdp

DTYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}
SHAPES = [
    (1, 8, 8, 8, 256, 15),
    (64, 8, 8, 8, 256, 15),
    (3, 2, 5, 9, 13, 40),
    (1, 1, 1, 1, 1, 1),
    (1, 4, 4, 4, 8, 2**20),
]


def stubs() -> list[Any]:
    """Folders with the bindings of one TensorRT version each, and their stub."""
    places = [place for place in os.environ.get("JOTR_TENSORRT_STUB", "").split(os.pathsep) if place]
    reason = "set JOTR_TENSORRT_STUB=DIR[:DIR], see CONTRIBUTING.md: python tools/make_tensorrt_stub.py --out DIR ..."
    return [pytest.param(place, id=Path(place).name) for place in places] or [
        pytest.param("", marks=pytest.mark.skip(reason=reason), id="no bindings")
    ]


@pytest.fixture(scope="module", params=stubs())
def chain(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the plugin answered to TensorRT's questions; bindings share names, so each version has its process."""
    script = Path(__file__).with_name("qdp_chain.py")
    path = os.pathsep.join([str(Path(request.param).absolute()), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


def value(expression: Any, symbols: Mapping[str, int]) -> int:
    """An expression of TensorRT's shape arithmetic, in numbers."""
    if isinstance(expression, list):
        operation, *operands = expression
        left, right = (value(operand, symbols) for operand in operands)
        return {"PROD": left * right, "CEIL_DIV": -(-left // right)}[operation]
    return symbols[expression] if isinstance(expression, str) else expression


def test_importing_touches_nothing_and_a_library_comes_first(chain: dict[str, Any]) -> None:
    assert chain["untouched"]
    assert chain["refused"] == (
        "jotr::TrilinearSample3D is registered already, by a plugin library\n"
        "use --plugin library, or a process that has not loaded the library"
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_shape_types_and_code(chain: dict[str, Any], dtype: str) -> None:
    answer = chain["answers"][dtype]
    assert answer["output_types"] == [DTYPES[dtype]]
    assert answer["output_shape"] == ["B", "P", "C"]
    triples = [[features, "FLOAT", features] for features in DTYPES.values()]
    assert answer["combinations"] == [f"{name} LINEAR" for triple in triples for name in triple]
    assert answer["tactics"] == []
    assert answer["kernel"] == kernel.ENTRY_POINTS[dtype]
    assert answer["code"] == "the kernels as PTX"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tensorrt_launches_what_the_loader_launches(
    chain: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    answer = chain["answers"][dtype]
    symbols = dict(zip("BDHWCP", shape, strict=True))
    scalars = [value(expression, symbols) for expression in answer["scalars"]]
    launched = {name: value(expression, symbols) for name, expression in answer["launch"].items()}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cuda = Cuda()
    cuda.install(monkeypatch)
    kernel._compiled.cache_clear()
    kernel._kernels.cache_clear()
    kernel.launch(0x1000, 0x2000, 0x3000, shape[:5], shape[5], dtype)
    kernel._compiled.cache_clear()
    kernel._kernels.cache_clear()
    function, *geometry, _, ((features, points, *sizes, samples), _), _ = cuda.arguments("cuLaunchKernel")
    assert function.name.decode() == answer["kernel"]
    assert [features, points, samples] == [0x1000, 0x2000, 0x3000]
    assert scalars == sizes == list(shape)
    assert set(answer["scalar_types"]) == {"INT32"}
    assert list(launched.values()) == geometry
    assert list(launched) == [*("grid_x", "grid_y", "grid_z"), *("block_x", "block_y", "block_z"), "shared_mem"]


def tensorrt(version: str, **plugin: Any) -> dict[str, types.ModuleType | None]:
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    found = types.ModuleType("tensorrt.plugin") if plugin else None
    if found:
        vars(found).update(plugin)
        module.plugin = found
    return {"tensorrt": module, "tensorrt.plugin": found}


@pytest.mark.parametrize(
    ("modules", "error", "cause", "remedy"),
    [
        (
            {"tensorrt": None},
            MissingDependency,
            "tensorrt is not installed (import of tensorrt halted; None in sys.modules)",
            "pip install '.[tensorrt]' in a clone of jotr-deploy",
        ),
        *(
            (
                modules,
                SessionError,
                f"TensorRT {version} cannot put a kernel into an engine: ahead-of-time plugins begin with 10.9",
                "use --plugin library",
            )
            for version, modules in [("10.3.0", tensorrt("10.3.0")), ("10.6.0", tensorrt("10.6.0", register=print))]
        ),
    ],
    ids=["none", "10.3", "10.6"],
)
def test_without_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, Any], error: type[JotrDeployError], cause: str, remedy: str
) -> None:
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    qdp.register.cache_clear()
    with pytest.raises(error) as caught:
        qdp.register()
    assert (caught.value.cause, caught.value.remedy) == (cause, remedy)
