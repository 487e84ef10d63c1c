"""Smoothing by its laws: what stays, what falls, what it may not depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from jotr_deploy.bundle import STARTER, open_bundle
from jotr_deploy.geometry.camera import camera_from_box, project_px
from jotr_deploy.geometry.rotations import angle_between, axis_angle_from_matrix, matrix_from_axis_angle
from jotr_deploy.people import LAYOUT, People
from jotr_deploy.runtime.body_session import Body, open_body
from jotr_deploy.runtime.motion.smoothed_state import ROTATIONS, on_line
from jotr_deploy.runtime.motion.smoothing import RESTART_S, Mode, OneEuro, Smoother, TwoSided, open_smoother
from jotr_deploy.runtime.sources.frame_source import Frame

FPS = 30.0
PIXEL = np.zeros((1, 1, 3), np.uint8)
MODES: tuple[Mode, ...] = ("one-euro", "two-sided")
each_mode = pytest.mark.parametrize("mode", MODES)

Clip = list[tuple[Frame, People]]


@pytest.fixture(scope="module")
def body() -> Iterator[Body]:
    with open_body(open_bundle(Path(STARTER)), threads=1) as opened:
        yield opened


def frame(index: int) -> Frame:
    return Frame(index, f"{index}.png", PIXEL)


def person(
    body: Body,
    pose_rad: np.ndarray,
    betas: np.ndarray | None = None,
    pelvis_px: tuple[float, float] = (300.0, 200.0),
    px_per_m: float = 120.0,
    track: int = 1,
    box_side_px: float = 260.0,
) -> People:
    """One person at a pixel, in a size, through the camera of whatever crop box."""
    corner = np.array(pelvis_px) - box_side_px * 0.45
    boxes = np.concatenate([corner, corner + box_side_px])[None]
    focal_px, principal_px = camera_from_box(boxes)
    shape = np.zeros((1, 10)) if betas is None else betas[None]
    vertices_m, joints_m = body(pose_rad[None], shape)
    offset_px = np.column_stack([pelvis_px - principal_px, focal_px])
    values = {name: np.zeros((1, *size), dtype) for name, (size, dtype) in LAYOUT.items()}
    values |= {"boxes_px": boxes, "focal_px": focal_px, "principal_px": principal_px, "pose_rad": pose_rad[None]}
    values |= {"betas": shape, "vertices_m": vertices_m, "joints_m": joints_m, "track_ids": np.array([track])}
    return People(**(values | {"translation_m": offset_px / px_per_m}))


def smoothed(smoother: Smoother, clip: Clip) -> Clip:
    """A clip through a smoother: every frame once, in order."""
    out = [done for given in clip for done in smoother.push(*given)] + smoother.flush()
    assert [f for f, _ in out] == [f for f, _ in clip]
    return out


def through(mode: Mode, body: Body, clip: Clip, fps: float = FPS) -> list[People]:
    return [people for _, people in smoothed(open_smoother(mode, body, fps), clip)]


def pelvis_px(people: People) -> np.ndarray:
    return project_px(people.translation_m[:, None], people.focal_px, people.principal_px)[:, 0]


def px_per_m(people: People) -> np.ndarray:
    return people.focal_px / people.translation_m[:, 2]


def assert_equal(one: People, other: People) -> None:
    for field in fields(People):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def random_pose(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.4, (24, 3)) + np.eye(24, 1) * [2.7, 0, 0]


def turned(pose_rad: np.ndarray, turn_rad: np.ndarray) -> np.ndarray:
    """Every joint turned on, in its own frame."""
    return axis_angle_from_matrix(matrix_from_axis_angle(pose_rad) @ matrix_from_axis_angle(turn_rad))


def noisy_clip(body: Body, frames: int = 40, noise_rad: float = 0.05, track: int = 1, seed: int = 0) -> Clip:
    """Somebody who stands still, as a network sees them."""
    rng = np.random.default_rng(seed)
    clip = []
    for index in range(frames):
        pose = turned(random_pose(), rng.normal(0, noise_rad, (24, 3)))
        place = rng.normal((300, 200), 2)
        side, scale = 260 * np.exp(rng.normal(0, 0.05)), 120 * np.exp(rng.normal(0, 0.02))
        clip.append((frame(index), person(body, pose, rng.normal(0, 0.2, 10), tuple(place), scale, track, side)))
    return clip


@each_mode
def test_who_stays_still_stays_whatever_the_boxes_do(mode: Mode, body: Body, rng: np.random.Generator) -> None:
    betas = rng.normal(0, 1, 10)
    clip = [(frame(k), person(body, random_pose(), betas, box_side_px=rng.uniform(200, 400))) for k in range(15)]
    for given, people in zip((people for _, people in clip), through(mode, body, clip), strict=True):
        np.testing.assert_allclose(people.pose_rad, given.pose_rad, atol=1e-6)
        np.testing.assert_allclose(people.betas, given.betas, atol=1e-6)
        np.testing.assert_allclose(people.translation_m, given.translation_m, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(people.vertices_m, given.vertices_m, atol=1e-5)
        np.testing.assert_allclose(people.joints_m, given.joints_m, atol=1e-5)


@each_mode
def test_meshes_are_those_of_what_was_smoothed_and_the_rest_is_as_measured(mode: Mode, body: Body) -> None:
    clip = noisy_clip(body, 12)
    for (_, given), people in zip(clip, through(mode, body, clip), strict=True):
        vertices_m, joints_m = body(people.pose_rad, people.betas)
        np.testing.assert_allclose(people.vertices_m, vertices_m, atol=1e-5)
        np.testing.assert_allclose(people.joints_m, joints_m, atol=1e-5)
        changed = {"pose_rad", "betas", "translation_m", "vertices_m", "joints_m"}
        for name in LAYOUT.keys() - changed:
            np.testing.assert_array_equal(getattr(people, name), getattr(given, name))


@each_mode
def test_another_view_of_the_whole_gives_the_same_seen_so(mode: Mode, body: Body) -> None:
    turn = matrix_from_axis_angle(np.array([0.3, -1.1, 0.6]))

    def seen_otherwise(people: People) -> People:
        pose = people.pose_rad.copy()
        pose[:, 0] = axis_angle_from_matrix(turn @ matrix_from_axis_angle(pose[:, 0]))
        return replace(people, pose_rad=pose)

    clip = noisy_clip(body, 15)
    plain = through(mode, body, clip)
    other = through(mode, body, [(f, seen_otherwise(people)) for f, people in clip])
    for one, two in zip(plain, other, strict=True):
        assert angle_between(seen_otherwise(one).pose_rad, two.pose_rad).max() < 1e-5


@pytest.mark.parametrize(("mode", "rotations", "places"), [("one-euro", 0.3, 0.5), ("two-sided", 0.3, 0.3)])
def test_the_jitter_of_who_stands_still_falls(mode: Mode, rotations: float, places: float, body: Body) -> None:
    """Shares of the variance that may stay: measured were 0.25 and 0.40, 0.20 and 0.20."""
    clip = noisy_clip(body, 90)
    raw, smooth = [people for _, people in clip][10:], through(mode, body, clip)[10:]

    def error(people: list[People]) -> float:
        return float(np.mean([np.square(angle_between(p.pose_rad[0], random_pose())) for p in people]))

    def spread(people: list[People], of: Callable[[People], np.ndarray]) -> float:
        return float(np.var([of(p)[0] for p in people], axis=0).mean())

    assert error(smooth) < rotations * error(raw)
    assert spread(smooth, pelvis_px) < places * spread(raw, pelvis_px)
    assert spread(smooth, px_per_m) < places * spread(raw, px_per_m)
    assert spread(smooth, lambda p: p.betas) < 0.05 * spread(raw, lambda p: p.betas)


def steady(body: Body, indices: list[int], turn_rad_s: np.ndarray, walk_px_s: float = 90.0) -> Clip:
    """Every joint turns at a constant rate, and the person walks."""
    clip = []
    for index in indices:
        seconds = index / FPS
        pose = turned(random_pose(), turn_rad_s * seconds)
        clip.append((frame(index), person(body, pose, pelvis_px=(100 + walk_px_s * seconds, 200 - 20 * seconds))))
    return clip


@pytest.mark.parametrize(
    "indices", [list(range(20)), list(range(0, 60, 3)), [0, 1, 2, 3, 7, 8, 9, 14, 15], [0, 5], [3]], ids=str
)
def test_two_sided_leaves_steady_motion_as_it_is(indices: list[int], body: Body, rng: np.random.Generator) -> None:
    clip = steady(body, indices, rng.normal(0, 2, (24, 3)))
    for (_, given), people in zip(clip, through("two-sided", body, clip), strict=True):
        assert angle_between(people.pose_rad, given.pose_rad).max() < 1e-5
        np.testing.assert_allclose(pelvis_px(people), pelvis_px(given), atol=1e-2)
        np.testing.assert_allclose(px_per_m(people), px_per_m(given), rtol=1e-3)  # limbs by their skin, which folds


def test_one_euro_follows_fast_motion_within_a_frame(body: Body) -> None:
    turn_rad_s = np.zeros((24, 3))
    turn_rad_s[16:18, 1] = 6.0  # both arms, more than a wave
    clip = steady(body, list(range(40)), turn_rad_s)
    last, (_, truth) = through("one-euro", body, clip)[-1], clip[-1]
    lag_s = angle_between(last.pose_rad, truth.pose_rad)[0, 16:18] / 6.0
    assert lag_s.min() > 0
    assert lag_s.max() < 1 / FPS  # measured: 0.012 s
    np.testing.assert_allclose(angle_between(last.pose_rad, truth.pose_rad)[0, :16], 0, atol=1e-5)


@each_mode
def test_people_are_smoothed_each_for_themselves(mode: Mode, body: Body) -> None:
    alone = [noisy_clip(body, 12, track=track, seed=track) for track in (1, 2)]
    together = [
        (f, People.concatenate([one, two] if f.index % 2 else [two, one]))
        for (f, one), (_, two) in zip(*alone, strict=True)
    ]
    apart = [through(mode, body, clip) for clip in alone]
    for index, people in enumerate(through(mode, body, together)):
        for track in (1, 2):
            own = people[people.track_ids == track]
            np.testing.assert_allclose(own.pose_rad, apart[track - 1][index].pose_rad, atol=1e-6)
            np.testing.assert_allclose(own.translation_m, apart[track - 1][index].translation_m, atol=1e-4)


@each_mode
def test_time_counts_and_not_frames(mode: Mode, body: Body) -> None:
    clip = noisy_clip(body, 20)
    every_second = [(frame(2 * f.index), people) for f, people in clip]
    for one, two in zip(through(mode, body, clip), through(mode, body, every_second, 2 * FPS), strict=True):
        assert_equal(one, two)


@each_mode
def test_who_was_long_away_starts_anew(mode: Mode, body: Body) -> None:
    first, second = noisy_clip(body, 10), noisy_clip(body, 10, seed=1)
    away = 10 + int(RESTART_S * FPS)
    late = [(frame(f.index + away), people) for f, people in second]
    for one, two in zip(through(mode, body, [*first, *late])[10:], through(mode, body, second), strict=True):
        assert_equal(one, two)


@each_mode
def test_who_appears_later_is_smoothed_from_then_on(mode: Mode, body: Body) -> None:
    nobody = [(frame(index), People.none()) for index in range(7)]
    clip = noisy_clip(body, 10)
    late = [(frame(f.index + 7), people) for f, people in clip]
    found = through(mode, body, [*nobody, *late])
    assert [len(people) for people in found[:7]] == [0] * 7
    for one, two in zip(found[7:], through(mode, body, clip), strict=True):
        assert_equal(one, two)


@each_mode
def test_nobody_and_nothing(mode: Mode, body: Body) -> None:
    assert through(mode, body, []) == []
    clip = [(frame(index), People.none()) for index in range(30)]
    for people in through(mode, body, clip):
        assert_equal(people, People.none())


@each_mode
def test_who_has_no_track_passes_as_they_are(mode: Mode, body: Body) -> None:
    clip = noisy_clip(body, 12, track=-1)
    for (_, given), people in zip(clip, through(mode, body, clip), strict=True):
        assert_equal(given, people)


@each_mode
def test_only_the_first_of_a_track_in_a_frame_is_followed(mode: Mode, body: Body) -> None:
    first, second = noisy_clip(body, 12), noisy_clip(body, 12, seed=1)
    both = [(f, People.concatenate([one, two])) for (f, one), (_, two) in zip(first, second, strict=True)]
    for one, two, (_, given) in zip(through(mode, body, both), through(mode, body, first), second, strict=True):
        assert_equal(one[:1], two)
        assert_equal(one[1:], given)


@each_mode
def test_the_same_clip_gives_the_same(mode: Mode, body: Body) -> None:
    clip = noisy_clip(body, 15)
    for one, two in zip(through(mode, body, clip), through(mode, body, clip), strict=True):
        assert_equal(one, two)


@each_mode
def test_what_is_given_is_not_changed(mode: Mode, body: Body) -> None:
    clip, copy = noisy_clip(body, 12), noisy_clip(body, 12)
    through(mode, body, clip)
    for (_, one), (_, two) in zip(clip, copy, strict=True):
        assert_equal(one, two)


@each_mode
def test_a_flip_of_sign_at_half_a_turn_is_no_motion(mode: Mode, body: Body) -> None:
    axes = np.random.default_rng(0).normal(size=(24, 3))
    pose = axes / np.linalg.norm(axes, axis=1, keepdims=True) * (np.pi - 1e-4)
    clip = [(frame(k), person(body, pose * (1 if k % 2 else -1))) for k in range(12)]
    for people in through(mode, body, clip):
        assert angle_between(people.pose_rad, pose).max() < 3e-4


def window(turns_rad: list[float]) -> np.ndarray:
    """Two joints, one of which turns so about z; at time 0 is the middle."""
    joints_rad = np.zeros((len(turns_rad), 2, 3))
    joints_rad[:, 0, 2] = turns_rad
    seconds = (np.arange(len(turns_rad)) - len(turns_rad) // 2) / FPS
    weights = np.exp(-np.square(seconds / 0.05) / 2)
    found = on_line(ROTATIONS, matrix_from_axis_angle(joints_rad), len(turns_rad) // 2, seconds, weights)
    return axis_angle_from_matrix(found)


@pytest.mark.parametrize(
    ("turns_rad", "expected"),
    [
        ([0.1 * k + 2.5 * (k > 4) for k in range(9)], 0.4),  # a jump after this frame is not smeared over the window
        ([0.1 * k + 2.5 * (k > 3) for k in range(9)], 2.9),  # nor one before it
        ([0.1 * k + 2.5 * (k == 4) for k in range(9)], 0.4),  # this frame alone is wrong
        ([0.1 * k + 2.5 * (k in (4, 5)) for k in range(9)], 0.4),  # with its neighbour
        ([0.1 * k - 2.5 * (k == 2) for k in range(9)], 0.4),  # another frame is wrong
        ([0.7], 0.7),
        ([0.0, 3.0, 0.0], 0.0),
        ([2.2, 0.5, -1.2], 0.5),  # every frame somewhere else
        ([1.0, 1.1, 2.9, -1.0, -1.3], 1.2),  # two agree, on a line that leads here
    ],
)
def test_jumps_of_a_joint(turns_rad: list[float], expected: float) -> None:
    np.testing.assert_allclose(window(turns_rad), [[0, 0, expected], [0, 0, 0]], atol=1e-9)


def test_how_long_frames_are_held(body: Body) -> None:
    clip = noisy_clip(body, 30)
    causal, offline = OneEuro(body, FPS), TwoSided(body, FPS)
    assert offline.reach == 5
    held = 0
    for given in clip:
        assert [f for f, _ in causal.push(*given)] == [given[0]]
        held += 1 - len(offline.push(*given))
        assert held <= offline.reach
    assert causal.flush() == []
    assert len(offline.flush()) == held == offline.reach
    assert offline.flush() == []


@each_mode
def test_frames_come_in_order_and_have_a_rate(mode: Mode, body: Body) -> None:
    smoother = open_smoother(mode, body, FPS)
    smoother.push(frame(4), People.none())
    with pytest.raises(ValueError, match="frame 4 does not come after frame 4"):
        smoother.push(frame(4), People.none())
    for fps in (0, float("nan")):
        with pytest.raises(ValueError, match="smoothing needs a frame rate above 0"):
            open_smoother(mode, body, fps)


@each_mode
def test_times_count_and_not_numbers(mode: Mode, body: Body) -> None:
    """A film of varying frame rate is smoothed as the same moments of a steady one, of which some are missing."""
    steps = np.cumsum([0, 1, 1, 3, 1, 7, 2, 1, 1, 40, 1, 2])
    people = [each for _, each in noisy_clip(body, len(steps))]
    steady: Clip = [(frame(int(step)), each) for step, each in zip(steps, people, strict=True)]
    timed: Clip = [
        (Frame(number, f"{number}.png", PIXEL, round(step / FPS, 6)), each)
        for number, (step, each) in enumerate(zip(steps, people, strict=True))
    ]
    for one, other in zip(through(mode, body, steady), through(mode, body, timed), strict=True):
        np.testing.assert_allclose(one.pose_rad, other.pose_rad, atol=1e-4)
        np.testing.assert_allclose(one.betas, other.betas, atol=1e-4)
        np.testing.assert_allclose(pelvis_px(one), pelvis_px(other), atol=1e-2)
