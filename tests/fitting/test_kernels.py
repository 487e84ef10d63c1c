"""Kernels are spread evenly over any body, belong to it, and come back from their file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jotr_deploy.body.smpl import VERTICES, stand_in
from jotr_deploy.errors import FitError
from jotr_deploy.fitting.gaussian_precision import auto_precision
from jotr_deploy.fitting.kernels import LIMBS, Kernels, decimate, fingerprint, load_kernels, mean_edge_m, save_kernels
from jotr_deploy.fitting.volume import BodyVolume


@pytest.fixture(scope="module")
def published() -> Kernels:
    return decimate(stand_in())


@pytest.mark.parametrize("count", [858, 200, 9])
def test_kernels_are_vertices_far_from_each_other(count: int) -> None:
    kernels = decimate(stand_in(), count)
    assert len(kernels) == count
    assert (np.diff(kernels.indices) > 0).all()
    assert kernels.limbs.shape == (count,)
    centres = stand_in().v_template[kernels.indices].astype(np.float64)
    apart = np.linalg.norm(centres[:, None] - centres, axis=-1) + np.eye(count)
    to_all = np.linalg.norm(stand_in().v_template[:, None] - centres, axis=-1).min(1)
    assert to_all.max() <= apart.min()  # no vertex is farther from a kernel than kernels are from each other


def test_the_published_number_lies_five_centimetres_apart(published: Kernels) -> None:
    assert mean_edge_m(published, stand_in()) == pytest.approx(0.05, abs=0.005)
    assert set(published.limbs) == set(range(len(LIMBS)))


def test_neighbours_are_mutual_and_nobody_is_alone(published: Kernels) -> None:
    adjacent = published.neighbours()
    assert (adjacent == adjacent.T).all()
    assert not adjacent.diagonal().any()
    assert adjacent.any(1).all()


def test_limbs_are_where_the_body_has_them(published: Kernels) -> None:
    x, y = stand_in().v_template[published.indices, :2].T
    for number, name in enumerate(LIMBS[1:], 1):
        of_limb = published.limbs == number
        assert (np.sign(x[of_limb]) == (1 if name[0] == "L" else -1)).all(), name
    assert y[published.limbs == LIMBS.index("L_calf")].max() < y[published.limbs == LIMBS.index("torso")].mean()


def test_the_choice_is_the_same_every_time(published: Kernels) -> None:
    np.testing.assert_array_equal(decimate(stand_in()).indices, published.indices)


@pytest.mark.parametrize("count", [0, 8, VERTICES + 1])
def test_too_few_and_too_many_are_refused(count: int) -> None:
    with pytest.raises(FitError, match=f"{count} kernels cannot be chosen\ngive 9 to 6890"):
        decimate(stand_in(), count)


def test_they_come_back_from_their_file(published: Kernels, tmp_path: Path) -> None:
    save_kernels(published, tmp_path / "kernels.npz")
    back = load_kernels(tmp_path / "kernels.npz")
    assert back.body == fingerprint(stand_in())
    for name in ("indices", "edges", "limbs"):
        np.testing.assert_array_equal(getattr(back, name), getattr(published, name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "kernels of version 2, this program reads 1"),
        ({"indices": np.arange(6883, 6892)}, "its kernels are no vertices of a body"),
        ({"limbs": np.full(9, 9)}, "its kernels are no vertices of a body"),
        ({"limbs": np.zeros(8, int)}, "its kernels are no vertices of a body"),
        ({"edges": np.array([[0, -1]])}, "its kernels are no vertices of a body"),
        ({"edges": np.zeros((3, 3), int)}, "its kernels are no vertices of a body"),
        ({"indices": np.linspace(0, 1, 9)}, "its kernels are no vertices of a body"),
    ],
)
def test_files_that_are_not_theirs_are_refused(change: dict[str, object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "kernels.npz"
    save_kernels(decimate(stand_in(), 9), path)
    with np.load(path) as archive:
        np.savez(path, **{**dict(archive), **change})
    with pytest.raises(FitError, match=words):
        load_kernels(path)


def test_a_cut_file_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "kernels.npz"
    save_kernels(decimate(stand_in(), 9), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FitError, match="damaged"):
        load_kernels(path)


def test_kernels_of_another_body_are_refused(published: Kernels) -> None:
    taller = replace(stand_in(), v_template=stand_in().v_template * np.float32(1.01))
    with pytest.raises(FitError, match="the kernels were made from another body"):
        BodyVolume(taller, published)


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        (0.0, "not positive"),
        (float("nan"), "not positive"),
        (np.eye(3), r"are \(3, 3\)"),
        (-np.eye(3)[None].repeat(9, 0), "not positive"),
    ],
)
def test_precisions_must_be_positive(precision: float, words: str) -> None:
    with pytest.raises(FitError, match=words):
        BodyVolume(stand_in(), decimate(stand_in(), 9), precision)


def test_the_rule_for_meshes() -> None:
    """Half-way between neighbours each has fallen to the overlap: about 1100 at 5 cm."""
    a = auto_precision(0.05)
    assert a == pytest.approx(1109, abs=1)
    assert float(torch.exp(torch.tensor(-a * 0.025**2))) == pytest.approx(0.5, abs=1e-6)
