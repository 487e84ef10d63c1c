"""The small parts of the recipe: batch ranges, the trtexec line, timings, the inspector's two dialects."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from contracts import healthy
from contracts.fakes import fake_tensorrt

from jotr_deploy.engines.tensorrt.build import BuildError, Recipe
from jotr_deploy.engines.tensorrt.engine import parse_batch, parse_batches
from jotr_deploy.engines.tensorrt.inspector import Layers, read_layers
from jotr_deploy.engines.tensorrt.timing_cache import keep_timings, timing_cache_path, use_timings
from jotr_deploy.engines.tensorrt.trtexec import polygraphy_command, trtexec_command


@pytest.mark.parametrize(("text", "batch"), [("1:4:16", (1, 4, 16)), ("4", (4, 4, 4)), ("2:2:3", (2, 2, 3))])
def test_a_range_of_batch_sizes(text: str, batch: tuple[int, int, int]) -> None:
    assert parse_batch(text) == batch


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "--batch : not a range of batch sizes"),
        ("1:4", "--batch 1:4: not a range of batch sizes"),
        ("a:b:c", "--batch a:b:c: not a range of batch sizes"),
        ("-1:4:16", "--batch -1:4:16: not a range of batch sizes"),
        ("0:4:16", "--batch 0:4:16: not 1 <= MIN <= OPT <= MAX"),
        ("4:1:16", "--batch 4:1:16: not 1 <= MIN <= OPT <= MAX"),
    ],
)
def test_no_range_of_batch_sizes(text: str, cause: str) -> None:
    with pytest.raises(BuildError) as caught:
        parse_batch(text)
    assert (caught.value.cause, caught.value.remedy) == (cause, "give --batch MIN:OPT:MAX, such as 1:4:16")


# ── trtexec ──────────────────────────────────────────────────────────────────────────────────────────────────────

SHAPES = {
    "image": ((1, 3, 256, 256), (4, 3, 256, 256), (16, 3, 256, 256)),
    "joints": ((1, 30, 2), (4, 30, 2), (16, 30, 2)),
}
COPY, ENGINE, CACHE = Path("/b/my copy.onnx"), Path("/b/mesh.fp16.sm90.engine"), Path("/c/t.timings")


def test_trtexec_builds_the_same_engine() -> None:
    recipe = Recipe((SHAPES,), CACHE, workspace_bytes=3 << 30, optimization_level=5)
    line = trtexec_command(COPY, ENGINE, recipe, "library", Path("/p/lib.so"))
    assert shlex.split(line) == [
        "trtexec",
        "--onnx=/b/my copy.onnx",
        "--saveEngine=/b/mesh.fp16.sm90.engine",
        "--stronglyTyped",
        "--noTF32",
        "--minShapes=image:1x3x256x256,joints:1x30x2",
        "--optShapes=image:4x3x256x256,joints:4x30x2",
        "--maxShapes=image:16x3x256x256,joints:16x30x2",
        "--builderOptimizationLevel=5",
        "--profilingVerbosity=detailed",
        "--timingCacheFile=/c/t.timings",
        "--memPoolSize=workspace:3221225472B",
        "--dynamicPlugins=/p/lib.so",
    ]


def test_trtexec_with_standard_operators_needs_no_plugin() -> None:
    line = trtexec_command(COPY, ENGINE, Recipe((SHAPES,), CACHE), "none")
    assert "Plugins" not in line
    assert "memPoolSize" not in line


def test_trtexec_cannot_register_a_kernel_but_can_time_the_engine() -> None:
    line = trtexec_command(COPY, ENGINE, Recipe((SHAPES,), CACHE), "aot")
    assert line == ("trtexec --loadEngine=/b/mesh.fp16.sm90.engine --shapes=image:4x3x256x256,joints:4x30x2")


LARGER = {name: tuple((5, *tail) for _, *tail in shapes) for name, shapes in SHAPES.items()}


def test_trtexec_fills_one_profile_after_the_other() -> None:
    words = shlex.split(trtexec_command(COPY, ENGINE, Recipe((SHAPES, LARGER), CACHE), "none"))
    start = words.index("--profile=0")
    assert [word.split("=")[0] for word in words[start : start + 8]] == [
        "--profile", "--minShapes", "--optShapes", "--maxShapes", "--profile", "--minShapes", "--optShapes",
        "--maxShapes",
    ]  # fmt: skip
    assert words[start + 4] == "--profile=1"
    assert words[start + 5] == "--minShapes=image:5x3x256x256,joints:5x30x2"


@pytest.mark.parametrize(
    ("portable", "option"),
    [
        (None, None),
        ("same-capability", "--hardwareCompatibilityLevel=sameComputeCapability"),
        ("version", "--versionCompatible"),
    ],
)
def test_trtexec_builds_for_other_machines(portable: Any, option: str | None) -> None:
    words = shlex.split(trtexec_command(COPY, ENGINE, Recipe((SHAPES,), CACHE, portable=portable), "none"))
    assert [word for word in words if "ompatib" in word] == ([option] if option else [])


def test_polygraphy_compares_the_copy_with_onnx_runtime() -> None:
    line = polygraphy_command(COPY, ENGINE, Recipe((SHAPES, LARGER), CACHE), "none")
    words = shlex.split(line)
    assert words[:6] == ["polygraphy", "run", "/b/my copy.onnx", "--trt", "--onnxrt", "--strongly-typed"]
    assert words.count("--trt-min-shapes") == words.count("--trt-max-shapes") == 2
    assert words[-3:] == ["--input-shapes", "image:[4,3,256,256]", "joints:[4,30,2]"]


@pytest.mark.parametrize(("plugin", "more"), [("aot", []), ("library", ["--plugins", "/p/lib.so"])])
def test_polygraphy_runs_an_engine_with_a_plugin(plugin: Any, more: list[str]) -> None:
    library = Path("/p/lib.so") if more else None
    words = shlex.split(polygraphy_command(COPY, ENGINE, Recipe((SHAPES,), CACHE), plugin, library))
    assert words[:6] == ["polygraphy", "run", str(ENGINE), "--model-type", "engine", "--trt"]
    assert words[6 : 6 + len(more)] == more


@pytest.mark.parametrize(
    ("text", "batches"),
    [
        ("1:4:16", ((1, 4, 16),)),
        ("4", ((4, 4, 4),)),
        ("1,4,16", ((1, 1, 1), (2, 4, 4), (5, 16, 16))),
        ("8,9", ((1, 8, 8), (9, 9, 9))),
    ],
)
def test_one_range_or_several(text: str, batches: tuple[tuple[int, int, int], ...]) -> None:
    assert parse_batches(text) == batches


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (",", "--batch ,: not a list of batch sizes"),
        ("1,x", "--batch 1,x: not a list of batch sizes"),
        ("4,4", "--batch 4,4: the sizes do not increase"),
        ("0,4", "--batch 0,4: the sizes do not increase"),
        ("4,1", "--batch 4,1: the sizes do not increase"),
    ],
)
def test_no_several_sizes(text: str, cause: str) -> None:
    with pytest.raises(BuildError) as caught:
        parse_batches(text)
    assert caught.value.cause == cause
    assert caught.value.remedy == "give --batch 1,4,16: growing sizes, each with kernels of its own"


# ── timings ──────────────────────────────────────────────────────────────────────────────────────────────────────

HERE = {"tensorrt": "10.16.1.11", "gpu": "NVIDIA H200", "capability": "9.0"}


def test_timings_lie_in_the_users_cache_by_version_gpu_and_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert timing_cache_path(HERE) == Path("/cache/jotr-deploy/tensorrt-10.16.1.11.nvidia-h200.sm90.timings")
    kernel = tmp_path / "kernel.cu"
    kernel.write_text("one")
    one = timing_cache_path(HERE, kernel)
    kernel.write_text("two")
    assert len({timing_cache_path(HERE), one, timing_cache_path(HERE, kernel)}) == 3
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert timing_cache_path(HERE).parent == Path.home() / ".cache" / "jotr-deploy"


def config_of(trt: Any) -> Any:
    return healthy._create_config(trt.Builder(trt.Logger()))


def build(path: Path, *timed: bytes, meanwhile: bytes | None = None) -> list[str]:
    """Use the timings, time something, let another builder write, keep them."""
    said: list[str] = []
    with fake_tensorrt() as trt:
        config = config_of(trt)
        use_timings(config, path, said.append)
        config.get_timing_cache().state.entries += b"".join(line + b"\n" for line in timed)
        if meanwhile is not None:
            path.write_bytes(meanwhile)
        keep_timings(config, path, said.append)
    return said


def test_timings_are_read_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "gpu.timings"
    assert build(path, b"conv") == []
    assert build(path, b"gemm") == []
    assert path.read_bytes() == healthy.TIMING + b"conv\ngemm\n"


def test_what_another_builder_wrote_meanwhile_is_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "gpu.timings"
    assert build(path, b"ours", meanwhile=healthy.TIMING + b"theirs\n") == []
    assert path.read_bytes() == healthy.TIMING + b"ours\ntheirs\n"


def test_timings_of_another_gpu_are_left_aside(tmp_path: Path) -> None:
    path = tmp_path / "gpu.timings"
    path.write_bytes(b"timings of something else")
    assert build(path, b"ours") == [f"{path} holds the timings of another GPU or TensorRT: starting anew"]
    assert path.read_bytes().startswith(healthy.TIMING)


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "gpu.timings"
    assert build(path, b"conv") == [f"{path}: cannot be written; the next build times every kernel again"]


def test_a_builder_without_timings_writes_none(tmp_path: Path) -> None:
    with fake_tensorrt() as trt:
        keep_timings(config_of(trt), tmp_path / "gpu.timings", pytest.fail)
    assert list(tmp_path.iterdir()) == []


# ── the inspector ────────────────────────────────────────────────────────────────────────────────────────────────

PLUGIN = {"Name": "fusion.decoder/TrilinearSample3D", "LayerType": "PluginV3"}
OTHERS = [
    {"Name": "fusion.decoder/MatMul", "LayerType": "gemm"},
    {"Name": "body of fusion.decoder/TrilinearSample3D", "LayerType": "gemm"},  # its place, without the plugin
    {"Name": "Resize", "LayerType": "PluginV2", "PluginType": "Other"},
    "a layer of which the engine kept the name alone",
]


@pytest.mark.parametrize(
    "tensors",
    [
        {"Bindings": ["image", "pose"]},  # to 10.16
        {"I/O Tensors": [{"Name": "image", "IOMode": "Input"}, {"Name": "pose", "IOMode": "Output"}]},  # from 11.0
    ],
)
def test_both_dialects_of_the_inspector(tensors: dict[str, Any]) -> None:
    information = json.dumps({"Layers": [*OTHERS, PLUGIN], **tensors})
    assert read_layers(information) == Layers(5, 1, ("image", "pose"))


def test_an_engine_that_says_nothing() -> None:
    assert read_layers("{}") == Layers(0, 0, ())
