"""The detector's anchors, decoding and merging, with made numbers."""

from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.runtime.finding.blazepose.person_detector import (
    SIDE,
    BlazeDetector,
    anchors,
    decode,
    in_image,
    weighted_nms,
    window_canvas,
)
from jotr_deploy.runtime.finding.blazepose.windows import Window
from jotr_deploy.support.aliases import Array


def test_anchors_are_cell_by_cell_layer_by_layer() -> None:
    found = anchors()
    assert found.shape == (2254, 2)
    assert np.allclose(found[[0, 1]], 0.5 / 28)
    assert np.allclose(found[2], [1.5 / 28, 0.5 / 28])
    assert np.allclose(found[28 * 28 * 2], 0.5 / 14)
    assert np.allclose(found[-6:], 6.5 / 7)
    assert np.allclose(found[-7], [5.5 / 7, 6.5 / 7])


def test_decoded_candidates_are_shares_of_the_canvas_best_first() -> None:
    boxes, logits = np.zeros((2254, 12), np.float32), np.full((2254, 1), -1000, np.float32)
    logits[[0, 2253]] = [[0.1], [1000]]
    boxes[2253, :6] = [11.2, 0, 22.4, 44.8, 0, -112]
    scores, values = decode(boxes, logits)
    assert np.allclose(scores, [1, 1 / (1 + np.exp(-0.1))])
    centre = 6.5 / 7
    assert np.allclose(values[0, :6], [centre, centre - 0.1, centre + 0.1, centre + 0.1, centre, centre - 0.5])
    assert [len(part) for part in decode(boxes, np.full_like(logits, -1))] == [0, 0]


def test_what_overlaps_is_averaged_by_score() -> None:
    values = np.zeros((3, 12))
    values[:, :4] = [[0, 0, 0.4, 0.4], [0.1, 0, 0.5, 0.4], [0.6, 0.6, 0.9, 0.9]]
    values[:, 4] = [1, 2, 5]
    scores, merged = weighted_nms(np.array([0.9, 0.6, 0.5]), values)
    assert scores.tolist() == [0.9, 0.5]
    assert merged[:, 4] == pytest.approx([1.4, 5])
    assert len(weighted_nms(np.zeros(0), np.zeros((0, 12)))[0]) == 0


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size_px", [(40, 80), (300, 200), (224, 224)])
def test_canvas_and_window_are_inverse(size_px: tuple[int, int], mirrored: bool) -> None:
    """A bright square comes back to where it was."""
    width, height = size_px
    image = np.zeros((height, width, 3), np.uint8)
    centre = np.array([width // 4, height // 2])
    reach = 5
    image[centre[1] - reach : centre[1] + reach + 1, centre[0] - reach : centre[0] + reach + 1] = 255
    drawn = window_canvas(image, Window(0, 0, width, height, mirrored))
    assert drawn.min() == -1
    assert drawn.max() == 1
    weight = (drawn[..., 0] + 1) / 2
    y, x = np.indices(weight.shape)
    share = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() / SIDE
    found = in_image((np.ones(1), np.tile(share, 6)[None]), Window(7, 3, width, height, mirrored))
    assert np.allclose(found.rois_px[0, 0], np.add(centre, [7, 3]), atol=0.3)


def test_people_of_the_first_window_come_first() -> None:
    """Each window has somebody at its brightness."""

    def session(feeds: dict[str, Array]) -> dict[str, Array]:
        brightness = (feeds["image"].max((1, 2, 3)) + 1) / 2
        logits = np.full((len(brightness), 2254, 1), -9, np.float32)
        logits[:, -1, 0] = np.log(brightness / (1 - brightness))
        return {"boxes": np.zeros((len(brightness), 2254, 12), np.float32), "logits": logits}

    image = np.zeros((20, 40, 3), np.uint8)
    image[:], image[:, 20:] = 153, 204
    where = [Window(0, 0, 20, 20), Window(0, 0, 20, 20), Window(20, 0, 20, 20)]
    found = BlazeDetector(session)(image, where)  # type: ignore[arg-type]
    assert found.scores == pytest.approx([0.6, 0.8, 0.6], abs=0.01)
    many = BlazeDetector(session)(image, where * 4)
    assert many.scores == pytest.approx([0.6] + [0.8] * 4 + [0.6] * 7, abs=0.01)
    assert len(BlazeDetector(session)(image, [])) == 0  # type: ignore[arg-type]
