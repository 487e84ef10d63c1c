"""People of the stand-in body, features of their kernels, and feature maps drawn from both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.body.smpl import stand_in
from jotr_deploy.fitting.bank import Features
from jotr_deploy.fitting.fit import Bodies
from jotr_deploy.fitting.gaussian_precision import auto_precision
from jotr_deploy.fitting.kernel_selection import Reach, select
from jotr_deploy.fitting.kernels import Kernels, decimate, mean_edge_m
from jotr_deploy.fitting.orientation_bins import bins_of
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.rendering import at_slots, slot_weights, unit
from jotr_deploy.fitting.volume import BodyVolume

KERNELS, CHANNELS, BINS, SIDE = 220, 16, 3, 40
REACH = Reach(q_max=12.0, q_mask=4.6, per_ray=12, only_masked=True)


@cache
def kernels(count: int = KERNELS) -> Kernels:
    return decimate(stand_in(), count)


@cache
def volume() -> BodyVolume:
    return BodyVolume(stand_in(), kernels(), auto_precision(mean_edge_m(kernels(), stand_in())))


def features(bins: int = BINS, seed: int = 5) -> Features:
    """Smooth over the body, with a part for each limb and each bin; the clutter is one direction."""
    draw = torch.Generator().manual_seed(seed)
    waves, phase = torch.randn(3, CHANNELS, generator=draw) * 8, torch.rand(CHANNELS, generator=draw) * math.tau
    smooth = torch.sin(volume().template.float() @ waves + phase)
    limb = torch.randn(9, CHANNELS, generator=draw)[volume().limbs]
    each = smooth[:, None] + 0.7 * limb[:, None] + 0.7 * torch.randn(bins, CHANNELS, generator=draw)
    return Features(unit(each), unit(torch.randn(1, CHANNELS, generator=draw)))


def people(count: int, seed: int = 0) -> Bodies:
    """Upright people, some 45 m before the camera, in poses near rest."""
    draw = torch.Generator().manual_seed(seed)
    pose = torch.zeros(count, 24, 3)
    pose[:, 0, 0] = math.pi
    pose[:, :20] += 0.25 * torch.randn(count, 20, 3, generator=draw)
    place = torch.tensor([0.0, -0.25, 45.0]) + torch.randn(count, 3, generator=draw) * torch.tensor([0.05, 0.05, 0.5])
    return Bodies(pose, 0.3 * torch.randn(count, 10, generator=draw), place)


def disturbed(true: Bodies, seed: int = 1) -> Bodies:
    """People a tenth of a radian off in every joint but the hands, and some centimetres in place."""
    draw = torch.Generator().manual_seed(seed)
    pose = true.pose_rad.clone()
    pose[:, :20] += 0.12 * torch.randn(len(pose), 20, 3, generator=draw)
    shift = torch.randn(len(pose), 3, generator=draw) * torch.tensor([0.04, 0.04, 0.3])
    return Bodies(pose, true.betas, true.translation_m + shift)


@dataclass(frozen=True)
class Box:
    """A square of cells that hides what is behind it."""

    row: int
    column: int
    side: int


def seen(true: Bodies, look: Features, side: int = SIDE, noise: float = 0.3, box: Box | None = None) -> Tensor:
    """(B, C, S, S): people drawn with hard bins before clutter, noise everywhere, perhaps a box before them."""
    camera, body = GridCamera.of_crop(side), volume()
    draw = torch.Generator().manual_seed(9)
    at_rest = true.pose_rad.double().clone()
    at_rest[:, 20:] = 0
    posed = body(at_rest, true.betas.double())
    centres = posed.centres_m + true.translation_m[:, None].double()
    found = select(centres, posed.precision, body.lowest_precision, camera, REACH)
    drawn = slot_weights(centres, posed.precision, found, 1.0, "peak").float()
    label = bins_of(posed.limb_directions, look.kernels.shape[1])[:, body.limbs]
    rows = look.kernels[torch.arange(body.count), label].flatten(0, 1)
    rendered = unit((drawn[:, None] @ at_slots(rows, found))[:, 0])
    count = len(at_rest)
    every = look.clutter[0].expand(count * camera.cells, -1).clone()
    place = found.people * camera.cells + found.cells
    every[place[found.mask]] = rendered[found.mask]
    every = every + noise * F.normalize(torch.randn(every.shape, generator=draw), dim=-1)
    maps = every.unflatten(0, (count, side, side)).permute(0, 3, 1, 2).contiguous()
    if box is not None:
        hidden = maps[:, :, box.row : box.row + box.side, box.column : box.column + box.side]
        hidden[:] = look.clutter[0][:, None, None] + noise * torch.randn(hidden.shape, generator=draw) / 4
    return maps


def joint_error_mm(found: Bodies, true: Bodies) -> tuple[Tensor, Tensor]:
    """(B, 20) how far body joints are from their places, from the pelvis: in the image plane, and in depth."""
    joints = [volume().joints(b.pose_rad.double(), b.betas.double())[:, :20] for b in (found, true)]
    apart = (joints[0] - joints[0][:, :1]) - (joints[1] - joints[1][:, :1])
    return 1000 * apart[..., :2].norm(dim=-1), 1000 * apart[..., 2].abs()
