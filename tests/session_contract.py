"""What every session must do, whichever engine it has: one tiny network and one function that checks any session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import Session, TensorSpec

EXPECTED = "this network takes points float32 [batch, 3], scale float32 [batch, 1]"


def pair(path: Path) -> Path:
    """Two inputs that share a dynamic batch: `same` is `points`, `scaled` is `points * scale`."""
    nodes = [
        helper.make_node("Identity", ["points"], ["same"]),
        helper.make_node("Mul", ["points", "scale"], ["scaled"]),
    ]
    return save(path, nodes, {"points": ["batch", 3], "scale": ["batch", 1]}, ["same", "scaled"], ["batch", 3])


def save(path: Path, nodes: list, inputs: dict, outputs: list[str], shape: list, kind: int = TensorProto.FLOAT) -> Path:
    """A network of opset 17, all of whose outputs have one shape."""
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info(name, kind, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name in outputs],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def feeds(batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "points": rng.normal(size=(batch, 3)).astype(np.float32),
        "scale": rng.normal(size=(batch, 1)).astype(np.float32),
    }


WRONG = {
    "missing scale": lambda f: f.pop("scale"),
    "unknown colour": lambda f: f.update(colour=f["points"]),
    "missing points; unknown dots": lambda f: f.update(dots=f.pop("points")),
    "points is float64 [2, 3]": lambda f: f.update(points=f["points"].astype(np.float64)),
    "points is float32 [6]": lambda f: f.update(points=f["points"].ravel()),
    "points is float32 [2, 4]": lambda f: f.update(points=np.zeros((2, 4), np.float32)),
    "scale is float32 [3, 1]": lambda f: f.update(scale=np.zeros((3, 1), np.float32)),
    "scale is float32 [2]": lambda f: f.update(scale=np.zeros(2, np.float32)),
}


def check_session(session: Session) -> None:
    """A session of `pair` keeps the contract, from its names to its end."""
    spec = {"points": ("batch", 3), "scale": ("batch", 1)}
    assert dict(session.inputs) == {name: TensorSpec(np.dtype(np.float32), shape) for name, shape in spec.items()}
    assert dict(session.outputs) == dict.fromkeys(("same", "scaled"), TensorSpec(np.dtype(np.float32), ("batch", 3)))
    for batch in (1, 2, 5, 1):
        check_results(session, feeds(batch, seed=batch))
    for turned in (lambda a: np.asfortranarray(a), lambda a: np.repeat(a, 2, 0)[::2], lambda a: a[::-1]):
        check_results(session, {name: turned(array) for name, array in feeds(4).items()})
    check_refusals(session)
    check_results(session, feeds())  # a refusal changes nothing
    check_end(session)


def check_results(session: Session, given: dict[str, np.ndarray]) -> None:
    kept = {name: array.copy() for name, array in given.items()}
    first = session(given)
    assert list(first) == list(session.outputs)
    np.testing.assert_array_equal(first["same"], given["points"])
    np.testing.assert_allclose(first["scaled"], given["points"] * given["scale"], rtol=1e-6)
    recorded = {name: array.copy() for name, array in first.items()}
    second = session(given)
    for name, array in second.items():
        assert array.dtype == np.float32
        assert array.tobytes() == recorded[name].tobytes(), "repeats are equal to the bit"
        array[...] = -1  # results belong to the caller
        np.testing.assert_array_equal(first[name], recorded[name])
    for name, array in given.items():
        np.testing.assert_array_equal(array, kept[name])


def check_refusals(session: Session) -> None:
    for complaint, spoil in WRONG.items():
        given = feeds()
        spoil(given)
        with pytest.raises(SessionError) as refusal:
            session(given)
        assert refusal.value.cause == f"{session.path.name}: wrong input: {complaint}"
        assert refusal.value.remedy == EXPECTED


def check_end(session: Session) -> None:
    with session as same:
        assert same is session
    session.close()
    with pytest.raises(SessionError) as refusal:
        session(feeds())
    assert refusal.value.cause == f"{session.path.name}: the session is closed"
    assert refusal.value.remedy == "open it again with open_session"
