"""Heat maps: peaks between cells, by the decode and in the frame that the weights were trained with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canned import Canned, heatmaps_session, write_heatmaps
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.finding.pose.heatmaps import KERNEL_CELLS, peaks_by_newton, peaks_by_quarters
from jotr_deploy.runtime.finding.pose.top_down import corners_aligned, input_from_image
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.skeletons import SKELETONS

SIZE, CELLS = (96, 128), (24, 32)
IMAGE = np.zeros((360, 480, 3), np.uint8)
BOX = np.array([[150, 100, 210, 220.0]])
DECODES = ["quarter", "dark", "udp"]
WITHIN_CELLS = {"quarter": 0.2501, "dark": 0.1, "udp": 0.1}  # of peaks some cells away from the border


def gaussians(cells: np.ndarray, heights: np.ndarray, sigma: float = 2.0, size=CELLS) -> np.ndarray:
    """Maps (N, J, h, w) with peaks at x, y (N, J, 2) of these heights (N, J)."""
    y, x = np.mgrid[: size[1], : size[0]]
    squared = (x - cells[..., 0, None, None]) ** 2 + (y - cells[..., 1, None, None]) ** 2
    return (heights[..., None, None] * np.exp(-squared / 2 / sigma**2)).astype(np.float32)


def in_input(boxes_px: np.ndarray, decode: str) -> tuple[np.ndarray, np.ndarray]:
    """Affines (N, 2, 3) of what is seen, and the input pixels between two cells (2,)."""
    affines = input_from_image(boxes_px, SIZE)
    if decode != "udp":
        return affines, np.array([4.0, 4.0])
    return corners_aligned(affines, SIZE), (np.array(SIZE) - 1) / (np.array(CELLS) - 1)


def network_for(joints_px, boxes_px, recipe, sigma=2.0, **kind):
    affines, px_per_cell = in_input(boxes_px, recipe.get("decode", "quarter"))
    maps = gaussians(transform_px(affines, joints_px[..., :2]) / px_per_cell, joints_px[..., 2], sigma)
    return open_pose_network(heatmaps_session(lambda _: {"output": maps}, SIZE, maps.shape[1], **kind), recipe)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([2, 3]), st.floats(0.01, 3))
def test_a_peak_between_cells(seed, sigma, height):
    rng = np.random.default_rng(seed)
    places = rng.uniform([6, 6], np.array([48, 64]) - 7, (2, 17, 2))
    maps = gaussians(places, np.full((2, 17), height), sigma, (48, 64))
    np.testing.assert_allclose(peaks_by_newton(maps, KERNEL_CELLS[sigma]), places, atol=0.1)
    np.testing.assert_allclose(peaks_by_quarters(maps), places, atol=0.2501)


@pytest.mark.parametrize("place", [(20.3, 31.7), (20.0, 31.5), (24.49, 12.51)])
def test_noise_moves_a_peak_little(place, rng):
    maps = gaussians(np.array([[place]]), np.ones((1, 1)), size=(48, 64))
    maps += rng.normal(0, 0.05, maps.shape).astype(np.float32)
    np.testing.assert_allclose(peaks_by_newton(maps, 11)[0, 0], place, atol=0.2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([0, 0, 1, 0.5, 0], 2.25),
        ([0, 0.5, 1, 0, 0], 1.75),
        ([0, 0.5, 1, 0.5, 0], 2.0),
        ([1, 0.5, 0, 0, 0], 0.0),  # but one neighbour
        ([0, 0, 0, 0.5, 1], 4.0),
        ([0, 0, 0, 0, 0], 0.0),
    ],
)
def test_a_quarter_of_a_cell_towards_the_higher_neighbour(value, expected):
    profile, peak = np.array(value, np.float32), np.array([0, 0, 1, 0, 0], np.float32)
    assert peaks_by_quarters(np.outer(peak, profile)[None, None])[0, 0].tolist() == [expected, 2.0 * any(value)]
    assert peaks_by_quarters(np.outer(profile, peak)[None, None])[0, 0].tolist() == [2.0 * any(value), expected]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([11, 17]))
def test_whatever_the_map_the_peak_is_in_it(seed, kernel):
    rng = np.random.default_rng(seed)
    maps = rng.choice([0, 0, 0, 1e-30, 0.5, 1, -3], (1, 5, 32, 24)).astype(np.float32)
    maps[0, 0], maps[0, 1] = 0, 1
    for peaks in (peaks_by_quarters(maps), peaks_by_newton(maps, kernel)):
        assert (peaks >= 0).all()
        assert (peaks <= np.array(CELLS) - 1).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(20, 150), st.sampled_from(DECODES), st.sampled_from([2, 3]))
def test_known_joints_come_back(seed, height, decode, sigma):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-20, 400, (3, 2))
    boxes_px = np.concatenate([low, low + np.array([0.75, 1]) * height], 1)
    joints_px = np.concatenate([low[:, None] + rng.uniform(0.2, 0.8, (3, 17, 2)) * [0.75 * height, height],
                                rng.uniform(0.5, 1, (3, 17, 1))], -1)  # fmt: skip
    found = network_for(joints_px, boxes_px, {"decode": decode, "sigma": sigma}, sigma)(IMAGE, boxes_px)
    affines, px_per_cell = in_input(boxes_px, decode)
    px = WITHIN_CELLS[decode] * px_per_cell.max() / affines[:, 0, 0].min()
    np.testing.assert_allclose(found[..., :2], joints_px[..., :2], atol=px + 1e-3)
    np.testing.assert_allclose(found[..., 2], joints_px[..., 2], rtol=0.1)  # of the highest cell, not of the peak
    assert found.dtype == np.float32


def test_udp_aligns_the_corners():
    (affine,) = corners_aligned(input_from_image(BOX, SIZE), SIZE)
    centre, size = np.array([180, 160]), np.array([90 * 1.25, 120 * 1.25])
    corners = transform_px(affine, np.array([centre - size / 2, centre, centre + size / 2]))
    np.testing.assert_allclose(corners, [[0, 0], [47.5, 63.5], [95, 127]], atol=1e-9)


@pytest.mark.parametrize("decode", DECODES)
@pytest.mark.parametrize("place", [(140.2, 110.7), (180, 160), (215.4, 205.1)])
def test_a_file_of_this_format(tmp_path: Path, decode, place):
    y, x = np.mgrid[: IMAGE.shape[0], : IMAGE.shape[1]]
    blob = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 2 / (2 * 4 * 112.5 / 96) ** 2)  # 2 cells
    red, blue = np.zeros_like(IMAGE), np.zeros_like(IMAGE)
    red[..., 2] = blue[..., 0] = np.round(255 * blob)
    recipe = {"format": "heatmaps", "decode": decode, "skeleton": "coco17"}
    with open_session(write_heatmaps(tmp_path / "p.onnx", SIZE, udp=decode == "udp"), device="cpu") as session:
        network = open_pose_network(session, recipe)
        found = network(red, np.concatenate([BOX, BOX]))
        assert not network(blue, BOX).any()
        assert network(red, BOX[:0]).shape == (0, 17, 3)
    cells = {"quarter": 0.3, "dark": 0.1, "udp": 0.1}[decode]
    np.testing.assert_allclose(found[..., :2], np.broadcast_to(place, (2, 17, 2)), atol=cells * 4.2 * 112.5 / 96)
    np.testing.assert_allclose(found[..., 2], 1, atol=0.1)


def test_red_is_the_first_channel_with_the_statistics_of_red():
    session = heatmaps_session(lambda images: {"output": np.zeros((1, 17, 32, 24), np.float32)}, SIZE)
    open_pose_network(session)(np.full((200, 200, 3), (0, 0, 255), np.uint8), np.array([[50, 50, 150, 150.0]]))
    (seen,) = session.seen
    assert (seen.dtype, seen.shape) == (np.float32, (1, 3, 128, 96))
    expected = [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    np.testing.assert_allclose(seen[0, :, 64, 48], expected, rtol=1e-6)


def test_nobody_is_not_a_call():
    session = heatmaps_session(None, SIZE)
    found = open_pose_network(session)(IMAGE, np.zeros((0, 4), np.float32))
    assert (found.shape, found.dtype) == ((0, 17, 3), np.float32)
    assert session.seen == []


@pytest.mark.parametrize("decode", DECODES)
def test_a_picture_of_one_pixel(decode):
    boxes_px = np.array([[0, 0, 0, 0], [-0.5, -0.5, 0.5, 0.5]])
    joints_px = np.full((2, 17, 3), 1.0)
    joints_px[..., :2] = 0.1
    found = network_for(joints_px, boxes_px, {"decode": decode})(IMAGE[:1, :1], boxes_px)
    np.testing.assert_allclose(found[..., :2], 0.1, atol=0.02)


@pytest.mark.parametrize("decode", DECODES)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_map_with_a_number_that_is_none_is_no_joint(decode, wrong):
    maps = gaussians(np.full((1, 17, 2), 12.0), np.ones((1, 17)))
    maps[0, 3, 5, 5] = maps[0, 4, 12, 12] = maps[0, 5, 12, 13] = wrong
    session = heatmaps_session(lambda _: {"output": maps}, SIZE)
    (found,) = open_pose_network(session, {"decode": decode})(IMAGE, BOX)
    assert not found[3:6].any()
    assert np.isfinite(found).all()
    assert (np.delete(found, [3, 4, 5], 0)[:, 2] == 1).all()


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [
        ({}, [0.5, 0.75, 1]),
        ({"threshold": 0.5}, [0.75, 1]),  # above it, not at it
        ({"threshold": 0.0}, [0.25, 0.5, 0.75, 1]),
        ({"threshold": 1.0}, []),
    ],
)
def test_joints_not_above_the_threshold_are_all_zero(recipe, kept):
    maps = gaussians(np.full((1, 17, 2), 12.0), np.resize([0.25, 0.5, 0.75, 1.0, 1.5, -1], 17)[None])
    (found,) = open_pose_network(heatmaps_session(lambda _: {"output": maps}, SIZE), recipe)(IMAGE, BOX)
    there = found[:, 2] > 0
    assert sorted(set(found[there, 2].tolist())) == kept  # 1.5 is clipped
    assert not found[~there].any()


@pytest.mark.parametrize(("batch", "calls"), [("batch", [5]), (1, [1] * 5), (4, [4, 4])])
def test_everybody_of_a_picture_in_as_few_calls_as_the_file_allows(batch, calls, rng):
    image = rng.integers(0, 256, IMAGE.shape, np.uint8)
    boxes_px = np.concatenate([rng.uniform(0, 200, (5, 2)), rng.uniform(220, 300, (5, 2))], 1)

    def subsampled(images: np.ndarray) -> dict:
        return {"output": np.repeat(np.clip(images[:, :1, ::4, ::4], 0, 1), 17, 1)}

    session = heatmaps_session(subsampled, SIZE, batch=batch)
    together = open_pose_network(session)(image, boxes_px)
    assert [len(seen) for seen in session.seen] == calls
    alone = open_pose_network(heatmaps_session(subsampled, SIZE))
    np.testing.assert_array_equal(together, np.concatenate([alone(image, box[None]) for box in boxes_px]))


@pytest.mark.parametrize(("joints", "skeleton"), [(17, "coco17"), (18, "coco18"), (133, "coco17")])
def test_the_order_is_known_by_the_number_of_joints(joints, skeleton):
    joints_px = np.ones((1, joints, 3))
    joints_px[..., 0], joints_px[..., 1] = np.linspace(160, 200, joints), 150
    network = network_for(joints_px, BOX, {"decode": "dark"})
    assert network.skeleton == skeleton
    expected = joints_px[:, : len(SKELETONS[skeleton]), :2]
    np.testing.assert_allclose(network(IMAGE, BOX)[..., :2], expected, atol=0.5)


OTHERS = {
    "of another size": ({"input": (1, 3, 128, 96)}, {"output": (1, 17, 64, 48)}),
    "of another aspect": ({"input": (1, 3, 128, 96)}, {"output": (1, 17, 24, 32)}),
    "grouped by tags": ({"input": (1, 3, 128, 96)}, {"heat": (1, 34, 32, 24), "finer": (1, 17, 64, 48)}),
    "joints unknown": ({"input": (1, 3, 128, 96)}, {"output": (1, "joints", 32, 24)}),
    "flat": ({"input": (1, 3, 128, 96)}, {"output": (1, 17, 768)}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name):
    with pytest.raises(SessionError, match=r"not a pose network in a known format|cannot be used as a pose network"):
        open_pose_network(Canned(*OTHERS[name]))


KNOWN = (
    "heatmaps accepts format, size_px, threshold, flip_test, least_score, score_power, most_explained, skeleton, "
    "decode, sigma"
)


@pytest.mark.parametrize(
    ("recipe", "cause", "remedy"),
    [
        ({"decode": "half"}, "recipe: decode: Input should be 'quarter', 'dark' or 'udp'", KNOWN),
        ({"sigma": 4}, "recipe: sigma: Input should be 2 or 3", KNOWN),
        (
            {"skeleton": "body25"},
            "recipe: body25 has 25 joints, but the file has 17",
            "name the skeleton of the file, or leave skeleton out",
        ),
    ],
)
def test_recipes_that_are_refused(recipe, cause, remedy):
    with pytest.raises(BundleError) as refusal:
        open_pose_network(heatmaps_session(None, SIZE), recipe)
    assert (refusal.value.cause, refusal.value.remedy) == (f"canned.onnx: {cause}", remedy)
