"""Occlusion map of a fit in a picture: its place, its colours, and everybody who has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from crowd import FACES, crowd

from jotr_deploy.people import PeopleFit
from jotr_deploy.visual.occlusion_map import draw_occlusion, hidden_px

GREY = np.full((120, 160, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("box_px", "cell", "rows", "columns"),
    [
        ((0, 0, 32, 32), (0, 0), slice(0, 3), slice(0, 3)),  # a cell samples its corner of the crop, 4 px each way
        ((0, 0, 32, 32), (3, 5), slice(10, 15), slice(18, 23)),
        ((0, 0, 64, 64), (1, 1), slice(5, 13), slice(5, 13)),  # twice as large
        ((100, 40, 132, 72), (3, 5), slice(50, 55), slice(118, 123)),
        ((-16, -8, 16, 24), (3, 5), slice(2, 7), slice(2, 7)),  # partly outside
        ((-16, -8, 16, 24), (0, 0), slice(0), slice(0)),
        ((500, 500, 532, 532), (3, 5), slice(0), slice(0)),
    ],
)
def test_a_cell_lies_where_its_ray_goes(box_px, cell, rows, columns):
    """To a pixel: cells border between pixels."""
    occlusion = np.zeros((8, 8), bool)
    occlusion[cell] = True
    found = hidden_px(occlusion, np.array(box_px, np.float32), (160, 120))
    expected = np.zeros((120, 160), bool)
    expected[rows, columns] = True
    row, column = np.nonzero(found)
    assert found.any() == expected.any()
    for places, limits in ((row, rows), (column, columns)):
        if len(places):
            assert abs(places.min() - limits.start) <= 1
            assert abs(places.max() + 1 - limits.stop) <= 1


def fitted(tried, hidden):
    count = len(tried)
    no = np.zeros(count, bool)
    occlusion = np.zeros((count, 8, 8), bool)
    occlusion[:, 0, 0] = hidden
    return PeopleFit(np.array(tried), no, no, no, no, no + 0.0, no + 0.0, {}, {}, occlusion)


def changed(people):
    picture = draw_occlusion(GREY, people, FACES)
    assert picture.shape == GREY.shape
    return (picture != draw_occlusion(GREY, people[:0], FACES)).any(-1)


def test_bodies_are_outlined_and_hidden_cells_coloured():
    people = crowd([(20, 10, 84, 74)])
    outlined = changed(replace(people, fit=fitted([True], [False])))
    assert 0 < outlined.mean() < 0.1
    coloured = changed(replace(people, fit=fitted([True], [True])))
    assert (coloured & ~outlined)[8:14, 18:24].any()
    assert not (coloured & ~outlined)[30:].any()


@pytest.mark.parametrize("fit", [None, fitted([False], [False])])
def test_who_was_not_fitted_is_not_drawn(fit):
    assert not changed(replace(crowd([(20, 10, 84, 74)]), fit=fit)).any()


def test_the_picture_given_stays_as_it_is():
    before = GREY.copy()
    draw_occlusion(GREY, replace(crowd([(20, 10, 84, 74)]), fit=fitted([True], [True])), FACES)
    np.testing.assert_array_equal(GREY, before)
