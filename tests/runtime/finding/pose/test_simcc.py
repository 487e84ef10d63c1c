"""RTMPose's format: known joints through a known network come back; colours, confidence, orders, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canned import Canned, brightest, simcc_session, write_simcc
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.finding.pose.simcc import decode
from jotr_deploy.runtime.finding.pose.top_down import image_from_input, input_from_image
from jotr_deploy.runtime.finding.pose.top_down_network import mean_of
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX, to_smpl30

SIZE = (96, 128)
IMAGE = np.zeros((360, 480, 3), np.uint8)


def heights(joints: np.ndarray, spread_bins: float = 3.0, ratio: int = 2) -> dict:
    """Outputs of a network that finds joints (N, J, 3) x, y, confidence, in pixels of its input."""
    out = {}
    for axis, name in enumerate(("simcc_x", "simcc_y")):
        bins = np.arange(ratio * SIZE[axis])
        shape = np.exp(-(((bins - ratio * joints[..., axis, None]) / spread_bins) ** 2) / 2)
        out[name] = (joints[..., 2:] * shape).astype(np.float32)
    return out


def joints_in(boxes_px: np.ndarray, rng: np.random.Generator, joints: int = 17) -> np.ndarray:
    size = boxes_px[:, None, 2:] - boxes_px[:, None, :2]
    places = boxes_px[:, None, :2] + rng.uniform(0, 1, (len(boxes_px), joints, 2)) * size
    return np.concatenate([places, rng.uniform(0.5, 1, (len(boxes_px), joints, 1))], -1)


def network_for(joints_px, boxes_px, recipe=None, **kind):
    inside = joints_px.copy()
    inside[..., :2] = transform_px(input_from_image(boxes_px, SIZE), joints_px[..., :2])
    return open_pose_network(simcc_session(lambda _: heights(inside), SIZE, inside.shape[1], **kind), recipe)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(20, 120))
def test_known_joints_come_back(seed, height):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-20, 400, (3, 2))
    boxes_px = np.concatenate([low, low + np.array([0.4, 1]) * height], 1)
    joints_px = joints_in(boxes_px, rng)
    found = network_for(joints_px, boxes_px)(IMAGE, boxes_px)
    px_per_bin = 1 / input_from_image(boxes_px, SIZE)[:, 0, 0].min() / 2
    np.testing.assert_allclose(found[..., :2], joints_px[..., :2], atol=0.51 * px_per_bin + 1e-3)
    assert 0.51 * px_per_bin < 0.5
    np.testing.assert_allclose(found[..., 2], joints_px[..., 2], rtol=0.03)
    assert found.dtype == np.float32


@pytest.mark.parametrize("ratio", [1, 2, 4])
@pytest.mark.parametrize("place", [(20.0, 31.5), (20.3, 31.7), (0.0, 0.0), (46.75, 62.25)])
def test_a_peak_between_bins_is_at_most_half_a_bin_away(place, ratio):
    bins = [np.arange(ratio * side) for side in (48, 64)]
    x, y = (np.exp(-(((b / ratio - p) / 2.5) ** 2) / 2)[None, None] for b, p in zip(bins, place, strict=True))
    points, confidence = decode(x, y, ratio)
    np.testing.assert_allclose(points[0, 0], place, atol=0.5 / ratio)
    assert confidence[0, 0] > 0.9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2]))
def test_what_is_seen_is_where_it_was(seed, ratio):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(100, 300, 2)
    image = IMAGE.copy()
    image[y, x] = 255
    size = np.array(SIZE) / 1.25 * rng.uniform(0.5, 1)  # of a box whose input shows the picture enlarged
    low = (x, y) - rng.uniform(0.2, 0.8, 2) * size
    boxes_px = np.array([[*low, *(low + size)]])
    session = simcc_session(lambda images: brightest(images, ratio=ratio), SIZE, ratio=ratio)
    found = open_pose_network(session, {"threshold": 0.1})(image, boxes_px)
    np.testing.assert_allclose(found[0, :, :2], [[x, y]] * 17, atol=0.51)  # half a pixel of the input


def test_pixel_centres_are_integers_in_picture_and_input():
    image = IMAGE.copy()
    image[101, 202] = 255
    boxes_px = np.array([[202, 101, 202, 101]]) + np.array([[-48, -64, 48, 64]]) / 1.25  # one to one, no fraction
    found = open_pose_network(simcc_session(brightest, SIZE))(image, boxes_px)
    np.testing.assert_allclose(found[0, 0], [202, 101, 1], atol=1e-5)


def test_red_is_the_first_channel_with_the_statistics_of_red():
    session = simcc_session(brightest, SIZE)
    open_pose_network(session)(np.full((200, 200, 3), (0, 0, 255), np.uint8), np.array([[50, 50, 150, 150.0]]))
    (seen,) = session.seen
    assert (seen.dtype, seen.shape) == (np.float32, (1, 3, 128, 96))
    expected = [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    np.testing.assert_allclose(seen[0, :, 64, 48], expected, rtol=1e-6)


def test_nobody_is_not_a_call():
    session = simcc_session(brightest, SIZE)
    found = open_pose_network(session)(IMAGE, np.zeros((0, 4), np.float32))
    assert (found.shape, found.dtype) == ((0, 17, 3), np.float32)
    assert session.seen == []


@pytest.mark.parametrize(
    ("batch", "people", "calls"), [("batch", 5, [5]), ("batch", 20, [16, 4]), (1, 3, [1, 1, 1]), (4, 5, [4, 4])]
)
def test_everybody_of_a_picture_in_as_few_calls_as_the_file_allows(batch, people, calls, rng):
    image = IMAGE.copy()
    low = rng.uniform(0, 300, (people, 2))
    boxes_px = np.concatenate([low, low + 50], 1)
    for x, y in (boxes_px[:, :2] + 25).round().astype(int):
        image[y, x] = 255
    session = simcc_session(brightest, SIZE, batch=batch)
    together = open_pose_network(session)(image, boxes_px)
    assert [len(seen) for seen in session.seen] == calls
    alone = open_pose_network(simcc_session(brightest, SIZE))
    np.testing.assert_array_equal(together, np.concatenate([alone(image, box[None]) for box in boxes_px]))


@pytest.mark.parametrize(
    ("x", "y", "confidence"),
    [
        (0.9, 0.6, 0.6),  # the lower one
        (1.7, 1.2, 1.0),  # clipped
        (-0.5, 0.9, 0.0),
        (np.nan, 0.9, 0.0),
        (0.9, np.inf, 0.0),
    ],
)
def test_confidence(x, y, confidence):
    simcc = [np.full((1, 1, bins), -1.0) for bins in (8, 16)]
    simcc[0][..., 3], simcc[1][..., 5] = x, y
    points, found = decode(*simcc, 2)
    assert found[0, 0] == pytest.approx(confidence)
    assert np.isfinite(points).all()


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [
        (None, [0.5, 0.75, 1]),
        ({"threshold": 0.5}, [0.75, 1]),  # above it, not at it
        ({"threshold": 0.0}, [0.25, 0.5, 0.75, 1]),
        ({"threshold": 1.0}, []),
    ],
)
def test_joints_not_above_the_threshold_are_all_zero(recipe, kept):
    boxes_px = np.array([[100, 100, 160, 200.0]])
    joints_px = np.full((1, 17, 3), 150.0)
    joints_px[..., :2] = input_centre = (130, 150)
    joints_px[0, :, 2] = np.resize([0.25, 0.5, 0.75, 1.0], 17)
    (found,) = network_for(joints_px, boxes_px, recipe)(IMAGE, boxes_px)
    there = found[:, 2] > 0
    assert sorted(set(found[there, 2].tolist())) == kept
    assert not found[~there].any()
    np.testing.assert_allclose(found[there, :2], np.broadcast_to(input_centre, (there.sum(), 2)), atol=0.5)


STICK = {17: "coco17", 18: "coco18", 25: "body25", 26: "halpe26", 14: "crowdpose14"}


@pytest.mark.parametrize("joints", STICK)
def test_every_order_puts_a_stick_figure_together(joints, rng):
    boxes_px = np.array([[100, 50, 180, 250.0]])
    joints_px = joints_in(boxes_px, rng, joints)
    network = network_for(joints_px, boxes_px, {"skeleton": "crowdpose14"} if joints == 14 else {})
    assert network.skeleton == STICK[joints]
    body = to_smpl30(network(IMAGE, boxes_px), network.skeleton)[0]
    for name, true in zip(SKELETONS[STICK[joints]], joints_px[0], strict=True):
        if name in SMPL30_INDEX:
            np.testing.assert_allclose(body[SMPL30_INDEX[name], :2], true[:2], atol=0.6)


def test_of_a_whole_body_the_first_17_are_used(rng):
    boxes_px = np.array([[100, 50, 180, 250.0]])
    joints_px = joints_in(boxes_px, rng, 133)
    network = network_for(joints_px, boxes_px)
    found = network(IMAGE, boxes_px)
    assert (network.skeleton, found.shape) == ("coco17", (1, 17, 3))
    np.testing.assert_allclose(found[..., :2], joints_px[:, :17, :2], atol=0.6)


def test_a_file_of_this_format(tmp_path: Path):
    image = IMAGE.copy()
    image[120, 210], image[200, 330] = 255, 200
    boxes_px = np.array([[190, 100, 230, 140], [310, 180, 350, 220.0]])
    with open_session(write_simcc(tmp_path / "p.onnx", SIZE), device="cpu") as session:
        network = open_pose_network(session, {"format": "simcc", "threshold": 0.2, "skeleton": "coco17"})
        found = network(image, boxes_px)
        assert network(image, boxes_px[:0]).shape == (0, 17, 3)
    np.testing.assert_allclose(found[:, 0, :2], [[210, 120], [330, 200]], atol=0.51)
    np.testing.assert_array_equal(found, np.repeat(found[:, :1], 17, 1))


OTHERS = {
    "one axis": ({"input": (1, 3, 256, 192)}, {"simcc_x": (1, 17, 384)}),
    "other names": ({"input": (1, 3, 256, 192)}, {"x": (1, 17, 384), "y": (1, 17, 512)}),
    "ratios differ": ({"input": (1, 3, 256, 192)}, {"simcc_x": (1, 17, 384), "simcc_y": (1, 17, 256)}),
    "joints differ": ({"input": (1, 3, 256, 192)}, {"simcc_x": (1, 17, 384), "simcc_y": (1, 26, 512)}),
    "bins unknown": ({"input": (1, 3, 256, 192)}, {"simcc_x": (1, 17, "x"), "simcc_y": (1, 17, "y")}),
}


APART = ("other names", "ratios differ")


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name):
    with pytest.raises(
        SessionError, match=r"not a pose network in a known format|cannot be used as a pose network"
    ) as refusal:
        open_pose_network(Canned(*OTHERS[name]))
    other = "export it with the outputs simcc_x" if name in APART else "give a file in one of the formats simcc"
    assert refusal.value.remedy.startswith(other)


def test_a_refusal_lists_what_was_found_and_what_was_tried():
    with pytest.raises(SessionError) as refusal:
        open_pose_network(Canned(*OTHERS["one axis"]))
    assert refusal.value.cause == (
        "canned.onnx: not a pose network in a known format (inputs input float32 [1, 3, 256, 192]; "
        "outputs simcc_x float32 [1, 17, 384]; tried simcc, decoded, heatmaps, blazepose)"
    )


ORDERS = "give a network with one of these skeletons: blazepose33, body25, coco17, coco18, crowdpose14, halpe26, smpl30"
KNOWN = "known: blazepose33, body25, coco17, coco18, crowdpose14, halpe26, smpl30"


@pytest.mark.parametrize(
    ("joints", "recipe", "cause", "remedy"),
    [
        (21, {}, "21 joints (as for a hand), which match no known joint order", ORDERS),
        (17, {"skeleton": "hand"}, "recipe: unknown skeleton 'hand'", KNOWN),
        (17, {"skeleton": "body25"}, "recipe: body25 has 25 joints, but the file has 17",
         "name the skeleton of the file, or leave skeleton out"),
        (17, {"format": "dark"}, "unknown pose network format 'dark'", "known: simcc, decoded, heatmaps, blazepose"),
        (17, {"threshold": -1}, "recipe: threshold: Input should be greater than or equal to 0",
         "simcc accepts format, size_px, threshold, flip_test, least_score, score_power, most_explained, skeleton"),
    ],
)  # fmt: skip
def test_recipes_that_are_refused(joints, recipe, cause, remedy):
    with pytest.raises(BundleError) as refusal:
        open_pose_network(simcc_session(None, SIZE, joints), recipe)
    assert (refusal.value.cause, refusal.value.remedy) == (f"canned.onnx: {cause}", remedy)


def test_the_flip_test_takes_the_mean_with_what_a_mirror_shows(rng: np.random.Generator) -> None:
    """The network says the same of everything, so in the mirror every joint is its partner, across the middle."""
    boxes_px = np.array([[100.0, 80, 160, 230]])
    joints_px = np.concatenate([rng.uniform([100, 80], [160, 230], (1, 17, 2)), np.full((1, 17, 1), 0.8)], -1)
    joints_px[0, SKELETONS["coco17"].index("L_Wrist"), 2] = 0.4
    once = network_for(joints_px, boxes_px, {"threshold": 0})(IMAGE, boxes_px)
    twice = network_for(joints_px, boxes_px, {"threshold": 0, "flip_test": True})
    found = twice(IMAGE, boxes_px)
    names = list(SKELETONS["coco17"])
    partner = [names.index({"L_": "R_", "R_": "L_"}.get(n[:2], n[:2]) + n[2:]) for n in names]
    middle = image_from_input(input_from_image(boxes_px, SIZE), np.array([[[(SIZE[0] - 1) / 2, 0]]]))[0, 0, 0]
    across = once[:, partner].copy()
    across[..., 0] = 2 * middle - across[..., 0]
    weights = np.stack([once[..., 2], across[..., 2]])[..., None]
    expected = (np.stack([once, across])[..., :2] * weights).sum(0) / weights.sum(0)
    np.testing.assert_allclose(found[..., :2], expected, atol=1e-3)
    np.testing.assert_allclose(found[..., 2], weights[..., 0].mean(0), rtol=1e-6)
    assert [images.shape[0] for images in twice.session.seen] == [1, 1]
    np.testing.assert_array_equal(twice.session.seen[0][..., ::-1], twice.session.seen[1])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((10, 20, 0.6), (14, 20, 0.2), (11, 20, 0.4)),  # the surer place counts more
        ((10, 20, 0.6), (99, 99, 0.0), (10, 20, 0.3)),  # what is not found has no place
        ((10, 20, 0.6), (np.nan, 5, 0.6), (10, 20, 0.3)),
        ((1, 2, 0.0), (3, 4, 0.0), (0, 0, 0.0)),
    ],
)
def test_two_findings_of_a_joint(one, other, expected) -> None:
    one, other = np.array([[one]], float), np.array([[other]], float)
    place, sure = mean_of(one[..., :2], one[..., 2], other[..., :2], other[..., 2])
    np.testing.assert_allclose([*place[0, 0], sure[0, 0]], expected)
