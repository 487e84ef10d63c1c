"""What every 2-D pose network does, whatever its format."""

from __future__ import annotations

from abc import abstractmethod

from jotr_deploy.runtime.finding.recognition import Format
from jotr_deploy.support.aliases import Array


class PoseNetwork(Format):
    """Finds the joints of people whose boxes are known; the threshold of its recipe is applied."""

    task = "pose"
    skeleton: str
    """A key of `SKELETONS`: the order of its joints."""
    least_score: float = 0.0
    """Of who is detected: the score of the box times the mean confidence of the joints."""

    def facts(self) -> tuple[str, ...]:
        """See `Format`."""
        return (f"joints of {self.skeleton}",)

    @abstractmethod
    def __call__(self, image_bgr: Array, boxes_px: Array) -> Array:
        """The joints of everybody in one picture, in as few calls of the network as it allows.

        Args:
            image_bgr: (H, W, 3) uint8.
            boxes_px: (N, 4) x0 y0 x1 y1, one a person; N may be 0.

        Returns:
            (N, J, 3) float32 x, y in the picture, pixel centres at integer coordinates, and confidence in 0..1, in
            the order of `skeleton`. Joints whose confidence is not above the threshold are all zero.
        """
