"""Start weights from a seed: the published scheme where it matters, and a mean pose that looks at the camera."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from jotr_deploy.model.backbone import HEATMAPS
from jotr_deploy.model.jotr import JOTR

# A standing person: facing the camera (half a turn about x, from y up to y down), at a distance that fills the crop.
_ROOT_6D = (1.0, 0.0, 0.0, -1.0, 0.0, 0.0)
_REST_6D = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
_ARM_DOWN_RAD = math.radians(65)
_CAMERA = (0.0, 0.25, 1.7)
_LEFT_SHOULDER, _RIGHT_SHOULDER = 15, 16  # among the 21 joints of the pose prior
_HEAD_GAIN = 0.2
_CAMERA_GAIN = 0.01
# Where the heat maps join the picture: equal gains would let its texture drown them.
_PICTURE_GAIN, _HEATMAP_GAIN = 0.1, 3.0


def initialise(model: JOTR, seed: int = 0) -> JOTR:
    """Fill every weight deterministically, in place; the same numbers on every machine.

    Convolutions keep the scale of their inputs, residual branches start small, transformers are xavier-uniform,
    queries normal, targets zero. The heat maps weigh more than the picture. The heads start at the mean pose and move
    little.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                _normal(module.weight, math.sqrt(2 / module.weight[0].numel()), random)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Linear):
                _xavier(module.weight, random)
                module.bias.zero_()
        for name, parameter in model.named_parameters():
            if name.endswith("in_proj_weight"):
                _xavier(parameter, random)
            elif name.endswith(("_query",)):
                _normal(parameter, 1.0, random)
            elif name.endswith(("bn3.weight",)) or (name.endswith("bn2.weight") and _is_basic(model)):
                parameter.fill_(0.3)
        fusion = model.backbone.heatmap_fusion.get_parameter("0.weight")
        fusion[:, :-HEATMAPS] *= _PICTURE_GAIN
        fusion[:, -HEATMAPS:] *= _HEATMAP_GAIN
        _mean_pose(model)
    return model.eval()


def _mean_pose(model: JOTR) -> None:
    heads = model.heads
    for cascade in (heads.root, heads.latent, heads.betas, heads.cam):
        for layer in cascade:
            layer.weight.mul_(_CAMERA_GAIN if cascade is heads.cam else _HEAD_GAIN)  # type: ignore[operator]
    model.heads.root[0].bias.copy_(torch.tensor(_ROOT_6D))  # type: ignore[operator]
    model.heads.cam[0].bias.copy_(torch.tensor(_CAMERA))  # type: ignore[operator]
    rest = torch.tensor(_REST_6D).repeat(21, 1)
    for joint, sign in ((_LEFT_SHOULDER, -1.0), (_RIGHT_SHOULDER, 1.0)):
        cos, sin = math.cos(_ARM_DOWN_RAD), sign * math.sin(_ARM_DOWN_RAD)
        rest[joint] = torch.tensor([cos, -sin, sin, cos, 0.0, 0.0])
    model.vposer.bodyprior_dec_out.bias.copy_(rest.flatten())


def _is_basic(model: JOTR) -> bool:
    return model.config.backbone_depth < 50


def _normal(tensor: Tensor, std: float, random: torch.Generator) -> None:
    tensor.copy_(torch.randn(tensor.shape, generator=random) * std)


def _xavier(tensor: Tensor, random: torch.Generator) -> None:
    bound = math.sqrt(6 / (tensor.shape[0] + tensor.shape[1]))
    tensor.copy_((torch.rand(tensor.shape, generator=random) * 2 - 1) * bound)
