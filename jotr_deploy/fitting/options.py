"""Settings of a fit, and the presets (docs/fitting.md section 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jotr_deploy.errors import choice
from jotr_deploy.fitting.kernel_selection import Reach
from jotr_deploy.fitting.objectives import Objective
from jotr_deploy.fitting.rendering import SelfTerm

Free = Literal["root", "translation", "body"]
Stiffness = Literal["equal", "by_joint"]


@dataclass(frozen=True)
class Stage:
    """Stage of the optimisation: a number of steps on some of the variables."""

    iterations: int
    free: tuple[Free, ...]


STAGES = (Stage(40, ("root", "translation")), Stage(80, ("root", "body")))


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of the energy."""

    features: float = 1.0
    joints: float = 1e-2
    hinge: float = 1e-1
    shape: float = 1e-2
    latent: float = 5e-4  # where a pose prior is given
    anchor: float = 2e-2  # where none is


@dataclass(frozen=True)
class FitOptions:
    """Everything about a fit that is not data."""

    objective: Objective = "mixture"
    rendering: Literal["expected", "release"] = "expected"  # how orientation bins are combined
    orientation: Literal["windows", "von_mises"] = "windows"
    concentration: float = 5.0  # of "von_mises"; the paper's is not known
    q_max: float = 12.0
    q_mask: float = 4.6
    per_ray: int = 12
    precision: float | None = None  # of a kernel, 1 / m^2; by default the one its features were trained with
    absorptivity: float = 1.0
    self_term: SelfTerm = "peak"
    stages: tuple[Stage, ...] = STAGES
    rate: float = 0.02
    mirror: Literal["fitted", "candidate", "none"] = "fitted"  # the start mirrored in depth: fitted too, looked at, no
    stiffness: Stiffness = "equal"  # of the joints, in the anchor and in the steps of the descent
    latent_scale: float = 1.0  # unit of the steps in a pose prior's latent
    least_agreement: float = -1.0  # of start and features, a cosine; a person below it is left as they are
    largest_beta: float | None = None  # a shape that goes beyond is set to zero after the fit
    weights: Weights = field(default_factory=Weights)

    def reach(self) -> Reach:
        """Limits of the selection; cells that are not body are left out where they cannot change the energy."""
        return Reach(self.q_max, self.q_mask, self.per_ray, self.objective != "softmax")


_RELEASE_Q = 23.03
PRESETS: dict[str, FitOptions] = {
    "release_natural": FitOptions(
        objective="masked", rendering="release", q_max=_RELEASE_Q, q_mask=_RELEASE_Q, per_ray=10, rate=0.002,
        mirror="candidate", largest_beta=3.0,
    ),
    "release_advocc": FitOptions(
        objective="softmax", rendering="release", q_max=_RELEASE_Q, q_mask=_RELEASE_Q, per_ray=10, rate=0.02,
        mirror="fitted", largest_beta=3.0,
    ),
    "default": FitOptions(
        precision=400.0, q_mask=2.0, rate=0.08, mirror="none", stiffness="by_joint", least_agreement=0.65,
        stages=(Stage(15, ("root", "translation")), Stage(35, ("root", "translation", "body"))),
        latent_scale=0.25,  # the release's rate; a prior's latent knows no scales of joints
        weights=Weights(joints=0.0, hinge=0.0, latent=5e-5, anchor=2e-3),  # joints err, and cost more than they bring
    ),
}  # fmt: skip
"""Presets of the release, and this project's own."""


def preset(name: str) -> FitOptions:
    """Options by the name of a preset, or JotrDeployError."""
    choice("--fit", name, tuple(PRESETS))
    return PRESETS[name]
