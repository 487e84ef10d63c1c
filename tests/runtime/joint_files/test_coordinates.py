"""Joints and boxes in another frame of reference come to lie in the picture."""

import json
import struct

import cv2
import numpy as np
import pytest

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.geometry.orientation import upright_from_stored
from jotr_deploy.runtime.finding.people_source import open_people_source
from jotr_deploy.runtime.joint_files.keypoint_file import read_keypoints
from jotr_deploy.runtime.sources.images import orientation_of, read_image
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.skeletons import SKELETONS, to_smpl30

SIZE_PX = (640, 480)


def standing(seed=0):
    """(18, 3): somebody upright in the picture, a little at random."""
    heights = {"Nose": 40, "Neck": 80, "Shoulder": 85, "Elbow": 140, "Wrist": 190, "Hip": 220, "Knee": 320,
               "Ankle": 420, "Eye": 35, "Ear": 38}  # fmt: skip
    x = {"L": 340, "R": 260}
    places = [(x.get(name[0], 300) if name[1] == "_" else 300, heights[name.split("_")[-1]], 0.9)
              for name in SKELETONS["coco18"]]  # fmt: skip
    return np.array(places) + np.random.default_rng(seed).uniform(-5, 5, (18, 3)) * [1, 1, 0.01]


JOINTS = standing()
EXPECTED = to_smpl30(JOINTS[None], "coco18")


def openpose(path, joints, **more):
    people = [{"pose_keypoints_2d": [float(x) for x in np.ravel(joints)]}]
    path.write_text(json.dumps({"people": people, **more}))
    return path


def scaled(by, more=((), ())):
    joints = JOINTS * [*by, 1]
    for at, value in zip(*more, strict=True):
        joints[at, :2] = value
    return joints


@pytest.mark.parametrize(
    ("joints", "said", "told"),
    [
        (JOINTS, {}, None),
        (JOINTS, {"canvas_width": 640, "canvas_height": 480}, None),
        (scaled((0.5, 0.5)), {"canvas_width": 320, "canvas_height": 240}, "are scaled to"),
        (scaled((3, 3)), {"image_width": 1920, "image_height": 1440}, "are scaled to"),
        (scaled((512 / 640, 384 / 480)), {"canvas_width": 512, "canvas_height": 384}, "are scaled to"),
        (JOINTS, {"canvas_width": 120, "canvas_height": 90}, "its points lie outside"),  # of the picture after all
        (scaled((1 / 640, 1 / 480)), {}, "lie within 0..1;"),
        (scaled((1 / 640, 1 / 480)), {"canvas_width": 512, "canvas_height": 384}, "lie within 0..1;"),
        (scaled((1 / 639, 1 / 479)), {"version": 1.3}, "lie within 0..1;"),  # as OpenPose counts
    ],
)
def test_places_become_pixels(tmp_path, caplog, joints, said, told):
    file = read_keypoints(openpose(tmp_path / "a_keypoints.json", joints, **said))
    np.testing.assert_allclose(file.for_image("a.jpg", size_px=SIZE_PX).keypoints_px, EXPECTED, atol=1e-3)
    assert [told in message for message in caplog.messages] == ([True] if told else [])


@pytest.mark.parametrize("outside", [(0.4, 1.1131), (-0.2, 0.5), (2.5, -3), (900, 0.5)])
def test_some_fractions_outside_do_not_make_pixels(tmp_path, caplog, outside):
    joints = scaled((1 / 640, 1 / 480), ([10, 13], [outside, outside]))
    file = read_keypoints(openpose(tmp_path / "a_keypoints.json", joints))
    found = file.for_image("a.jpg", size_px=SIZE_PX).keypoints_px[0]
    true = to_smpl30(scaled((1, 1), ([10, 13], [np.multiply(outside, SIZE_PX)] * 2))[None], "coco18")[0]
    np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-3)
    assert "except 2 of 19 points; interpreted as fractions" in caplog.messages[0]


@pytest.mark.parametrize(
    ("joints_in", "scale"), [("pixels", 1), ("normalised", (640, 480)), ("auto", (640, 480)), ("unrotated", (640, 480))]
)
def test_what_is_said_of_the_coordinates_goes_first(tmp_path, joints_in, scale):
    joints = np.clip(scaled((1 / 640, 1 / 480)), 0, 1)
    file = read_keypoints(openpose(tmp_path / "a_keypoints.json", joints), joints_in=joints_in)
    true = to_smpl30((joints * [*np.broadcast_to(scale, 2), 1])[None], "coco18")
    np.testing.assert_allclose(file.for_image("a.jpg", size_px=SIZE_PX).keypoints_px, true, atol=1e-3)


def test_another_shape_is_refused(tmp_path):
    path = openpose(tmp_path / "a_keypoints.json", JOINTS, canvas_width=512, canvas_height=910)
    with pytest.raises(KeypointFileError) as caught:
        read_keypoints(path).for_image("a.jpg", size_px=SIZE_PX)
    assert caught.value.cause == (
        f"{path}: coordinates are for a picture of 512 x 910 px, but 'a.jpg' has 640 x 480, a different aspect ratio"
    )
    assert caught.value.remedy == (
        "give the picture that the file was made from, or --joints-in pixels if these are its pixels"
    )
    file = read_keypoints(path, joints_in="pixels")
    np.testing.assert_allclose(file.for_image("a.jpg", size_px=SIZE_PX).keypoints_px, EXPECTED, atol=1e-3)


def phone(path, orientation, upright_px=SIZE_PX):
    """A JPEG with that tag that is `upright_px` when it stands upright, and one white pixel block in it."""
    width, height = upright_px[::-1] if orientation >= 5 else upright_px
    stored = np.zeros((height, width, 3), np.uint8)
    stored[40:48, 16:24] = 255
    jpeg = cv2.imencode(".jpg", stored)[1].tobytes()
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHH", 8, 1, 0x0112, 3, 1, orientation, 0) + b"\0" * 4
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_are_where_the_upright_picture_shows_them(tmp_path, orientation):
    path = phone(tmp_path / "a.jpg", orientation)
    assert orientation_of(path) == orientation
    upright = read_image(path, upright=True)
    y, x = (at.mean() for at in np.nonzero(upright[..., 0] > 128))
    found = upright_from_stored(np.array([19.5, 43.5]), orientation, upright.shape[1::-1])
    np.testing.assert_allclose(found, [x, y], atol=0.5)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"RIFF", b"hello"])
def test_a_file_without_exif_is_not_turned(tmp_path, data):
    (tmp_path / "a.jpg").write_bytes(data)
    assert orientation_of(tmp_path / "a.jpg") == 1


def stored_of(joints, orientation, size_px=SIZE_PX):
    """The inverse of `upright_from_stored`: only quarter turns differ from their own."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored_px = size_px[::-1] if orientation >= 5 else size_px
    return np.column_stack([upright_from_stored(joints[:, :2], back, stored_px), joints[:, 2]])


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("fractions", [False, True])
@pytest.mark.parametrize(
    ("joints_in", "stored"), [("auto", True), ("unrotated", True), ("auto", False), ("pixels", False)]
)
def test_joints_of_unrotated_pixels(tmp_path, caplog, orientation, fractions, joints_in, stored):
    if fractions and joints_in == "pixels":
        pytest.skip("contradicts itself")
    path = phone(tmp_path / "a.jpg", orientation)
    joints = stored_of(JOINTS, orientation) if stored else JOINTS.copy()
    if fractions:
        joints[:, :2] /= SIZE_PX[::-1] if stored and orientation >= 5 else SIZE_PX
    file = openpose(tmp_path / "a_keypoints.json", joints)
    with open_source(path, upright=True) as source:
        find = open_people_source(source, file, joints_in=joints_in, crop_factor=1.1)
        (people,) = [find(frame.image_bgr, frame.name, frame.index) for frame in source]
    np.testing.assert_allclose(people.keypoints_px, EXPECTED, atol=1e-2)
    frame = "the unrotated pixels" if stored else "the upright picture"
    assert any(f"joints and boxes are assumed to use {frame}" in m for m in caplog.messages) == (joints_in == "auto")


def test_a_canvas_tells_the_unrotated_pixels(tmp_path):
    path = phone(tmp_path / "a.jpg", 6)
    joints = stored_of(JOINTS, 6) * [0.5, 0.5, 1]
    file = openpose(tmp_path / "a_keypoints.json", joints, canvas_width=240, canvas_height=320)
    with open_source(path, upright=True) as source:
        find = open_people_source(source, file, crop_factor=1.1)
        (people,) = [find(frame.image_bgr, frame.name, frame.index) for frame in source]
    np.testing.assert_allclose(people.keypoints_px, EXPECTED, atol=1e-2)
