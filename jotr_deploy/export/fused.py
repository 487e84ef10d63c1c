"""Equivalent, faster networks: pure functions JOTR -> JOTR, each the same function of its inputs.

They change results only by rounding and need no tracing: weights are multiplied out once, here. Unchanged modules are
shared with the plain network. Outside `torch.no_grad` gradients flow through the products to the plain weights, so a
network can be trained in the form that is deployed; dropout is off, and norms keep their running statistics.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from jotr_deploy.body.planar import PlanarBody
from jotr_deploy.body.vposer import LATENT
from jotr_deploy.model.attention import Attention, DecoderLayer, EncoderLayer
from jotr_deploy.model.fusion import SMPL_QUERIES, Decoded, Decoder, Fusion, JointRefiner
from jotr_deploy.model.heads import Cascade, Heads, Parameters
from jotr_deploy.model.jotr import JOTR
from jotr_deploy.model.lifting import Lifting, anchors


def fuse(model: JOTR) -> JOTR:
    """Apply every rewrite of this module, in order."""
    rewrites: tuple[Callable[[JOTR], JOTR], ...] = (
        fold_norms, merge_lifting, fold_encoders, fold_decoder, merge_heads, flatten_body,
    )  # fmt: skip
    return reduce(lambda network, rewrite: rewrite(network), rewrites, model)


def _sharing(model: JOTR) -> JOTR:
    """A copy of the modules that holds the same tensors."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def _made_of(module: nn.Module, **tensors: Tensor) -> None:
    """Set computed weights of a module; gradients pass through a buffer to their sources, but end at a parameter."""
    for name, tensor in tensors.items():
        delattr(module, name)
        if tensor.requires_grad:
            module.register_buffer(name, tensor)
        else:
            setattr(module, name, nn.Parameter(tensor, requires_grad=False))


def fold_norms(model: JOTR) -> JOTR:
    """Merge each batch norm, with its running statistics, into the convolution before it."""
    model = _sharing(model)
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (_, plain), (name, norm) in pairwise(children):
            if isinstance(plain, nn.Conv2d) and isinstance(norm, nn.modules.batchnorm._BatchNorm):
                _fold(plain, norm)
                parent.add_module(name, nn.Identity())
    return model


def _fold(plain: nn.Conv2d, norm: nn.modules.batchnorm._BatchNorm) -> None:
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    factor = norm.weight.double() / (variance + norm.eps).sqrt()
    bias = -mean if plain.bias is None else plain.bias.double() - mean
    weight = plain.weight.double() * factor[:, None, None, None]
    _made_of(plain, weight=weight.float(), bias=(bias * factor + norm.bias.double()).float())


def merge_lifting(model: JOTR) -> JOTR:
    """Merge the two consecutive linear maps of the lifting; the anchors become a constant."""
    model = _sharing(model)
    model.lifting = MergedLifting(model.lifting)  # type: ignore[assignment]
    return model


def fold_encoders(model: JOTR) -> JOTR:
    """Fold both encoders: fixed positions go into the projections' biases, and one product gives q, k and v."""
    model = _sharing(model)
    for encoder, position in (
        (model.lifting.encoder, model.lifting.position),
        (model.fusion.encoder, model.fusion.position),
    ):
        layers = [cast(EncoderLayer, layer) for layer in encoder.layers]
        encoder.layers = nn.ModuleList(FoldedEncoderLayer(layer, position) for layer in layers)
    return model


def fold_decoder(model: JOTR) -> JOTR:
    """Fold the decoder's positions, project the memory once for all layers, and drop the unused last sampling."""
    model = _sharing(model)
    model.fusion.decoder = FoldedDecoder(model.fusion)  # type: ignore[assignment]
    return model


def merge_heads(model: JOTR) -> JOTR:
    """Merge the maps of each cascade, which has nothing but linear ones, into one map of the tokens of all layers."""
    model = _sharing(model)
    model.heads = MergedHeads(model.heads)  # type: ignore[assignment]
    return model


def flatten_body(model: JOTR) -> JOTR:
    """Skinning on coordinate planes, joints regressed once from the template; all-zero pose directions are left out."""
    model = _sharing(model)
    if model.body is not None:
        model.body = PlanarBody(model.body)  # type: ignore[assignment]
    return model


class MergedLifting(nn.Module):
    """`Lifting` with `mix(concat(to_3d(F), anchors))` as one convolution plus a constant per voxel."""

    position: Tensor
    anchor_bias: Tensor
    exponent: Tensor

    def __init__(self, plain: Lifting) -> None:
        super().__init__()
        self.grid, self.encoder = plain.grid, plain.encoder
        mix = plain.mix.weight.flatten(1).double()  # (C, C + 3)
        width = len(mix)
        lift = plain.to_3d.weight.flatten(1).double().unflatten(0, (width, self.grid))  # (C, D, channels)
        bias = plain.to_3d.bias.double().unflatten(0, (width, self.grid))  # type: ignore[union-attr]
        weight = torch.einsum("oc,cdi->doi", mix[:, :width], lift)  # depth first: saves a transpose to tokens
        self.to_voxels = nn.Conv2d(lift.shape[-1], width * self.grid, 1, device="meta")
        merged_bias = (mix[:, :width] @ bias).T.flatten().float()
        _made_of(self.to_voxels, weight=weight.flatten(0, 1)[..., None, None].float(), bias=merged_bias)
        place = anchors(self.grid, plain.depth_exponent().double()).flatten(1)  # (3, D*H*W)
        anchor_bias = place.T @ mix[:, width:].T + plain.mix.bias.double()  # type: ignore[union-attr]
        self.register_buffer("anchor_bias", anchor_bias.float())
        self.register_buffer("position", plain.position)
        self.register_buffer("exponent", plain.depth_exponent())

    def depth_exponent(self) -> Tensor:
        """Exponent of the depth axis, as in `Lifting`."""
        return self.exponent

    def forward(self, features: Tensor) -> Tensor:
        """Feature volume, as `Lifting.forward` gives it."""
        voxels = self.to_voxels(features).unflatten(1, (self.grid, -1)).flatten(3)  # (B, D, C, H*W)
        tokens = voxels.transpose(2, 3).flatten(1, 2) + self.anchor_bias
        return self.encoder(tokens, self.position).unflatten(1, (self.grid, self.grid, self.grid))


class FoldedAttention(nn.Module):
    """Self-attention over tokens whose positions are fixed: q, k, v in one product, the bias differs by token.

    The softmax scale is in the query's weights.
    """

    bias: Tensor

    def __init__(self, plain: Attention, position: Tensor) -> None:
        super().__init__()
        self.heads, self.out_proj = plain.heads, plain.out_proj
        weight, bias = _scaled_projection(plain)
        width = weight.shape[1]
        self.qkv = nn.Linear(width, 3 * width, bias=False, device="meta")
        _made_of(self.qkv, weight=weight.float())
        placed = bias.new_zeros(len(position), 3 * width)
        placed[:, : 2 * width] = position.double() @ weight[: 2 * width].T  # values have no position
        self.register_buffer("bias", (placed + bias).float())

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        q, k, v = (self.qkv(x) + self.bias).chunk(3, -1)
        return self.out_proj(attend(q, k, v, self.heads))


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of projected tokens (B, N, C), (B, M, C), (B, M, C), the scale already in q -> (B, N, C)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = torch.softmax(q @ k.transpose(2, 3), -1)
    return (weights @ v).transpose(1, 2).flatten(2)


def _scaled_projection(plain: Attention) -> tuple[Tensor, Tensor]:
    """Float64 copies of the packed projection (3C, C) and bias (3C,), q's part divided by sqrt(width of a head)."""
    width = plain.in_proj_weight.shape[1]
    scale = torch.ones(3 * width, dtype=torch.float64, device=plain.in_proj_bias.device)
    scale[:width] = math.sqrt(width // plain.heads)
    return plain.in_proj_weight.double() / scale[:, None], plain.in_proj_bias.double() / scale


class FoldedEncoderLayer(nn.Module):
    """`EncoderLayer` for one fixed position table."""

    def __init__(self, plain: EncoderLayer, position: Tensor) -> None:
        super().__init__()
        self.self_attn = FoldedAttention(plain.self_attn, position)
        self.linear1, self.linear2 = plain.linear1, plain.linear2
        self.norm1, self.norm2 = plain.norm1, plain.norm2

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Tokens after the layer; `position` is ignored in favour of the table given at construction."""
        x = self.norm1(x + self.self_attn(x))
        return self.norm2(x + self.linear2(torch.relu(self.linear1(x))))


class FoldedDecoderLayer(nn.Module):
    """`DecoderLayer` for fixed query positions; keys and values arrive projected."""

    query_bias: Tensor

    def __init__(self, plain: DecoderLayer, query_position: Tensor) -> None:
        super().__init__()
        cross = plain.multihead_attn
        self.heads, self.out_proj = cross.heads, cross.out_proj
        self.self_attn = FoldedAttention(plain.self_attn, query_position)
        self.linear1, self.linear2 = plain.linear1, plain.linear2
        self.norm1, self.norm2, self.norm3 = plain.norm1, plain.norm2, plain.norm3
        weight, bias = _scaled_projection(cross)
        width = weight.shape[1]
        self.query = nn.Linear(width, width, bias=False, device="meta")
        _made_of(self.query, weight=weight[:width].float())
        self.register_buffer("query_bias", (query_position.double() @ weight[:width].T + bias[:width]).float())

    def settle(self, t: Tensor) -> Tensor:
        """(B, Q, C) after self-attention among the queries."""
        return self.norm1(t + self.self_attn(t))

    def forward(self, t: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Settled tokens (B, Q, C), projected keys and values (B, M, C) -> (B, Q, C)."""
        mixed = attend(self.query(t) + self.query_bias, key, value, self.heads)
        t = self.norm2(t + self.out_proj(mixed))
        return self.norm3(t + self.linear2(torch.relu(self.linear1(t))))


class FoldedDecoder(JointRefiner):
    """`Decoder` for fixed targets and positions."""

    memory_bias: Tensor
    start: Tensor

    def __init__(self, fusion: Fusion) -> None:
        plain: Decoder = fusion.decoder
        super().__init__(plain.joint_img_regress, plain.fc_pos_3d)
        queries = fusion.queries()
        layers = [cast(DecoderLayer, layer) for layer in plain.layers]
        folded = [FoldedDecoderLayer(layer, queries) for layer in layers]
        self.layers, self.norm = nn.ModuleList(folded), plain.norm
        width = queries.shape[1]
        self.width = width
        projections = [layer.multihead_attn for layer in layers]
        # Keys and values of every layer from the memory, which no layer changes, in one product.
        self.memory_kv = nn.Linear(width, 2 * width * len(projections), bias=False, device="meta")
        _made_of(self.memory_kv, weight=torch.cat([p.in_proj_weight[width:] for p in projections]))
        place = fusion.position.double()
        biases = []
        for projection in projections:
            weight, bias = projection.in_proj_weight.double(), projection.in_proj_bias.double()
            biases += [
                place @ weight[width : 2 * width].T + bias[width : 2 * width],
                bias[2 * width :].expand(len(place), -1),
            ]
        self.register_buffer("memory_bias", torch.cat(biases, 1).float())
        self.sampled_k = nn.ModuleList(_part(p, 1) for p in projections[1:])
        self.sampled_v = nn.ModuleList(_part(p, 2) for p in projections[1:])
        # The targets are constants, so the first self-attention is one too.
        self.register_buffer("start", folded[0].settle(fusion.targets()[None])[0])

    def forward(
        self, t: Tensor, query_position: Tensor, memory: Tensor, position: Tensor, volume: Tensor, exponent: Tensor
    ) -> Decoded:
        """Outputs of `Decoder.forward`, with the targets and positions given at construction."""
        fixed = (self.memory_kv(memory) + self.memory_bias).split(self.width, -1)
        t, joints = self.start.expand(memory.shape[0], -1, -1), None
        tokens_by_layer, joints_by_layer = [], []
        for index, layer in enumerate(cast(list[FoldedDecoderLayer], self.layers)):
            key, value = fixed[2 * index], fixed[2 * index + 1]
            if joints is not None:
                sampled, place = self.sample(volume, joints, exponent)
                key = torch.cat([key, self.sampled_k[index - 1](sampled + place)], 1)
                value = torch.cat([value, self.sampled_v[index - 1](sampled)], 1)
                t = layer.settle(t)
            t = self.norm(layer(t, key, value))
            joints = self.refine_joints(index, t, joints)
            tokens_by_layer.append(t)
            joints_by_layer.append(joints)
        return Decoded(torch.stack(tokens_by_layer), torch.stack(joints_by_layer))


class MergedHeads(nn.Module):
    """`Heads` with one linear map for each of its tokens, from their values after all layers."""

    def __init__(self, plain: Heads) -> None:
        super().__init__()
        self.pose = _merged(plain.root, plain.latent)
        self.betas, self.cam = _merged(plain.betas), _merged(plain.cam)

    def forward(self, tokens: Tensor) -> Parameters:
        """Decoder tokens (L, B, 18, C) -> parameters, as `Heads.forward` gives them."""
        pose, shape, camera = tokens[:, :, :SMPL_QUERIES].permute(2, 1, 0, 3).flatten(2).unbind(0)
        root_6d, latent = self.pose(pose).split([6, LATENT], -1)
        return Parameters(root_6d, latent, self.betas(shape), self.cam(camera))


def _merged(*cascades: Cascade) -> nn.Linear:
    """Map (L * C) -> outputs that equals cascades over the same tokens, their outputs one after the other."""
    weights, biases = [], []
    for cascade in cascades:
        first, *others = (cast(nn.Linear, layer) for layer in cascade)
        weight, bias = first.weight.double(), first.bias.double()
        for layer in others:
            own, above = layer.weight.double().split([first.in_features, first.out_features], 1)
            step = above + torch.eye(first.out_features, dtype=above.dtype, device=above.device)
            weight, bias = torch.cat([step @ weight, own], 1), step @ bias + layer.bias.double()
        weights.append(weight)
        biases.append(bias)
    merged = nn.Linear(weights[0].shape[1], sum(map(len, biases)), device="meta")
    _made_of(merged, weight=torch.cat(weights).float(), bias=torch.cat(biases).float())
    return merged


def _part(projection: Attention, part: int) -> nn.Linear:
    """The q (0), k (1) or v (2) map of a packed projection."""
    width = projection.in_proj_weight.shape[1]
    rows = slice(part * width, (part + 1) * width)
    linear = nn.Linear(width, width, device="meta")
    _made_of(linear, weight=projection.in_proj_weight[rows], bias=projection.in_proj_bias[rows])
    return linear
