"""The mesh stage and the pipeline: batches, the empty case, and the camera law that ties a mesh to its picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import noise, picture, video

from jotr_deploy.bundle import open_bundle
from jotr_deploy.errors import BundleError
from jotr_deploy.geometry.camera import FOCAL_PER_SIDE, project_px
from jotr_deploy.geometry.crop import image_from_crop, square_box, transform_px
from jotr_deploy.people import LAYOUT, People
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.people_source import WholeFrame
from jotr_deploy.runtime.mesh import MAX_BATCH, MeshNetwork
from jotr_deploy.runtime.pipeline import Pipeline
from jotr_deploy.runtime.sessions import Session, TensorSpec, open_session
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.skeletons import SMPL30


@pytest.fixture
def session(tiny_bundle: Path) -> Iterator[Session]:
    with open_session(open_bundle(tiny_bundle).file("mesh")) as opened:
        yield opened


class Counting(Session):
    """Passes on to another session and keeps the size of every call."""

    def __init__(self, inner: Session) -> None:
        self.path, self.inputs, self.outputs, self.inner = inner.path, inner.inputs, inner.outputs, inner
        self.batches: list[int] = []

    def _run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        self.batches.append(len(feeds["image"]))
        return self.inner(feeds)


def somebody(count: int, seed: int = 0) -> Detections:
    """People with random square boxes around a picture of 80 x 60 px, and random joints."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(-40, 60, (count, 2)), rng.uniform(5, 300, (count, 2))
    joints = rng.uniform([-20, -20, 0], [100, 80, 1], (count, len(SMPL30), 3))
    boxes = square_box(np.concatenate([corner, corner + size], 1), 1.1) if count else np.zeros((0, 4))
    return Detections(boxes, joints, rng.uniform(0, 1, count), rng.integers(0, 99, count))


def recover(session: Session, people: Detections) -> People:
    mesh = MeshNetwork(session)
    return mesh(make_crops(noise(), people, mesh.crop_side), people)


@pytest.mark.parametrize(
    ("count", "batches"),
    [(0, []), (1, [1]), (3, [3]), (MAX_BATCH, [MAX_BATCH]), (2 * MAX_BATCH + 1, [MAX_BATCH, MAX_BATCH, 1])],
)
def test_all_people_of_a_frame_in_as_few_calls_as_fit(session: Session, count: int, batches: list[int]) -> None:
    counting = Counting(session)
    people = recover(counting, somebody(count))
    assert counting.batches == batches
    assert len(people) == count
    for name, (shape, dtype) in LAYOUT.items():
        array = getattr(people, name)
        assert (array.shape, array.dtype) == ((count, *shape), dtype)


def test_people_keep_their_order_and_what_was_known_of_them(session: Session) -> None:
    given = somebody(2 * MAX_BATCH + 1)
    together = recover(session, given)
    for name, field in (("boxes_px", "boxes_px"), ("scores", "scores"), ("track_ids", "track_ids"),
                        ("keypoints_px", "keypoints_px")):  # fmt: skip
        np.testing.assert_array_equal(getattr(together, name), getattr(given, field))
    for index in (0, MAX_BATCH - 1, MAX_BATCH, 2 * MAX_BATCH):
        alone = recover(session, given[[index]])
        np.testing.assert_allclose(alone.vertices_m[0], together.vertices_m[index], atol=1e-5)
        np.testing.assert_allclose(alone.translation_m[0], together.translation_m[index], atol=1e-3)
        assert alone.joints_used[0] == together.joints_used[index]


def test_the_mask_is_counted(session: Session) -> None:
    given = somebody(4)
    crops = make_crops(noise(), given, 64)
    np.testing.assert_array_equal(recover(session, given).joints_used, crops.joints_mask.sum(1))
    assert 0 < crops.joints_mask.sum() < crops.joints_mask.size


@pytest.mark.parametrize("seed", range(3))
def test_a_vertex_lands_where_the_crop_camera_and_the_crop_put_it(session: Session, seed: int) -> None:
    """The crop camera, then the affine back into the image == the person's own camera in the image."""
    given = somebody(8, seed)
    people, side = recover(session, given), MeshNetwork(session).crop_side
    points = people.vertices_camera_m.astype(np.float64)
    in_crop = points[..., :2] / points[..., 2:] * (FOCAL_PER_SIDE * side) + side / 2
    expected = transform_px(image_from_crop(given.boxes_px, side), in_crop)
    found = project_px(points, people.focal_px, people.principal_px)
    sides = (given.boxes_px[:, 2] - given.boxes_px[:, 0])[:, None, None]
    assert np.abs((found - expected) / sides).max() < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_the_networks_own_projection_lands_there_too(session: Session, seed: int) -> None:
    """Cells times 4 are crop pixels; the published guard adds 1e-4 m to the depth, float32 the rest."""
    given = somebody(8, seed)
    crops = make_crops(noise(), given, 64)
    cells = session(crops.feeds)["joints_proj"]
    people = recover(session, given)
    expected = transform_px(image_from_crop(given.boxes_px, 64), 4.0 * cells.astype(np.float64))
    found = project_px(people.joints_camera_m.astype(np.float64), people.focal_px, people.principal_px)
    sides = (given.boxes_px[:, 2] - given.boxes_px[:, 0])[:, None]
    offset = np.linalg.norm(found - people.principal_px[:, None], axis=-1)
    guard = offset * 1e-4 / people.joints_camera_m[..., 2]
    assert (np.linalg.norm(found - expected, axis=-1) <= guard + 1e-5 * sides).all()
    assert offset.max() > 1  # the law is about more than the centre


def test_the_pelvis_is_where_the_translation_is(session: Session) -> None:
    people = recover(session, somebody(3))
    np.testing.assert_allclose(people.joints_m[:, 0], 0, atol=1e-6)
    assert (people.translation_m[:, 2] > 0).all()


class PoseOnly(Session):
    """What an export without a body offers."""

    path = Path("bundle/mesh.onnx")
    inputs: Mapping[str, TensorSpec] = {
        "image": TensorSpec(np.dtype(np.float32), ("batch", 3, 64, 64)),
        "joints": TensorSpec(np.dtype(np.float32), ("batch", 30, 2)),
        "joints_mask": TensorSpec(np.dtype(np.float32), ("batch", 30)),
    }
    outputs: Mapping[str, TensorSpec] = {"pose": TensorSpec(np.dtype(np.float32), ("batch", 24, 3))}

    def _run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


def test_a_network_without_a_body_makes_no_meshes() -> None:
    with pytest.raises(BundleError) as refusal:
        MeshNetwork(PoseOnly())
    assert refusal.value.cause == "bundle/mesh.onnx: exported with --no-body, it makes no meshes"
    assert refusal.value.remedy == "export it again without --no-body"


def test_a_stream_is_the_calls_in_order_and_says_where_its_time_goes(tmp_path: Path, session: Session) -> None:
    with open_source(video(tmp_path / "clip.mp4", 3)) as source:
        pipeline = Pipeline(MeshNetwork(session), WholeFrame(crop_factor=1.1))
        streamed = list(pipeline.stream(source))
        assert list(pipeline.spans.seconds) == ["decode", "crop", "network"]
        assert len(pipeline.spans.seconds["network"]) == 3
        called = [pipeline(frame.image_bgr, frame.name, frame.index) for frame in source]
    assert [frame.index for frame, _ in streamed] == [0, 1, 2]
    for (_, people), again in zip(streamed, called, strict=True):
        assert people.vertices_m.tobytes() == again.vertices_m.tobytes()


def test_a_pipeline_passes_on_who_and_which_frame(tmp_path: Path, session: Session) -> None:
    asked: list[tuple[str, int]] = []

    def nobody(image_bgr: Any, name: str, frame: int) -> Detections:
        asked.append((name, frame))
        return Detections.none()

    (tmp_path / "shots").mkdir()
    for name in ("b.png", "a.png"):
        picture(tmp_path / "shots" / name)
    with open_source(tmp_path / "shots") as source:
        found = [len(people) for _, people in Pipeline(MeshNetwork(session), nobody).stream(source)]
    assert (found, asked) == ([0, 0], [("a.png", 0), ("b.png", 1)])
