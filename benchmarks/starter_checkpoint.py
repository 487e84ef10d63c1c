"""Checkpoint of the starter bundle's mesh network, which ships as a fused file only.

    python benchmarks/starter_checkpoint.py -o starter.pt

The algebra of the export is reversed: a folded norm becomes one with the statistics of drawn people and the factor
and shift that undo them, as training needs it; the merged map of the lifting its own first factor, a table of folded
biases the positions that it came from plus a bias (least squares). Only the constant that replaced the decoder's first
self-attention has no weights left: weights that give it are searched for.
Prints the distance of the network from the file on noise.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from starter_weights import BATCH, BATCHES, SEED, measure
from torch import Tensor, nn

from jotr_deploy.body.smpl import stand_in
from jotr_deploy.bundle import open_bundle
from jotr_deploy.engines.fp16_weights import widen_weights
from jotr_deploy.engines.verify import random_crops
from jotr_deploy.export.to_bundle import torch_network
from jotr_deploy.model.attention import Attention, DecoderLayer
from jotr_deploy.model.checkpoint import save_checkpoint
from jotr_deploy.model.fusion import Fusion
from jotr_deploy.model.heads import Heads
from jotr_deploy.model.jotr import JOTR
from jotr_deploy.model.lifting import Lifting, anchors
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.training.mesh_samples import SceneSamples

SEARCH_STEPS = 3000


class FusedFile:
    """Weights of an exported network by the names of its modules."""

    def __init__(self, path: Path) -> None:
        graph = widen_weights(onnx.load(path)).graph
        self.constants = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        self.nodes = {node.name: node for node in graph.node}

    def __getitem__(self, name: str) -> Tensor:
        return self.constants[name].double()

    def linear(self, scope: str) -> Tensor:
        """(outputs, inputs) matrix of a map that the exporter transposed."""
        return self[self.nodes[f"{scope}/MatMul"].input[1]].T

    def power(self) -> Tensor:
        return self[self.nodes["fusion.decoder/Pow"].input[1]]


def take_apart(file: FusedFile, model: JOTR) -> None:
    """Fill a network so that fusing it gives the file."""
    copied = {name: weight for name, weight in model.named_parameters() if name in file.constants}
    for name, weight in copied.items():
        weight.copy_(file[name])
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and f"{name}/MatMul" in file.nodes and f"{name}.weight" not in copied:
            module.weight.copy_(file.linear(name))
    unfold_norms(file, model)
    unmerge_lifting(file, model.lifting)
    unmerge_heads(file, model.heads)
    for scope, position in (("lifting", model.lifting.position), ("fusion", model.fusion.position)):
        for index, layer in enumerate(model.get_submodule(f"{scope}.encoder").layers):  # type: ignore[arg-type]
            name = f"{scope}.encoder.layers.{index}.self_attn"
            weight, table = file.linear(f"{name}.qkv"), file[f"{name}.bias"]
            table[:, : 2 * len(weight) // 3] -= position.double() @ weight[: 2 * len(weight) // 3].T
            fill(layer.self_attn, weight, table.mean(0))
    unfold_decoder(file, model.fusion)


def unfold_norms(file: FusedFile, model: JOTR) -> None:
    for scope, parent in model.backbone.named_modules(prefix="backbone"):
        children = list(parent.named_children())
        for (name, plain), (_, norm) in pairwise(children):
            if isinstance(plain, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                key = f"{scope}.{name}"
                norm.weight.fill_((1 + norm.eps) ** 0.5)
                norm.bias.copy_(file[f"{key}.bias" if f"{key}.bias" in file.constants else f"{key}.weight_bias"])
                if plain.bias is not None:
                    plain.bias.zero_()


def unmerge_lifting(file: FusedFile, lifting: Lifting) -> None:
    """Set the first map of the lifting to the merged one, and the second to pass channels on unchanged."""
    width = lifting.mix.out_channels
    lifting.exponent.copy_(file.power())
    for name in ("weight", "bias"):
        merged = file[f"lifting.to_voxels.{name}"].unflatten(0, (lifting.grid, width))
        lifting.to_3d.get_parameter(name).copy_(merged.transpose(0, 1).flatten(0, 1))
    place = anchors(lifting.grid, file.power()).flatten(1).T
    ones = torch.ones(len(place), 1, dtype=torch.float64)
    found = torch.linalg.lstsq(torch.cat([place, ones], 1), file["lifting.anchor_bias"]).solution
    lifting.mix.weight.copy_(torch.cat([torch.eye(width), found[:3].T.float()], 1)[..., None, None, None])
    lifting.mix.bias.copy_(found[3])  # type: ignore[union-attr]


def unmerge_heads(file: FusedFile, heads: Heads) -> None:
    """Give each layer of a cascade its part of the merged map, and nothing of the layer before.

    The heads of older files are not merged.
    """
    for name, cascades in (("pose", (heads.root, heads.latent)), ("betas", (heads.betas,)), ("cam", (heads.cam,))):
        if f"heads.{name}.weight" not in file.constants:
            continue
        sizes = [cascade[0].out_features for cascade in cascades]
        parts = zip(file[f"heads.{name}.weight"].split(sizes), file[f"heads.{name}.bias"].split(sizes), strict=True)
        for cascade, (weight, bias) in zip(cascades, parts, strict=True):
            for layer, own in zip(cascade, weight.chunk(len(cascade), 1), strict=True):
                layer.weight.zero_()[:, : own.shape[1]] = own
                layer.bias.copy_(bias if layer is cascade[0] else 0 * bias)


def fill(attention: Attention, weight: Tensor, bias: Tensor) -> None:
    """Fill packed projections, with the scale of the softmax taken out of the query's."""
    scale = torch.ones(len(bias), dtype=torch.float64)
    scale[: len(bias) // 3] = (len(bias) // 3 // attention.heads) ** 0.5
    attention.in_proj_weight.copy_(weight * scale[:, None])
    attention.in_proj_bias.copy_(bias * scale)


def unfold_decoder(file: FusedFile, fusion: Fusion) -> None:
    layers, width, scope = fusion.decoder.layers, len(fusion.smpl_target), "fusion.decoder.layers"
    # Every table is (queries @ weight.T + bias): the queries up to their mean, which the biases take.
    maps, tables = [], []
    for index in range(len(layers)):
        maps.append(file.linear(f"{scope}.{index}.query"))
        tables.append(file[f"{scope}.{index}.query_bias"])
        if index:
            maps.append(file.linear(f"{scope}.{index}.self_attn.qkv")[: 2 * width])
            tables.append(file[f"{scope}.{index}.self_attn.bias"][:, : 2 * width])
    every = torch.cat(tables, 1)
    queries = torch.linalg.lstsq(torch.cat(maps), (every - every.mean(0)).T).solution.T
    fusion.smpl_query.copy_(queries[: len(fusion.smpl_query)])
    fusion.joint_query.copy_(queries[len(fusion.smpl_query) :])
    memory = file.linear("fusion.decoder.memory_kv").split(2 * width)
    memory_bias = file["fusion.decoder.memory_bias"].split(2 * width, 1)
    for index, layer in enumerate(layers):
        key_value, table = memory[index], memory_bias[index].clone()
        table[:, :width] -= fusion.position.double() @ key_value[:width].T
        query, placed = file.linear(f"{scope}.{index}.query"), file[f"{scope}.{index}.query_bias"]
        biases = torch.cat([(placed - queries @ query.T).mean(0), table.mean(0)])
        fill(layer.multihead_attn, torch.cat([query, key_value]), biases)  # type: ignore[arg-type]
        layer.multihead_attn.out_proj.weight.copy_(file.linear(f"{scope}.{index}.out_proj"))  # type: ignore[union-attr]
        layer.multihead_attn.out_proj.bias.copy_(file[f"{scope}.{index}.out_proj.bias"])  # type: ignore[union-attr]
        if index:
            weight, own = file.linear(f"{scope}.{index}.self_attn.qkv"), file[f"{scope}.{index}.self_attn.bias"]
            own[:, : 2 * width] -= queries @ weight[: 2 * width].T
            fill(layer.self_attn, weight, own.mean(0))  # type: ignore[arg-type]
    search_start(fusion, file["fusion.decoder.start"])


def search_start(fusion: Fusion, start: Tensor) -> None:
    """Search targets, first self-attention and its norm that give the constant, from any start."""
    layer = cast(DecoderLayer, fusion.decoder.layers[0]).double()
    searched = [fusion.smpl_target, fusion.joint_target, *layer.self_attn.parameters(), *layer.norm1.parameters()]
    torch.manual_seed(0)
    for parameter in searched:
        parameter.requires_grad_(True)
        parameter.data = parameter.data.double().normal_(1.0 if parameter is layer.norm1.weight else 0.0, 0.1)
    queries = fusion.queries().double()
    optimizer = torch.optim.LBFGS(
        searched, max_iter=SEARCH_STEPS, history_size=50, tolerance_grad=1e-12, tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        optimizer.zero_grad()
        targets = fusion.targets()[None]
        placed = targets + queries
        found = layer.norm1(targets + layer.self_attn(placed, placed, targets))
        value = (found[0] - start).square().mean()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
        error = float(loss().detach()) ** 0.5
    fusion.requires_grad_(False).float()
    print(f"start of the decoder: to {error:.1e}, its size {float(start.square().mean()) ** 0.5:.2f}")


def measure_norms(model: JOTR) -> None:
    """Give the norms of the backbone the statistics of drawn people, without a change of its output."""
    pairs = [
        (plain, norm)
        for parent in model.backbone.modules()
        for plain, norm in pairwise(parent.children())
        if isinstance(plain, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]
    config = model.config
    samples = SceneSamples(SEED, config.crop_side, config.crop_factor, 0.1)
    batches = [samples(range(k * BATCH, (k + 1) * BATCH)) for k in range(BATCHES)]
    feeds = [[torch.from_numpy(each[name]) for name in ("image", "joints", "joints_mask")] for each in batches]
    measure(lambda batch: model.features(batch[0].float() / 255, *batch[1:]), feeds, pairs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, default=Path("starter"), help="a starter bundle of any version")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    model = JOTR(bundle.manifest.model, stand_in()).eval().requires_grad_(False)
    take_apart(FusedFile(bundle.file("mesh")), model)
    measure_norms(model)
    feeds = random_crops(bundle.manifest.model, 16)
    with open_session(bundle.file("mesh"), "onnxruntime", "cpu") as session:
        gap_m = np.linalg.norm(session(feeds)["joints3d"] - torch_network(model)(feeds)["joints3d"], axis=-1)
    print(f"joints of noise: {1000 * gap_m.mean():.3f} mm on average, {1000 * gap_m.max():.3f} mm at most")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(arguments.output, model, bundle.manifest.labels[:1])


if __name__ == "__main__":
    main()
