"""Crops cut by a graph are those cut by OpenCV; on a GPU, a fake one, they never pass through the host."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from pictures import noise
from runtime.sessions.test_onnxruntime_cuda import FakeOnnxRuntime, machine

import jotr_deploy as jd
from jotr_deploy.bundle import open_bundle
from jotr_deploy.errors import KeypointFileError, SessionError
from jotr_deploy.people import LAYOUT
from jotr_deploy.profiling.timed_picture import default_scene
from jotr_deploy.runtime import crop_graph
from jotr_deploy.runtime.crop_graph import PEOPLE_AT_ONCE, GpuCropper, open_cropper, sampling
from jotr_deploy.runtime.crops import Crops, make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.sessions import cuda, open_session
from jotr_deploy.runtime.sessions.device_array import DeviceArray
from jotr_deploy.runtime.sessions.onnxruntime import CPU, CUDA, load


@pytest.fixture(scope="module")
def graph() -> Any:
    return load(crop_graph.crop_graph(), [CPU], threads=1)


def photo() -> np.ndarray:
    with default_scene() as (picture, _):
        image = cv2.imread(str(picture))
    assert image is not None
    return image


def random_boxes(seed: int, count: int, size_px: tuple[int, int]) -> np.ndarray:
    """Square boxes of 3 to 3000 px around an image; every third on eighths of a pixel, where OpenCV's roundings tie."""
    rng = np.random.default_rng(seed)
    side = np.exp(rng.uniform(np.log(3), np.log(3000), (count, 1)))
    low = rng.uniform(-50, np.add(size_px, 50), (count, 2)) - side / 2
    low[::3], side[::3] = np.round(low[::3] * 8) / 8, np.round(side[::3] * 8) / 8
    return np.concatenate([low, low + side], 1).astype(np.float32)


def cut(graph: Any, image: np.ndarray, boxes_px: np.ndarray, crop_side: int) -> np.ndarray:
    tables = sampling(boxes_px, (image.shape[1], image.shape[0]), crop_side)
    found: np.ndarray = graph.run(["image"], {"frame": image, **tables})[0]
    return found


# ── the graph against OpenCV ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("picture", [noise, photo])
def test_the_graph_cuts_what_opencv_cuts_to_the_bit(graph, picture, seed, side):
    image = picture()
    boxes_px = random_boxes(seed, 12, (image.shape[1], image.shape[0]))
    expected = make_crops(image, Detections.from_boxes(boxes_px), side).image
    np.testing.assert_array_equal(cut(graph, image, boxes_px, side), expected)
    assert expected.max() > 0.5  # not all of them are outside


@pytest.mark.parametrize(
    "box_px",
    [
        [0, 0, 100, 100],  # the image itself
        [-50, -50, 150, 150],  # around it
        [50, 50, 51, 51],  # one pixel
        [49.9, 49.9, 50.0, 50.0],  # a tenth of a pixel
        [-2, -2, 0, 0],  # up to the first pixel
        [99, 99, 101, 101],  # from the last pixel
        [500, 500, 600, 600],  # outside
        [-90000, 0, -80000, 10000],  # far outside
        [-20000, -20000, 20000, 20000],  # thinned out by OpenCV's limit
        [-1e9, -1e9, 1e9, 1e9],  # the image is less than a crop pixel
    ],
)
def test_boxes_inside_outside_and_on_the_edge(graph, rng, box_px):
    image = rng.integers(0, 256, (100, 100, 3), np.uint8)
    people = Detections.from_boxes(np.array([box_px]))
    np.testing.assert_array_equal(cut(graph, image, people.boxes_px, 64), make_crops(image, people, 64).image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (64, 40000)], ids=["a pixel", "a row", "wider than OpenCV warps"])
def test_images_of_any_size(graph, rng, shape):
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    width = shape[1]
    people = Detections.from_boxes(np.array([[0, 0, width, width], [width - 8, -4, width, 4]]))
    np.testing.assert_array_equal(cut(graph, image, people.boxes_px, 64), make_crops(image, people, 64).image)


def test_nobody_has_tables_too():
    tables = sampling(np.zeros((0, 4), np.float32), (9, 9), 64)
    assert {name: (table.shape, table.dtype.name) for name, table in tables.items()} == {
        "row_starts": ((2, 0, 64), "int32"),
        "columns": ((2, 0, 64), "int32"),
        "row_weights": ((2, 0, 64), "float32"),
        "column_weights": ((2, 0, 64), "float32"),
    }


@pytest.mark.parametrize("seed", range(3))
def test_no_table_points_outside_the_frame_and_shares_make_a_whole_inside(seed):
    boxes_px = random_boxes(seed, 30, (80, 60))
    tables = sampling(boxes_px, (80, 60), 64)
    assert (tables["row_starts"] % 80 == 0).all()
    for indices, size in ((tables["row_starts"] // 80, 60), (tables["columns"], 80)):
        assert 0 <= indices.min() <= indices.max() < size
    for weights in (tables["row_weights"], tables["column_weights"]):
        assert weights.min() >= 0
        assert weights.sum(0).max() == 1


def test_the_graph_is_the_same_every_time_and_well_formed():
    model = crop_graph.crop_graph()
    assert model == crop_graph.crop_graph()
    onnx.checker.check_model(model, full_check=True)


# ── on a GPU ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOnnxRuntime]:
    with machine() as module:
        monkeypatch.setattr(crop_graph, "onnxruntime", lambda: module)
        yield module


def somebody(count: int, seed: int = 0) -> Detections:
    rng = np.random.default_rng(seed)
    joints = rng.uniform([-20, -20, 0], [100, 80, 1], (count, 30, 3))
    return Detections(random_boxes(seed, count, (80, 60)), joints, rng.random(count), np.arange(count))


def same(found: Crops, expected: Crops) -> None:
    """Equal to the bit, the picture read where it lies."""
    assert isinstance(found.image, DeviceArray)
    assert (found.image.shape, found.image.dtype) == (expected.image.shape, expected.image.dtype)
    np.testing.assert_array_equal(on_host(found.image), expected.image)
    for name in ("joints", "joints_mask", "boxes_px"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def on_host(array: DeviceArray) -> np.ndarray:
    # A GPU's memory is the host's here.
    return cuda.Memory(array.pointer, array.nbytes, lambda pointer: None).as_array(array.shape, array.dtype).copy()


@pytest.fixture
def copies(gpu: FakeOnnxRuntime, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(kind, bytes) of every copy, as it is queued."""
    queued: list[tuple[str, int]] = []
    copy = gpu.gpu.runtime.cudaMemcpyAsync

    def noted(dst: int, src: int, count: int, kind: Any, stream: Any) -> Any:
        queued.append((kind.name.removeprefix("cudaMemcpy"), count))
        return copy(dst, src, count, kind, stream)

    monkeypatch.setattr(gpu.gpu.runtime, "cudaMemcpyAsync", noted)
    return queued


def test_any_number_of_people_and_any_frame_one_after_the_other(gpu):
    with GpuCropper() as cropper:
        for count, side in ((1, 64), (3, 64), (PEOPLE_AT_ONCE + 1, 64), (2, 128), (1, 64), (1, 64)):
            for image in (noise(count), photo()):
                people = somebody(count, seed=count)
                same(cropper(image, people, side), make_crops(image, people, side))


def test_views_of_larger_pictures_are_cut_as_they_look(gpu):
    people, mirrored = somebody(2), photo()[100:300:2, ::-1]
    with GpuCropper() as cropper:
        same(cropper(mirrored, people, 64), make_crops(mirrored, people, 64))


def test_nobody_is_nothing_to_upload(gpu, copies):
    with GpuCropper() as cropper:
        crops = cropper(noise(), Detections.none(), 64)
    assert crops.image.shape == (0, 3, 64, 64)
    assert copies == []


@pytest.mark.parametrize("count", [1, PEOPLE_AT_ONCE, 2 * PEOPLE_AT_ONCE + 1])
def test_a_frame_goes_up_once_and_no_crop_comes_down(gpu, copies, count):
    image, people = photo(), somebody(count)
    with GpuCropper() as cropper:
        cropper(image, people, 64)
    assert {kind for kind, _ in copies} == {"HostToDevice"}
    assert [size for _, size in copies].count(image.nbytes) == 1
    assert sum(size for _, size in copies) == image.nbytes + count * 4 * 2 * 64 * 4  # the tables


@pytest.mark.parametrize("count", [3, 4], ids=["padded on the GPU", "in place"])
def test_the_network_reads_the_crops_where_they_are(gpu, copies, tiny_bundle: Path, count: int):
    people, image = somebody(count), noise()
    with open_session(open_bundle(tiny_bundle).file("mesh")) as session, open_cropper(session) as cropper:
        mesh = MeshNetwork(session)
        expected = mesh(make_crops(image, people, mesh.crop_side), people)
        crops = cropper(image, people, mesh.crop_side)
        copies.clear()
        found = mesh(crops, people)
        row_bytes = crops.image.nbytes
        assert ("HostToDevice", row_bytes) not in copies
        assert len([size for kind, size in copies if kind == "DeviceToDevice"]) == (0 if count == 4 else 2)
        assert [kind for kind, _ in copies].count("HostToDevice") == 2  # joints and their mask
        for name in LAYOUT:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        del crops


def test_the_same_people_come_at_the_same_address_so_that_graphs_are_replayed(gpu, tiny_bundle: Path):
    with open_session(open_bundle(tiny_bundle).file("mesh")) as session, open_cropper(session) as cropper:
        mesh = MeshNetwork(session)
        for seed in range(4):
            people = somebody(2, seed)
            mesh(cropper(noise(seed), people, mesh.crop_side), people)
    assert [run for run in gpu.runs if run != "plain"] == ["capture 1", *["replay 1"] * 3]


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_reaches_every_network_and_is_off_otherwise(gpu, tf32: bool):
    with jd.load(device="cuda", tf32=tf32) as model:
        assert len(model(photo())) == 2
    graphs = [options["use_tf32"] for options in gpu.options if options["enable_cuda_graph"] == "1"]
    assert graphs == [str(int(tf32))] * 3  # mesh, detector, pose


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_session_says_where_its_crops_are_cut(gpu, tiny_bundle: Path, device: str):
    with (
        open_session(open_bundle(tiny_bundle).file("mesh"), device=device) as session,
        open_cropper(session) as cropper,
    ):
        assert isinstance(cropper, GpuCropper) == (device == "cuda")
        assert (cropper is make_crops) == (device == "cpu")


def test_without_onnxruntime_on_the_gpu_the_cpu_cuts(gpu, tiny_bundle: Path, caplog):
    with open_session(open_bundle(tiny_bundle).file("mesh")) as session:
        gpu.providers = [CPU]
        with caplog.at_level(logging.INFO, "jotr_deploy"), open_cropper(session) as cropper:
            assert cropper is make_crops
        gpu.providers, gpu.falls_back = [CUDA, CPU], True
        with open_cropper(session) as cropper:
            assert cropper is make_crops
    assert caplog.messages[-1] == "crops are cut on the CPU: ONNX Runtime could not use CUDA"


def test_crops_outlive_their_cropper(gpu):
    people, image = somebody(2), noise()
    with GpuCropper() as cropper:
        crops = cropper(image, people, 64)
    same(crops, make_crops(image, people, 64))
    del crops


@pytest.mark.parametrize(
    ("image", "box_px", "error"),
    [
        (np.zeros((9, 9, 3), np.uint8), [5, 5, 5, 5], KeypointFileError),
        (np.zeros((9, 9, 3), np.uint8), [0, 0, 20, 10], ValueError),
        (np.zeros((9, 9, 3), np.float32), [0, 0, 9, 9], ValueError),
        (np.zeros((9, 9), np.uint8), [0, 0, 9, 9], ValueError),
    ],
)
def test_what_the_cpu_refuses_is_refused_in_the_same_words(gpu, image, box_px, error):
    people = Detections.from_boxes(np.array([box_px]))
    with pytest.raises(error) as expected:
        make_crops(image, people, 64)
    with GpuCropper() as cropper, pytest.raises(error) as found:
        cropper(image, people, 64)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync"])
@pytest.mark.parametrize("call", [1, 2, 5])
def test_wherever_cuda_fails_everything_is_released_and_the_next_call_is_right(monkeypatch, function, call):
    people, image = somebody(2), noise()
    with machine(fail={function: call}) as module:
        monkeypatch.setattr(crop_graph, "onnxruntime", lambda: module)
        with GpuCropper() as cropper:
            with pytest.raises(SessionError, match=r"^CUDA cannot (allocate|copy)") as caught:
                cropper(image, people, 64)
            del caught
            same(cropper(image, people, 64), make_crops(image, people, 64))


def test_a_run_that_fails_is_said(gpu):
    with GpuCropper() as cropper:
        cropper._session.run_with_iobinding = None
        with pytest.raises(SessionError) as caught:
            cropper(noise(), somebody(1), 64)
        assert caught.value.cause.startswith("ONNX Runtime cannot cut crops on the GPU (")
        del caught
