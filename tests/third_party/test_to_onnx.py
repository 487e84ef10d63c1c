"""TFLite to ONNX: every operator against NumPy, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_tflite import Options, Sparse, Tiny

from jotr_deploy.third_party.flatbuffer import Damaged
from jotr_deploy.third_party.tflite import Unsupported, read_tflite
from jotr_deploy.third_party.tflite_to_onnx import same_padding, to_onnx

SAME, VALID, RELU6 = 0, 1, 3
NAMES = {"input": "image", "out": "result"}
IMAGE = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype(np.float32)


def run(tiny: Tiny, image: np.ndarray) -> np.ndarray:
    model = to_onnx(tiny.data(), NAMES, {"format": "tiny"})
    assert {p.key: p.value for p in model.metadata_props} == {"format": "tiny"}
    return onnxruntime.InferenceSession(model.SerializeToString()).run(["result"], {"image": image})[0]


def one(kind: str, shape: tuple[int, ...], options: Options | None = None, *constants: int, of: Tiny) -> Tiny:
    x = of.input((1, *IMAGE.shape[1:]))
    of.outputs.append(of.step(kind, [x, *constants], shape, options, "out"))
    return of


def convolved(image: np.ndarray, kernel: np.ndarray, stride: int, pads: list[tuple[int, int]]) -> np.ndarray:
    """Kernel (O, kh, kw, I), pads of rows and columns; sums in plain loops."""
    padded = np.pad(image, [(0, 0), *pads, (0, 0)])
    high, wide = ((padded.shape[axis] - kernel.shape[axis]) // stride + 1 for axis in (1, 2))
    out = np.zeros((len(image), high, wide, len(kernel)))
    for y in range(high):
        for x in range(wide):
            window = padded[:, y * stride : y * stride + kernel.shape[1], x * stride : x * stride + kernel.shape[2]]
            out[:, y, x] = np.einsum("nhwi,ohwi->no", window, kernel)
    return out


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(8, 3, 2, (0, 1)), (7, 3, 2, (1, 1)), (5, 1, 1, (0, 0)), (8, 5, 2, (1, 2)), (6, 1, 2, (0, 0))],
)
def test_the_odd_pixel_of_same_padding_comes_last(size: int, kernel: int, stride: int, expected: object) -> None:
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize(("padding", "stride"), [(VALID, 1), (SAME, 1), (SAME, 2), (VALID, 2)])
def test_convolution(padding: int, stride: int, rng: np.random.Generator) -> None:
    kernel, bias = rng.standard_normal((5, 3, 3, 3)).astype(np.float16), rng.standard_normal(5).astype(np.float16)
    pads = [same_padding(size, 3, stride) if padding == SAME else (0, 0) for size in IMAGE.shape[1:3]]
    expected = np.clip(convolved(IMAGE, kernel.astype(float), stride, pads) + bias, 0, 6)
    tiny = Tiny()
    weights = [tiny.step("DEQUANTIZE", [tiny.constant(each)], each.shape) for each in (kernel, bias)]
    options: Options = {0: ("b", padding), 1: ("i", stride), 2: ("i", stride), 3: ("b", RELU6)}
    found = run(one("CONV_2D", (1, *expected.shape[1:]), options, *weights, of=tiny), IMAGE)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_depthwise_convolution_after_padding(rng: np.random.Generator) -> None:
    kernel = rng.standard_normal((1, 3, 3, 3)).astype(np.float32)
    tiny = Tiny()
    x = tiny.input((1, 4, 6, 3))
    padded = tiny.step("PAD", [x, tiny.constant(np.array([[0, 0], [0, 1], [1, 2], [0, 0]], np.int32))], (1, 5, 9, 3))
    options: Options = {0: ("b", VALID), 1: ("i", 2), 2: ("i", 2), 3: ("i", 1)}
    tiny.outputs.append(tiny.step("DEPTHWISE_CONV_2D", [padded, tiny.constant(kernel)], (1, 2, 4, 3), options, "out"))
    each = [convolved(IMAGE[..., c : c + 1], kernel[..., c : c + 1], 2, [(0, 1), (1, 2)]) for c in range(3)]
    np.testing.assert_allclose(run(tiny, IMAGE), np.concatenate(each, -1), atol=1e-5)


def test_sparse_kernels_become_dense() -> None:
    values = np.array([1, 2, 3, 4], np.float16)
    tiny = Tiny()
    sparse = tiny.constant(Sparse(values, [0, 2, 2, 4], [0, 2, 1, 2]), (3, 1, 1, 3))
    dense = tiny.step("DENSIFY", [sparse], (3, 1, 1, 3))
    kernel = tiny.step("DEQUANTIZE", [dense], (3, 1, 1, 3))
    options: Options = {0: ("b", VALID), 1: ("i", 1), 2: ("i", 1)}
    found = run(one("CONV_2D", (1, 4, 6, 3), options, kernel, of=tiny), IMAGE)
    np.testing.assert_allclose(found, IMAGE @ np.array([[1, 0, 2], [0, 0, 0], [0, 3, 4]]).T, atol=1e-5)


def tensorflow_half_pixel(image: np.ndarray) -> np.ndarray:
    """Twice as large, bilinear, pixel centres at halves, edges repeated."""
    for axis in (1, 2):
        at = np.clip((np.arange(2 * image.shape[axis]) + 0.5) / 2 - 0.5, 0, image.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high, share = np.minimum(low + 1, image.shape[axis] - 1), at - low
        share = share.reshape([-1 if k == axis else 1 for k in range(4)])
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image


def depth_to_space(image: np.ndarray) -> np.ndarray:
    n, h, w, c = image.shape
    return image.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


FOUR = np.random.default_rng(1).standard_normal((2, 4, 6, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "options", "truth"),
    [
        ("RESIZE_BILINEAR", {2: ("b", 0), 3: ("b", 1)}, tensorflow_half_pixel),
        ("DEPTH_TO_SPACE", {0: ("i", 2)}, depth_to_space),
        ("LOGISTIC", {}, lambda x: 1 / (1 + np.exp(-x))),
        (
            "MAX_POOL_2D",
            {0: ("b", VALID), 1: ("i", 2), 2: ("i", 2), 3: ("i", 2), 4: ("i", 2)},
            lambda x: x.reshape(len(x), 2, 2, 3, 2, 8).max((2, 4)),
        ),
        ("RESHAPE", {}, lambda x: x.reshape(len(x), -1, 4)),
        ("RESHAPE", {}, lambda x: x.reshape(len(x), -1)),
    ],
)
def test_operators_of_one_value(kind: str, options: Options, truth: Callable[[np.ndarray], np.ndarray]) -> None:
    expected, tiny = truth(FOUR), Tiny()
    x = tiny.input((1, *FOUR.shape[1:]))
    tiny.outputs.append(tiny.step(kind, [x], (1, *expected.shape[1:]), options, "out"))
    np.testing.assert_allclose(run(tiny, FOUR), expected, atol=1e-5)


def test_sums_and_concatenations() -> None:
    tiny = Tiny()
    x = tiny.input((1, 4, 6, 3))
    y = tiny.step("LOGISTIC", [x], (1, 4, 6, 3))
    total = tiny.step("ADD", [x, y], (1, 4, 6, 3), {0: ("b", RELU6)})
    flat = [tiny.step("RESHAPE", [each], (1, 24, 3)) for each in (total, x)]
    tiny.outputs.append(tiny.step("CONCATENATION", flat, (1, 48, 3), {0: ("i", 1)}, "out"))
    total_of = np.clip(IMAGE + 1 / (1 + np.exp(-IMAGE)), 0, 6)
    expected = np.concatenate([total_of.reshape(2, 24, 3), IMAGE.reshape(2, 24, 3)], 1)
    np.testing.assert_allclose(run(tiny, IMAGE), expected, atol=1e-5)


def test_only_wanted_outputs_are_computed() -> None:
    tiny = Tiny()
    x = tiny.input((1, 4, 6, 3))
    tiny.outputs += [tiny.step("RESHAPE", [x], (1, 72), {}, "out"), tiny.step("LOGISTIC", [x], (1, 4, 6, 3), {}, "no")]
    kinds = [node.op_type for node in to_onnx(tiny.data(), NAMES, {}).graph.node]
    assert "Sigmoid" not in kinds
    with pytest.raises(Unsupported, match="no input or output missing"):
        to_onnx(tiny.data(), {**NAMES, "missing": "x"}, {})


@pytest.mark.parametrize(
    ("kind", "shape", "options", "why"),
    [
        ("SOFTMAX", (1, 4, 6, 3), {}, "operator 25"),
        ("RESIZE_BILINEAR", (1, 12, 18, 3), {}, "RESIZE_BILINEAR from"),
        ("RESHAPE", (2, 36), {}, "RESHAPE from"),
        ("MAX_POOL_2D", (1, 4, 6, 3), {0: ("b", 0), 1: ("i", 1), 2: ("i", 1), 3: ("i", 1), 4: ("i", 1), 5: ("b", 1)},
         "activation 1 of MaxPool"),
        ("ADD", (1, 4, 6, 3), {}, "ADD of shapes"),
        ("CONV_2D", (1, 4, 6, 3), {}, "CONV_2D whose input 1 is not constant"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(kind: str, shape: tuple[int, ...], options: Options, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        to_onnx(one(kind, shape, options, of=Tiny()).data(), NAMES, {})


def test_quantised_and_odd_types_are_refused() -> None:
    tiny = Tiny()
    tiny.inputs.append(tiny.value((1, 4), "input", np.uint8))
    with pytest.raises(Unsupported, match="of type 3 or quantised"):
        read_tflite(tiny.data())


@pytest.mark.parametrize(
    ("segments", "columns"),
    [
        ([0, 2, 2, 5], [0, 2, 1, 2]),
        ([0, 2, 2], [0, 2, 1, 2]),
        ([0, 3, 2, 4], [0, 2, 1, 2]),
        ([0, 2, 2, 4], [0, 9, 1, 2]),
    ],
)
def test_sparse_weights_must_fit(segments: list[int], columns: list[int]) -> None:
    tiny = Tiny()
    tiny.constant(Sparse(np.ones(4, np.float16), segments, columns), (3, 3))
    with pytest.raises(Damaged, match="do not fit"):
        read_tflite(tiny.data())


def test_damaged_files_are_refused(rng: np.random.Generator) -> None:
    """Cut anywhere, or with any byte changed, a file converts or is refused; nothing else is raised."""
    tiny = Tiny()
    kernel = tiny.constant(np.ones((2, 1, 1, 3), np.float16))
    options: Options = {0: ("b", VALID), 1: ("i", 1), 2: ("i", 1)}
    data = one("CONV_2D", (1, 4, 6, 2), options, kernel, of=tiny).data()
    refused = 0
    for number in range(400):
        mutated = bytearray(data)
        if number % 2:
            mutated[rng.integers(len(data))] = rng.integers(256)
        else:
            del mutated[rng.integers(len(data)) :]
        try:
            read_tflite(bytes(mutated))
        except (Damaged, Unsupported):
            refused += 1
    assert refused > 200
    with pytest.raises(Damaged, match="does not begin like a TFLite file"):
        read_tflite(b"")
