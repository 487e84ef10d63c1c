"""Cost of low precision by scope: drift of each scope in the low type against the same file in float32.

python benchmarks/precision.py BUNDLE/mesh.onnx --precision fp16 --batches 1 3 8

Every low value is rounded and arithmetic is float32 (`emulate`), like a device that does not fuse operators. The last
line is the low file in ONNX Runtime itself, whose CPU kernels are mostly float32 between rounded weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from jotr_deploy.config import ModelConfig
from jotr_deploy.engines.low_precision import (
    SCOPES,
    Precision,
    Rule,
    emulate,
    format_typing,
    tensor_types,
    to_low_precision,
    typing_report,
)
from jotr_deploy.engines.verify import UNITS, Network, measure
from jotr_deploy.support.aliases import Array

PARTS = (
    "backbone", "backbone.conv1", "backbone.heatmap_fusion", "backbone.layer1", "backbone.layer2", "backbone.layer3",
    "backbone.layer4", "lifting", "lifting.to_voxels", "lifting.encoder", "fusion.down", "fusion.encoder",
    "fusion.decoder.layers", "fusion.decoder.memory_kv", "fusion.decoder.sampled_k", "fusion.decoder.sampled_v",
    "fusion.decoder.fc_pos_3d", "fusion.decoder.joint_img_regress", "heads", "vposer", "body",
)  # fmt: skip
SHOWN = ("joints_img", "pose", "vertices", "translation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mesh", type=Path)
    parser.add_argument("--precision", choices=("fp16", "bf16"), default="fp16")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 3, 8])
    arguments = parser.parse_args()
    mesh = onnx.load(arguments.mesh)
    low = to_low_precision(mesh, arguments.precision)
    print(format_typing(typing_report(low)))
    size, plain = low.ByteSize(), mesh.ByteSize()
    print(f"\n{plain / 1e6:.1f} MB in fp32, {size / 1e6:.1f} MB in {arguments.precision}: {size / plain:.2f}")
    print(f"weights that became zero: {vanished(mesh, low):,}\n")
    reference, config = remembered(network(mesh)), ModelConfig(crop_side=side(mesh))
    print(f"{'low alone':44}" + "".join(f"{f'{name} [{UNITS[name]}]':>20}" for name in SHOWN) + "   means over batches")
    for label, candidate in candidates(mesh, low, arguments.precision):
        rows = measure(reference, network(candidate), config, arguments.batches)
        means = [np.mean([row.mean for row in rows if row.output == name]) for name in SHOWN]
        finite = "" if all(row.finite for row in rows) else "   NOT FINITE"
        print(f"{label:44}" + "".join(f"{mean:>20.2e}" for mean in means) + finite, flush=True)


def candidates(
    mesh: onnx.ModelProto, low: onnx.ModelProto, precision: Precision
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Candidates: every part alone in low precision, then the whole table, then the file itself where it runs."""
    for part in PARTS:
        table: dict[str, Rule] = {"": "full", part: "low"}
        yield part, emulate(to_low_precision(mesh, precision, table))
    for part in ("backbone", "lifting", "fusion.decoder.layers"):
        yield f"all of the table but {part}", emulate(to_low_precision(mesh, precision, {**SCOPES, part: "full"}))
    yield "all of the table", emulate(low)
    if precision == "fp16":
        yield "all of the table, ONNX Runtime", low


def network(model: onnx.ModelProto) -> Network:
    """Network of a model in ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def remembered(network: Network) -> Network:
    """Network with results cached by batch size, because `measure` always feeds the same crops for a batch size."""
    results: dict[int, Mapping[str, Array]] = {}

    def call(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        batch = len(feeds["image"])
        if batch not in results:
            results[batch] = network(feeds)
        return results[batch]

    return call


def side(mesh: onnx.ModelProto) -> int:
    """Crop side of the network, px."""
    return tensor_types(mesh)["image"].shape.dim[-1].dim_value


def vanished(mesh: onnx.ModelProto, low: onnx.ModelProto) -> int:
    """Number of values that are non-zero in float32 and zero in the low type."""
    plain = {tensor.name: tensor for tensor in mesh.graph.initializer}
    count = 0
    for tensor in low.graph.initializer:
        name, _, ending = tensor.name.rpartition(".")
        if ending in ("fp16", "bf16"):
            before, after = numpy_helper.to_array(plain[name]), numpy_helper.to_array(tensor)
            count += int(((before != 0) & (after == 0)).sum())
    return count


if __name__ == "__main__":
    main()
