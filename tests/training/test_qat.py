"""Training with the rounding of a calibrated file: the same numbers, gradients, what is refused, and the way back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made_scenes import FakeScenes
from one_millimetre import OneMillimetre
from onnx import numpy_helper
from test_mesh_task import stop_after
from tiny import SMALL
from torch import nn

from jotr_deploy.body.smpl import stand_in
from jotr_deploy.bundle import Bundle, FileEntry, open_bundle, replace_file
from jotr_deploy.calibration.calibration_crops import CropSet
from jotr_deploy.calibration.eight_bit_copy import blocks_of, calibrate
from jotr_deploy.calibration.placement import chosen_nodes
from jotr_deploy.engines.verify import random_crops
from jotr_deploy.errors import BundleError, CheckpointError
from jotr_deploy.export.assemble import load_network
from jotr_deploy.export.to_bundle import export_bundle
from jotr_deploy.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import INPUTS, JOTR
from jotr_deploy.training.fake_quant import fake_quantized, rounded, rounded_weight
from jotr_deploy.training.loop import Fitted, fit
from jotr_deploy.training.qdq_positions import read_placement
from jotr_deploy.training.run_config import Evaluation, TrainConfig, TrainingError
from jotr_deploy.training.tasks import make_task
from jotr_deploy.training.tasks.qat_task import Options, QatTask, make

pytestmark = pytest.mark.slow

CROPS = CropSet(random_crops(SMALL, 16), "noise")


def checkpoint(path: Path, seed: int) -> Path:
    """A network whose batch norms do something, so that folding them matters."""
    model, random = initialise(JOTR(SMALL, stand_in()), seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.1, generator=random)  # type: ignore[union-attr]
                norm.running_var.uniform_(0.5, 1.5, generator=random)  # type: ignore[union-attr]
                norm.bias.normal_(0, 0.1, generator=random)
        for token in (model.fusion.smpl_target, model.fusion.joint_target):
            token.normal_(0, 1, generator=random)
    save_checkpoint(path, model, ("only noise",))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `start.pt` and `bundle`, exported from it and calibrated: all blocks but one in int8."""
    folder = tmp_path_factory.mktemp("qat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        exported = export_bundle(load_network(checkpoint(folder / "start.pt", 0)), folder / "bundle").path
        patch.setattr("jotr_deploy.calibration.eight_bit_copy.DriftMeter", OneMillimetre)
        kept = [block for block in chosen_nodes(onnx.load(exported / "mesh.onnx")) if block != "backbone.layer3.0"]
        calibrate(open_bundle(exported), CROPS, "mse", blocks=kept)
        yield folder


@pytest.fixture
def task(made: Path) -> QatTask:
    return faked(made)


def faked(made: Path, **options: object) -> QatTask:
    """The task on scenes that need no renderer."""
    task = make(Options(start=made / "start.pt", bundle=made / "bundle", **options), 3)  # type: ignore[arg-type]
    task.draw = FakeScenes(task.teacher.vposer, SMALL)
    return task


def config(**values: object) -> TrainConfig:
    return TrainConfig(**{"task": "qat", "seed": 3, "steps": 4, "batch": 2, "lr": 1e-4, **values})  # type: ignore[arg-type]


def batch_of(task: QatTask, count: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in task.samples(range(count)).items()}


# ── the same numbers as the file ─────────────────────────────────────────────────────────────────────────────────


def outputs_of(path: Path, feeds: dict[str, np.ndarray], as_written: bool) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:  # fold and fuse what is float, but leave pairs where they are
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("as_written", [True, False])
def test_the_rounded_network_is_the_calibrated_file(made: Path, as_written: bool) -> None:
    """Of most people to 1e-4 in every output, while the rounding moves all of them by far more.

    Of most: sums in another order may bring a value that lies between two codes to the other one, and random weights
    make much of that.
    """
    start = load_checkpoint(made / "start.pt")
    plain = build_model(start, stand_in())
    feeds = random_crops(SMALL, 16, seed=5)
    with torch.no_grad():
        inputs = [torch.from_numpy(feeds[name]) for name in INPUTS]
        found = fake_quantized(plain, read_placement(made / "bundle", start))(*inputs)._asdict()
        unrounded = plain(*inputs)._asdict()
    expected = outputs_of(made / "bundle" / "mesh.int8.onnx", feeds, as_written)
    assert expected.keys() == found.keys()

    def furthest(one: Mapping[str, Any], other: Mapping[str, Any]) -> np.ndarray:
        """(N,) largest difference of any output of each person."""
        gaps = [np.abs(np.asarray(one[name]) - np.asarray(other[name])).reshape(16, -1).max(1) for name in expected]
        return np.max(gaps, 0)

    assert furthest(expected, unrounded).min() > 5e-3
    assert (furthest(expected, found) < 1e-4).sum() >= 12


def test_the_rounding_is_that_of_calibration() -> None:
    """Whole multiples, ties to even, clipped at -128 and 127; a weight by channel, an empty channel as it is."""
    x = torch.tensor([0.0, 0.24, 0.25, 0.26, 0.75, -0.75, 70.0, -70.0], requires_grad=True)
    steps = rounded(x, 0.5)
    assert steps.tolist() == [0, 0, 0, 0.5, 1, -1, 63.5, -64]
    steps.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    assert rounded(x, None) is x
    weight = torch.tensor([[127.0, 2.4, -1.6], [0.0, 0.0, 0.0], [-1.27, 0.014, 0.016]], requires_grad=True)
    codes = torch.tensor([[127.0, 2, -2], [0, 0, 0], [-1.27, 0.01, 0.02]])
    torch.testing.assert_close(rounded_weight(weight), codes)
    of_63 = torch.tensor([[127.0, 2.0159, -2.0159], [0, 0, 0], [-1.27, 0.020159, 0.020159]])
    torch.testing.assert_close(rounded_weight(weight, 63.0), of_63, atol=1e-4, rtol=1e-4)
    rounded_weight(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones(3, 3))  # type: ignore[arg-type]


def test_what_is_not_in_the_placement_stays_as_it_is(made: Path) -> None:
    start = load_checkpoint(made / "start.pt")
    placement = read_placement(made / "bundle", start)
    assert not any(scope.startswith("backbone.layer3.0") for scope in placement)
    assert {"backbone.layer1.0", "backbone.layer1.0.conv2", "lifting.to_voxels"} < placement.keys()
    assert not any(scope.startswith(("heads", "vposer", "fusion.decoder.fc_pos_3d")) for scope in placement)
    assert placement["backbone.layer2.0"].before is None  # its shortcut is a convolution
    plain = build_model(start, None)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    fake_quantized(plain, placement)
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_gradients_reach_every_weight(task: QatTask) -> None:
    loss, parts = task.loss(batch_of(task, 4), 0)
    loss.backward()
    assert loss.item() == pytest.approx(sum(part.item() for part in parts.values()))
    for name, weight in task.model.named_parameters():
        assert weight.requires_grad == (".vposer." not in name)
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
            assert bool(weight.grad.any()), name
    assert all(weight.grad is None for weight in task.teacher.parameters())


def test_the_start_is_the_truth_of_a_network_that_is_not_rounded(task: QatTask) -> None:
    task.placement = {}
    loss, _ = task.loss(batch_of(task, 4), 0)
    assert float(loss.detach()) < 1e-4


def test_training_brings_the_rounded_network_nearer_to_its_start(made: Path, tmp_path: Path) -> None:
    task = faked(made)
    batch = batch_of(task, 16)
    with torch.no_grad():
        before = float(task.loss(batch, 0)[0])
    task.draw = FakeScenes(task.teacher.vposer, SMALL, count=16)
    fit(task, config(steps=40, batch=16, lr=1e-5, warmup=10, schedule="cosine"), tmp_path / "run")
    with torch.no_grad():
        assert float(task.loss(batch, 0)[0]) < 0.85 * before


def test_evaluations_measure_the_drift(task: QatTask) -> None:
    """Of the start by its rounding alone; it leaves the network as it is."""
    held_out = task.held_out(Evaluation(every=1, samples=2))
    batch = {name: torch.from_numpy(values) for name, values in held_out.samples([0, 1]).items()}
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    task.model.eval()
    with torch.no_grad():
        rows = {name: value.numpy() for name, value in held_out.measure(batch).items()}
    figures = held_out.summary(rows)
    assert figures.keys() == held_out.figures.keys()
    assert 0 < figures["drift_mm"] < figures["mpjpe_mm"]
    assert held_out.summary({**rows, "found_m": rows["said_m"]})["drift_mm"] == 0
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_to_the_bit(made: Path, tmp_path: Path, precision: str) -> None:
    """In either precision: everything that is rounded is in float32."""
    settings = config(precision=precision)
    fit(faked(made), settings, tmp_path / "whole")
    assert fit(stop_after(faked(made), 2), settings, tmp_path / "parts") == Fitted(2, False)  # type: ignore[arg-type]
    assert fit(faked(made), settings, tmp_path / "parts", resume=True) == Fitted(4, True)
    assert (tmp_path / "whole" / "weights.pt").read_bytes() == (tmp_path / "parts" / "weights.pt").read_bytes()


def test_the_result_is_exported_and_calibrated_with_its_placement(
    made: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    fit(faked(made), config(steps=2), tmp_path / "run")
    weights, bundle = tmp_path / "run" / "weights.pt", tmp_path / "again"
    assert load_checkpoint(weights).labels == ("only noise",)
    start, trained = (load_checkpoint(path).weights for path in (made / "start.pt", weights))
    assert start.keys() == trained.keys()
    moved = [name for name, value in trained.items() if not torch.equal(value, start[name])]
    assert "lifting.mix.weight" in moved
    assert not any(name.startswith("vposer.") or "running" in name for name in moved)
    exported = cli("export", weights, "-o", bundle)
    assert exported.code == 0, exported.err
    done = cli("calibrate", bundle, "--synthetic", 8, "--placement", made / "bundle")
    assert done.code == 0, done.err
    assert sorted(blocks_of(open_bundle(bundle))) == sorted(blocks_of(open_bundle(made / "bundle")))
    assert read_placement(bundle, load_checkpoint(weights)).keys() == faked(made).placement.keys()


def test_the_configuration_names_it(made: Path) -> None:
    options = {"start": str(made / "start.pt"), "bundle": str(made / "bundle")}
    task, resolved = make_task(config(options=options))
    assert isinstance(task, QatTask)
    assert resolved.options == {**options, "drop_joints": 0.1}


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


def refused(made: Path, bundle: Path, kind: type[Exception], cause: str) -> str:
    with pytest.raises(kind, match=cause) as caught:
        make(Options(start=made / "start.pt", bundle=bundle), 0)
    assert len(caught.value.args[0].splitlines()) == 2
    return str(caught.value.args[0].splitlines()[1])


def test_a_bundle_that_is_not_there_or_not_calibrated(made: Path, tmp_path: Path) -> None:
    refused(made, tmp_path / "none", BundleError, "none: no such folder")
    bare = open_bundle(Path(shutil.copytree(made / "bundle", tmp_path / "bare")))
    entries = tuple(entry for entry in bare.manifest.files if entry.precision != "int8")
    (bare.path / "bundle.json").write_text(bare.manifest.model_copy(update={"files": entries}).model_dump_json())
    remedy = refused(made, bare.path, BundleError, "no network in it is calibrated for int8")
    assert remedy == f"jotr-deploy calibrate {bare.path} --synthetic 256"
    changed = Path(shutil.copytree(made / "bundle", tmp_path / "changed"))
    with (changed / "mesh.int8.onnx").open("ab") as file:
        file.write(b"more")
    refused(made, changed, BundleError, "the file has changed since it was made")


def test_a_bundle_of_another_network(made: Path, tmp_path: Path) -> None:
    other = checkpoint(tmp_path / "other.pt", 1)
    with pytest.raises(TrainingError, match="bundle: exported from another checkpoint than") as caught:
        make(Options(start=other, bundle=made / "bundle"), 0)
    assert caught.value.remedy.startswith(f"make one: jotr-deploy export {other} -o BUNDLE")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        make(Options(start=tmp_path / "none.pt", bundle=made / "bundle"), 0)


def rewritten(made: Path, folder: Path, change: Callable[[onnx.GraphProto], None]) -> Bundle:
    """The bundle with another eight-bit file, whose hash is right."""
    bundle = open_bundle(Path(shutil.copytree(made / "bundle", folder)))

    def write(path: Path) -> FileEntry:
        model = onnx.load(made / "bundle" / "mesh.int8.onnx")
        change(model.graph)
        onnx.save(model, path)
        return bundle.entry("mesh", "mesh.int8.onnx")

    return replace_file(bundle, "mesh.int8.onnx", write)


def constant(graph: onnx.GraphProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in graph.initializer if tensor.name == name)


def unsigned(graph: onnx.GraphProto) -> None:
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    constant(graph, first.input[2]).CopyFrom(numpy_helper.from_array(np.uint8(128), first.input[2]))


def whole_weight(graph: onnx.GraphProto) -> None:
    node = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0].endswith("conv1.weight.int8"))
    constant(graph, node.input[1]).CopyFrom(numpy_helper.from_array(np.float32(0.1), node.input[1]))


def quantized_head(graph: onnx.GraphProto) -> None:
    place = next(index for index, node in enumerate(graph.node) if node.name == "heads.betas/Gemm")
    pair = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    head = graph.node[place]
    graph.node.insert(place, onnx.helper.make_node("QuantizeLinear", [head.input[0], *pair.input[1:]], ["head.int8"]))
    second = onnx.helper.make_node("DequantizeLinear", ["head.int8", *pair.input[1:]], ["head.dequantized"])
    graph.node.insert(place + 1, second)
    graph.node[place + 2].input[0] = "head.dequantized"


def renamed(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.name == "fusion.down/Conv")
    node.name = "fusion.shrink/Conv"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (unsigned, r"mesh\.int8\.onnx: quantised differently .* is not symmetric int8 with one scale"),
        (whole_weight, r"quantised differently .*conv1\.weight\.int8 is not symmetric int8 by channel"),
        (quantized_head, r"quantised differently .*nothing that is known stands behind head\.int8"),
        (renamed, r"the calibrated file quantises fusion\.shrink, which the network does not have"),
    ],
)
def test_a_file_that_is_quantised_differently(
    made: Path, tmp_path: Path, change: Callable[[onnx.GraphProto], None], cause: str
) -> None:
    bundle = rewritten(made, tmp_path / "changed", change)
    assert "calibrate" in refused(made, bundle.path, TrainingError, cause)
