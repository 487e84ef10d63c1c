"""No network of ours is cut in two by ONNX Runtime's CUDA provider: a copy to the CPU would forbid CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from cuda_partition import Partition, kernels, optimised, partition
from onnx import TensorProto, helper, parser

from jotr_deploy.body.exported import body_graph
from jotr_deploy.bundle import open_bundle, starter_path
from jotr_deploy.calibration.derived_features import TYPES, eight_bit_nodes
from jotr_deploy.calibration.placement import Chosen, chosen_nodes
from jotr_deploy.calibration.quantize import quantize, sites
from jotr_deploy.engines.fp16_weights import widen_weights
from jotr_deploy.engines.low_precision import to_low_precision
from jotr_deploy.export.features import extractor_onnx
from jotr_deploy.fitting.extractor import Extractor, ExtractorConfig
from jotr_deploy.plugins import DOMAIN, NAME, VERSION
from jotr_deploy.plugins.onnx_function import OPSET, attach
from jotr_deploy.runtime.crop_graph import crop_graph
from jotr_deploy.support.precisions import Precision

FEATURES = ExtractorConfig(side=64, depth=10, width=4, bottom=8, ups=((8, 8), (8, 8), (8, 8)), channels=8)
SIZES = 2
"""Nodes of the mesh network that compute with its batch, for as many shapes."""


def parted(model: onnx.ModelProto, folder: Path) -> Partition:
    onnx.save(model, folder / "network.onnx")
    return partition(optimised(folder / "network.onnx", folder))


def mesh(bundle: Path) -> onnx.ModelProto:
    return onnx.load(bundle / "mesh.onnx")


def int8(network: onnx.ModelProto, nodes: dict[str, Chosen]) -> onnx.ModelProto:
    return quantize(network, dict.fromkeys(sites(network, nodes=nodes).tensors, 1.0), list(nodes), nodes=nodes)


def features() -> onnx.ModelProto:
    return extractor_onnx(Extractor(FEATURES))


NETWORKS: dict[str, tuple[Callable[[Path], onnx.ModelProto], int]] = {
    "mesh": (mesh, SIZES),
    "mesh, fp16": (lambda bundle: to_low_precision(mesh(bundle), Precision.FP16), SIZES),
    "mesh, int8": (lambda bundle: int8(mesh(bundle), chosen_nodes(mesh(bundle))), SIZES),
    "the starter's mesh": (lambda _: mesh(starter_path()), SIZES),
    "the starter's mesh, fp16": (
        lambda _: to_low_precision(widen_weights(mesh(starter_path())), Precision.FP16),
        SIZES,
    ),
    "the starter's detector": (lambda _: onnx.load(starter_path() / "detector.onnx"), 0),
    "the starter's pose network": (lambda _: onnx.load(starter_path() / "pose.onnx"), 0),
    "body": (lambda bundle: body_graph(open_bundle(bundle)), 0),
    "features": (lambda _: features(), 0),
    "features, fp16": (lambda _: to_low_precision(features(), Precision.FP16, TYPES), 0),
    "features, int8": (lambda _: int8(features(), {"extractor": eight_bit_nodes(features())}), 0),
    "crops": (lambda _: onnx.load_from_string(crop_graph()), 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_copied_and_nothing_falls_back(name: str, tiny_bundle: Path, tmp_path: Path) -> None:
    make, sizes = NETWORKS[name]
    found = parted(make(tiny_bundle), tmp_path)
    assert (found.without_kernel, found.copies) == ([], [])
    assert len(found.sizes) == sizes
    assert all(node.startswith("Concat") for node in found.sizes)


# ── the partition finds what was wrong ───────────────────────────────────────────────────────────────────────────


def sampler(volume: str) -> onnx.ModelProto:
    model = parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : {OPSET}, "{DOMAIN}" : {VERSION}]>
        operator (float[{volume}] features, float[batch, 15, 3] points) => (float[batch, 15, C] samples) {{
          samples = {DOMAIN}.{NAME} (features, points)
        }}
    """)
    attach(model)
    return model


def test_sizes_of_the_volume_are_constants_where_the_network_fixes_them(tmp_path: Path) -> None:
    assert parted(sampler("batch, 8, 8, 8, 32"), tmp_path) == Partition([], [], [])
    read = parted(sampler("batch, D, H, W, C"), tmp_path)
    assert [copy.partition(" to ")[2] for copy in read.copies] == ["CUDA for Mul"] * 3
    assert read.sizes


def small(*nodes: onnx.NodeProto, kind: int = TensorProto.FLOAT, opset: int = 19) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, ["batch", 8])
    y = helper.make_tensor_value_info("y", kind, None)
    stored = [
        helper.make_tensor("eight", TensorProto.INT64, [1], [8]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
    ]
    graph = helper.make_graph(nodes, "small", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


RELU, SHAPE = helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Shape", ["x"], ["shape"], start=0, end=1)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (small(helper.make_node("Relu", ["x"], ["y"])), Partition([], [], [])),
        (small(helper.make_node("Atan", ["x"], ["y"])), Partition(["Atan ()"], [], [])),
        (
            small(RELU, helper.make_node("Atan", ["r"], ["a"]), helper.make_node("Add", ["a", "r"], ["y"])),
            Partition(["Atan ()"], ["a to CUDA for Add", "r to the CPU for Atan"], []),
        ),
        (
            small(SHAPE, helper.make_node("Concat", ["shape", "eight"], ["s"], axis=0), RELU,
                  helper.make_node("Reshape", ["r", "s"], ["y"])),
            Partition([], [], ["Concat ()"]),
        ),
        (
            small(RELU, SHAPE, helper.make_node("Cast", ["shape"], ["n"], to=TensorProto.FLOAT),
                  helper.make_node("Mul", ["r", "n"], ["y"])),
            Partition([], ["n to CUDA for Mul"], ["Cast ()"]),
        ),
        (small(helper.make_node("Cos", ["x"], ["y"])), Partition([], [], [])),
        (small(helper.make_node("Cos", ["x"], ["y"]), opset=22), Partition(["Cos ()"], [], [])),
        (small(helper.make_node("Max", ["x", "x"], ["y"]), kind=TensorProto.INT8), Partition(["Max ()"], [], [])),
    ],
    ids=["a kernel", "none", "none between two", "a shape", "a size in a product", "an old schema", "a newer schema",
         "another type"],
)  # fmt: skip
def test_by_hand(model: onnx.ModelProto, expected: Partition) -> None:
    assert partition(model) == expected


def test_the_provider_itself_was_asked_about_every_network() -> None:
    """The committed output of `scripts/cuda_provider.py partition` is that of today's networks."""
    report = (Path(__file__).parents[2] / "benchmarks" / "results" / "cuda-partition.txt").read_text()
    tables = report.split("onnxruntime-gpu ")[1:]
    assert len(tables) == 2
    for table in tables:
        rows = [line for line in table.splitlines() if line.endswith("0  agrees")]
        assert [line[:28].strip() for line in rows] == list(NETWORKS)


def test_the_list_is_read_whole() -> None:
    known = kernels()
    assert len(known) > 100
    assert "Atan" not in known
    assert all(kernel.types and all(kernel.types.values()) for rows in known.values() for kernel in rows)
    assert known["MatMul"][-1].types["T"] == {"bfloat16", "double", "float", "float16"}
    assert "bool" in known["Concat"][-1].types["T"] > known["Abs"][-1].types["T"]
    assert {node.op_type for node in mesh(starter_path()).graph.node if not node.domain} <= set(known)
