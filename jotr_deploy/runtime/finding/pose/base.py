"""Common interface of 2-D pose networks, independent of their format."""

from __future__ import annotations

from abc import abstractmethod

from jotr_deploy.runtime.finding.recognition import Format
from jotr_deploy.support.aliases import Array


class PoseNetwork(Format):
    """Network that finds the joints of people whose boxes are known; the threshold of its recipe is applied."""

    task = "pose"
    skeleton: str
    """Order of its joints, a key of `SKELETONS`."""
    least_score: float = 0.0
    """Minimum strength of a detected person: box score to the power of `score_power`, times mean joint confidence."""
    score_power: float = 1.0
    """Exponent of the box score in a person's strength: at 0 only the joints count."""
    most_explained: float = 1.0
    """Largest share of a detected person's joints on the limbs of a stronger one in whose box they mostly are."""

    def facts(self) -> tuple[str, ...]:
        """Skeleton of the joints."""
        return (f"joints of {self.skeleton}",)

    @abstractmethod
    def __call__(self, image_bgr: Array, boxes_px: Array) -> Array:
        """Joints of everybody in one image, in as few calls of the network as it allows.

        Args:
            image_bgr: (H, W, 3) uint8.
            boxes_px: (N, 4) x0 y0 x1 y1, one per person; N may be 0.

        Returns:
            (N, J, 3) float32 x, y in the image, pixel centres at integer coordinates, and confidence in 0..1, in
            the order of `skeleton`. Joints whose confidence is not above the threshold are all zero.
        """
