import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.geometry.crop import crop_from_image
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.crop_boxes import with_joint_boxes
from jotr_deploy.skeletons import to_smpl30

GOLDEN_DIR = Path(__file__).parents[1] / "golden"
GOLDEN = np.load(GOLDEN_DIR / "preprocess.npz")


@pytest.fixture(scope="module")
def photo_bgr():
    photo_rgb = runpy.run_path(str(GOLDEN_DIR / "standin.py"))["raw_photo"]("jotr-golden-A/")
    assert photo_rgb.sum() == GOLDEN["photo_sum"]
    return np.ascontiguousarray(photo_rgb[..., ::-1])


def detections_of(source, skeleton, size_px):
    keypoints = to_smpl30(GOLDEN[f"{source}/detections"], skeleton)
    return with_joint_boxes(
        Detections(np.zeros((6, 4)), keypoints, np.ones(6), np.full(6, -1)),
        size_px,
        1.1,
    )


@pytest.mark.parametrize(("source", "skeleton"), [("openpose", "coco18"), ("coco", "coco17")])
def test_crops_are_the_published_ones(photo_bgr, source, skeleton):
    people = detections_of(source, skeleton, (640, 480))
    crops = make_crops(photo_bgr, people, 256)
    np.testing.assert_allclose(crops.image[:, :, 4::16, 4::16], GOLDEN[f"{source}/img_slice"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(crops.image.mean((2, 3), dtype=np.float64), GOLDEN[f"{source}/img_mean"], atol=1e-5)
    np.testing.assert_allclose(crops.joints, GOLDEN[f"{source}/joints"][..., :2], atol=1e-3)
    np.testing.assert_array_equal(crops.joints_mask, GOLDEN[f"{source}/joints_mask"][..., 0])


def test_only_what_the_box_covers_is_warped_and_that_changes_nothing(photo_bgr):
    people = detections_of("coco", "coco17", (640, 480))
    for crop, box_px in zip(make_crops(photo_bgr, people, 256).image, people.boxes_px, strict=True):
        whole = cv2.warpAffine(photo_bgr.astype(np.float32), crop_from_image(box_px, 256), (256, 256)) / 255
        np.testing.assert_allclose(crop, whole[..., ::-1].transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_feeds_have_the_networks_names_and_layout(count, side):
    people = Detections.from_boxes(np.tile([[2, 3, 22, 23]], (count, 1)))
    crops = make_crops(np.zeros((40, 30, 3), np.uint8), people, side)
    assert {name: (feed.shape, feed.dtype) for name, feed in crops.feeds.items()} == {
        "image": ((count, 3, side, side), np.float32),
        "joints": ((count, 30, 2), np.float32),
        "joints_mask": ((count, 30), np.float32),
    }
    assert all(feed.flags.c_contiguous for feed in crops.feeds.values())
    assert crops.boxes_px.shape == (count, 4)
    assert len(crops) == count
    assert crops.joints_mask.sum() == 0


def test_colours_are_rgb_in_0_to_1():
    red_bgr = np.zeros((50, 50, 3), np.uint8)
    red_bgr[..., 2] = 255
    crop = make_crops(red_bgr, Detections.from_boxes(np.array([[10, 10, 40, 40]])), 64).image[0]
    assert crop.max(axis=(1, 2)).tolist() == [1, 0, 0]
    assert crop.min(axis=(1, 2)).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("box_px", "light"),
    [
        ([0, 0, 100, 100], 1.0),  # the image itself
        ([-100, 0, 100, 200], 0.25),  # a quarter of it
        ([-50, -50, 150, 150], 0.25),  # around it
        ([50, 50, 51, 51], 1.0),  # one pixel
        ([49.9, 49.9, 50.0, 50.0], 1.0),  # a tenth of a pixel
        ([500, 500, 600, 600], 0.0),  # outside
        ([-90000, 0, -80000, 10000], 0.0),  # far outside
        ([-1e9, -1e9, 1e9, 1e9], 0.0),  # the image is less than a crop pixel
        ([3e7, -3e7, 3.1e7, -2.9e7], 0.0),  # very far outside
    ],
)
def test_boxes_inside_outside_and_on_the_edge(box_px, light):
    white = np.full((100, 100, 3), 255, np.uint8)
    crop = make_crops(white, Detections.from_boxes(np.array([box_px])), 64).image[0]
    assert 0 <= crop.min() <= crop.max() <= 1
    # The seam to the black outside is one pixel wide.
    assert crop.mean() == pytest.approx(light, abs=0.03)


def test_a_one_pixel_image():
    image = np.full((1, 1, 3), 200, np.uint8)
    crop = make_crops(image, Detections.from_boxes(np.array([[-1, -1, 1, 1]])), 64).image[0]
    assert crop[:, 32, 32] == pytest.approx(200 / 255)
    assert crop[:, 0, 0] == pytest.approx(0)


@pytest.mark.parametrize("width", [20000, 40000])
def test_an_image_wider_than_the_warp_can_address(width):
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    image = np.broadcast_to(ramp[None, :, None], (64, width, 3))
    boxes_px = np.array([[0, 32 - width / 2, width, 32 + width / 2], [width - 64, 0, width, 64]])
    whole, end = make_crops(image, Detections.from_boxes(boxes_px), 256).image
    np.testing.assert_allclose(whole[0, 128], np.arange(256) / 256, atol=0.01)
    assert end[:, :250, :250].min() > 0.99


@pytest.mark.parametrize(
    ("box_px", "text"),
    [
        ([5, 5, 5, 5], "(5, 5, 5, 5)"),
        ([9, 9, 1, 1], "(9, 9, 1, 1)"),
        ([0, 0, float("nan"), 9], "(0, 0, nan, 9)"),
        ([0, 0, float("inf"), float("inf")], "(0, 0, inf, inf)"),
    ],
)
def test_a_box_without_area_names_the_person(box_px, text):
    people = Detections.from_boxes(np.array([[0, 0, 9, 9], box_px]))
    with pytest.raises(KeypointFileError) as caught:
        make_crops(np.zeros((9, 9, 3), np.uint8), people, 64)
    assert caught.value.cause == f"person 1: crop box {text} has no area"
    assert caught.value.remedy == "correct this person's box, or remove the person"


def test_what_only_a_program_gets_wrong():
    people = Detections.from_boxes(np.array([[0, 0, 20, 10]]))
    with pytest.raises(ValueError, match=r"person 0: crop box \(0, 0, 20, 10\) is not square"):
        make_crops(np.zeros((9, 9, 3), np.uint8), people, 64)
    for image in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3), np.float32)):
        with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
            make_crops(image, Detections.none(), 64)


def test_crops_of_several_threads_and_sizes_are_those_made_one_by_one(photo_bgr):
    pictures = [photo_bgr, cv2.resize(photo_bgr, (3200, 2400)), photo_bgr[:60, :90], photo_bgr[::-1].copy()] * 4
    people = [_filling(picture) for picture in pictures]
    alone = [make_crops(*each, 64).image for each in zip(pictures, people, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: make_crops(*each, 64).image, zip(pictures, people, strict=True)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def _filling(picture):
    side = max(picture.shape) + 9
    return Detections(np.float32([[-9, -9, side, side]]), np.zeros((1, 30, 3), np.float32), np.ones(1), np.full(1, -1))
