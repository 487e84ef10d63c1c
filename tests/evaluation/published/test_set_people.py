"""Who of a set is evaluated, with which box; what the true mesh is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from miniature import KNOWN, write_miniature
from numpy.testing import assert_allclose, assert_array_equal

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import load_body
from jotr_deploy.datasets.published.annotation import Annotation, Fit
from jotr_deploy.datasets.published.sets import read_set
from jotr_deploy.errors import BodyFileError, DatasetError
from jotr_deploy.evaluation.published.set_people import NO_JOINT_BOX, given_of, read_everybody
from jotr_deploy.evaluation.published.true_bodies import TrueBodies
from jotr_deploy.skeletons import SMPL30_INDEX
from jotr_deploy.support.choices import SPLITS


@pytest.mark.parametrize("protocol", SPLITS)
def test_everybody_of_a_miniature(tmp_path: Path, protocol: str) -> None:
    write_miniature(protocol, tmp_path)
    known = KNOWN[protocol, SPLITS[protocol]]
    everybody = read_everybody(protocol, tmp_path, 1.1)
    assert everybody.count == len(known)
    assert [person.key for person in everybody.people] == [person.key for person in known]
    assert everybody.left_out == {}
    images = [{str(person.image.relative_to(tmp_path)) for person in each.people} for each in everybody.pictures]
    assert images == [{image} for image in dict.fromkeys(person.image for person in known)]
    assert all(len(each.given) == len(each.people) for each in everybody.pictures)


def person(**changes: Any) -> Annotation:
    """Somebody of a picture of 120 x 100 with two joints: hips at (30, 40) and (50, 60)."""
    found_px = np.zeros((17, 3))
    found_px[11], found_px[12] = (30, 40, 0.5), (50, 60, 0.25)
    plain = Annotation(
        "a", Path("a.jpg"), (120, 100), np.zeros(4), np.zeros((30, 3)),
        fit=Fit(np.zeros((24, 3)), np.zeros(10), np.zeros(3)), found_px=found_px,
    )  # fmt: skip
    return replace(plain, **changes)


def test_the_box_by_hand() -> None:
    """Extent 20 x 20 about (40, 50), times 1.2: 28..52; clipped a pixel less: 28..51; square about 39.5, times 1.1."""
    given = given_of([person()], 1.1)
    assert_allclose(given.boxes_px, [[39.5 - 12.65, 49.5 - 12.65, 39.5 + 12.65, 49.5 + 12.65]], rtol=1e-6)
    pelvis, neck = given.keypoints_px[0, SMPL30_INDEX["Pelvis"]], given.keypoints_px[0, SMPL30_INDEX["Neck"]]
    assert_allclose(pelvis, [40, 50, 0.125])
    assert_array_equal(neck, [0, 0, 0])


def with_confidence(*confidences: float) -> Annotation:
    found_px = np.array(person().found_px)
    found_px[[11, 12], 2] = confidences
    return person(found_px=found_px)


@pytest.mark.parametrize(
    ("people", "kept"),
    [
        ([], []),
        ([person()], [0]),
        ([person(found_px=None)], []),
        ([person(found_px=np.zeros((17, 3)))], []),
        ([with_confidence(0.05, 0.05)], []),  # the threshold itself does not count
        ([with_confidence(0.06, 0.06)], [0]),
        ([with_confidence(0.06, 0.05)], []),  # one joint has no extent
        ([person(), person(found_px=None), person()], [0, 2]),
    ],
)
def test_who_has_a_box(people: list[Annotation], kept: list[int]) -> None:
    assert_array_equal(given_of(people, 1.1).track_ids, kept)


def test_who_is_left_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").touch()
    people = [
        person(key="whole", image=tmp_path / "a.jpg"),
        person(key="no truth", image=tmp_path / "a.jpg", fit=None),
        person(key="no joints", image=tmp_path / "a.jpg", found_px=None),
    ]
    monkeypatch.setattr("jotr_deploy.evaluation.published.set_people.read_set", lambda *_: people)
    everybody = read_everybody("3dpw", tmp_path, 1.1)
    assert everybody.count == 3
    assert [each.key for each in everybody.people] == ["whole"]
    assert everybody.left_out == {NO_JOINT_BOX: ("no joints",), "no true body": ("no truth",)}


def test_pictures_that_are_missing_are_told_before_anything_runs(tmp_path: Path) -> None:
    write_miniature("3dpw", tmp_path)
    pictures = sorted((tmp_path / "3DPW/imageFiles/downtown_walking_00").glob("*.jpg"))
    for picture in pictures[1:]:
        picture.unlink()
    with pytest.raises(DatasetError) as refused:
        read_everybody("3dpw", tmp_path, 1.1)
    assert refused.value.cause == f"{pictures[1]}: no such picture; 2 of 4 pictures of the set are missing"
    assert "docs/datasets.md" in refused.value.remedy


def test_a_missing_picture_of_a_set_that_does_not_say_their_size(tmp_path: Path) -> None:
    write_miniature("3doh", tmp_path)
    picture = tmp_path / KNOWN["3doh", "test"][1].image
    picture.unlink()
    with pytest.raises(DatasetError) as refused:
        read_everybody("3doh", tmp_path, 1.1)
    assert refused.value.cause.startswith(f"{picture}: ")


def test_the_true_mesh(tmp_path: Path, smpl: Path) -> None:
    """Of the person's gender, posed and shaped; relative to the pelvis by the neutral body's regressor."""
    write_miniature("3dpw", tmp_path)
    people = read_set("3dpw", tmp_path, "test")[:2]
    assert [each.fit.gender for each in people if each.fit] == ["male", "female"]
    truth = TrueBodies(smpl, ["male", "female"]).truth(people)
    regressor = load_body(smpl / "SMPL_NEUTRAL.npz").regressor_30()
    for place, gender in enumerate(("MALE", "FEMALE")):
        fit = people[place].fit
        assert fit is not None
        body = SkinnedBody(load_body(smpl / f"SMPL_{gender}.npz"))
        with torch.inference_mode():
            vertices = body(torch.tensor(fit.pose_rad[None]).float(), torch.tensor(fit.betas[None]))[0][0].numpy()
        joints = regressor @ vertices
        assert_allclose(truth.vertices_m[place], vertices - joints[0], atol=1e-5)
        assert_allclose(truth.joints_m[place], joints - joints[0], atol=1e-5)
    height_m = np.ptp(truth.vertices_m[..., 1], axis=1)
    assert height_m[0] / height_m[1] == pytest.approx(1.1 / 0.9, rel=0.02)


def test_a_fit_is_brought_into_the_frame_of_the_camera(smpl: Path) -> None:
    quarter = np.array([[0.0, -1, 0, 5], [1, 0, 0, 5], [0, 0, 1, 5]])
    plain = person()
    assert plain.fit is not None
    bodies = TrueBodies(smpl, [])
    turned = bodies.truth([replace(plain, fit=replace(plain.fit, camera_from_fit=quarter))])
    assert_allclose(turned.vertices_m, bodies.truth([plain]).vertices_m @ quarter[:, :3].T, atol=1e-6)


def test_nobody(smpl: Path) -> None:
    truth = TrueBodies(smpl, []).truth([])
    assert truth.vertices_m.shape == (0, 6890, 3)
    assert truth.joints_m.shape == (0, 30, 3)


def test_a_gender_without_a_body(tmp_path: Path, smpl: Path) -> None:
    (tmp_path / "SMPL_NEUTRAL.npz").symlink_to(smpl / "SMPL_NEUTRAL.npz")
    assert not TrueBodies(tmp_path, ["neutral"]).stand_in
    with pytest.raises(BodyFileError, match="no male SMPL file in this folder"):
        TrueBodies(tmp_path, ["male"])
    with pytest.raises(BodyFileError, match="no neutral SMPL file in this folder"):
        TrueBodies(tmp_path / "nowhere", [])
