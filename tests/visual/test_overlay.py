"""Drawing people over pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from crowd import FACES, crowd

from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.raster import vertex_normals
from jotr_deploy.geometry.scene_frame import scene_focal_px
from jotr_deploy.people import People
from jotr_deploy.skeletons import SMPL30_INDEX
from jotr_deploy.visual import overlay
from jotr_deploy.visual.overlay import draw_keypoints, draw_people
from jotr_deploy.visual.palette import person_colours

GREY = 90


def canvas(width=100, height=80):
    return np.full((height, width, 3), GREY, np.uint8)


def changed(picture):
    return (picture != GREY).any(-1)


def disc(picture, centre_px, radius_px):
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return np.hypot(x - centre_px[0], y - centre_px[1]) < radius_px


def test_a_ball_is_drawn_where_its_own_camera_sees_it():
    # 0.5 m at 40 m through 5000 / 256 * 64 px: a radius of 15.6 px about the centre of the box.
    picture = draw_people(canvas(), crowd([(10, 5, 74, 69)]), FACES)
    assert changed(picture)[disc(picture, (42, 37), 15.3)].all()
    assert not changed(picture)[~disc(picture, (42, 37), 16)].any()


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.37, 1e-9])
def test_a_smaller_picture_shows_people_in_the_same_place(scale):
    people = crowd([(100, 50, 740, 690), (500, 300, 700, 500)])
    image = np.full((800, 1000, 3), GREY, np.uint8)
    small = draw_people(image, people, FACES, scale=scale)
    assert small.shape == (max(1, round(800 * scale)), max(1, round(1000 * scale)), 3)
    large = cv2.resize(draw_people(image, people, FACES), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - large).mean() < (1 if scale > 0.1 else 30)


def test_the_picture_given_is_left_alone():
    image = canvas()
    draw_people(image, crowd([(10, 5, 74, 69)]), FACES, caption="caption")
    draw_keypoints(image, crowd([(10, 5, 74, 69)]))
    assert (image == GREY).all()


@pytest.mark.parametrize(
    "people",
    [
        People.none(),
        crowd([(300, 5, 364, 69)]),  # right of the picture
        crowd([(10, -300, 74, -236)]),  # above it
        crowd([(10, 5, 74, 69)], z_m=-40.0),  # behind the camera
        crowd([(10, 5, 74, 69)], z_m=np.nan),  # nowhere
    ],
    ids=["nobody", "right", "above", "behind", "nan"],
)
@pytest.mark.parametrize("size", [(100, 80), (1, 1)])
def test_who_is_not_in_the_picture_leaves_it_as_it_is(people, size):
    np.testing.assert_array_equal(draw_people(canvas(*size), people, FACES), canvas(*size))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_a_person_larger_than_a_tiny_picture_fills_it(size):
    picture = draw_people(canvas(*size), crowd([(-500, -500, 500, 500)]), FACES, caption="caption")
    assert changed(picture).all()


def test_a_person_at_the_camera_is_drawn_in_part():
    people = crowd([(10, 5, 74, 69)])
    people.translation_m[:] = (0.3, 0, 0.5)  # touches the camera's plane, and goes on beside its axis
    assert changed(draw_people(canvas(), people, FACES)).all()


def test_the_nearer_person_covers_the_farther_one():
    # The same camera for both, so that the order is exact.
    people = crowd([(10, 5, 74, 69)] * 2, z_m=[45.0, 40.0], track_ids=[0, 1])
    both = draw_people(canvas(), people, FACES)
    np.testing.assert_array_equal(both, draw_people(canvas(), people[[1]], FACES))
    np.testing.assert_array_equal(both, draw_people(canvas(), people[[1, 0]], FACES))


def test_a_dark_line_sets_people_off_from_each_other_and_the_background(monkeypatch):
    # Radii of 78 px; the person in front is the one on the left.
    people = crowd([(10, 5, 330, 325), (50, 5, 370, 325)], z_m=[40.0, 42.0], track_ids=[0, 0])
    lined = draw_people(canvas(400, 330), people, FACES)
    monkeypatch.setattr(overlay, "OUTLINE_SHADE", 1.0)
    plain = draw_people(canvas(400, 330), people, FACES)
    darker = (lined < 0.75 * plain).any(-1)
    assert np.flatnonzero(darker[165]).tolist() == [170 - 78, 170 + 78, 210 + 74]
    assert not darker[disc(darker, (170, 165), 76)].any()
    assert not (lined != plain).any(-1)[~darker].any()


def painted_one_by_one(image, people):
    """The picture by the definition: every pixel of every face, its light from the three corners, and its outline."""
    pixels = project_px(people.vertices_camera_m, people.focal_px, people.principal_px)
    shape, count = image.shape[:2], len(people)
    # As drawn: all in one scene camera.
    z_m = people.vertices_camera_m[..., 2] * (scene_focal_px(people) / people.focal_px)[:, None]
    owner, light, depth = np.full(shape, -1), np.zeros(shape), np.full(shape, np.inf)
    for k in range(count):
        vertices_m = people.vertices_camera_m[k]
        lit = overlay.AMBIENT + (1 - overlay.AMBIENT) * np.maximum(
            vertex_normals(vertices_m, FACES) @ overlay.TOWARDS_LIGHT, 0
        )
        for face in FACES:
            (x0, y0), (x1, y1), (x2, y2) = corners = pixels[k, face].astype(float)
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            (left, top), (right, bottom) = np.ceil(corners.min(0)).astype(int), np.floor(corners.max(0)).astype(int)
            for y in range(max(top, 0), min(bottom + 1, shape[0])) if area < 0 else ():
                for x in range(max(left, 0), min(right + 1, shape[1])):
                    a = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
                    b = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
                    weights = np.array([a, b, 1 - a - b])
                    at_m = 1 / (weights @ (1 / z_m[k, face])) if weights.min() >= -1e-9 else np.inf
                    if at_m < depth[y, x]:
                        owner[y, x], light[y, x], depth[y, x] = k, weights @ lit[face], at_m
    per_px = people.translation_m[:, 2] / people.focal_px
    step = np.maximum(overlay.OUTLINE_STEP_M, 8 * per_px) * scene_focal_px(people) / people.focal_px
    picture, inside = image.astype(float), set(np.ndindex(shape))
    for y, x in zip(*np.nonzero(owner >= 0), strict=True):
        k = owner[y, x]
        beside = [at for at in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)) if at in inside]
        if any((owner[at] != k and depth[at] >= depth[y, x]) or depth[at] > depth[y, x] + step[k] for at in beside):
            light[y, x] *= 1 - (1 - overlay.OUTLINE_SHADE) * min(overlay.OUTLINE_M / per_px[k], 1)
        colour = person_colours(people.track_ids)[k, ::-1] * light[y, x]
        picture[y, x] = overlay.OPACITY * colour + (1 - overlay.OPACITY) * picture[y, x]
    return picture


@pytest.mark.parametrize(
    "people",
    [
        crowd([(10, 5, 74, 69)]),
        crowd([(10, 5, 74, 69), (20, 15, 84, 79)], z_m=[40.0, 40.3]),  # one into the other
        crowd([(-30, 5, 34, 69), (20, -15, 84, 49), (60, 30, 90, 60)], z_m=[42.0, 40.0, 40.0]),  # over the edge
    ],
    ids=["one", "through each other", "at the edge"],
)
def test_a_picture_is_within_a_grey_level_of_one_painted_pixel_by_pixel(people, monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, canvas().shape, np.uint8)
    expected = painted_one_by_one(image, people)
    assert (np.abs(expected - image) > 20).any()
    # Half a level more, for the rounding of the picture itself.
    drawn = draw_people(image, people, FACES)
    assert np.abs(drawn - expected).max() <= 1.5
    monkeypatch.setattr(overlay, "PART_PX", 1)
    assert draw_people(image, people, FACES).tobytes() == drawn.tobytes()


def test_the_line_around_a_small_person_is_faint(monkeypatch):
    people = crowd([(10, 5, 42, 37)])
    lined = draw_people(canvas(), people, FACES).astype(float)
    monkeypatch.setattr(overlay, "OUTLINE_SHADE", 1.0)
    plain = draw_people(canvas(), people, FACES)
    assert (lined != plain).any()
    assert (lined >= 0.9 * plain - 1).all()


@pytest.mark.parametrize(
    ("track_ids", "places"),
    [
        ([], []),
        ([-1, -1, -1], [0, 1, 2]),  # no tracks: the place in the list
        ([4, 2, 0], [4, 2, 0]),  # tracks keep their colour
        ([-1, 5, -1], [0, 5, 2]),  # some of each
        ([12], [2]),  # more tracks than colours
    ],
)
def test_colours_follow_the_tracks(track_ids, places):
    palette = person_colours(np.arange(10))
    assert len(np.unique(palette, axis=0)) == 10
    np.testing.assert_array_equal(person_colours(np.array(track_ids, np.int64)), palette[places].reshape(-1, 3))


def test_a_person_has_the_colour_of_their_track():
    blue_green_red = person_colours(np.array([7]))[0, ::-1].astype(float)
    picture = draw_people(canvas(), crowd([(10, 5, 74, 69)], track_ids=7), FACES)
    drawn = picture[37, 42].astype(float) - 0.12 * GREY
    np.testing.assert_allclose(drawn / drawn.sum(), blue_green_red / blue_green_red.sum(), atol=0.01)


def test_drawing_is_repeatable():
    people = crowd([(10, 5, 74, 69), (20, 5, 84, 69)], z_m=[40.0, 42.0])
    first, again = (draw_people(canvas(), people, FACES, caption="a caption") for _ in range(2))
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize(
    ("size", "barred_share"),
    [
        ((640, 480), (0.02, 0.1)),
        ((1920, 1080), (0.02, 0.1)),
        ((128, 128), (0.1, 0.5)),  # several lines
        ((48, 48), (0.1, 0.5)),  # smaller letters
        ((4, 4), (0, 0)),  # no room for any letter
        ((1, 1), (0, 0)),
    ],
)
def test_a_caption_is_a_bar_along_the_bottom(size, barred_share):
    picture = draw_people(canvas(*size), People.none(), FACES, caption="untrained: pose is meaningless · stand-in body")
    barred = changed(picture).any(1)
    least, most = barred_share
    assert least <= barred.mean() <= most
    if most:
        assert barred[-barred.sum() :].all()
        assert changed(picture)[barred].mean() > 0.95
        assert picture[barred].max() > 200
        assert picture[barred].min() < GREY / 2


@pytest.mark.parametrize("caption", [None, "", " "])
def test_no_caption_no_bar(caption):
    assert not changed(draw_people(canvas(), People.none(), FACES, caption=caption)).any()


def with_joints(**joints_px):
    """One person with these joints, and a crop box outside the picture."""
    people = crowd([(-200, -200, -100, -100)])
    people.keypoints_px[:] = 0
    for name, (x, y) in joints_px.items():
        people.keypoints_px[0, SMPL30_INDEX[name]] = (x, y, 0.5)
    return people


def test_joints_and_the_bones_between_them_are_drawn():
    picture = draw_keypoints(canvas(), with_joints(L_Hip=(20, 20), L_Knee=(20, 60), R_Ankle=(80, 40)))
    assert changed(picture)[[20, 60, 40], [20, 20, 80]].all()
    assert changed(picture)[20:61, 20].all()
    assert not changed(picture)[:, 40:70].any()


def test_absent_joints_are_not_drawn():
    assert not changed(draw_keypoints(canvas(), with_joints())).any()


def test_the_crop_box_is_drawn():
    people = with_joints()
    people.boxes_px[:] = (10, 20, 50, 60)
    marked = changed(draw_keypoints(canvas(), people))
    assert marked[20, 10:51].all()
    assert marked[20:61, 50].all()
    assert not marked[22:58, 12:48].any()


@pytest.mark.parametrize("size", [(100, 80), (1, 1)])
@pytest.mark.parametrize(
    "people",
    [People.none(), with_joints(Nose=(1e9, -1e9), Neck=(np.nan, 3), L_Hip=(-1e12, 4))],
    ids=["nobody", "far out"],
)
def test_joints_that_cannot_be_seen(people, size):
    assert draw_keypoints(canvas(*size), people).shape == canvas(*size).shape


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_depths_of_different_cameras_are_made_to_compare(order):
    # Alike bodies at the same depth, each in a camera of its own: who fills the larger box is nearer.
    small, large = (25, 20, 57, 52), (10, 5, 74, 69)
    both = crowd([small, large], track_ids=np.array([1, 2]))
    alone = draw_people(canvas(), crowd([large], track_ids=np.array([2])), FACES)
    np.testing.assert_array_equal(draw_people(canvas(), both[list(order)], FACES), alone)
