"""The exported file: self-sufficient, dynamic, deterministic, clean, and its nodes named by module."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from golden_case import case, tiny_golden
from tiny import TINY

from jotr_deploy.engines.verify import BATCHES, measure, random_crops, require
from jotr_deploy.export.assemble import load_stand_in
from jotr_deploy.export.to_bundle import torch_network
from jotr_deploy.model.jotr import JOTR, MeshOutput
from jotr_deploy.plugins import DOMAIN, NAME
from jotr_deploy.plugins.onnx_function import inline
from jotr_deploy.support.precisions import Precision

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published(golden_file: Path) -> onnx.ModelProto:
    return onnx.load(golden_file)


@pytest.fixture(scope="module")
def tiny() -> JOTR:
    return tiny_golden().eval()


@pytest.fixture(scope="module")
def exported(tiny_golden_file: Path) -> onnx.ModelProto:
    return onnx.load(tiny_golden_file)


def plain_runtime(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = plain_runtime(proto)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def test_the_published_network_runs_without_any_code_of_ours(published: onnx.ModelProto) -> None:
    inputs, recorded, _ = case("case_001")
    feeds = {
        "image": inputs["img"].numpy(),
        "joints": inputs["joints"][..., :2].contiguous().numpy(),
        "joints_mask": inputs["joints_mask"][..., 0].contiguous().numpy(),
    }
    out = run(published, feeds)
    np.testing.assert_allclose(out["joints_img"], recorded["out/joint_img"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(out["betas"], recorded["out/smpl_shape"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(out["pose"].reshape(2, 72), recorded["out/smpl_pose"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(out["joints3d"], recorded["out/joint_cam"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(out["joints_proj"], recorded["out/joint_proj"], rtol=0, atol=2e-3)


def test_one_operator_node_a_layer_that_samples(published: onnx.ModelProto) -> None:
    assert [n.op_type for n in published.graph.node if n.domain == DOMAIN] == [NAME] * 3
    assert [f.name for f in published.functions] == [NAME]


def test_names_shapes_and_types_are_the_contract(published: onnx.ModelProto) -> None:
    def signature(values: object) -> dict[str, list[str | int]]:
        assert all(v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in values)  # type: ignore[attr-defined]
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}  # type: ignore[attr-defined]

    assert signature(published.graph.input) == {
        "image": ["batch", 3, 256, 256],
        "joints": ["batch", 30, 2],
        "joints_mask": ["batch", 30],
    }
    assert signature(published.graph.output) == {
        "joints_img": ["batch", 15, 3],
        "pose": ["batch", 24, 3],
        "betas": ["batch", 10],
        "cam": ["batch", 3],
        "translation": ["batch", 3],
        "joints3d": ["batch", 30, 3],
        "joints_proj": ["batch", 30, 2],
        "vertices": ["batch", 6890, 3],
    }
    assert {o.domain: o.version for o in published.opset_import}[""] == 19
    assert {o.domain: o.version for o in published.functions[0].opset_import} == {"": 19}


def test_nodes_are_named_by_module(published: onnx.ModelProto) -> None:
    names = [node.name for node in published.graph.node]
    assert len(set(names)) == len(names)
    convolutions = {n.name for n in published.graph.node if n.op_type == "Conv"}
    assert {
        "backbone.conv1/Conv",
        "backbone.layer4.2.conv3/Conv",
        "lifting.to_voxels/Conv",
        "fusion.down/Conv",
    } <= convolutions
    scopes = {name.split("/")[0].split(".")[0] for name in names}
    assert scopes == {"", "backbone", "lifting", "fusion", "heads", "vposer", "body"}


def test_no_trace_of_the_machine_that_made_it(published: onnx.ModelProto) -> None:
    light = onnx.ModelProto()
    light.CopyFrom(published)
    for tensor in light.graph.initializer:
        tensor.ClearField("raw_data")
    text = light.SerializeToString()
    for word in (b".py", b"/home", b"File ", b"Traceback", str(Path.cwd()).encode(), b"stack_trace", b"site-packages"):
        assert word not in text
    assert not any(n.metadata_props or n.doc_string for n in published.graph.node)
    assert not published.graph.value_info


@pytest.mark.parametrize("sampling", ["function", "inline"])
def test_equals_pytorch_at_every_batch(tiny: JOTR, exported: onnx.ModelProto, sampling: str) -> None:
    proto = exported if sampling == "function" else inline(exported)
    assert any(n.domain == DOMAIN for n in proto.graph.node) == (sampling == "function")
    assert bool(proto.functions) == (sampling == "function")
    rows = measure(torch_network(tiny), lambda feeds: run(proto, dict(feeds)), TINY, (*BATCHES, 2))
    require(rows, Precision.FP32, "tiny")
    assert {row.output for row in rows} == set(MeshOutput._fields)


def test_equal_to_the_byte_from_another_process_folder_and_mode(exported: onnx.ModelProto, tmp_path: Path) -> None:
    script = (
        "import sys, hashlib\n"
        "from golden_case import tiny_golden\n"
        "from jotr_deploy.export.to_onnx import export_onnx\n"
        "proto = export_onnx(tiny_golden().train())\n"
        "print(hashlib.sha256(proto.SerializeToString()).hexdigest())\n"
    )
    digest = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONHASHSEED": "1"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert digest.strip() == hashlib.sha256(exported.SerializeToString()).hexdigest()


def test_stand_in_is_finite_and_stands_in_the_crop() -> None:
    model = load_stand_in().model
    with torch.inference_mode():
        out = model(*(torch.from_numpy(x) for x in random_crops(model.config, 2).values()))
    assert all(torch.isfinite(value).all() for value in out)
    cells = out.joints_proj
    assert ((cells > 0) & (cells < 64)).float().mean() > 0.9
    assert (out.joints3d[:, 29, 1] < out.joints3d[:, 7, 1]).all()  # head above ankle: y points down
