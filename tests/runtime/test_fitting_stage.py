"""The stage of a fit, with a fitter of numbers: what is fitted together, in which order, and from where on film."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jotr_deploy.errors import FitError
from jotr_deploy.people import People, PeopleFit
from jotr_deploy.runtime import fitting_stage
from jotr_deploy.runtime.fitting_stage import FittingStage
from jotr_deploy.runtime.motion.tracking import Tracker
from jotr_deploy.runtime.sources.frame_source import Frame

NOTHING = People.none()


def people_of(*tracks: int) -> People:
    """People whose first pose number is their track."""
    arrays = {
        name: np.zeros((len(tracks), *getattr(NOTHING, name).shape[1:])) for name in vars(NOTHING) if name != "fit"
    }
    arrays["track_ids"] = np.array(tracks)
    people = People(**arrays)
    people.pose_rad[:, 0, 0] = tracks
    return people


def fit_of(accepted: Sequence[bool]) -> PeopleFit:
    count, yes = len(accepted), np.array(accepted, bool)
    no, energy = np.zeros(count, bool), np.zeros(count)
    return PeopleFit(~no, no, yes, no, no, energy, energy, {}, {}, np.zeros((count, 2, 2), bool))


class Fake:
    """Adds ten to the first pose number, and remembers its calls; whoever has an odd track is not accepted."""

    preset = "default"
    files_used: tuple[dict[str, str], ...] = ()

    def __init__(self, broken: int | None = None) -> None:
        self.calls: list[list[int]] = []
        self.before: list[Any] = []
        self.broken = broken

    def __call__(self, pictures: Sequence[tuple[np.ndarray, People]], before: People | None = None) -> list[People]:
        self.calls.append([len(people) for _, people in pictures])
        self.before.append(None if before is None else before.track_ids.tolist())
        done = []
        for image, people in pictures:
            if image[0, 0, 0] == self.broken:
                raise FitError("no", "yes")
            even = people.track_ids % 2 == 0
            pose = people.pose_rad.copy()
            pose[even, 0, 0] += 10
            done.append(replace(people, pose_rad=pose, fit=fit_of(even.tolist())))
        return done

    def close(self) -> None: ...


def frames(*counts: int, stop: int | None = None) -> Generator[tuple[Frame, People], None, None]:
    """Small pictures of so many people each; an error in the place of number `stop`."""
    for index, count in enumerate(counts):
        if index == stop:
            raise ValueError("unreadable")
        yield Frame(index, f"{index}.png", np.full((2, 2, 3), index, np.uint8)), people_of(*[2] * count)


@pytest.mark.parametrize(
    ("counts", "calls"),
    [
        ((), []),
        ((0,), [[0]]),
        ((1, 1), [[1, 1]]),
        ((5, 5, 5, 5, 1), [[5, 5, 5, 5], [1]]),
        ((40, 1), [[40], [1]]),
        ((0, 16, 0), [[0, 16], [0]]),
    ],
)
def test_people_of_several_pictures_are_fitted_together(counts: tuple[int, ...], calls: list[list[int]]) -> None:
    fake = Fake()
    done = list(FittingStage(fake).together(frames(*counts), None))
    assert fake.calls == calls
    assert [frame.index for frame, _ in done] == list(range(len(counts)))
    assert [len(people) for _, people in done] == list(counts)
    assert all((people.pose_rad[:, 0, 0] == 12).all() for _, people in done)
    assert set(fake.before) <= {None}


def test_large_pictures_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting_stage, "MOST_BYTES", 2 * 12)
    fake = Fake()
    assert len(list(FittingStage(fake).together(frames(1, 1, 1), None))) == 3
    assert fake.calls == [[1, 1], [1]]


def test_the_picture_that_fails_is_named_and_the_others_stay() -> None:
    failed: list[int] = []
    stage = FittingStage(Fake(broken=1))
    done = list(stage.together(frames(1, 1, 1), lambda frame, error: failed.append(frame.index)))
    assert [frame.index for frame, _ in done] == [0, 2]
    assert failed == [1]


def test_without_anybody_to_tell_the_error_comes_in_its_place() -> None:
    stream = FittingStage(Fake(broken=1)).together(frames(1, 1, 1), None)
    assert next(stream)[0].index == 0
    with pytest.raises(FitError):
        next(stream)


def test_pictures_before_one_that_cannot_be_read_are_given_first() -> None:
    stream = FittingStage(Fake()).together(frames(1, 1, 1, stop=2), None)
    assert [next(stream)[0].index for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="unreadable"):
        next(stream)


def test_on_film_those_whom_the_frame_before_moved_are_known() -> None:
    fake = Fake()
    stage = FittingStage(fake, moving=True)
    for index, tracks in enumerate([(2, 3), (2, 4), (), (4,)]):
        stage(Frame(index, "", np.zeros((2, 2, 3), np.uint8)), people_of(*tracks))
    assert fake.before == [None, [2], [2, 4], []]


def test_still_pictures_do_not_know_each_other() -> None:
    fake = Fake()
    stage = FittingStage(fake)
    for index in range(2):
        stage(Frame(index, "", np.zeros((2, 2, 3), np.uint8)), people_of(2))
    assert fake.before == [None, None]


def test_at_a_block_nobody_is_known_and_ids_stay_those_of_the_stream() -> None:
    fake = Fake()
    stage = FittingStage(fake, moving=True, block=3, follow=lambda: Tracker(25.0))
    for index in range(5):
        given = replace(people_of(7, 7), boxes_px=np.array([[0, 0, 9, 9], [50, 0, 59, 9]], np.float32))
        done = stage(Frame(index, "", np.zeros((2, 2, 3), np.uint8)), given)
        assert done.track_ids.tolist() == [7, 7]
    assert fake.before == [None, [2], [2], None, [2]]  # ids of the block: who has an even one is accepted


def test_pictures_of_two_blocks_are_not_fitted_together() -> None:
    fake = Fake()
    done = list(FittingStage(fake, block=2).together(frames(1, 1, 1, 1, 1), None))
    assert ([frame.index for frame, _ in done], fake.calls) == ([0, 1, 2, 3, 4], [[1, 1], [1, 1], [1]])
