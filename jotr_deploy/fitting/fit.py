"""Fit of pose and camera by gradient descent on the energy; a person keeps the start where that does not help."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from jotr_deploy.body.vposer import VPoserDecoder
from jotr_deploy.errors import FitError
from jotr_deploy.fitting.bank import Features
from jotr_deploy.fitting.energy import DTYPE, Scene, hinges, total
from jotr_deploy.fitting.hypotheses import mirrored_in_depth
from jotr_deploy.fitting.latent import latent_of
from jotr_deploy.fitting.options import FitOptions, Stage
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.stiffness import DEPTH, scales
from jotr_deploy.fitting.volume import BodyVolume
from jotr_deploy.support.spans import Spans

BETAS = (0.9, 0.99)
MEMORY_BYTES = 1 << 30
NEAREST_M = 0.1
RENDER, BACKWARD = "render", "backward"
STAGES = (RENDER, BACKWARD)
"""Stages of a step, as `Spans` has them; the rest of a fit is the steps of Adam, and little else."""
_KEPT = 20  # the first of the joints that are kept: wrists and hands, which kernels determine poorly
_BYTES = DTYPE.itemsize


@dataclass(frozen=True, eq=False)
class Bodies:
    """People in the camera frame of their crop, as input and result of a fit."""

    pose_rad: Tensor  # (B, 24, 3) axis-angle, root first
    betas: Tensor  # (B, 10)
    translation_m: Tensor  # (B, 3): the body's vertices, in its own frame, plus this are in the camera

    def __len__(self) -> int:
        return len(self.pose_rad)

    def __getitem__(self, chosen: slice | Tensor) -> Bodies:
        return Bodies(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def to(self, kind: torch.dtype | torch.device) -> Bodies:
        """The same people in another precision, or on another device."""
        return Bodies(*(getattr(self, field.name).to(kind) for field in fields(self)))


class Candidate(NamedTuple):
    """Bodies with their energy and its terms."""

    pose_rad: Tensor
    betas: Tensor
    translation_m: Tensor
    energy: Tensor  # (B,)
    terms: dict[str, Tensor]  # (B,) each, without its weight
    occlusion: Tensor  # (B, H, W) bool


@dataclass(frozen=True, eq=False)
class FitResult:
    """People after a fit. Those that it did not improve equal the start, to the bit."""

    bodies: Bodies
    accepted: Tensor  # (B,) bool, the fit lowered the energy
    mirrored: Tensor  # (B,) bool, it did so from the start mirrored in depth
    warm: Tensor  # (B,) bool, it did so from the known pose and place
    energy_before: Tensor  # (B,) of the start
    energy_after: Tensor  # (B,) of the bodies returned
    terms_before: dict[str, Tensor]  # (B,) each, without its weight
    terms_after: dict[str, Tensor]
    occlusion: Tensor  # (B, H, W) bool: cells of the body that clutter explains better


def fit(
    seen: Tensor,
    start: Bodies,
    volume: BodyVolume,
    features: Features,
    options: FitOptions,
    *,
    joints: Tensor | None = None,
    inside: Tensor | None = None,
    known: Bodies | None = None,
    prior: VPoserDecoder | None = None,
    memory_bytes: int = MEMORY_BYTES,
    told: Callable[[int, int], None] = lambda done, total: None,
    spans: Spans | None = None,
) -> FitResult:
    """Fit people to the features of their crops. Nothing is random, and nobody's result depends on the others.

    Args:
        seen: (B, C, S, S) features of the crops, of any length; B may be 0.
        start: the people of the crops, before JOTR's crop camera.
        volume: kernels of their body.
        features: what the kernels look like.
        options: see `options.preset`.
        joints: (B, 30, 3) u, v in cells (`rays.cells_from_pixels`) and confidence of the 30-joint set.
        inside: (B, S, S) bool, the cells that lie in the picture; all of them by default.
        known: B people as in the frame before; NaN where there was nobody. The descent begins at their poses and places
            where the energy is lower there than at the start; shapes are those of the start.
        prior: decoder of a pose prior; its latent is what is fitted then.
        memory_bytes: approximate memory limit; people who exceed it together are fitted in groups.
        told: called after every step with the steps done and all of them; steps of nobody are left out.
        spans: receives `STAGES`; a GPU waits after each of them then.

    Raises:
        FitError: features, start and volume do not match or are not finite; a person is behind the camera,
            or has no cell in the picture.
    """
    features.checked(volume.count, seen.shape[1])
    _check(seen, start, volume, joints, inside)
    prior = None if prior is None else copy.deepcopy(prior).to(seen.device).to(DTYPE).requires_grad_(False)
    at_once = people_at_once(seen.shape[-1], features, options, memory_bytes)
    begins = range(0, max(1, len(start)), at_once)
    step = _counter(len(begins) * steps(options), told)
    parts = []
    for begin in begins:
        some = slice(begin, begin + at_once)
        camera = GridCamera.of_crop(seen.shape[-1])
        cells, points = (None if given is None else given[some] for given in (inside, joints))
        scene = Scene(seen[some], volume, features, camera, options, cells, points)
        before = None if known is None else known[some]
        parts.append(_fit_some(scene, start[some], before, options, prior, step, spans))
    return _joined(parts)


def steps(options: FitOptions) -> int:
    """Steps of the descent of a person, those of the mirrored start included."""
    return sum(stage.iterations for stage in options.stages) * (2 if options.mirror == "fitted" else 1)


def _counter(total: int, told: Callable[[int, int], None]) -> Callable[[], None]:
    numbers = itertools.count(1)
    return lambda: told(next(numbers), total)


def people_at_once(side: int, features: Features, options: FitOptions, memory_bytes: int) -> int:
    """Number of people to fit together, by the memory of a person whose body fills the crop."""
    bins = features.kernels.shape[1] if options.rendering == "release" else 1
    slot = 3 * features.kernels.shape[2] * bins + 8 * options.per_ray + 60
    return max(1, memory_bytes // (side * side * options.per_ray * slot * _BYTES))


def _check(seen: Tensor, start: Bodies, volume: BodyVolume, joints: Tensor | None, inside: Tensor | None) -> None:
    count, side = len(start), seen.shape[-1]
    given = {"features": (seen, (count, seen.shape[1], side, side)), "pose": (start.pose_rad, (count, 24, 3))}
    given |= {"shape": (start.betas, (count, 10)), "translation": (start.translation_m, (count, 3))}
    given |= {} if joints is None else {"joints": (joints, (count, 30, 3))}
    for name, (values, shape) in given.items():
        if values.shape != shape:
            raise FitError(f"{name}: {tuple(values.shape)}, expected {shape}", "give one row for each person")
        _nobody(~torch.isfinite(values).flatten(1).all(1), f"{name}: NaN or infinity of", "give finite numbers")
    if inside is not None:
        _nobody(~inside.flatten(1).any(1), "the crop lies wholly outside the picture of", "leave them out of the fit")
    with torch.no_grad():
        centres = volume(start.pose_rad.to(DTYPE), start.betas.to(DTYPE)).centres_m
        depth = centres[..., 2] + start.translation_m[:, None, 2]
    _nobody((depth < NEAREST_M).any(1), "the body is not in front of the camera of", "leave them out of the fit")


def _nobody(wrong: Tensor, cause: str, remedy: str) -> None:
    if wrong.any():
        people = ", ".join(map(str, wrong.nonzero()[:, 0].tolist()))
        raise FitError(f"{cause} person {people} (counted from 0)", remedy)


def _fit_some(
    scene: Scene,
    start: Bodies,
    known: Bodies | None,
    options: FitOptions,
    prior: VPoserDecoder | None,
    step: Callable[[], None],
    spans: Spans | None,
) -> FitResult:
    """Fit people together; the best of their hypotheses, if it is better than the start."""
    exact = start.to(DTYPE)
    given = Descent(scene, exact, options, prior, step, spans)
    best = before = given.start()
    warm = torch.zeros_like(given.alive) if known is None else given.begin_at(known.to(DTYPE), before.energy)
    mirrored = torch.zeros(len(start), dtype=torch.bool, device=best.energy.device)
    tried = (given.agreement() >= options.least_agreement).nonzero()[:, 0]
    for is_mirror, some in _found(given if len(tried) == len(start) else given.of(tried)):
        candidate = _spread(some, tried, before)
        better = candidate.energy < best.energy  # false for NaN
        best = _chosen(better, candidate, best)
        mirrored = torch.where(better, is_mirror, mirrored)
    accepted = best.energy < before.energy
    warm &= accepted & ~mirrored
    bodies = [
        _where(accepted, new.to(old.dtype), old)
        for new, old in zip(best[:3], (start.pose_rad, start.betas, start.translation_m), strict=True)
    ]
    energies = (before.energy, best.energy)
    return FitResult(Bodies(*bodies), accepted, mirrored, warm, *energies, before.terms, best.terms, best.occlusion)


def _found(given: Descent) -> Iterator[tuple[bool, Candidate]]:
    """Candidate that may be better than the start, and a flag for those from the mirrored start."""
    start = given.first
    yield False, given.result()
    if given.options.mirror == "none":
        return
    turned = replace(start, pose_rad=mirrored_in_depth(start.pose_rad))
    mirror = Descent(given.scene, turned, given.options, given.prior, given.step, given.spans)
    yield True, mirror.start()
    if given.options.mirror == "fitted":
        yield True, mirror.result()


class Descent:
    """Descent of one hypothesis."""

    def __init__(
        self,
        scene: Scene,
        start: Bodies,
        options: FitOptions,
        prior: VPoserDecoder | None,
        step: Callable[[], None],
        spans: Spans | None = None,
    ) -> None:
        """`step` is called after every step of the descent."""
        self.scene, self.first, self.options, self.prior, self.step = scene, start, options, prior, step
        self.spans = spans
        self.scales = scales(options.stiffness).to(start.pose_rad)
        self.metres = torch.ones_like(start.translation_m)
        if options.stiffness == "by_joint":
            self.metres[:, 2] = DEPTH * start.translation_m[:, 2]
        self.state = self._at(start)
        self.alive = torch.ones(len(start), dtype=torch.bool, device=start.pose_rad.device)

    def _at(self, bodies: Bodies) -> dict[str, Tensor]:
        """Variables of the pose and place of people."""
        turned = bodies.pose_rad[:, :_KEPT] / self.scales
        if self.prior is None:
            body = turned[:, 1:]
        else:
            body = latent_of(self.prior, bodies.pose_rad) / self.options.latent_scale
        return {"root": turned[:, 0], "translation": bodies.translation_m / self.metres, "body": body}

    def begin_at(self, known: Bodies, energy: Tensor) -> Tensor:
        """Begin at these poses and places where the energy is below `energy` (B,); (B,) bool, true where it is.

        The anchor stays at the start, so what is minimised is the same. NaN is nowhere lower.
        """
        there = torch.isfinite(torch.cat([known.pose_rad.flatten(1), known.translation_m], 1)).all(1)
        pairs = ((getattr(known, field.name), getattr(self.first, field.name)) for field in fields(Bodies))
        state = self._at(Bodies(*(_where(there, *pair) for pair in pairs)))
        found = self._candidate(self._pose(state), self.first.betas, state).energy
        lower = there & (found < energy)
        self.state = {name: _where(lower, value, self.state[name]) for name, value in state.items()}
        return lower

    def start(self) -> Candidate:
        """Energy of the initial hypothesis, whose pose need not be one of the prior's."""
        return self._candidate(self.first.pose_rad, self.first.betas, self.state)

    def of(self, people: Tensor) -> Descent:
        """The same for some of the people, by their numbers."""
        some = Descent(self.scene.of(people), self.first[people], self.options, self.prior, self.step, self.spans)
        some.state = {name: value[people] for name, value in self.state.items()}
        return some

    @torch.no_grad()
    def agreement(self) -> Tensor:
        """(B,) see `Scene.agreement`, of the initial hypothesis."""
        posed = self.scene.volume(self.first.pose_rad, self.first.betas)
        return self.scene.agreement(self.scene.render(posed, self.first.translation_m))

    def result(self) -> Candidate:
        """Result of all stages; people with non-finite numbers have an infinite energy."""
        for stage in self.options.stages:
            self._run(stage)
        pose, betas, limit = self._pose(self.state), self.first.betas, self.options.largest_beta
        if limit is not None:
            betas = torch.where((betas.abs() > limit).any(1, keepdim=True), 0, betas)
        found = self._candidate(torch.cat([pose[:, :_KEPT], self.first.pose_rad[:, _KEPT:]], 1), betas, self.state)
        return found._replace(energy=torch.where(self.alive, found.energy, torch.inf))

    def _run(self, stage: Stage) -> None:
        """Run one stage, from each person's best of the previous stage to the best of this one."""
        moving = {name: value.clone().requires_grad_(name in stage.free) for name, value in self.state.items()}
        free = [moving[name] for name in stage.free]
        optimiser = torch.optim.Adam(free, lr=self.options.rate, betas=BETAS)
        lowest = torch.full_like(self.alive, torch.inf, dtype=DTYPE)
        for _ in range(stage.iterations):
            if not self.alive.any():  # nobody was given, or nobody can go on
                return
            optimiser.zero_grad()
            with self._span(RENDER):
                energy = total(self._terms(self._pose(moving), self.first.betas, moving)[0], self.options.weights)
            with self._span(BACKWARD):
                energy.sum().backward()
            gradients = [variable.grad for variable in free if variable.grad is not None]
            usable = torch.stack([torch.isfinite(gradient).flatten(1).all(1) for gradient in gradients]).all(0)
            self.alive &= usable & torch.isfinite(energy) & (self._translation(moving)[:, 2] > NEAREST_M)
            better = self.alive & (energy.detach() < lowest)
            lowest = torch.where(better, energy.detach(), lowest)
            self.state = {name: _where(better, moving[name].detach(), old) for name, old in self.state.items()}
            for gradient in gradients:
                gradient.copy_(_where(self.alive, gradient, torch.zeros_like(gradient)))
            optimiser.step()
            self.step()

    @contextmanager
    def _span(self, stage: str) -> Iterator[None]:
        """Time a stage, if spans are recorded."""
        if self.spans is None:
            yield
            return
        with self.spans(stage):
            yield
            if self.alive.is_cuda:
                torch.cuda.synchronize(self.alive.device)

    def _pose(self, state: Mapping[str, Tensor]) -> Tensor:
        """(B, 24, 3) pose from the variables, with wrists and hands at rest."""
        root = state["root"] * self.scales[0]
        body = self._body(state)
        return torch.cat([root[:, None], body, body.new_zeros(len(body), 24 - _KEPT, 3)], 1)

    def _body(self, state: Mapping[str, Tensor]) -> Tensor:
        """(B, 19, 3) turns of the joints that the fit moves, but the root."""
        if self.prior is None:
            return state["body"] * self.scales[1:]
        return self.prior(self._latent(state))[:, : _KEPT - 1]

    def _latent(self, state: Mapping[str, Tensor]) -> Tensor:
        return state["body"] * self.options.latent_scale

    def _translation(self, state: Mapping[str, Tensor]) -> Tensor:
        return state["translation"] * self.metres

    def _terms(
        self, pose_rad: Tensor, betas: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Callable[[], Tensor]]:
        """Terms of the energy, (B,) each, and a function for the occlusion map."""
        posed = self.scene.volume(pose_rad, betas)
        translation = self._translation(state)
        rendered = self.scene.render(posed, translation)
        terms = {
            "features": self.scene.explained(rendered),
            "joints": self.scene.joint_error(pose_rad, betas, translation),
            "hinge": hinges(pose_rad),
            "shape": (betas * betas).sum(1),
        }
        if self.prior is None:
            moved = (pose_rad[:, :_KEPT] - self.first.pose_rad[:, :_KEPT]) / self.scales
            terms["anchor"] = (moved * moved).sum((1, 2))
        else:
            terms["latent"] = self._latent(state).square().sum(1)
        return terms, lambda: self.scene.occlusion(rendered)

    @torch.no_grad()
    def _candidate(self, pose_rad: Tensor, betas: Tensor, state: Mapping[str, Tensor]) -> Candidate:
        at_rest = torch.cat([pose_rad[:, :_KEPT], torch.zeros_like(pose_rad[:, _KEPT:])], 1)
        terms, occlusion = self._terms(at_rest, betas, state)
        energy = total(terms, self.options.weights)
        return Candidate(pose_rad, betas, self._translation(state), energy, terms, occlusion())


def _where(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _chosen(better: Tensor, new: Candidate, old: Candidate) -> Candidate:
    terms = {name: torch.where(better, new.terms[name], value) for name, value in old.terms.items()}
    pose, betas, translation, energy = (_where(better, a, b) for a, b in zip(new[:4], old[:4], strict=True))
    return Candidate(pose, betas, translation, energy, terms, _where(better, new.occlusion, old.occlusion))


def _spread(some: Candidate, people: Tensor, rest: Candidate) -> Candidate:
    """Candidate of some people among those of the rest, who have an infinite energy."""

    def put(new: Tensor, old: Tensor) -> Tensor:
        return old.index_copy(0, people, new)

    terms = {name: put(some.terms[name], old) for name, old in rest.terms.items()}
    energy = put(some.energy, torch.full_like(rest.energy, torch.inf))
    pose, betas, translation = (put(new, old) for new, old in zip(some[:3], rest[:3], strict=True))
    return Candidate(pose, betas, translation, energy, terms, put(some.occlusion, rest.occlusion))


def _joined(parts: list[FitResult]) -> FitResult:
    """Results of several groups, concatenated in order."""

    def both(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    def of_terms(name: str) -> dict[str, Tensor]:
        named = [getattr(part, name) for part in parts]
        return {term: torch.cat([one[term] for one in named]) for term in named[0]}

    bodies = Bodies(*(torch.cat([getattr(part.bodies, f.name) for part in parts]) for f in fields(Bodies)))
    return FitResult(
        bodies,
        *(both("accepted"), both("mirrored"), both("warm"), both("energy_before"), both("energy_after")),
        *(of_terms("terms_before"), of_terms("terms_after")),
        both("occlusion"),
    )
