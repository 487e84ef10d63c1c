"""The result of a fit behind a bundle's mesh stage; NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

from jotr_deploy.people import People
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True, eq=False)
class Fits:
    """People after a fit; parallel arrays over N people. Those whom it did not improve are as they were, to the bit."""

    people: People
    tried: Array  # (N,) bool, the others stand behind the camera, or no cell of their crop lies in the picture
    accepted: Array  # (N,) bool, the fit lowered the energy
    mirrored: Array  # (N,) bool, it did so from the start mirrored in depth
    energy_before: Array  # (N,) float64, NaN of those not tried, as the next three
    energy_after: Array  # (N,) of the people returned
    terms_before: dict[str, Array]  # (N,) each, without its weight
    terms_after: dict[str, Array]
    occlusion: Array  # (N, S, S) bool, cells of the body that something hides
