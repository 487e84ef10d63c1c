"""Baseline networks put together by hand: plain export, a library's quantiser, ONNX Runtime, OpenVINO, torch.compile.

They use none of this package's export, calibration or sessions, except for the sampling operator written out in
standard operators, which OpenVINO needs. Used by `cpu.py --by-hand`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from jotr_deploy.export.to_onnx import traced
from jotr_deploy.model.jotr import INPUTS, JOTR, MeshOutput
from jotr_deploy.plugins.onnx_function import attach, inline, translation

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]
Call = Callable[[Feeds], dict[str, Array]]


@dataclass(frozen=True)
class ByHand:
    """One way to run a network; `calls` are by batch size, and empty where `missing` gives the reason."""

    name: str
    precision: str
    calls: Mapping[int, Call]
    missing: str = ""


def every_way(
    model: JOTR,
    folder: Path,
    calibration: Sequence[Feeds],
    batches: Sequence[int],
    threads: int | None,
    left_out: Sequence[str] = (),
) -> Iterator[ByHand]:
    """The network in every way that is possible here, plain float32 first. `folder` receives the files."""
    import openvino

    plain, quantized = folder / "plain.onnx", folder / "quantized.onnx"
    plain_export(model, plain)
    in_onnxruntime = onnxruntime_call(plain, threads)
    yield ByHand("by hand: ONNX Runtime", "fp32", dict.fromkeys(batches, in_onnxruntime))
    read = openvino.Core().read_model(plain)
    ways: tuple[tuple[str, str, str, Callable[[], Any | None]], ...] = (
        ("OpenVINO", "fp32", "f32", lambda: read),
        ("OpenVINO, bf16", "bf16", "bf16", lambda: read),
        ("NNCF", "int8", "bf16", lambda: by_nncf(plain, calibration)),
        ("quantize_static", "int8", "bf16", lambda: by_quantize_static(plain, quantized, calibration)),
    )
    for name, precision, rest, make in ways:
        if name in left_out:
            continue
        made = make()
        calls = {} if made is None else {batch: openvino_call(made, batch, rest, threads) for batch in batches}
        yield ByHand(f"by hand: {name}", precision, calls, "" if calls else "NNCF is not installed")
    if "torch.compile" not in left_out:
        yield by_torch_compile(model, batches)


def onnxruntime_call(path: Path, threads: int | None) -> Call:
    """ONNX file in ONNX Runtime with its default settings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def call(feeds: Feeds) -> dict[str, Array]:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return call


def by_torch_compile(model: JOTR, batches: Sequence[int]) -> ByHand:
    """Network compiled by PyTorch for each batch size, weights frozen so that they are packed and norms folded."""
    name, compiler = "by hand: torch.compile", os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return ByHand(name, "fp32", {}, f"there is no C++ compiler ({compiler})")
    compiled = torch.compile(model.eval(), dynamic=False, options={"freezing": True})

    def call(feeds: Feeds) -> dict[str, Array]:
        with torch.no_grad():
            result = compiled(*(torch.from_numpy(feeds[each]) for each in INPUTS))
        return {each: value.numpy() for each, value in result._asdict().items()}

    return ByHand(name, "fp32", dict.fromkeys(batches, call))


def plain_export(model: JOTR, path: Path) -> None:
    """Plain result of `torch.onnx.export` for the unfused network."""
    side, cells = model.config.crop_side, model.config.heatmap_side
    example = (torch.zeros(2, 3, side, side), torch.full((2, 30, 2), cells / 2.0), torch.ones(2, 30))
    operator = {torch.ops.jotr.trilinear_sample_3d.default: translation()}
    proto = traced(model.eval(), example, INPUTS, MeshOutput._fields, operator)
    attach(proto)
    onnx.save(inline(proto), path)


def openvino_call(model: Any, batch: int, precision: str, threads: int | None) -> Call:
    """OpenVINO model at one batch size, entirely in one precision."""
    import openvino

    model = model.clone()
    model.reshape({port.any_name: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(model, "CPU", options)
    names, request = [port.any_name for port in model.outputs], compiled.create_infer_request()

    def call(feeds: Feeds) -> dict[str, Array]:
        results = request.infer(dict(feeds), share_inputs=True)
        return {name: results[name] for name in names}

    return call


def by_nncf(path: Path, batches: Sequence[Feeds]) -> Any | None:
    """NNCF's post-training quantisation with its setting for transformers; None where NNCF is not installed."""
    if importlib.util.find_spec("nncf") is None:
        return None
    import nncf
    import openvino

    singles = [
        {name: feed[person : person + 1] for name, feed in feeds.items()}
        for feeds in batches
        for person in range(len(feeds["image"]))
    ]
    return nncf.quantize(
        openvino.Core().read_model(path),
        nncf.Dataset(singles),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(singles),
    )


def by_quantize_static(path: Path, quantized: Path, batches: Sequence[Feeds]) -> Any:
    """ONNX Runtime's quantiser, read by OpenVINO: symmetric, as nothing else compiles with static shapes."""
    import openvino
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.waiting = iter(batches)

        def get_next(self) -> Feeds | None:
            return next(self.waiting, None)

    prepared = quantized.with_suffix(".prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared, quantized, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul", "Gemm", "Add"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )  # fmt: skip
    return openvino.Core().read_model(quantized)
