"""The shipped stand-in body: a closed, symmetric, human surface in SMPL's format that bends and varies like one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jotr_deploy.body
from jotr_deploy.support.aliases import Array

FILE = Path(jotr_deploy.body.__file__).parent / "stand_in.npz"
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
MIRROR_JOINT = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
REST_JOINTS_M = {
    0: (0.000, -0.225, -0.005), 1: (0.088, -0.300, -0.005), 3: (0.000, -0.115, -0.010), 4: (0.100, -0.700, 0.000),
    6: (0.000, 0.010, -0.010), 7: (0.102, -1.085, -0.032), 9: (0.000, 0.090, -0.005), 10: (0.112, -1.135, 0.090),
    12: (0.000, 0.270, -0.030), 13: (0.070, 0.205, -0.020), 15: (0.000, 0.345, 0.000), 16: (0.165, 0.215, -0.025),
    18: (0.435, 0.210, -0.036), 20: (0.680, 0.210, -0.044), 22: (0.765, 0.207, -0.042),
}  # fmt: skip
HIP, KNEE, NECK, HEAD, SHOULDER, ELBOW, WRIST = 1, 4, 12, 15, 16, 18, 20


@pytest.fixture(scope="module")
def body() -> dict[str, Array]:
    with np.load(FILE, allow_pickle=False) as file:
        arrays: dict[str, Array] = {name: file[name] for name in file.files}
    return arrays


@pytest.fixture(scope="module")
def vertices(body: dict[str, Array]) -> Array:
    return body["v_template"].astype(np.float64)


@pytest.fixture(scope="module")
def faces(body: dict[str, Array]) -> Array:
    return body["f"].astype(np.int64)


@pytest.fixture(scope="module")
def edges(faces: Array) -> Array:
    return np.unique(np.sort(directed_edges(faces), axis=1), axis=0)


@pytest.fixture(scope="module")
def joints(body: dict[str, Array], vertices: Array) -> Array:
    rest: Array = body["J_regressor"] @ vertices
    return rest


@pytest.fixture(scope="module")
def mirror(vertices: Array) -> Array:
    """The vertex nearest to the mirror image of each vertex."""
    images = vertices * [-1, 1, 1]
    return np.concatenate([((vertices - chunk[:, None]) ** 2).sum(-1).argmin(1) for chunk in np.split(images, 53)])


def directed_edges(faces: Array) -> Array:
    return faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)


def edge_lengths(vertices: Array, edges: Array) -> Array:
    lengths: Array = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    return lengths


def rotation(axis: int, degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


def posed(body: dict[str, Array], vertices: Array, rotations: dict[int, Array]) -> Array:
    """Linear blend skinning with joint-local rotations."""
    joints = body["J_regressor"] @ vertices
    world, origin = np.tile(np.eye(3), (24, 1, 1)), joints.copy()
    for joint in range(24):
        parent = PARENTS[joint]
        turn = rotations.get(joint, np.eye(3))
        if joint:
            world[joint] = world[parent] @ turn
            origin[joint] = origin[parent] + world[parent] @ (joints[joint] - joints[parent])
        else:
            world[joint] = turn
    offset = vertices[:, None] - joints
    result: Array = np.einsum("vj,vja->va", body["weights"], np.einsum("jab,vjb->vja", world, offset) + origin)
    return result


def descendants(joint: int) -> list[int]:
    found = [joint]
    for child in range(joint + 1, 24):
        if PARENTS[child] in found:
            found.append(child)
    return found


# ---------------------------------------------------------------------------------------------------- the file
def test_file_is_small() -> None:
    assert FILE.stat().st_size <= 500_000


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("v_template", (6890, 3), "f"),
        ("f", (13776, 3), "u"),
        ("weights", (6890, 24), "f"),
        ("J_regressor", (24, 6890), "f"),
        ("kintree_table", (2, 24), "i"),
        ("shapedirs", (6890, 3, 10), "f"),
        ("kind", (), "U"),
    ],
)
def test_arrays_have_the_shapes_of_smpl(body: dict[str, Array], name: str, shape: tuple[int, ...], kind: str) -> None:
    assert body[name].shape == shape
    assert body[name].dtype.kind == kind
    assert kind != "f" or np.isfinite(body[name]).all()


def test_it_says_what_it_is(body: dict[str, Array]) -> None:
    assert str(body["kind"]) == "stand-in body, licence-free"
    assert "posedirs" not in body


def test_kinematic_tree_is_that_of_smpl(body: dict[str, Array]) -> None:
    assert body["kintree_table"].dtype == np.int64
    np.testing.assert_array_equal(body["kintree_table"], [PARENTS, list(range(24))])


# ---------------------------------------------------------------------------------------------------- the surface
def test_surface_is_closed_and_oriented(faces: Array) -> None:
    directed = directed_edges(faces)
    codes = directed[:, 0] * 6890 + directed[:, 1]
    assert len(np.unique(codes)) == len(codes), "an edge is used twice in the same direction"
    np.testing.assert_array_equal(np.sort(codes), np.sort(directed[:, 1] * 6890 + directed[:, 0]))


def test_surface_is_one_sphere(faces: Array, edges: Array) -> None:
    np.testing.assert_array_equal(np.unique(faces), np.arange(6890))
    assert 6890 - len(edges) + len(faces) == 2
    label = np.arange(6890)
    while True:
        lowest = label.copy()
        np.minimum.at(lowest, edges[:, 0], label[edges[:, 1]])
        np.minimum.at(lowest, edges[:, 1], label[edges[:, 0]])
        lowest = lowest[lowest]
        if np.array_equal(lowest, label):
            break
        label = lowest
    assert (label == 0).all()


def test_every_vertex_has_one_fan_of_faces(faces: Array) -> None:
    """Around each vertex the opposite edges form one closed ring, else the surface touches itself there."""
    follows = {(int(f[i]), int(f[(i + 1) % 3])): int(f[(i + 2) % 3]) for f in faces for i in range(3)}
    start = dict(follows.keys())
    valence = np.bincount(faces.ravel())
    for vertex, first in start.items():
        neighbour, turns = follows[vertex, first], 1
        while neighbour != first:
            neighbour, turns = follows[vertex, neighbour], turns + 1
        assert turns == valence[vertex]


def test_faces_are_well_shaped_and_look_outward(vertices: Array, faces: Array) -> None:
    a, b, c = vertices[faces].transpose(1, 0, 2)
    double_area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    squares = ((b - a) ** 2).sum(1) + ((c - b) ** 2).sum(1) + ((a - c) ** 2).sum(1)
    quality = 2 * np.sqrt(3) * double_area / squares  # 1 for an equilateral triangle
    assert quality.min() > 0.5
    assert quality.mean() > 0.9
    volume = np.einsum("fa,fa->", a, np.cross(b, c)) / 6
    assert 0.045 < volume < 0.085, "a person of this height displaces about 65 litres"


def test_no_two_vertices_coincide(vertices: Array, edges: Array) -> None:
    assert len(np.unique(vertices, axis=0)) == 6890
    lengths = edge_lengths(vertices, edges)
    assert lengths.min() > 0.002
    assert lengths.max() < 0.045


def test_left_and_right_are_mirror_images(body: dict[str, Array], vertices: Array, mirror: Array) -> None:
    np.testing.assert_array_equal(mirror[mirror], np.arange(6890))
    assert np.abs(vertices[mirror] * [-1, 1, 1] - vertices).max() < 1e-3
    flipped = body["shapedirs"][mirror] * np.array([-1, 1, 1])[:, None]
    np.testing.assert_allclose(flipped, body["shapedirs"], atol=1e-4)
    np.testing.assert_allclose(body["weights"][mirror][:, MIRROR_JOINT], body["weights"], atol=2 / 256)


# ---------------------------------------------------------------------------------------------------- the person
def test_proportions_are_human(vertices: Array, joints: Array) -> None:
    height = np.ptp(vertices[:, 1])
    assert 1.60 < height < 1.85
    assert 0.95 < np.ptp(vertices[:, 0]) / height < 1.08, "the arm span is about the height"
    assert 0.44 < (joints[HIP, 1] - vertices[:, 1].min()) / height < 0.56
    chin = vertices[(vertices[:, 2] > 0.08) & (vertices[:, 1] > joints[NECK, 1]), 1].min()
    assert 6.5 < height / (vertices[:, 1].max() - chin) < 8.5, "the height in heads"


@pytest.mark.parametrize(("low", "high"), [(-1.0, -0.90), (-0.85, -0.75), (-0.70, -0.60), (-0.55, -0.45)])
def test_legs_stay_apart(vertices: Array, low: float, high: float) -> None:
    band = vertices[(vertices[:, 1] > low) & (vertices[:, 1] < high)]
    assert np.abs(band[:, 0]).min() > 0.005


def test_feet_point_forward(vertices: Array) -> None:
    feet = vertices[vertices[:, 1] < vertices[:, 1].min() + 0.05]
    assert feet[:, 2].max() > 0.14
    assert feet[:, 2].min() > -0.10


def test_face_landmarks(vertices: Array, joints: Array) -> None:
    nose, left_eye, right_eye, left_ear, right_ear, top = vertices[[331, 2802, 6262, 3489, 3990, 412]]
    head = vertices[vertices[:, 1] > joints[HEAD, 1]]
    assert nose[2] == head[:, 2].max()
    assert abs(nose[0]) < 1e-3
    assert top[1] == vertices[:, 1].max()
    assert np.count_nonzero(vertices[:, 1] == top[1]) == 1
    assert abs(top[0]) < 1e-3
    assert 0.025 < left_eye[0] < 0.04
    assert 0.025 < -right_eye[0] < 0.04
    assert nose[1] < left_eye[1] < top[1]
    assert left_eye[2] > head[:, 2].max() - 0.04
    assert left_ear[0] == head[:, 0].max()
    assert right_ear[0] == head[:, 0].min()
    assert abs(left_ear[2]) < 0.03


# ---------------------------------------------------------------------------------------------------- the rig
def test_joints_are_where_the_skeleton_says(joints: Array) -> None:
    for joint, (x, y, z) in REST_JOINTS_M.items():
        np.testing.assert_allclose(joints[joint], (x, y, z), atol=1e-3)
        np.testing.assert_allclose(joints[MIRROR_JOINT[joint]], (-x, y, z), atol=1e-3)


def test_regressor_rows_are_sparse_means(body: dict[str, Array]) -> None:
    regressor = body["J_regressor"].astype(np.float64)
    assert regressor.min() >= 0
    np.testing.assert_allclose(regressor.sum(1), 1, atol=1e-6)
    assert np.count_nonzero(regressor, axis=1).max() <= 64
    assert np.count_nonzero(regressor, axis=1).min() >= 8, "a joint hangs on a ring of skin, not on a few vertices"


def test_weights_are_partitions_of_unity(body: dict[str, Array]) -> None:
    weights = body["weights"].astype(np.float32)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert np.count_nonzero(weights, axis=1).max() <= 4
    assert (weights.max(0) > 0.5).all(), "every joint owns some skin"


def test_neighbouring_vertices_have_similar_weights(body: dict[str, Array], vertices: Array, edges: Array) -> None:
    weights = body["weights"].astype(np.float64)
    change = np.abs(weights[edges[:, 0]] - weights[edges[:, 1]]).max(1)
    assert change.max() < 0.75
    assert (change / edge_lengths(vertices, edges)).mean() < 10, "per metre"


POSES = {
    "elbow": (ELBOW, rotation(1, -90), 2.0),
    "wrist": (WRIST, rotation(2, -60), 2.0),
    "shoulder down": (SHOULDER, rotation(2, -75), 2.3),
    "shoulder forward": (SHOULDER, rotation(1, -80), 2.3),
    "knee": (KNEE, rotation(0, 90), 2.0),
    "hip": (HIP, rotation(0, -90), 2.3),
    "leg to the side": (HIP, rotation(2, 40), 2.3),
    "head": (HEAD, rotation(1, 50), 2.0),
}


@pytest.mark.parametrize("name", POSES)
def test_bending_a_joint_moves_its_limb_alone_and_tears_nothing(
    body: dict[str, Array], vertices: Array, edges: Array, name: str
) -> None:
    joint, turn, most_stretch = POSES[name]
    limb = descendants(joint)
    share = body["weights"][:, limb].astype(np.float64).sum(1)
    bent = posed(body, vertices, {joint: turn})
    moved = np.linalg.norm(bent - vertices, axis=1)
    assert moved[share == 0].max() < 1e-9
    origin = (body["J_regressor"] @ vertices)[joint]
    rigid = (vertices - origin) @ turn.T + origin
    np.testing.assert_allclose(bent[share == 1], rigid[share == 1], atol=1e-6)
    assert np.count_nonzero(share == 1) > 200
    stretch = edge_lengths(bent, edges) / edge_lengths(vertices, edges)
    assert stretch.max() < most_stretch


@pytest.mark.parametrize(("joint", "far"), [(ELBOW, [HIP, 2, 19, HEAD]), (HIP, [2, 5, SHOULDER, HEAD]), (KNEE, [5, 0])])
def test_far_parts_do_not_follow(body: dict[str, Array], joint: int, far: list[int]) -> None:
    weights = body["weights"].astype(np.float64)
    mine = weights[:, descendants(joint)].sum(1)
    for other in far:
        assert mine[weights[:, other] > 0.9].max() < 0.03


# ---------------------------------------------------------------------------------------------------- the shapes
def test_shape_directions_are_distinct_and_of_sensible_size(body: dict[str, Array]) -> None:
    directions = body["shapedirs"].astype(np.float64).reshape(-1, 10)
    rms = np.sqrt((directions**2).sum(0) / 6890)
    assert rms.min() > 0.004
    assert rms.max() < 0.012
    assert np.linalg.matrix_rank(directions) == 10
    unit = directions / np.linalg.norm(directions, axis=0)
    likeness = np.abs(unit.T @ unit) - np.eye(10)
    assert likeness.max() < 0.9


def test_shape_directions_are_smooth(body: dict[str, Array], vertices: Array, edges: Array) -> None:
    directions = body["shapedirs"].astype(np.float64)
    step = np.linalg.norm(directions[edges[:, 0]] - directions[edges[:, 1]], axis=1)
    assert (step / edge_lengths(vertices, edges)[:, None]).max() < 0.25, "strain per unit of beta"


@pytest.mark.parametrize(
    ("index", "upper", "lower", "grows"),
    [
        (0, HEAD, 7, True),  # height: head to ankle
        (2, HIP, 7, True),  # leg length
        (2, SHOULDER, WRIST, False),
        (3, SHOULDER, WRIST, True),  # arm length
        (3, HIP, 7, False),
        (4, SHOULDER, 17, True),  # shoulder width
        (5, HIP, 2, True),  # hip width
        (9, NECK, 0, True),  # torso length
        (9, HIP, 7, False),
    ],
)
def test_the_skeleton_follows_the_shape(
    body: dict[str, Array], joints: Array, index: int, upper: int, lower: int, grows: bool
) -> None:
    moved = joints + np.einsum("jv,vc->jc", body["J_regressor"], body["shapedirs"][..., index].astype(np.float64))
    change = np.linalg.norm(moved[upper] - moved[lower]) - np.linalg.norm(joints[upper] - joints[lower])
    assert change > 0.004 if grows else abs(change) < 0.002


@pytest.mark.parametrize("index", range(10))
def test_shaped_bodies_are_still_bodies(body: dict[str, Array], vertices: Array, faces: Array, index: int) -> None:
    """At two units either way no face of the surface turns over."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    for beta in (-2.0, 2.0):
        a, b, c = (vertices + beta * body["shapedirs"][..., index])[faces].transpose(1, 0, 2)
        assert (normal * np.cross(b - a, c - a)).sum(1).min() > 0
