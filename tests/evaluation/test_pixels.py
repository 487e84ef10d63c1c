"""From pixels alone: who is found, and that errors are those of the right people."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canned import write_blaze_detector, write_blaze_landmarks
from fake_scenes import FakeNetwork, fake_scene
from numpy.testing import assert_allclose

from jotr_deploy.evaluation.collector import Collector
from jotr_deploy.evaluation.end_to_end import FromPixels
from jotr_deploy.evaluation.error_statistics import Figures
from jotr_deploy.evaluation.evaluation_result import Found, PixelResult
from jotr_deploy.evaluation.held_out_scenes import HeldOut
from jotr_deploy.evaluation.matching import clipped
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.people_networks import PeopleNetworks
from jotr_deploy.runtime.finding.people_source import DetectedPeople, found_by
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.aliases import Array


def all_scenes() -> list[HeldOut]:
    return [fake_scene(3, index) for index in range(24)]


def by_true_boxes(scenes: list[HeldOut]) -> Samples:
    """Every counted person, each 1 mm more wrong than the one before."""
    counted = [scene.truth[np.flatnonzero(scene.counted)] for scene in scenes]
    joints = np.concatenate([truth.joints_m for truth in counted])
    wrong = joints + 0.001 * np.arange(len(joints))[:, None, None] * np.array([1, 0, 0])
    collector = Collector([FakeNetwork(wrong, np.concatenate([truth.vertices_m for truth in counted]))])  # type: ignore[list-item]
    for scene in scenes:
        rows = np.flatnonzero(scene.counted)
        collector.add(scene.image_bgr, scene.given[rows], scene.truth[rows])
    return collector.finish()[0].samples


class SeesNobody:
    """A pose network that finds no joint of anybody, and says that such people are nobody."""

    skeleton, least_score, score_power, most_explained = "coco17", 0.5, 1.0, 1.0

    def __call__(self, image_bgr: Array, boxes_px: Array) -> Array:
        return np.zeros((len(boxes_px), 17, 3), np.float32)


def measured(
    detect: Callable[[HeldOut], tuple[Array, Array]], pose: Any = None
) -> tuple[PixelResult, list[HeldOut], Samples]:
    """Look at the scenes with a detector; the network is right about everybody, were they given in order."""
    scenes = all_scenes()
    joints, vertices = [], []
    for scene in scenes:
        boxes, scores = detect(scene)
        for box in boxes[np.argsort(-scores, kind="stable")]:
            hits = np.flatnonzero((np.abs(scene.boxes_px - box) < 1).all(1) & scene.counted)
            joints += [scene.truth.joints_m[hit] for hit in hits]
            vertices += [scene.truth.vertices_m[hit] for hit in hits]
    network = FakeNetwork(np.reshape(joints, (-1, 30, 3)), np.reshape(vertices, (-1, 6890, 3)))
    shown: list[HeldOut] = []
    source = DetectedPeople(lambda image_bgr: detect(shown[-1]), pose, crop_factor=1.1)  # type: ignore[arg-type]
    pixels, counted = FromPixels(source, network), 0  # type: ignore[arg-type]
    for scene in scenes:
        shown.append(scene)
        pixels.add(scene, counted)
        counted += int(scene.counted.sum())
    own = by_true_boxes(scenes)
    return pixels.result(own), scenes, own


def sums(scenes: list[HeldOut]) -> tuple[int, int, int]:
    """People, of whom wanted, of whom counted."""
    wanted = sum((scene.tall & (scene.truth.visible_fraction >= 0.5)).sum() for scene in scenes)
    return sum(len(s.boxes_px) for s in scenes), int(wanted), int(sum(s.counted.sum() for s in scenes))


def test_everybody_found() -> None:
    result, scenes, own = measured(lambda scene: (scene.boxes_px, np.linspace(0.9, 0.3, len(scene.boxes_px))))
    people, wanted, counted = sums(scenes)
    assert people > counted > wanted > 0
    assert result.people == result.detector == Found(wanted, wanted, 1.0, people, people, 1.0)
    assert result.errors.people["all"] == Figures(counted, 0.0, 0.0, 0.0)
    assert result.same_people == Figures.of(own)


def test_blazepose_has_no_row_of_its_detector_alone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        files = write_blaze_detector(tmp_path / "d.onnx", people=0), write_blaze_landmarks(tmp_path / "p.onnx")
        detector, pose = (stack.enter_context(open_session(file, device="cpu")) for file in files)
        source = found_by(PeopleNetworks(open_detector(detector), open_pose_network(pose)), crop_factor=1.1)
        pixels = FromPixels(source, FakeNetwork(np.zeros((0, 30, 3)), np.zeros((0, 6890, 3))))  # type: ignore[arg-type]
        scenes = all_scenes()
        pixels.add(scenes[0], 0)
    result = pixels.result(by_true_boxes(scenes[:1]))
    assert result.detector is None
    assert result.people.found_of_wanted == 0


def test_the_same_people_are_compared() -> None:
    """Only the last of every scene is found, beside a box of nobody; places in the list of counted people follow."""

    def detect(scene: HeldOut) -> tuple[Array, Array]:
        boxes = np.concatenate([scene.boxes_px[-1:], [[300, 150, 310, 160]]]).astype(np.float32)
        return boxes, np.linspace(0.3, 0.9, len(boxes))

    result, scenes, _ = measured(detect)
    places, before = [], 0
    for scene in scenes:
        if len(scene.boxes_px) and scene.counted[-1]:
            places.append(before + scene.counted.sum() - 1)
        before += scene.counted.sum()
    assert result.same_people.people == result.errors.people["all"].people == len(places) > 0
    assert result.same_people.mpjpe_mm is not None
    assert_allclose(result.same_people.mpjpe_mm, np.mean(places), atol=0.01)
    filled = sum(len(scene.boxes_px) > 0 for scene in scenes)
    assert (result.people.right, result.people.detections) == (filled, filled + len(scenes))
    assert result.people.precision == round(filled / (filled + len(scenes)), 3)
    assert result.people.recall is not None
    assert 0 < result.people.recall < 1


def test_nobody_found() -> None:
    result, _, _ = measured(lambda scene: (np.zeros((0, 4), np.float32), np.zeros(0, np.float32)))
    assert (result.people.recall, result.people.precision, result.people.detections) == (0.0, None, 0)
    assert result.errors.people["all"] == result.same_people == Figures(0, None, None, None)


def test_the_detector_is_counted_apart_from_whom_joints_leave() -> None:
    result, scenes, _ = measured(lambda s: (s.boxes_px, np.linspace(0.9, 0.3, len(s.boxes_px))), SeesNobody())
    people, wanted, _ = sums(scenes)
    assert result.detector == Found(wanted, wanted, 1.0, people, people, 1.0)
    assert result.people == Found(wanted, 0, 0.0, 0, 0, None)


@pytest.mark.parametrize(
    ("box", "inside"),
    [((-20, 5, 30, 40), (-0.5, 5, 30, 29.5)), ((5, 5, 10, 10), (5, 5, 10, 10)), ((60, 3, 70, 9), (39.5, 3, 39.5, 9))],
)
def test_boxes_end_at_the_picture(box: tuple[float, ...], inside: tuple[float, ...]) -> None:
    assert_allclose(clipped(np.array([box], float), np.zeros((30, 40, 3), np.uint8)), [inside])
