"""Body files: every official form is read, nothing in them runs, whatever is wrong is named."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jotr_deploy.body.smpl import (
    HEAD_TOP_VERTEX,
    OFFICIAL_NAMES,
    PARENTS,
    load_body,
    load_head_top,
    official_file,
    stand_in,
)
from jotr_deploy.body.vposer import VPoserDecoder, load_vposer
from jotr_deploy.errors import BodyFileError


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """An SMPL file's arrays in the distributors' types."""
    body = stand_in()
    rng = np.random.default_rng(0)
    return {
        "v_template": body.v_template.astype(np.float64),
        "shapedirs": rng.normal(size=(6890, 3, 300)) * 0.001,
        "posedirs": rng.normal(size=(6890, 3, 207)).astype(np.float32) * 0.001,
        "J_regressor": body.J_regressor.astype(np.float64),
        "weights": body.weights.astype(np.float64),
        "f": body.faces.astype(np.uint32),
        "kintree_table": np.array([[4294967295, *PARENTS[1:]], range(24)], np.uint32),
        "bs_style": np.array("lbs"),
    }


class Chumpy:
    """Pickles as `chumpy.ch.Ch` does: its state is a dictionary with the numbers under x."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


class Sparse:
    """Pickles as a SciPy compressed sparse column matrix."""

    def __init__(self, dense: np.ndarray) -> None:
        rows, columns = np.nonzero(dense.T)[::-1]
        order = np.lexsort((rows, columns))
        self.indices, self.data = rows[order].astype(np.int32), dense[rows[order], columns[order]]
        self.indptr = np.searchsorted(columns[order], np.arange(dense.shape[1] + 1)).astype(np.int32)
        self._shape = dense.shape


@pytest.fixture
def disguised(monkeypatch: pytest.MonkeyPatch) -> tuple[type, type]:
    """Both classes under the names official files use, in modules that exist only while the test writes."""

    def under(module: str, name: str, base: type) -> type:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
        cls = type(name, (base,), {"__module__": module, "__qualname__": name})
        setattr(sys.modules[module], name, cls)
        return cls

    return under("chumpy.ch", "Ch", Chumpy), under("scipy.sparse.csc", "csc_matrix", Sparse)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_official_pickles_without_chumpy_or_scipy(
    tmp_path: Path, arrays: dict[str, Any], disguised: tuple[type, type], monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    chumpy, sparse = disguised
    path = tmp_path / "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl"
    wrapped = {**arrays, "shapedirs": chumpy(arrays["shapedirs"]), "J_regressor": sparse(arrays["J_regressor"])}
    path.write_bytes(pickle.dumps(wrapped, protocol=protocol))
    for name in ("chumpy", "chumpy.ch", "scipy", "scipy.sparse", "scipy.sparse.csc"):
        monkeypatch.setitem(sys.modules, name, None)  # reading must not need them: an import would fail
    body = load_body(path)
    np.testing.assert_allclose(body.J_regressor, arrays["J_regressor"].astype(np.float32))
    np.testing.assert_allclose(body.shapedirs, arrays["shapedirs"][:, :, :10].astype(np.float32))
    assert not body.stand_in


@pytest.mark.parametrize("name", OFFICIAL_NAMES)
def test_every_official_name_is_found_in_a_folder(tmp_path: Path, arrays: dict[str, Any], name: str) -> None:
    small = {k: v[..., :10] if k == "shapedirs" else v for k, v in arrays.items()}
    if name.endswith(".npz"):
        np.savez(tmp_path / name, **small)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(small))
    assert load_body(tmp_path).v_template.shape == (6890, 3)


_GENDERED = {
    "neutral": "SMPL_NEUTRAL.npz",
    "male": "smpl/SMPL_MALE.pkl",
    "female": "basicmodel_f_lbs_10_207_0_v1.1.0.pkl",
}


@pytest.mark.parametrize("gender", _GENDERED)
def test_one_gender_of_a_folder(tmp_path: Path, gender: str) -> None:
    with pytest.raises(BodyFileError) as missing:
        official_file(tmp_path, gender)
    assert (missing.value.cause, missing.value.remedy) == (
        f"{tmp_path}: no {gender} SMPL file in this folder (looked for SMPL_{gender.upper()}.pkl and its like)",
        "get SMPL from https://smpl.is.tue.mpg.de and put its neutral, male and female files into one folder",
    )
    (tmp_path / "smpl").mkdir()
    for name in _GENDERED.values():
        (tmp_path / name).touch()
    assert official_file(tmp_path, gender) == tmp_path / _GENDERED[gender]
    assert official_file(tmp_path) == tmp_path / "SMPL_NEUTRAL.npz"


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, arrays: dict[str, Any]) -> None:
    path, target = tmp_path / "SMPL_NEUTRAL.pkl", tmp_path / "touched"
    path.write_bytes(pickle.dumps({**arrays, "extra": Malicious(target)}))
    with pytest.raises(BodyFileError, match=r"a Python pickle, but damaged or not an SMPL body \(it asks for pathlib"):
        load_body(path)
    assert not target.exists()


def _npz(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"v_template": np.zeros((6891, 3))}, r"v_template is \(6891, 3\), expected \(6890, 3\)"),
        ({"shapedirs": np.zeros((6890, 3, 5))}, r"shapedirs is \(6890, 3, 5\), expected \(6890, 3, 10\)"),
        (
            {"v_template": np.eye(6890, 3) * 1700},
            r"the body measures 1.7e\+03 m; SMPL files are in metres",
        ),
        ({"v_template": np.zeros((6890, 3))}, "the body measures 0 m; SMPL files are in metres"),
        ({"weights": np.full((6890, 24), np.nan)}, "weights holds values that are not finite numbers"),
        ({"f": np.full((13776, 3), 6890)}, r"f names vertices outside 0\.\.6889"),
        ({"kintree_table": np.zeros((2, 24))}, "kintree_table is not SMPL's tree of 24 joints"),
        ({"posedirs": None}, "not an SMPL body, it lacks posedirs"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, Any], change: dict[str, Any], cause: str) -> None:
    changed = {k: v for k, v in {**arrays, **change}.items() if v is not None}
    with pytest.raises(BodyFileError, match=cause):
        load_body(_npz(tmp_path / "body.npz", changed))


def archive(name: str) -> bytes:
    """A zip archive of one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("a.npz", b"", r"not a body file \(\.npz or \.pkl\): it is an empty file"),
        ("a.npz", b"PK\x03\x04 truncated", "it is a zip archive that is cut off or damaged"),
        ("a.pkl", b"\x80\x02}q\x00(U", "a Python pickle, but damaged or not an SMPL body"),
        ("a.zip", archive("SMPL_NEUTRAL.pkl"), "not an SMPL body: it is a zip archive\nunpack it"),
        ("a.pkl", b"hello", "not an SMPL body: it is plain text"),
        ("a.pkl", pickle.dumps([1, 2]), "it is not a dictionary"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, cause: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BodyFileError, match=cause):
        load_body(tmp_path / name)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BodyFileError, match="no SMPL file in this folder"):
        load_body(tmp_path)
    with pytest.raises(BodyFileError, match="no such body file"):
        load_body(tmp_path / "body.npz")


def test_head_top_from_the_extra_regressor(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((9, 6890))
    np.save(tmp_path / "J_regressor_extra.npy", rows)
    head_top = load_head_top(tmp_path / "J_regressor_extra.npy")
    np.testing.assert_array_equal(head_top, rows[3].astype(np.float32))
    np.testing.assert_array_equal(stand_in().regressor_30()[29].nonzero()[0], [HEAD_TOP_VERTEX])


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (np.zeros((9, 5)), r"the regressor is \(9, 5\)"),
        (np.zeros((3, 6890)), r"the regressor is \(3, 6890\)"),
        (None, "no such"),
    ],
)
def test_wrong_extra_regressor(tmp_path: Path, content: np.ndarray | None, cause: str) -> None:
    path = tmp_path / "J_regressor_extra.npy"
    if content is not None:
        np.save(path, content)
    with pytest.raises(BodyFileError, match=cause):
        load_head_top(path)


def test_a_folder_of_vposer_2_is_told(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "V02_05_epoch=13.ckpt").touch()
    with pytest.raises(BodyFileError, match="VPoser of version 2, another network"):
        load_vposer(tmp_path)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_vposer_folder(tmp_path: Path, prefix: str) -> None:
    decoder = VPoserDecoder()
    (tmp_path / "snapshots").mkdir()
    state = {prefix + k: v for k, v in decoder.state_dict().items()}
    torch.save({**state, prefix + "bodyprior_enc_fc1.weight": torch.zeros(1)}, tmp_path / "snapshots" / "TR00_E096.pt")
    loaded = load_vposer(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), decoder.parameters(), strict=True))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"text", "not a VPoser snapshot: it is plain text"),
        ({"bodyprior_dec_fc1.weight": torch.zeros(2, 2)}, "not a VPoser v1 decoder"),
        (None, "no such VPoser file"),
    ],
)
def test_wrong_vposer(tmp_path: Path, content: Any, cause: str) -> None:
    path = tmp_path / "vposer.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(BodyFileError, match=cause):
        load_vposer(path)
