"""The energy of a fit: how badly a person explains their features, joints and priors (docs/fitting.md section 6)."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.fitting.bank import Features
from jotr_deploy.fitting.kernel_selection import Selection, select
from jotr_deploy.fitting.objectives import cell_loss, hidden
from jotr_deploy.fitting.options import FitOptions, Weights
from jotr_deploy.fitting.orientation_bins import von_mises_weights, window_weights, yz_means
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.rendering import blended, slot_weights, unit
from jotr_deploy.fitting.volume import BodyVolume, Posed
from jotr_deploy.skeletons import MEASURED_IN_SMPL30, SMPL30

DTYPE = torch.float64
"""Type of everything in a fit. Single precision would do for one picture, but the choice of kernels on a ray is
discrete, and in a hundred steps a last bit, which depends on the rest of the batch, grows to millimetres."""
FACE = tuple(index for index in MEASURED_IN_SMPL30 if SMPL30[index].split("_")[-1] in ("Nose", "Eye", "Ear"))
SEEN = 0.2
FEWEST_SEEN = 7
_FAR_CELLS = 100.0
_HINGES = ((18, 1), (19, 1), (4, 0), (5, 0))  # joint and component of its axis-angle: elbows about y, knees about x
_STRAIGHT_RAD = 1e-2


class Rendered(NamedTuple):
    """Agreement of the rendered volume with the feature map, for the cells of a selection."""

    selection: Selection
    body: Tensor  # (n,) cosine of the rendered and the seen feature


class Scene:
    """Constant inputs of a fit of several people: features, camera and joints."""

    def __init__(
        self,
        seen: Tensor,
        volume: BodyVolume,
        features: Features,
        camera: GridCamera,
        options: FitOptions,
        inside: Tensor | None = None,
        joints: Tensor | None = None,
    ) -> None:
        """Prepare everything that is constant over the steps.

        Args:
            seen: (B, C, H, W) features of the crops.
            volume: of the body.
            features: of its kernels.
            camera: of the grid.
            options: of the fit.
            inside: (B, H, W) bool, the cells that lie in the picture; all of them by default.
            joints: (B, 30, 3) u, v in cells and confidence of the 30-joint set.
        """
        self.volume, self.camera, self.options = volume, camera, options
        self.features = features = Features(features.kernels.to(DTYPE), features.clutter.to(DTYPE))
        self.seen = unit(seen.to(DTYPE).flatten(2).transpose(1, 2))  # (B, P, C)
        self.clutter = (self.seen @ features.clutter.T).amax(-1)  # (B, P)
        nothing = torch.zeros_like(self.clutter)
        self.without = cell_loss(options.objective, nothing, self.clutter, nothing.bool())
        self.inside = torch.ones_like(nothing, dtype=torch.bool) if inside is None else inside.flatten(1)
        self.joints = None if joints is None else _trusted(joints)
        self.likely = self._likely()

    def of(self, people: Tensor) -> Scene:
        """The same for some of the people, by their numbers."""
        some = copy.copy(self)
        for name in ("seen", "clutter", "without", "inside", "likely"):
            setattr(some, name, getattr(self, name)[people])
        some.joints = None if self.joints is None else self.joints[people]
        return some

    def _likely(self) -> Tensor:
        """(B, P) bool, the cells in the picture that some kernel explains better than clutter, wherever it is."""
        if self.options.least_agreement <= -1:
            return self.inside
        best = (self.seen @ self.features.kernels.flatten(0, 1).T).amax(-1)
        return (best > self.clutter) & self.inside

    def agreement(self, rendered: Rendered) -> Tensor:
        """(B,) mean cosine of what is rendered and what is seen, over cells of the body that show one; else -1."""
        selection = rendered.selection
        counted = selection.mask & self.likely[selection.people, selection.cells]
        people, cosine = selection.people[counted], rendered.body.detach()[counted]
        count = torch.bincount(people, minlength=len(self.seen))
        total = torch.bincount(people, cosine, len(self.seen))
        return torch.where(count > 0, total / count.clamp(min=1), -torch.ones_like(total))

    def render(self, posed: Posed, translation_m: Tensor) -> Rendered:
        """Render the volume and compare it with the features seen."""
        options = self.options
        centres, precision = posed.centres_m + translation_m[:, None], posed.precision
        lowest = self.volume.lowest_precision
        selection = select(centres.detach(), precision.detach(), lowest, self.camera, options.reach())
        drawn = slot_weights(centres, precision, selection, options.absorptivity, options.self_term)
        bins = self._bins(posed.limb_directions)
        seen = self.seen.flatten(0, 1)[selection.people * self.camera.cells + selection.cells]
        if options.rendering == "expected":
            expected = (bins[..., None] * self.features.kernels).sum(2).flatten(0, 1)
            return Rendered(selection, (unit(blended(drawn, expected, selection)) * seen).sum(-1))
        everybody = self.features.kernels.flatten(1).repeat(len(translation_m), 1)  # (B * K, O * C)
        maps = blended(drawn, everybody, selection).unflatten(-1, self.features.kernels.shape[1:])
        share = blended(drawn, bins.flatten(0, 1), selection).softmax(-1)
        return Rendered(selection, (share * (unit(maps) * seen[:, None]).sum(-1)).sum(-1))

    def _bins(self, limb_directions: Tensor) -> Tensor:
        """(B, 9, 3) -> (B, K, O), the weights of each kernel's orientation bins."""
        count = self.features.kernels.shape[1]
        if self.options.orientation == "windows":
            by_limb = window_weights(limb_directions, count)
        else:
            means = yz_means(count).to(limb_directions)
            by_limb = von_mises_weights(limb_directions, means, self.options.concentration)
        of_limb = F.one_hot(self.volume.limbs, by_limb.shape[1]).to(by_limb)
        return of_limb @ by_limb

    def explained(self, rendered: Rendered) -> Tensor:
        """(B,) mean loss of the cells in the picture."""
        selection = rendered.selection
        place = selection.people * self.camera.cells + selection.cells
        clutter = self.clutter.flatten()[place]
        loss = cell_loss(self.options.objective, rendered.body, clutter, selection.mask)
        every = self.without.flatten().index_copy(0, place, loss).unflatten(0, self.clutter.shape)
        return (every * self.inside).sum(1) / self.inside.sum(1)

    def occlusion(self, rendered: Rendered) -> Tensor:
        """(B, H, W) bool, cells where the body is occluded."""
        selection = rendered.selection
        place = selection.people * self.camera.cells + selection.cells
        found = torch.zeros_like(self.inside).flatten()
        found[place] = hidden(rendered.body, self.clutter.flatten()[place], selection.mask)
        return (found.unflatten(0, self.inside.shape) & self.inside).unflatten(
            1, (self.camera.height, self.camera.width)
        )

    def joint_error(self, pose_rad: Tensor, betas: Tensor, translation_m: Tensor) -> Tensor:
        """(B,) robust distance of the joints from those given, in cells, weighted by confidence; zero without any."""
        if self.joints is None:
            return translation_m.new_zeros(len(translation_m))
        chosen = list(MEASURED_IN_SMPL30)
        placed = self.camera.project(self.volume.joints(pose_rad, betas)[:, chosen] + translation_m[:, None])
        given = self.joints[:, chosen]
        return (given[..., 2] * robust(placed - given[..., :2]).sum(-1)).sum(-1)


def _trusted(joints: Tensor) -> Tensor:
    """Joints with confidence zero for people with too few joints, or none of the face, as published."""
    measured = joints[:, list(MEASURED_IN_SMPL30), 2] > SEEN
    enough = (measured.sum(1) >= FEWEST_SEEN) & (joints[:, list(FACE), 2] > SEEN).any(1)
    confidence = torch.where(enough[:, None], joints[..., 2], 0)
    return torch.cat([joints[..., :2], confidence[..., None]], -1).to(DTYPE)


def robust(cells: Tensor) -> Tensor:
    """Geman-McClure loss: quadratic near zero, at most 100^2."""
    squared, most = cells * cells, _FAR_CELLS * _FAR_CELLS
    return most * squared / (most + squared)


def hinges(pose_rad: Tensor) -> Tensor:
    """(B, 24, 3) -> (B,) penalty, small if elbows and knees turn about their hinges, in either direction.

    The axis of a straight joint is not defined; below a hundredth of a radian it counts less and less.
    """
    total = pose_rad.new_zeros(len(pose_rad))
    for joint, component in _HINGES:
        turn = pose_rad[:, joint]
        length = ((turn * turn).sum(-1) + _STRAIGHT_RAD * _STRAIGHT_RAD).sqrt()
        total = total + torch.exp(-2 * (turn[:, component] / length).abs())
    return total


def total(terms: dict[str, Tensor], weights: Weights) -> Tensor:
    """(B,) weighted sum of the terms."""
    return sum((getattr(weights, name) * value for name, value in terms.items()), torch.zeros(()))
