"""The result of a fit behind a bundle's mesh stage; NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from jotr_deploy.people import People, PeopleFit
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True, eq=False)
class Fits:
    """People after a fit; parallel arrays over N people. Those whom it did not improve are as they were, to the bit."""

    people: People
    tried: Array  # (N,) bool, the others stand behind the camera, or no cell of their crop lies in the picture
    outside: Array  # (N,) bool, no cell of the crop lies in the picture
    accepted: Array  # (N,) bool, the fit lowered the energy
    mirrored: Array  # (N,) bool, it did so from the start mirrored in depth
    warm: Array  # (N,) bool, it did so from the pose and place that were known
    energy_before: Array  # (N,) float64, NaN of those not tried, as the next three
    energy_after: Array  # (N,) of the people returned
    terms_before: dict[str, Array]  # (N,) each, without its weight
    terms_after: dict[str, Array]
    occlusion: Array  # (N, S, S) bool, cells of the body that something hides

    def recorded(self) -> People:
        """The people, with what the fit did in `People.fit`."""
        return replace(self.people, fit=PeopleFit(**{f.name: getattr(self, f.name) for f in fields(PeopleFit)}))
