"""Who keeps which number: people who cross, vanish, come, and clips that jump."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from jotr_deploy.geometry.crop import box_from_joints, square_box
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.motion.tracking import MEMORY_S, Tracker, pairs

FPS = 30.0
PX_PER_M = 150.0
BODY_M = np.column_stack([np.random.default_rng(5).uniform(-0.25, 0.25, 30), np.linspace(0, 1.7, 30)])
SWINGING = np.r_[8:14, 20:30]  # joints that go to and fro as legs and arms do

Row = tuple[str, float, float]  # who, where in metres
Clip = list[tuple[int, list[Row]]]


def detections(rows: Sequence[Row], frame: int, joints: bool = True, seed: int = 0) -> Detections:
    """Walking people of 30 noisy joints, or of boxes alone."""
    if not rows:
        return Detections.none()
    keypoints = np.full((len(rows), 30, 3), 0.9)
    for k, (who, x_m, y_m) in enumerate(rows):
        rng = np.random.default_rng([seed, frame, *who.encode()])
        body_m = BODY_M.copy()
        body_m[SWINGING, 0] += 0.25 * np.sin(2 * np.pi * frame / FPS + sum(who.encode()) + np.arange(16) % 2 * np.pi)
        keypoints[k, :, :2] = (body_m + np.array([x_m, y_m])) * PX_PER_M + rng.normal(0, 2, (30, 2))
    boxes = square_box(box_from_joints(keypoints, keypoints[..., 2] > 0), 1.1)
    return Detections(
        boxes, keypoints if joints else np.zeros_like(keypoints), np.ones(len(rows)), np.full(len(rows), -1)
    )


def follow(clip: Clip, joints: bool = True, seed: int = 0) -> dict[str, list[int]]:
    """The ids that everybody has, one after the other."""
    tracker, ids = Tracker(FPS), {}
    for frame, rows in clip:
        given = detections(rows, frame, joints, seed)
        people = tracker(given, frame)
        np.testing.assert_array_equal(people.keypoints_px, given.keypoints_px)  # the same people in the same order
        np.testing.assert_array_equal(people.boxes_px, given.boxes_px)
        assert len(set(people.track_ids.tolist())) == len(people)
        for (who, _, _), track in zip(rows, people.track_ids.tolist(), strict=True):
            ids.setdefault(who, []).append(track)
    return ids


def crossing(step: int = 1, gap_s: float = 0.0, speed_m_s: float = 1.2) -> Clip:
    """Two people who pass each other at 2 s, one before the other; the one behind is not found for a while."""
    clip: Clip = []
    for frame in range(0, 120, step):
        t = frame / FPS
        rows = [("a", 1 + speed_m_s * t, 1.0)]
        if abs(t - 2) >= gap_s / 2:
            rows.insert(1 - frame % 2, ("b", 1 + speed_m_s * (4 - t), 0.9))  # the order of people says nothing
        clip.append((frame, rows))
    return clip


@pytest.mark.parametrize("joints", [True, False], ids=["joints", "boxes"])
@pytest.mark.parametrize(
    "clip",
    [
        pytest.param(crossing(), id="crossing"),
        pytest.param(crossing(gap_s=0.5), id="one hidden for half a second"),
        pytest.param(crossing(step=3), id="every third frame"),
        pytest.param(crossing(step=3, gap_s=0.5), id="every third frame and hidden"),
        pytest.param(crossing(step=3, speed_m_s=4), id="running"),
    ],
)
def test_who_cross_keep_their_ids(clip: Clip, joints: bool) -> None:
    for seed in range(5):
        ids = follow(clip, joints, seed)
        assert {who: set(tracks) for who, tracks in ids.items()} == {"a": {1}, "b": {2}}


@pytest.mark.parametrize(("gone_s", "known"), [(0.1, True), (0.5, True), (MEMORY_S, True), (MEMORY_S + 0.1, False)])
def test_who_comes_back_in_time_is_known(gone_s: float, known: bool) -> None:
    back = 10 + round(gone_s * FPS)
    clip: Clip = [(f, [("a", 2 + f / FPS, 1.0)]) if f <= 10 or f >= back else (f, []) for f in range(back + 10)]
    ids = follow(clip)["a"]
    assert ids == [1] * 11 + [1 if known else 2] * 10


def test_frames_that_were_left_out_are_time_that_passed() -> None:
    clip: Clip = [(0, [("a", 2, 1)]), (30, [("a", 2, 1)]), (61, [("a", 2, 1)])]
    assert follow(clip)["a"] == [1, 1, 2]


def test_who_enters_elsewhere_is_somebody_new() -> None:
    clip: Clip = [(f, [("a", 2, 1.0)]) for f in range(10)] + [(f, [("b", 8, 1.0)]) for f in range(12, 20)]
    assert {who: set(ids) for who, ids in follow(clip).items()} == {"a": {1}, "b": {2}}


def test_a_jump_cut_gives_new_ids() -> None:
    first: Clip = [(f, [("a", 2, 1), ("b", 5, 1)]) for f in range(10)]
    second: Clip = [(f, [("c", 9, 6), ("d", 12, 6)]) for f in range(10, 20)]
    ids = {who: set(tracks) for who, tracks in follow([*first, *second]).items()}
    assert ids == {"a": {1}, "b": {2}, "c": {3}, "d": {4}}


def test_a_hundred_people_keep_a_hundred_ids(rng: np.random.Generator) -> None:
    place, velocity = np.indices((10, 10)).reshape(2, -1).T * [1.6, 2.2], rng.normal(0, 0.3, (100, 2))
    clip: Clip = []
    for frame in range(20):
        there = np.flatnonzero(rng.uniform(size=100) > 0.05) if frame else np.arange(100)  # some are overlooked
        rows = [(f"p{k}", *(place[k] + velocity[k] * frame / FPS)) for k in rng.permutation(there)]
        clip.append((frame, rows))
    ids = follow(clip)
    assert [len(set(tracks)) for tracks in ids.values()] == [1] * 100
    assert {tracks[0] for tracks in ids.values()} == set(range(1, 101))


def test_half_a_body_is_still_the_same_person() -> None:
    tracker = Tracker(FPS)
    for frame in range(10):
        people = detections([("a", 2, 1), ("b", 3, 1)], frame)
        if frame % 2:  # the joints that are left decide, and not the box
            people.keypoints_px[:, 15:, 2] = 0
            boxes = square_box(box_from_joints(people.keypoints_px, people.keypoints_px[..., 2] > 0), 1.1)
            people = Detections(boxes, people.keypoints_px, people.scores, people.track_ids)
        assert tracker(people, frame).track_ids.tolist() == [1, 2]


def test_nobody() -> None:
    tracker = Tracker(FPS)
    for frame in range(3):
        assert len(tracker(Detections.none(), frame)) == 0
    assert tracker(detections([("a", 1, 1)], 3), 3).track_ids.tolist() == [1]
    assert len(tracker(Detections.none(), 4)) == 0
    assert tracker(detections([("a", 1, 1)], 5), 5).track_ids.tolist() == [1]


def test_every_run_starts_at_one_and_gives_the_same() -> None:
    clip = crossing(gap_s=0.5)
    first = follow(clip)
    assert sorted({ids[0] for ids in first.values()}) == [1, 2]
    assert follow(clip) == first


def test_ids_that_people_had_are_replaced() -> None:
    given = Detections.from_boxes(np.array([[0, 0, 9, 9], [50, 0, 59, 9]]))
    given.track_ids[:] = 7
    assert Tracker(FPS)(given, 0).track_ids.tolist() == [1, 2]
    assert given.track_ids.tolist() == [7, 7]


def test_frames_come_in_order_and_have_a_rate() -> None:
    tracker = Tracker(FPS)
    tracker(Detections.none(), 5)
    for frame in (5, 3):
        with pytest.raises(ValueError, match=f"frame {frame} does not come after frame 5"):
            tracker(Detections.none(), frame)
    for fps in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="tracking needs a frame rate above 0"):
            Tracker(fps)


@pytest.mark.parametrize(
    ("alike", "expected"),
    [
        (np.zeros((0, 3)), []),
        (np.zeros((2, 0)), []),
        (np.full((2, 2), 0.2), []),  # not above the least
        (np.array([[0.9, 0.8], [0.85, 0.3]]), [(0, 0), (1, 1)]),  # the best first
        (np.array([[0.5, 0.6, 0.9]]), [(0, 2)]),
    ],
)
def test_pairs(alike: np.ndarray, expected: list[tuple[int, int]]) -> None:
    assert pairs(alike) == expected


@pytest.mark.parametrize(("gap_s", "known"), [(0.9, True), (1.1, False)])
def test_memory_is_of_seconds_also_where_frames_come_irregularly(gap_s, known):
    times_s = [0, 0.1, 0.2, 0.2 + gap_s]
    tracker = Tracker(FPS)
    for number, time_s in enumerate(times_s[:3]):
        tracker(detections([("a", 1 + time_s, 1)], round(time_s * FPS)), number, time_s)
    tracker(Detections.none(), 3, times_s[2] + 0.01)
    last = tracker(detections([("a", 1 + times_s[3], 1)], round(times_s[3] * FPS)), 4, times_s[3])
    assert (last.track_ids.item() == 1) == known


def test_velocity_is_by_the_second():
    """Who walks fast keeps the number over a long pause of a film, because the pause is known."""
    times_s = [*np.arange(0, 1, 0.1), 1.7]
    tracker = Tracker(FPS)
    ids = [
        tracker(detections([("a", 1 + 2 * t, 1)], 0, seed=n), n, float(t)).track_ids.item()
        for n, t in enumerate(times_s)
    ]
    assert ids == [1] * len(times_s)
    tracker = Tracker(FPS)  # by numbers alone the last step is a jump
    ids = [tracker(detections([("a", 1 + 2 * t, 1)], 0, seed=n), n).track_ids.item() for n, t in enumerate(times_s)]
    assert ids[-1] != 1
