"""Where the pairs stand, what they hold, and that the engines' forms are the same network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from jotr_deploy.calibration.calibration_crops import CropSet
from jotr_deploy.calibration.eight_bit_formats import FP8, INT8, NARROW_INT8, Codes
from jotr_deploy.calibration.placement import BLOCKS, block_of, chosen_nodes
from jotr_deploy.calibration.quantize import channel_axis, quantize, quantized_weight, sites
from jotr_deploy.calibration.ranges import collect
from jotr_deploy.engines.fp16_weights import halve_weights, widen_weights
from jotr_deploy.engines.int8 import for_cpu, for_tensorrt, fp8_obstacle
from jotr_deploy.engines.low_precision import SCOPES, flops_of, row_of, tensor_types, to_low_precision
from jotr_deploy.engines.tensorrt.onnx_copy import tensorrt_copy
from jotr_deploy.engines.tensorrt.rules import check
from jotr_deploy.errors import BundleError
from jotr_deploy.support.precisions import Precision

pytestmark = pytest.mark.slow

FLOAT_SCOPES = ("heads", "vposer", "body", "fusion.decoder.joint_img_regress", "fusion.decoder.fc_pos_3d")


@pytest.fixture(scope="module")
def largest(network: onnx.ModelProto, crops: CropSet, everything: np.ndarray) -> dict[str, float]:
    histograms = collect(network, sites(network).tensors, crops.batches(everything))
    return {name: histogram.range_by("minmax") for name, histogram in histograms.items()}


@pytest.fixture(scope="module")
def quantized(network: onnx.ModelProto, largest: dict[str, float]) -> onnx.ModelProto:
    return quantize(network, largest, list(chosen_nodes(network)))


def run(model: onnx.ModelProto, crops: CropSet, optimized: Path | None = None) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (feeds,) = crops.batches(np.arange(8))
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


# ── which nodes ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("backbone.conv1/Conv", "backbone.conv1"),
        ("backbone.heatmap_fusion.0/Conv", "backbone.heatmap_fusion"),
        ("backbone.layer3.1.conv2/Conv", "backbone.layer3.1"),
        ("backbone.layer3/Conv", None),
        ("backbone.layer31.0/Conv", None),
        ("lifting.encoder.layers.0.self_attn.qkv/MatMul", "lifting.encoder.layers.0"),
        ("fusion.decoder.layers.2/MatMul_1", "fusion.decoder.layers.2"),
        ("fusion.decoder/Add", None),
        ("heads.root.0/Gemm", None),
        ("/Mul", None),
        ("", None),
    ],
)
def test_block_of(name: str, block: str | None) -> None:
    assert block_of(onnx.NodeProto(name=name)) == block


def test_every_row_is_found_and_nothing_that_stays_in_float(network: onnx.ModelProto) -> None:
    chosen = chosen_nodes(network)
    assert all(any(f"{block}.".startswith(f"{row}.") for block in chosen) for row in BLOCKS)
    weights = {tensor.name for tensor in network.graph.initializer}
    for found in chosen.values():
        assert not any(node.name.startswith(FLOAT_SCOPES) for node in (*found.weighted, *found.sums))
        assert all(node.input[1] in weights for node in found.weighted)  # no product of two activations
        assert all(node.op_type == "Add" and node.name.startswith("backbone") for node in found.sums)
    assert sum(len(found.sums) for found in chosen.values()) == 4  # one a residual block


def test_another_network_is_refused() -> None:
    other = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 19]> g (float[batch,2] x) => (float[batch,2] y) { y = Relu (x) }'
    )
    with pytest.raises(BundleError, match="not a mesh network of this version"):
        chosen_nodes(other)


def test_a_quantised_network_is_refused(quantized: onnx.ModelProto) -> None:
    with pytest.raises(BundleError, match="quantised already"):
        chosen_nodes(quantized)


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    seed=st.integers(0, 99),
    axis=st.integers(0, 1),
    size=st.sampled_from([1e-6, 1.0, 1e4]),
    codes_of=st.sampled_from([(INT8, 127), (NARROW_INT8, 63)]),
)
@settings(max_examples=30, deadline=None)
def test_a_weight_is_off_by_half_a_step_at_most(seed: int, axis: int, size: float, codes_of: tuple[Codes, int]) -> None:
    weight = np.random.default_rng(seed).normal(0, size, (5, 7, 3, 3)).astype(np.float32)
    codes, scale = quantized_weight(weight, axis, codes_of[0])
    step = np.expand_dims(scale, tuple(a for a in range(4) if a != axis))
    assert codes.dtype == np.int8
    assert scale.shape == (weight.shape[axis],)
    assert np.abs(codes.astype(int)).max() == codes_of[1]
    assert (np.abs(codes * step - weight) <= step * 0.501).all()


@pytest.mark.parametrize(
    ("weight", "codes", "scale"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), [1, 1]),
        (np.array([[127.0, -127], [0, 1.27]]), [[127, -127], [0, 127]], [1, 0.01]),
        (np.zeros((0, 3)), np.zeros((0, 3)), []),
    ],
)
def test_quantized_weight(weight: np.ndarray, codes: list, scale: list) -> None:
    found = quantized_weight(weight.astype(np.float32), 0)
    np.testing.assert_array_equal(found[0], codes)
    np.testing.assert_allclose(found[1], scale, rtol=1e-6)


@given(seed=st.integers(0, 99), size=st.sampled_from([1e-6, 1.0, 1e4]))
@settings(max_examples=30, deadline=None)
def test_a_floating_code_is_off_by_a_sixteenth_of_its_value(seed: int, size: float) -> None:
    weight = np.random.default_rng(seed).normal(0, size, (5, 7)).astype(np.float32)
    codes, scale = quantized_weight(weight, 0, FP8)
    assert codes.dtype == FP8.dtype
    found, step = codes.astype(np.float32) * scale[:, None], scale[:, None]
    half_the_least = 2.0**-10
    assert (np.abs(found - weight) <= np.maximum(np.abs(weight) / 15.9, half_the_least * step)).all()


def test_channel_axis() -> None:
    transposed = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    assert channel_axis(transposed) == 0
    for kind, axis in (("Conv", 0), ("MatMul", 1), ("Gemm", 1)):
        assert channel_axis(onnx.helper.make_node(kind, ["x", "w"], ["y"])) == axis


def test_weights_stored_as_halves_are_widened(network: onnx.ModelProto, crops: CropSet) -> None:
    halved = halve_weights(network)
    wide = widen_weights(halved)
    assert all(tensor.data_type != onnx.TensorProto.FLOAT16 for tensor in wide.graph.initializer)
    assert chosen_nodes(wide).keys() == chosen_nodes(network).keys()
    for name, value in run(halved, crops).items():
        np.testing.assert_array_equal(run(wide, crops)[name], value)


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_number_is_explicit_and_symmetric(quantized: onnx.ModelProto) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    pairs = [node for node in quantized.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero, scale = constants[node.input[2]], constants[node.input[1]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert (scale > 0).all()


def test_nothing_stands_between_a_convolution_and_its_activation(quantized: onnx.ModelProto) -> None:
    producers = {name: node for node in quantized.graph.node for name in node.output}
    for node in quantized.graph.node:
        if node.op_type == "Relu" and node.name.startswith("backbone"):
            assert producers[node.input[0]].op_type in ("Conv", "Add"), node.name


def test_only_the_blocks_asked_for(network: onnx.ModelProto, largest: dict[str, float], crops: CropSet) -> None:
    one = quantize(network, largest, ["fusion.down"])
    changed = [node.name for node in one.graph.node if any(".dequantized" in name for name in node.input)]
    assert all(name.startswith(("fusion.down", "fusion", "lifting")) for name in changed)
    assert Counter(node.op_type for node in one.graph.node)["QuantizeLinear"] == 2  # what goes in, what comes out
    none = quantize(network, largest, [])
    for name, value in run(network, crops).items():
        np.testing.assert_array_equal(run(none, crops)[name], value)


def test_same_bytes_again(network: onnx.ModelProto, largest: dict[str, float], quantized: onnx.ModelProto) -> None:
    again = quantize(network, largest, list(chosen_nodes(network)))
    assert again.SerializeToString() == quantized.SerializeToString()


def test_a_tensor_that_is_always_zero(network: onnx.ModelProto, crops: CropSet) -> None:
    zeros = dict.fromkeys(sites(network).tensors, 0.0)
    for value in run(quantize(network, zeros, list(chosen_nodes(network))), crops).values():
        assert np.isfinite(value).all()


# ── the forms of the engines ─────────────────────────────────────────────────────────────────────────────────────


def test_onnxruntime_fuses_every_convolution_and_sum(
    quantized: onnx.ModelProto, crops: CropSet, tmp_path: Path
) -> None:
    form = for_cpu(quantized)
    run(form, crops, tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    convolutions = Counter(node.op_type for node in quantized.graph.node)["Conv"]
    assert kinds["QLinearConv"] == convolutions
    assert kinds["QLinearAdd"] == 4
    assert kinds["Conv"] == kinds["FusedConv"] == 0


@pytest.mark.parametrize("form", [for_cpu, for_tensorrt])
def test_a_form_is_the_same_network(form, network: onnx.ModelProto, quantized: onnx.ModelProto, crops: CropSet) -> None:
    fp32, int8, found = (run(model, crops)["joints3d"] for model in (network, quantized, form(quantized)))
    drift, apart = np.abs(int8 - fp32).mean(), np.abs(found - int8).mean()
    assert drift > 0
    assert apart < drift  # codes may flip where a sum is rounded differently, and TensorRT's form has fewer of them


def test_tensorrt_takes_its_form_and_not_the_portable_one(quantized: onnx.ModelProto) -> None:
    assert not check(tensorrt_copy(for_tensorrt(quantized), "none"))
    assert {finding.rule for finding in check(tensorrt_copy(quantized, "none"))} == {"placement"}


def test_tensorrt_takes_it_with_any_block_in_float(network: onnx.ModelProto, largest: dict[str, float]) -> None:
    blocks = list(chosen_nodes(network))
    for left_out in [[block] for block in blocks] + [blocks[::2], blocks[1::2]]:
        form = for_tensorrt(quantize(network, largest, [block for block in blocks if block not in left_out]))
        assert not check(tensorrt_copy(form, "none")), left_out


@pytest.mark.parametrize("codes", [INT8, FP8])
def test_between_eight_bit_products_tensorrt_computes_in_fp16(
    network: onnx.ModelProto, largest: dict[str, float], crops: CropSet, codes: Codes
) -> None:
    """With fp32 between them, attention would not be fused, and int8 could be slower than fp16."""
    form = for_tensorrt(quantize(network, largest, list(chosen_nodes(network)), codes))
    typed = to_low_precision(form, Precision.FP16)
    assert not check(tensorrt_copy(typed, "none"))
    types = tensor_types(typed)
    producers = {name: node.op_type for node in typed.graph.node for name in node.output}
    kinds = Counter[str]()
    for node in typed.graph.node:
        kind = types[node.output[0]].elem_type
        if SCOPES[row_of(node)] == "low" and (flops_of(node, types) or node.op_type in ("Softmax", "QuantizeLinear")):
            assert kind != onnx.TensorProto.FLOAT, node.name
        eight = all(producers.get(name) == "DequantizeLinear" for name in node.input[:2])
        kinds["eight bits" if eight and flops_of(node, types) else node.op_type] += 1
    assert kinds["eight bits"] > 20
    assert kinds["Softmax"] > 2
    if codes is FP8:
        return  # ONNX Runtime's later optimisations refuse it, see `runtime.sessions.onnxruntime.load`
    found, expected = (run(model, crops)["joints3d"] for model in (typed, form))
    drift = np.abs(expected - run(network, crops)["joints3d"]).mean()
    assert 0 < np.abs(found - expected).mean() < 2 * drift


def test_a_scale_too_small_for_fp16_stays_positive() -> None:
    """TensorRT refuses a scale of zero; it belongs to a channel that is as good as zero."""
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 19]>
        g (float[b,8] x) => (float[b,8] y) <float s = {1e-9}, int8 z = {0}> {
        h = Relu (x) q = QuantizeLinear (h, s, z) d = DequantizeLinear (q, s, z) y = Relu (d) }""")
    typed = to_low_precision(model, Precision.FP16, {"": "low"})
    (scale,) = (numpy_helper.to_array(t) for t in typed.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16)
    assert scale == np.float16(2.0**-24) > 0


@pytest.mark.parametrize(
    ("weight", "obstacle"),
    [
        ((64, 3, 7, 7), "3 channels, FP8 takes 16 or more"),
        ((8, 64, 1, 1), "8 channels, FP8 takes 16 or more"),
        ((64, 94, 3, 3), "94 and 64 channels, which cannot be padded alike to multiples of 16"),
        ((64, 64, 7, 7), "49 taps, FP8 takes 32 or fewer"),
        ((64, 64, 3, 3), None),
        ((16, 16, 3, 3, 3), None),
        ((256, 256), None),
    ],
)
def test_convolutions_without_an_fp8_kernel(weight: tuple[int, ...], obstacle: str | None) -> None:
    assert fp8_obstacle(weight) == obstacle


def test_what_has_no_fp8_kernel_is_in_float_for_tensorrt() -> None:
    """The second convolution has one; its neighbour, with 49 taps, takes the values of its 8-bit weight."""
    rng = np.random.default_rng(0)
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 19]>
        g (float[b,16,9,9] x) => (float[b,16,9,9] y) <float s = {0.1}, float8e4m3fn z = {0}> {
        xq = QuantizeLinear (x, s, z) xd = DequantizeLinear (xq, s, z)
        ad = DequantizeLinear <axis = 0> (a, as, az) h = Conv <pads = [3,3,3,3]> (xd, ad)
        hq = QuantizeLinear (h, s, z) hd = DequantizeLinear (hq, s, z)
        bd = DequantizeLinear <axis = 0> (b, bs, bz) y = Conv <pads = [1,1,1,1]> (hd, bd) }""")
    values = {}
    for name, side in (("a", 7), ("b", 3)):
        values[name] = rng.uniform(-1, 1, (16, 16, side, side)).astype(FP8.dtype)
        values[f"{name}s"] = np.linspace(0.1, 0.2, 16, dtype=np.float32)
        values[f"{name}z"] = np.zeros(16, FP8.dtype)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    for index, node in enumerate(model.graph.node):
        node.name = f"node{index}"
    assert [f.rule for f in check(model)] == ["fp8 kernels"]
    form = for_tensorrt(model)
    assert check(form) == []
    producers = {name: node.op_type for node in form.graph.node for name in node.output}
    first, second = (node for node in form.graph.node if node.op_type == "Conv")
    assert first.input[0] == "x"
    assert [producers[name] for name in second.input] == ["DequantizeLinear"] * 2
    weight = next(numpy_helper.to_array(t) for t in form.graph.initializer if t.name == first.input[1])
    expected = values["a"].astype(np.float32) * values["as"][:, None, None, None]
    np.testing.assert_array_equal(weight, expected)


def test_tensorrt_quantises_the_skip_branch_alone(quantized: onnx.ModelProto) -> None:
    graph = for_tensorrt(quantized).graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    sums = [node for node in graph.node if node.op_type == "Add" and node.name.startswith("backbone.layer")]
    assert [sorted(producers[name] for name in node.input) for node in sums] == [["Conv", "DequantizeLinear"]] * 4
