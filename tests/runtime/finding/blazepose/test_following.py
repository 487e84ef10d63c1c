"""People of stills and films: when they are looked for, followed, lost and found again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from runtime.finding.blazepose.made_people import Circle, World, poses

from jotr_deploy.runtime.finding.blazepose.roi_prediction import Steady
from jotr_deploy.runtime.finding.blazepose.source import EVERY, LONGEST_STEP, BlazePose, BlazePosePeople
from jotr_deploy.runtime.finding.blazepose.windows import both_ways, windows
from jotr_deploy.runtime.motion.tracking import Tracker
from jotr_deploy.support.aliases import Array

SIZE_PX = (400, 300)
EVERYWHERE = windows(SIZE_PX)
BOTH_WAYS = both_ways(EVERYWHERE)
ONE, OTHER = (100.0, 150.0, 60.0), (300.0, 150.0, 60.0)


def opened(world: World, film: bool = True) -> BlazePosePeople:
    return BlazePosePeople(BlazePose(world.detector, world.landmarks), film=film, crop_factor=1.1)  # type: ignore[arg-type]


def frame(size_px: tuple[int, int] = SIZE_PX) -> Array:
    return np.zeros((size_px[1], size_px[0], 3), np.uint8)


def film(frames: Sequence[Sequence[Circle]], world: World | None = None) -> list[list[tuple[int, float]]]:
    """Of every frame who was found: id and x, from left to right; x to 10 px, since ears are moved."""
    world = world or World()
    finder, tracker, seen = opened(world), Tracker(12), []
    for index, world.there in enumerate(map(list, frames)):
        people = tracker(finder(frame(), "film", index), index)
        middles = people.boxes_px[:, [0, 2]].mean(1)
        order = np.argsort(middles)
        seen.append([(int(people.track_ids[k]), round(float(middles[k]), -1)) for k in order])
    return seen


def test_an_empty_film_and_nobody_in_a_film() -> None:
    assert film([]) == []
    assert film([[]] * 5) == [[]] * 5


def test_a_film_is_searched_everywhere_at_first_and_then_a_window_at_a_time() -> None:
    world = World([ONE])
    finder, asked = opened(world), []
    for index in range(2 * EVERY * len(EVERYWHERE)):
        assert len(finder(frame(), "film", index)) == 1
        asked.append(world.windows)
    assert asked[0] == BOTH_WAYS
    assert [len(each) for each in asked[1:5]] == [int(turn % EVERY == 0) for turn in range(1, 5)]
    assert {each for some in asked[1:] for each in some} == set(EVERYWHERE)


def test_where_nobody_is_followed_the_whole_picture_is_searched_in_every_frame() -> None:
    world, finder = World(), None
    finder = opened(world)
    finder(frame(), "film", 0)
    for index in range(1, 4):
        finder(frame(), "film", index)
        assert world.windows[0] == EVERYWHERE[0]
        assert len(world.windows) == 2


def test_who_enters_is_found_when_their_window_has_its_turn_and_keeps_an_id() -> None:
    turns = 2 * EVERY * len(EVERYWHERE)
    seen = film([[ONE]] * 3 + [[ONE, OTHER]] * turns)
    assert seen[2] == [(1, 100)]
    assert seen[-1] == [(1, 100), (2, 300)]
    entered = next(index for index, each in enumerate(seen) if len(each) == 2)
    assert all(len(each) == 2 for each in seen[entered:])


def test_who_leaves_is_gone_at_once() -> None:
    assert film([[ONE, OTHER]] * 2 + [[OTHER]] * 2 + [[]]) == [[(1, 100), (2, 300)]] * 2 + [[(2, 300)]] * 2 + [[]]


def test_two_who_cross_stay_two() -> None:
    way = np.linspace(80, 320, 25)
    seen = film([[(x, 150.0, 60.0), (400 - x, 165.0, 60.0)] for x in way])
    assert [len(each) for each in seen] == [2] * 25
    assert [ident for ident, _ in seen[0]] == [ident for ident, _ in seen[-1]][::-1]


def test_somebody_whose_presence_drops_is_lost_and_found_again_as_the_same() -> None:
    world = World([ONE])
    finder, tracker, seen = opened(world), Tracker(12), []
    for index, world.flag in enumerate([1.0, 0.9, 0.49, 1.0, 1.0]):
        seen.append(tracker(finder(frame(), "film", index), index).track_ids.tolist())
    assert seen == [[1], [1], [], [1], [1]]


@pytest.mark.parametrize(
    ("size_px", "number"), [((300, 400), 1), (SIZE_PX, 1 + LONGEST_STEP), (SIZE_PX, 0)], ids=["turned", "gap", "again"]
)
def test_what_is_no_next_frame_is_searched_everywhere(size_px: tuple[int, int], number: int) -> None:
    world = World([ONE])
    finder = opened(world)
    finder(frame(), "film", 0)
    finder(frame(size_px), "film", number)
    assert world.windows == both_ways(windows(size_px))


def test_a_cut_loses_everybody_and_the_next_people_are_found_in_the_whole_picture() -> None:
    seen = film([[ONE]] * 3 + [[OTHER]] * 3)
    assert [[x for _, x in each] for each in seen] == [[100]] * 3 + [[]] + [[300]] * 2


def test_pictures_are_searched_each_by_itself() -> None:
    world = World([ONE, OTHER])
    finder = opened(world, film=False)
    for index in range(2):
        assert len(finder(frame(), "picture", index)) == 2
        assert world.windows == BOTH_WAYS
    world.there = []
    assert len(finder(frame(), "picture", 2)) == 0


def test_of_candidates_that_are_alike_the_next_is_tried_where_one_is_nobody() -> None:
    world = World([ONE], ghosts=[(105.0, 150.0, 60.0)])
    assert len(opened(world, film=False)(frame(), "picture", 0)) == 1


def test_somebody_seen_in_many_windows_is_looked_at_twice() -> None:
    world = World([(200.0, 150.0, 60.0)])
    assert len(opened(world, film=False)(frame(), "picture", 0)) == 1
    assert sum(map(len, world.looks)) == 2


def test_people_of_a_film_are_looked_for_where_they_were_smoothed() -> None:
    world, way = World(), [(100.0 + 6 * step, 150.0, 60.0) for step in range(4)]
    finder, steady = opened(world), Steady.start(poses(way[0]).rois_px)
    for index, place in enumerate(way):
        world.there, world.looks = [place], []
        finder(frame(), "film", index)
        if index:
            assert np.allclose(world.looks[0], steady.rois_px)
            steady = steady.next(poses(place).rois_px)


def test_scores_are_of_detection_times_presence() -> None:
    world = World([ONE], flag=0.8, score=0.8)
    finder = opened(world)
    for index in range(3):
        assert finder(frame(), "film", index).scores == pytest.approx([0.64])


def test_a_steady_roi_follows_fast_moves_and_holds_still_against_trembling() -> None:
    start = poses(ONE, OTHER).rois_px
    still = moving = Steady.start(start)
    for step in range(1, 21):
        still = still.next(start + (1 if step % 2 else -1))
        moving = moving.next(start + 12.0 * step)
    assert np.abs(still.rois_px - start).max() < 0.5
    assert np.abs(moving.rois_px - start - 240).max() < 12
    both = Steady.joined(still, moving)
    assert np.array_equal(both[np.array([3, 0])].rois_px, np.stack([moving.rois_px[1], still.rois_px[0]]))
    assert len(Steady.start(start[:0]).next(start[:0])) == 0


@pytest.mark.parametrize(("block", "afresh"), [(None, []), (4, [4, 8]), (1, list(range(1, 10)))])
def test_at_every_block_everybody_is_searched_for_afresh(block: int | None, afresh: list[int]) -> None:
    world = World([ONE])
    finder, asked = opened(world), []
    finder.block = block
    for index in range(10):
        assert len(finder(frame(), "film", index)) == 1
        asked.append(world.windows)
    assert [index for index in range(1, 10) if asked[index] == BOTH_WAYS] == afresh
