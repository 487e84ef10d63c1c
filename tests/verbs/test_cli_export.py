"""`export` at work: what the bundle holds and what the command says about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from golden_case import body, case, published_state, standin
from outcome import Outcome, tree
from tiny import SMALL, TINY

import jotr_deploy.export.to_bundle as export_module
from jotr_deploy.body.smpl import BodyModel, stand_in
from jotr_deploy.body.vposer import VPoserDecoder
from jotr_deploy.bundle import open_bundle
from jotr_deploy.config import ModelConfig
from jotr_deploy.engines.verify import random_crops
from jotr_deploy.export.assemble import load_network, load_stand_in
from jotr_deploy.export.to_bundle import torch_network
from jotr_deploy.model.checkpoint import save_checkpoint
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import JOTR, MeshOutput, PoseOutput
from jotr_deploy.runtime.sessions import open_session

pytestmark = pytest.mark.slow

Cli = Callable[..., Outcome]

SEED = "jotr-golden-A/"
WEIGHTS = "trained network weights", "those of the checkpoint's authors and of its training data", False
SMPL = "SMPL body model", "non-commercial research, https://smpl.is.tue.mpg.de/modellicense.html", False
VPOSER = "VPoser v1.0 pose prior", "non-commercial research, https://smpl-x.is.tue.mpg.de/modellicense.html", False
STAND_IN = "stand-in body", "Apache-2.0, part of jotr-deploy", True
UNTRAINED = "untrained: pose is meaningless"
HEAD_TOP = "head top: vertex 412 (no --extra-regressor given)"
NO_USE = "head top: vertex 412 (--extra-regressor belongs to SMPL)"


def licences(bundle: Path) -> list[tuple[str, str, bool]]:
    return [(one.asset, one.terms, one.redistributable) for one in open_bundle(bundle).manifest.licences]


def body_file(path: Path) -> Path:
    """A body in SMPL's own layout: the stand-in's arrays and pose directions that matter."""
    model = stand_in()
    rng = np.random.default_rng(1)
    parents = (2**32 - 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
    np.savez(
        path, v_template=model.v_template, shapedirs=model.shapedirs, J_regressor=model.J_regressor,
        weights=model.weights, f=model.faces.astype(np.uint32), kintree_table=np.array([parents, range(24)]),
        posedirs=rng.normal(0, 1e-3, (6890, 3, 207)),
    )  # fmt: skip
    return path


def regressor_file(path: Path) -> tuple[Path, np.ndarray]:
    rows = np.zeros((9, 6890), np.float32)
    rows[3, [100, 200]] = 0.5
    np.save(path, rows)
    return path, rows[3]


def vposer_folder(path: Path) -> tuple[Path, VPoserDecoder]:
    torch.manual_seed(5)
    decoder = VPoserDecoder()
    (path / "snapshots").mkdir(parents=True)
    encoder = {"bodyprior_enc_fc1.weight": torch.zeros(2, 2)}
    torch.save({**decoder.state_dict(), **encoder}, path / "snapshots" / "TR00_E096.pt")
    return path, decoder


def test_without_a_body_and_inlined(cli: Cli, tmp_path: Path) -> None:
    model = initialise(JOTR(SMALL, None))
    save_checkpoint(tmp_path / "own.pt", model)
    bundle = tmp_path / "bundle"
    outcome = cli("export", tmp_path / "own.pt", "--no-body", "--sampling", "inline", "-o", bundle)
    assert outcome.code == 0, outcome.err
    assert set(tree(bundle)) == {"bundle.json", "mesh.onnx"}
    manifest = open_bundle(bundle).manifest
    assert (manifest.labels, licences(bundle)) == ((), [WEIGHTS])
    entry = open_bundle(bundle).entry("mesh")
    assert (entry.recipe, entry.error_mm) == ({"sampling": "inline"}, None)
    proto = onnx.load(bundle / "mesh.onnx")
    assert {node.domain for node in proto.graph.node} == {""}
    assert [output.name for output in proto.graph.output] == list(PoseOutput._fields)
    lines = [line.rstrip() for line in outcome.out.splitlines()]
    assert lines[0] == "ONNX Runtime against PyTorch, max (mean) on random crops"
    assert [line.split(":")[0] for line in lines if line.startswith("note")] == ["note the network looks untrained"]
    assert lines[-2] == f"licence {WEIGHTS[0]}: {WEIGHTS[1]}"
    assert lines[-1] == f"done {bundle} ({round(bundle_size(bundle) / 1e6)} MB). Next: jotr-deploy doctor {bundle}"


def bundle_size(bundle: Path) -> int:
    return sum(path.stat().st_size for path in bundle.iterdir())


@pytest.mark.parametrize(
    ("own_body", "given", "labels", "terms", "notes"),
    [
        (True, {}, ("stand-in body",), [WEIGHTS, STAND_IN], ()),  # the body named in the checkpoint
        (False, {"body": "stand-in"}, ("stand-in body",), [WEIGHTS, STAND_IN], ()),
        (True, {"body": "body.npz"}, (), [WEIGHTS, SMPL], (HEAD_TOP,)),
        (True, {"body": "body.npz", "extra_regressor": "extra.npy"}, (), [WEIGHTS, SMPL], ()),
        (True, {"extra_regressor": "extra.npy"}, ("stand-in body",), [WEIGHTS, STAND_IN], (NO_USE,)),
        (True, {"with_body": False}, (), [WEIGHTS], ()),
        (True, {"vposer": "vposer"}, ("stand-in body",), [WEIGHTS, STAND_IN, VPOSER], ()),
        (True, {"body": "body.npz", "vposer": "vposer"}, (), [WEIGHTS, SMPL, VPOSER], (HEAD_TOP,)),
    ],
)
def test_what_is_known_about_each_asset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_body: bool, given: dict[str, str | bool],
    labels: tuple[str, ...], terms: list[tuple[str, str, bool]], notes: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "own.pt", initialise(JOTR(TINY, stand_in() if own_body else None)))
    body_file(tmp_path / "body.npz")
    regressor_file(tmp_path / "extra.npy")
    vposer_folder(tmp_path / "vposer")
    paths = {name: Path(value) if isinstance(value, str) else value for name, value in given.items()}
    found = load_network(tmp_path / "own.pt", **paths)  # type: ignore[arg-type]
    assert found.labels == labels
    assert [(one.asset, one.terms, one.redistributable) for one in found.licences] == terms
    assert found.notes == notes


@pytest.mark.usefixtures("traced")
def test_what_is_said_about_it(cli: Cli, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "own.pt", initialise(JOTR(TINY, stand_in())))
    bundle = tmp_path / "bundle"
    more = ["--extra-regressor", regressor_file(tmp_path / "extra.npy")[0], "-o", bundle]
    outcome = cli("export", tmp_path / "own.pt", *more)
    assert outcome.code == 0, outcome.err
    assert list(open_bundle(bundle).manifest.labels) == ["stand-in body"]
    assert licences(bundle) == [WEIGHTS, STAND_IN]
    lines = outcome.out.splitlines()
    doubts = [line for line in lines if line.startswith("note the network looks untrained: ")]
    assert len(doubts) == 1  # the weights are random
    said = [line for line in lines if line.startswith("note") and line not in doubts]
    assert said == [f"note {NO_USE}", "note label: stand-in body"]
    assert [line for line in lines if line.startswith("licence")] == [
        f"licence {asset}: {terms}" for asset, terms, _ in (WEIGHTS, STAND_IN)
    ]
    assert lines[-1].endswith(f"Next: jotr-deploy run {bundle} IMAGE -o DIR")
    printed = json.loads(cli("export", tmp_path / "own.pt", *more, "--json", "--force").out)
    assert (printed["labels"], printed["notes"]) == (["stand-in body"], [NO_USE, doubts[0].removeprefix("note ")])


def test_the_assets_given_are_those_used(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "own.pt", initialise(JOTR(TINY, stand_in())))
    smpl = body_file(tmp_path / "body.npz")
    regressor, head_top = regressor_file(tmp_path / "extra.npy")
    prior, decoder = vposer_folder(tmp_path / "vposer")
    given: list[JOTR] = []

    def trace(model: JOTR, *_: object) -> onnx.ModelProto:
        given.append(model)
        raise KeyboardInterrupt  # what follows needs the file

    monkeypatch.setattr(export_module, "export_onnx", trace)
    outcome = cli(
        "export", tmp_path / "own.pt", "--body", smpl, "--extra-regressor", regressor, "--vposer", prior,
        "-o", tmp_path / "bundle",
    )  # fmt: skip
    assert outcome.code == 130, outcome.err
    arrays = np.load(smpl)
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    user_body = BodyModel(
        *(arrays[name].astype(np.float32) for name in names),
        faces=arrays["f"].astype(np.int32), head_top=head_top, stand_in=False,
    )  # fmt: skip
    model = JOTR(TINY, user_body).eval()
    model.load_state_dict(torch.load(tmp_path / "own.pt")["weights"], strict=False)
    model.vposer = decoder
    feeds = random_crops(TINY, 2)
    for name, value in torch_network(model)(feeds).items():
        np.testing.assert_array_equal(torch_network(given[0])(feeds)[name], value, err_msg=name)


@pytest.mark.usefixtures("traced")
def test_a_file_that_computes_something_else_is_refused(cli: Cli, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "own.pt", initialise(JOTR(TINY, stand_in()), seed=1))  # not those of the file
    outcome = cli("export", tmp_path / "own.pt", "-o", tmp_path / "bundle")
    assert outcome.code == 2
    assert outcome.mistake[0].startswith("mesh.onnx: joints_img differs from its reference by ")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("traced")
def test_the_labels_of_a_checkpoint_stay_with_it(cli: Cli, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "own.pt", initialise(JOTR(TINY, stand_in())), (UNTRAINED,))
    outcome = cli("export", tmp_path / "own.pt", "-o", tmp_path / "bundle")
    assert outcome.code == 0, outcome.err
    assert open_bundle(tmp_path / "bundle").manifest.labels == (UNTRAINED, "stand-in body")
    assert licences(tmp_path / "bundle") == [STAND_IN]  # nobody has trained these weights


@pytest.mark.usefixtures("traced")
def test_random_weights_are_called_that(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = partial(load_stand_in, TINY)
    monkeypatch.setattr("jotr_deploy.export.assemble.load_stand_in", tiny)
    outcome = cli("export", "--stand-in", "-o", tmp_path / "bundle")
    assert outcome.code == 0, outcome.err
    assert open_bundle(tmp_path / "bundle").manifest.labels == (UNTRAINED, "stand-in body")
    assert licences(tmp_path / "bundle") == [STAND_IN]
    assert f"note label: {UNTRAINED}\nnote label: stand-in body\n" in outcome.out


@pytest.mark.usefixtures("traced")
def test_names_that_look_like_markup(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "x[" / "b]:cat:"
    folder.mkdir(parents=True)
    save_checkpoint(folder / "own.pt", initialise(JOTR(TINY, None)))
    outcome = cli("export", folder / "own.pt", "--body", "stand-in", "-o", folder / "bundle")
    assert outcome.code == 0, outcome.err
    assert f"reading {folder}/own.pt\n" in outcome.err
    assert f"done {folder}/bundle (" in outcome.out


def test_the_published_checkpoint(cli: Cli, tmp_path: Path, golden_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published layout at full size, with the published head top: the recorded vectors come out; stdout is JSON.

    The same network is traced once for all tests; the comparison shows that it is the same.
    """
    golden = onnx.load(golden_file)
    monkeypatch.setattr(export_module, "export_onnx", lambda *_: golden)
    state = {f"module.{name}": value for name, value in published_state(SEED).items()}
    torch.save({"epoch": 3, "network": state, "optimizer": {}}, tmp_path / "snapshot_3.pth.tar")
    np.save(tmp_path / "J_regressor_extra.npy", standin.standin_body(SEED)["J_regressor_extra"])
    outcome = cli(
        "export", tmp_path / "snapshot_3.pth.tar", "--extra-regressor", tmp_path / "J_regressor_extra.npy",
        "-o", tmp_path / "bundle", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    bundle = open_bundle(tmp_path / "bundle")
    said = json.loads(outcome.out)
    assert (said["bundle"], said["labels"]) == (str(bundle.path), [])
    assert [note.split(":")[0] for note in said["notes"]] == ["the network looks untrained"]
    assert said["size_bytes"] == bundle_size(bundle.path)
    rows = [(row["output"], row["batch"]) for row in said["differences"]]
    assert rows == [(output, batch) for batch in (1, 3, 8) for output in MeshOutput._fields]
    assert [line.split("  ")[-1] for line in outcome.err.splitlines()] == [
        f"reading {tmp_path / 'snapshot_3.pth.tar'}", "tracing the network",
        "comparing with PyTorch at batch 1, 3 and 8", "trying it on the picture inside this package",
    ]  # fmt: skip
    assert (bundle.manifest.model, bundle.manifest.labels) == (ModelConfig(), ())
    assert licences(bundle.path) == [WEIGHTS, SMPL, VPOSER]
    mesh = bundle.entry("mesh")
    assert (mesh.recipe, mesh.precision, mesh.backend) == ({"sampling": "function"}, "fp32", "onnx")
    assert mesh.batch == "dynamic"
    assert mesh.error_mm is not None
    assert 0 < mesh.error_mm.mean <= mesh.error_mm.max <= 0.1
    assert np.array_equal(np.load(bundle.file("faces")), body(SEED).faces)
    inputs, recorded, _ = case("case_000")
    feeds = {
        "image": inputs["img"].numpy(),
        "joints": inputs["joints"][..., :2].numpy(),
        "joints_mask": inputs["joints_mask"][..., 0].numpy(),
    }
    with open_session(bundle.file("mesh")) as session:
        out = session(feeds)
    root = body(SEED).regressor_30()[0] @ recorded["out/smpl_mesh_cam"][0]
    for found, name, tolerance in (
        (out["joints_img"], "joint_img", 5e-5),
        (out["betas"], "smpl_shape", 5e-5),
        (out["cam"], "cam_param", 5e-5),
        (out["pose"].reshape(1, 72), "smpl_pose", 1e-4),
        (out["joints3d"], "joint_cam", 1e-4),
        (out["joints_proj"], "joint_proj", 2e-3),
        (out["vertices"], "smpl_mesh_cam", 1e-4),
    ):
        np.testing.assert_allclose(found, recorded[f"out/{name}"], rtol=0, atol=tolerance, err_msg=name)
    np.testing.assert_allclose(root, 0, atol=1e-4)  # vertices are relative to the pelvis
